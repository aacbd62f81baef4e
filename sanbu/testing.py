"""Conformance checks for every kind of a step; run them on your own kinds too.

Each check takes a config and plain inputs, raises AssertionError saying what is broken, and returns nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanbu.config import Choice, base_of, dump, kind_of, load
from sanbu.files import load_weights, pack, read_tensors, unpack, weights, write_tensors
from sanbu.models.model import ModelConfig
from sanbu.noise import Noise
from sanbu.objectives.objective import Loss, ObjectiveConfig, Round, Turn, cannot_draw
from sanbu.optimizers.search import OptimizerConfig, Problem, Search
from sanbu.space import Batch, Draft, Models, Space, row_count
from sanbu.strategies.strategy import StrategyConfig, generate


def check_config(config: Choice) -> None:
    """JSON out and in gives the same config; the base class finds the kind by its name."""
    base = base_of(type(config))
    assert load(type(config), dump(config)) == config, "the config does not survive JSON"
    assert issubclass(base, Choice) and kind_of(config) in base.kinds(), "the base class does not know the kind"


def check_model(
    config: ModelConfig, space: Space, inputs: tuple[Any, ...], fit: Callable[[nn.Module], None] | None = None
) -> None:
    """Builds the same from the same seed, and on the meta device; trains through `forward`; survives a weights file.

    fit: for a model without gradient (`ModelConfig.searches`), fills it, so that its outputs change.
    """
    check_config(config)
    first, second = (build_seeded(lambda: config.build(space)) for _ in range(2))
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys(), "one seed gives two models"
    assert all(ours[name].equal(theirs[name]) for name in ours), "one seed gives two models"
    with torch.device("meta"):
        counted = sum(p.numel() for p in config.build(space).parameters())
    assert counted == sum(p.numel() for p in first.parameters()), "the meta device counts other parameters"
    if config.searches:
        check_fitted(first, inputs, fit)
    else:
        for module in (first, second):
            fill(module)
        check_gradients(first, inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write_tensors(path, weights(first))
        load_weights(second, read_tensors(path), path)
    assert first.eval()(*inputs).equal(second.eval()(*inputs)), "weights read back from a file compute something else"


def check_gradients(model: nn.Module, inputs: tuple[Any, ...]) -> None:
    """A finite gradient reaches every parameter."""
    output = model.train()(*inputs)
    assert output.shape[0] == inputs[0].shape[0], "axis 0 of the output is not the row"
    output.float().square().sum().backward()
    alive = lambda parameter: parameter.grad is not None and bool(parameter.grad.isfinite().all())  # noqa: E731
    dead = [name for name, parameter in model.named_parameters() if not alive(parameter)]
    assert not dead, f"no gradient, or none that is finite, reaches {dead}"


def check_fitted(model: nn.Module, inputs: tuple[Any, ...], fit: Callable[[nn.Module], None] | None) -> None:
    """It has no parameters; fitting changes its outputs; a row is the same alone and in a batch."""
    assert not list(model.parameters()), "a fitted model has parameters, which no search would change"
    assert fit is not None, "a fitted model needs fit=, a function that fills it"
    before = model.eval()(*inputs)
    fit(model)
    after = model.eval()(*inputs)
    assert after.shape[0] == inputs[0].shape[0], "axis 0 of the output is not the row"
    assert not before.equal(after), "fitting changes no output"
    rows = [[tensor[row : row + 1] for tensor in inputs] for row in range(len(after))]
    alone = torch.cat([model(*row) for row in rows])
    assert torch.allclose(after, alone, rtol=1e-4, atol=1e-5), "a row is another alone"


def check_objective(
    config: ObjectiveConfig,
    model: nn.Module,
    batch: Batch,
    others: Models | None = None,
    draw: Callable[[Batch, Tensor], Draft] = cannot_draw,
    read: Callable[[Tensor], Any] = Tensor.tolist,
) -> None:
    """Terms have denominators; the loss is deterministic; turns repeat; an additive loss is the sum of its parts.

    others: parents. draw, read: what the objective asks of `Round`, where it samples from the model.
    """
    check_config(config)
    objective = config.build()
    models = {**(others or {}), "model": model.eval(), **objective.attach(model)}
    for names in objective.players.values():
        assert set(names) <= models.keys(), f"a player changes {names}, but the modules are {list(models)}"

    def make_round(batch: Batch) -> Round:
        return Round(models, batch, Noise("check"), draw, read)

    experience = objective.experience(make_round(batch))
    model.train()
    turns = [list(objective.draw_turns(make_round(experience))) for _ in range(2)]
    assert len(turns[0]) == len(turns[1]) > 0, "turns drawn again are not the same"
    for turn, again in zip(*turns, strict=True):
        assert turn.player in objective.players, f"nobody plays {turn.player!r}"
        assert all(t.equal(again.batch[name]) for name, t in turn.batch.items()), "turns drawn again are not the same"
        loss, repeated = turn.loss(models, turn.batch), turn.loss(models, turn.batch)
        assert loss.sums.keys() <= turn.count(turn.batch).keys(), "a term has no denominator"
        assert all(loss.sums[name].equal(repeated.sums[name]) for name in loss.sums), "the loss is not deterministic"
        if objective.additive:
            check_additive(turn, models)


def check_additive(turn: Turn, models: Models) -> None:
    """Sums and counts of a batch are the sums over its rows."""
    batch = turn.batch
    rows = []
    for number in range(row_count(batch)):
        rows.append({name: tensor[number : number + 1] for name, tensor in batch.items()})
    whole, parts = turn.loss(models, turn.batch), [turn.loss(models, row) for row in rows]
    for name, total in whole.sums.items():
        torch.testing.assert_close(total, sum(part.sums[name] for part in parts), rtol=1e-5, atol=1e-5)
        counted = sum(turn.count(row)[name] for row in rows)
        assert abs(turn.count(turn.batch)[name] - counted) < 1e-6, f"the count of {name!r} is not a sum over rows"


def check_search(config: OptimizerConfig, steps: int = 20, model: Callable[[], nn.Module] | None = None) -> None:
    """The search improves a regression, and continues bit for bit from a saved state.

    model: makes what is searched over, of 8 inputs and 4 outputs; by default a small network.
    """
    check_config(config)
    inputs = Noise("check", "inputs").normal(32, 8)
    batch = {"x": inputs, "y": inputs[:, :4] - 0.5 * inputs[:, 4:]}

    def loss(models: Models, batch: Batch) -> Loss:
        return Loss({"rows": (models["model"](batch["x"]) - batch["y"]).square().sum()})

    def run(search: Search, model: nn.Module, start: int, stop: int) -> list[float]:
        turn = Turn("model", batch, loss, lambda batch: {"rows": float(row_count(batch))})
        problems = (
            Problem({"model": model}, turn, {"model": model}, Noise("check", step)) for step in range(start, stop)
        )
        return [search.step(problem)["loss"] for problem in problems]

    def fresh() -> tuple[Search, nn.Module]:
        network = lambda: nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))  # noqa: E731
        made = build_seeded(model or network)
        return config.build({"model": made}, 2 * steps), made

    search, first = fresh()
    losses = run(search, first, 0, steps)
    assert losses[-1] < losses[0], f"the loss went from {losses[0]} to {losses[-1]}"
    tensors: dict[str, Tensor] = {}
    tree = json.loads(json.dumps(pack(search.state_dict(), tensors)))
    saved = {name: tensor.clone() for name, tensor in tensors.items()}
    other, copy = fresh()
    copy.load_state_dict(first.state_dict())
    other.load_state_dict(unpack(tree, saved))
    assert run(search, first, steps, 2 * steps) == run(other, copy, steps, 2 * steps), (
        "a restored search goes another way"
    )


def check_strategy(config: StrategyConfig, models: Mapping[str, nn.Module], space: Space, condition: Batch) -> None:
    """Committed elements never change, finished rows stay finished, and a row is the same alone and in a batch."""
    check_config(config)
    rows = row_count(condition)
    seeds = torch.arange(rows)
    final: Draft | None = None
    committed: Any = None
    done = evaluations = sample = committed
    for draft in generate(config.build(space), models, condition, seeds):
        assert draft.committed.shape[0] == draft.done.shape[0] == draft.evaluations.shape[0] == rows, (
            "axis 0 is not the row"
        )
        if committed is not None and sample is not None:
            kept = draft.committed[:, : committed.shape[1]]
            assert bool((kept >= committed).all()), "something committed was reopened"
            assert draft.sample[:, : sample.shape[1]][committed].equal(sample[committed]), (
                "something committed was changed"
            )
            assert bool((draft.done >= done).all()) and bool((draft.evaluations >= evaluations).all()), (
                "a row came back"
            )
        committed, sample = draft.committed.clone(), draft.sample.clone()
        done, evaluations, final = draft.done.clone(), draft.evaluations.clone(), draft
    assert final is not None and bool(final.done.all()), "the generation ended with rows not done"
    for row in range(rows):
        alone = {name: tensor[row : row + 1] for name, tensor in condition.items()}
        one = None
        for one in generate(config.build(space), models, alone, seeds[row : row + 1]):
            pass
        assert one is not None
        mine = one.sample[0][one.committed[0]]
        theirs = final.sample[row][final.committed[row]]
        near = mine.shape == theirs.shape and torch.allclose(
            mine, theirs, rtol=1e-4, atol=1e-4
        )  # real numbers may round
        assert near if mine.is_floating_point() else mine.equal(theirs), f"row {row} is another alone"


def build_seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """Build under a fixed seed, leaving the global generator alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def fill(module: nn.Module) -> None:
    """Fill every parameter with fixed random values, so that zero initialisation hides no fault."""
    for index, parameter in enumerate(module.parameters()):
        parameter.data += 0.1 * Noise("fill", index).normal(1, *parameter.shape)[0]
