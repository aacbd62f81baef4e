"""The training loop: one denominator for any split, evaluations, checkpoints, rejected input."""

import json
import math
from typing import Literal

import pytest
import torch

from sanbu import recipes
from sanbu.checkpoints import RunError, Writer
from sanbu.config import SanbuError, override
from sanbu.layers.average import Average
from sanbu.loop import train
from sanbu.machine import decide
from sanbu.models.model import ModelConfig
from sanbu.noise import Noise
from sanbu.objectives.next_token import next_token, next_token_chunked
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round, Turn
from sanbu.optimizers.gradient import SGD, AdamW
from sanbu.optimizers.search import NotFinite, Problem
from sanbu.run import Run
from sanbu.space import Space
from sanbu.training import Training
from tests.tenants import gan, genetic, ppo, vae
from tests.tenants.common import CPU, rows


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SANBU_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def small(tmp_path):
    """A GPT of a few thousand weights on a few kilobytes of text."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {i} of {i * i}: the quick brown fox\n" for i in range(300)))
    changes = [
        "data.tokenizer=byte",
        f"data.path={text}",
        "data.context=16",
        "model.width=16",
        "model.heads=2",
        "model.layers=2",
    ]
    changes += [
        "schedule.steps=12",
        "schedule.batch=8",
        "schedule.evaluate_every=4",
        "schedule.evaluate_rows=8",
        "schedule.sample_every=6",
    ]
    changes += ["schedule.checkpoint_every=4", "strategy.max_tokens=8", "machine.threads=1"]
    return override(recipes.gpt2(), changes)


def after_steps(objective, batches, micro, steps=4):
    """Weights after several steps of plain SGD, which reveals a wrong scale of the loss (AdamW would hide it)."""
    from sanbu.models.tokens.gpt import GPT2
    from sanbu.testing import build_seeded

    model = build_seeded(lambda: GPT2(layers=2, heads=2, width=16, context=12).build(Space((12,), 40)))
    search = SGD(learning_rate=0.5).build({"model": model}, steps)
    for step in range(steps):
        turn = next(objective.draw_turns(Round({"model": model}, batches[step], Noise(step))))
        losses = search.step(Problem({"model": model}, turn, {"model": model}, Noise(step), micro))
    return losses["loss"], torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("objective", [next_token(), next_token_chunked(5)], ids=["whole", "chunked"])
@pytest.mark.parametrize("micro", [1, 2, 3])
def test_micro_batches_with_unequal_tokens_are_one_batch(objective, micro):
    batches = []
    for step in range(4):
        tokens = Noise("tokens", step).integers(40, 6, 13)
        targets = tokens[:, 1:].clone()
        targets[0] = -100  # one micro-batch has no targets
        targets[1, 3:] = -100
        targets[4, 7:] = -100
        batches.append({"tokens": tokens[:, :-1], "targets": targets})
    loss, weights = after_steps(objective, batches, None)
    split_loss, split_weights = after_steps(objective, batches, micro)
    assert abs(loss - split_loss) < 1e-6
    assert (weights - split_weights).abs().max() < 1e-6
    halved = [{**b, "targets": torch.where(torch.arange(12) < 6, b["targets"], -100)} for b in batches]
    assert (
        after_steps(objective, halved, None)[1] - weights
    ).abs().max() > 1e-4  # the comparison sees a change of scale


def test_a_step_is_the_plain_step_that_torch_would_make():
    """The loss is the mean over target tokens, and SGD moves by exactly its gradient."""
    from sanbu.models.tokens.gpt import GPT2
    from sanbu.testing import build_seeded

    tokens = Noise("tokens").integers(40, 5, 13)
    targets = tokens[:, 1:].clone()
    targets[2, 4:] = -100
    batch = {"tokens": tokens[:, :-1], "targets": targets}
    loss, weights = after_steps(next_token(), [batch], 2, steps=1)
    model = build_seeded(lambda: GPT2(layers=2, heads=2, width=16, context=12).build(Space((12,), 40)))
    expected = torch.nn.functional.cross_entropy(
        model(batch["tokens"]).flatten(0, 1), targets.flatten(), ignore_index=-100
    )
    expected.backward()
    with torch.no_grad():
        moved = torch.cat([(p - 0.5 * p.grad).flatten() for p in model.parameters()])
    assert abs(loss - expected.item()) < 1e-6
    assert (weights - moved).abs().max() < 1e-6


@pytest.mark.parametrize("tenant", [vae, ppo], ids=["vae", "ppo"])
def test_every_additive_tenant_too(tenant, tmp_path):
    recipe = tenant.recipe()
    runs = []
    for micro in (recipe.schedule.batch, 24):
        schedule = recipe.schedule.model_copy(update={"steps": 3, "micro_batch": micro, "evaluate_every": 0})
        runs.append(
            train(
                recipe.model_copy(update={"schedule": schedule, "optimizer": SGD(learning_rate=0.05)}),
                tmp_path / str(micro),
            )
        )
    first, second = (torch.cat([p.flatten() for p in run.model.parameters()]) for run in runs)
    assert (first - second).abs().max() < 1e-5


class Coupled(ObjectiveConfig):
    """An objective whose rows depend on each other."""

    kind: Literal["coupled"] = "coupled"

    def build(self):
        return Objective(
            lambda models, batch: Loss({"rows": models["model"](batch["x"]).var(0).sum()}), rows, additive=False
        )


def test_an_objective_that_couples_rows_refuses_to_be_split(tmp_path):
    recipe = genetic.recipe()
    schedule = recipe.schedule.model_copy(update={"micro_batch": 4})
    with pytest.raises(
        SanbuError, match="schedule.micro_batch: given 4, but the objective 'coupled' couples the rows"
    ) as error:
        train(recipe.model_copy(update={"schedule": schedule, "objective": Coupled()}), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_run_explains_itself(small, tmp_path):
    run = train(small, tmp_path / "run")
    assert sorted(path.name for path in run.folder.iterdir() if path.name != "run.lock") == [
        "checkpoints", "finished.json", "metrics.jsonl", "model.safetensors", "recipe.json", "samples",
        "tokenizer.sanbu.json",
    ]  # fmt: skip
    lines = run.metrics()
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["step"] for line in lines if "held_out/loss" in line] == [4, 8, 12]
    assert (
        lines[-1]["loss"] < lines[0]["loss"]
        and {"loss", "bits_per_byte", "learning_rate", "time/seconds"} <= lines[0].keys()
    )
    assert [path.name for path in sorted((run.folder / "samples").iterdir())] == [
        "step-00000006.txt",
        "step-00000012.txt",
    ]
    again = Run.open(run.folder)
    wanted = small.resolve()
    measured = wanted.machine.model_copy(update={"precision": again.recipe.machine.precision})
    assert again.recipe == wanted.model_copy(update={"machine": measured}) and measured.precision != "auto"
    assert again.generate("line", seed=3) == run.generate("line", seed=3) != run.generate("line", seed=4)
    assert run.generate("line", n=2)[1] == run.generate("line", seed=1)


def test_stop_texts_end_a_sample_and_are_not_shown(small, tmp_path):
    run = train(override(small, ["schedule.steps=60", "model.width=32"]), tmp_path / "run")
    longer = ("strategy.max_tokens=15",)
    free = run.generate("line", seed=1, overrides=longer)
    stop = free[2:4]
    assert len(stop) == 2
    stopped = run.generate("line", seed=1, overrides=(*longer, f"strategy.stop={json.dumps([stop])}"))
    assert stopped == free[: free.index(stop)]
    pieces = list(run.stream("line", 1, max_tokens=15, stop=[stop]))
    assert "".join(pieces) == stopped


def test_bits_per_byte_is_nats_over_bytes(small, tmp_path):
    line = train(small, tmp_path / "run").metrics()[-1]
    # byte tokenizer: one token per byte
    assert line["held_out/bits_per_byte"] == pytest.approx(line["held_out/loss"] / math.log(2), rel=0.01)


def test_the_latest_and_the_best_checkpoints_are_kept(small, tmp_path):
    recipe = override(
        small,
        [
            "schedule.keep=1",
            "schedule.checkpoint_every=2",
            "schedule.evaluate_every=2",
            "optimizer=sgd",
            "optimizer.learning_rate=100.0",
        ],
    )
    recipe = override(recipe, ["optimizer.clip=1000000.0"])
    try:
        run = train(recipe, tmp_path / "run")
    except SanbuError:
        run = Run.open(tmp_path / "run")
    kept = [path.name for path in Writer(run.folder).checkpoints()]
    looks = {line["step"]: line["held_out/loss"] for line in run.metrics() if "held_out/loss" in line}
    best = min(looks, key=looks.get)
    assert f"step-{best:08d}" in kept and len(kept) <= 2


def test_nan_stops_at_its_turn_and_names_the_last_good_checkpoint(small, tmp_path):
    recipe = override(
        small,
        [
            "optimizer=sgd",
            "optimizer.learning_rate=1e6",
            "schedule.checkpoint_every=1",
            "schedule.evaluate_every=0",
            "schedule.sample_every=0",
        ],
    )
    with pytest.raises(
        SanbuError,
        match=r"step \d+, turn 1: the (loss|weight '\S+') of 'model' became NaN or infinite.*; the last good checkp",
    ) as error:
        train(recipe, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert all(math.isfinite(line["loss"]) for line in Run.open(tmp_path / "run").metrics())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_no_checkpoint_holds_a_weight_that_is_no_number(value):
    training = Training(vae.recipe().resolve(), decide(CPU))
    training.check_finite()
    with torch.no_grad():
        training.models["model"].spread[0] = value
    with pytest.raises(NotFinite, match="the weight 'spread' of 'model' became NaN or infinite"):
        training.check_finite()


def test_a_gradient_that_is_no_number_changes_no_weight(tmp_path):
    model = torch.nn.Linear(1, 1)
    before = model.weight.detach().clone()
    search = AdamW(learning_rate=0.1, clip=1.0).build({"model": model}, 10)
    turn = Turn(
        "model",
        {"x": torch.zeros(1, 1)},
        lambda models, batch: Loss({"rows": (0 * models["model"](batch["x"])).sqrt().sum()}),
        rows,
    )
    with pytest.raises(NotFinite, match="the gradient became NaN or infinite"):
        search.step(Problem({"model": model}, turn, {"model": model}, Noise(0)))
    assert model.weight.equal(before)


def test_dropout_in_experience_is_seeded(tmp_path):
    """Two runs with the same seed produce the same experience, whatever the state of the global generator."""

    def experience(state):
        torch.manual_seed(state)
        recipe = ppo.recipe().model_copy(update={"model": Dropping()})
        return Training(recipe.resolve(), decide(CPU))._experience()

    first, second = experience(1), experience(2)
    assert all(first[name].equal(second[name]) for name in first)


class Dropping(ModelConfig):
    """A policy with dropout."""

    kind: Literal["test-dropping"] = "test-dropping"

    def build(self, space):
        return torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Dropout(0.5), torch.nn.Linear(32, 4))


def test_resuming_a_finished_run_changes_nothing(small, tmp_path):
    run = train(small, tmp_path / "run")
    before = (run.folder / "metrics.jsonl").read_bytes()
    train(small, tmp_path / "run", resume=True)
    assert (run.folder / "metrics.jsonl").read_bytes() == before


def test_a_run_resumes_on_no_other_data(small, tmp_path):
    run = train(small, tmp_path / "run")
    with open(small.data.path, "a") as file:
        file.write("one more line\n")
    with pytest.raises(RunError, match="the data has changed since the run started"):
        train(small, run.folder, resume=True)


def test_refusals(small, tmp_path):
    run = train(small, tmp_path / "run")
    with pytest.raises(RunError, match="is not empty; add --resume to continue it"):
        train(small, run.folder)
    with pytest.raises(RunError, match="was started with a different recipe"):
        train(override(small, ["schedule.steps=13"]), run.folder, resume=True)
    lock = Writer(run.folder).lock()
    with pytest.raises(RunError, match="in use by another process"):
        train(small, run.folder, resume=True)
    lock.release()
    recipe = json.loads((run.folder / "recipe.json").read_text())
    (run.folder / "recipe.json").write_text(json.dumps({**recipe, "format": 99, "sanbu": "9.9"}))
    with pytest.raises(RunError, match="was written by version 9.9 in another format"):
        Run.open(run.folder)


def test_gpt_resumes_bitwise_after_half(small, tmp_path):
    """12 steps equal 8 and then 4: weights and deterministic metrics are bitwise equal (kills: tests/tenants)."""
    whole = train(override(small, ["model.dropout=0.1"]), tmp_path / "whole")
    half = train(override(small, ["model.dropout=0.1"]), tmp_path / "half")
    for path in Writer(half.folder).checkpoints()[-1:]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    resumed = train(half.recipe, half.folder, resume=True)
    for (name, ours), theirs in zip(resumed.model.state_dict().items(), whole.model.state_dict().values(), strict=True):
        assert ours.equal(theirs), name
    plain = lambda run: [{k: v for k, v in line.items() if not k.startswith("time/")} for line in run.metrics()]
    assert plain(resumed) == plain(whole)


def test_average_is_the_mean_at_first_and_then_follows():
    model = torch.nn.Linear(1, 1, bias=False)
    average = Average(model, decay=0.9)
    torch.nn.init.constant_(average.module.weight, 0.0)
    expected = 0.0
    for step in range(1, 40):
        torch.nn.init.constant_(model.weight, float(step))
        average.follow()
        decay = min(0.9, 1 - 1 / (step + 1))
        expected = decay * expected + (1 - decay) * step
        assert average(torch.ones(1, 1)).item() == pytest.approx(expected, rel=1e-5)
    assert all(not name.startswith("_source") for name, _ in average.named_parameters())


def test_an_unknown_player_is_refused(tmp_path):
    recipe = gan.recipe()
    with pytest.raises(SanbuError, match="players: given 'criticc', but this objective's players are: model, critic"):
        train(recipe.model_copy(update={"players": {"criticc": recipe.optimizer}}), tmp_path / "run")


def test_turns_are_passed_to_their_players():
    losses = []
    turn = Turn(
        "critic",
        {"x": torch.ones(2, 1)},
        lambda models, batch: Loss({"rows": models["critic"](models["model"](batch["x"])).sum()}),
        rows,
    )
    model, critic = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    losses.append(Problem({"model": model, "critic": critic}, turn, {"critic": critic}, Noise(0)).backward())
    assert model.weight.grad is None and critic.weight.grad is not None
