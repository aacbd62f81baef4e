"""Everything that changes while a recipe is trained, and how it moves: turns make rounds, rounds make a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanbu.codecs.codec import stops_of
from sanbu.config import SanbuError, kind_of
from sanbu.data.data import Data
from sanbu.files import load_weights, weights
from sanbu.layers.average import Following
from sanbu.machine import Machine, local
from sanbu.models.model import ModelConfig
from sanbu.noise import Noise, key
from sanbu.objectives.objective import Round, Turn, losses, over_all, report
from sanbu.optimizers.search import Metrics, NotFinite, Problem, Search
from sanbu.parallel.divide import Divided
from sanbu.parallel.rows import drawing, over_parts, over_rows, shared_drawing, table
from sanbu.parallel.states import fitted, load_search, search_state, weights_here
from sanbu.parallel.turns import Part, own_part, ranks_of
from sanbu.parallel.world import ALONE, World
from sanbu.progress import progress_rows
from sanbu.recipe import Recipe
from sanbu.run import Run
from sanbu.space import Batch
from sanbu.strategies.strategy import draw


class Training:
    """Models, searches and position of one run. `advance` makes one turn; a round is the turns of one step."""

    def __init__(self, recipe: Recipe, machine: Machine, world: World = ALONE) -> None:
        self.recipe, self.machine, self.world, self.divided = recipe, machine, world, Divided(world)
        parents = {name: Run.open(path) for name, path in recipe.parents.items()}
        check_needs(recipe, parents)
        with world.one_by_one():
            self.data: Data = recipe.data.build()
        world.same("data", [self.data.fingerprint])
        check_parents(recipe, parents, self.data)
        self.objective, self.strategy = recipe.objective.build(), recipe.strategy.build(recipe.data.space())
        self.rollout = recipe.strategy.unfiltered().build(recipe.data.space())
        build = partial(build_models, recipe, parents.get("model"), self.objective.attach)
        self.models = build() if "model" in parents else self.divided.build(build)  # a parent's weights are whole
        self.models |= {name: run.model for name, run in parents.items() if name != "model"}
        for player in () if world.alone else self.objective.players:
            self.divided.remember(player, self.learners(player), self._search(player))
        self.divided.prepare(self.models, self.objective.players, machine)
        self._check()
        self.searches = {player: self.divided.search(self._search(player)) for player in self.objective.players}
        self.known = self._know()
        self.step = self.turn = 0
        self.skipped = self.rewinds = 0  # batches that were left out, and how often training went back
        self.metrics: Metrics = {}
        self._batch: Batch = {}
        self._turns: Iterator[Turn] = iter(())
        self._next: Turn | None = None
        for name, module in self.models.items():
            module.train(name not in recipe.parents or name == "model")

    # -- a round ------------------------------------------------------------------------------------------------------

    def advance(self) -> bool:
        """Make one turn. True when it was the last of its round; `metrics` then holds the round's."""
        if self._next is None:
            self._begin_round(self._experience())
        assert self._next is not None, "an objective must take at least one turn a round"
        turn = self._next
        metrics = self.searches[turn.player].step(self._problem(turn))
        prefix = f"{turn.player}/" if len(self.searches) > 1 else ""
        self.metrics |= {prefix + name: value for name, value in metrics.items()}
        self.turn += 1
        self._next = next(self._turns, None)
        if self._next is None:
            self._end_round()
        return self._next is None

    def _experience(self) -> Batch:
        start, rows, first = self.batch * self.rows, self.rows, 0
        if not self.objective.couples:  # each rank reads its own rows
            rows //= self.world.degrees.data
            first = rows * self.world.place.data
        batch = self._to_device(self.data.batch(start + first, rows))
        batch |= {name: table[batch["row"]] for name, table in self.known.items()}
        seed_dropout(key(self.recipe.schedule.seed, "experience", self.batch), 0)
        with torch.no_grad(), self.machine.scope():
            return self.objective.experience(self._round(batch, "experience", first))

    def _round(self, batch: Batch, purpose: str, first: int = 0) -> Round:
        """What the objective may use at this step. first: the row of the round with which the batch begins."""
        drawn = shared_drawing(self.divided, self.rollout, self.models)
        over = partial(over_rows, self.world) if self.objective.couples else over_all
        return Round(self.models, batch, self.noise(purpose, first_row=first), drawn, self.data.codec.read, over)

    def _begin_round(self, batch: Batch, turn: int = 0) -> None:
        self._batch, self.turn, self.metrics = batch, turn, {}
        self._turns = self.objective.draw_turns(self._round(batch, "turns"))
        for _ in range(turn):
            next(self._turns)
        self._next = next(self._turns, None)

    def _end_round(self) -> None:
        for module in self.models.values():
            if isinstance(module, Following):
                module.follow()
        self.step, self.turn, self._batch = self.step + 1, 0, {}

    def _problem(self, turn: Turn) -> Problem:
        seed = key(self.recipe.schedule.seed, "dropout", self.batch, self.turn)
        self.divided.give_back(self.models)
        part = own_part(self.world, turn, self._micro_batch) if self.objective.couples else Part(turn)
        before = self.world.place.data * part.micro_batches(self._micro_batch)  # those of other ranks
        return Problem(
            self.models,
            part.turn,
            self.learners(turn.player),
            self.noise("search", self.turn),
            self._micro_batch,
            self.machine.scope,
            lambda micro: seed_dropout(seed, before + micro),
            self.step,
            ranks_of(self.divided),
            part.idle,
        )

    def _know(self) -> Batch:
        """Tables of what the objective calls fixed, by row, where that is cheaper than computing it at every step.

        The first epoch has every row once. All parts are equally large, so each takes the same number of calls.
        """
        fixed, rows = self.objective.fixed, self.data.rows
        if fixed is None or self.recipe.schedule.steps * self.rows <= rows:
            return {}
        size = min(self.rows, rows)

        def part(start: int) -> Batch:
            batch = self._to_device(self.data.batch(min(start, rows - size), size))
            progress(size * self.world.degrees.data)
            return {"row": batch["row"], **fixed(self.models, batch)}

        with torch.no_grad(), self.machine.scope(), progress_rows("reference", rows) as progress:
            return table(over_rows(self.world, part, range(0, rows, size)))

    def noise(self, purpose: str, *more: int, first_row: int = 0) -> Noise:
        """Random numbers for a purpose at this step."""
        device = self.machine.device
        return Noise(self.recipe.schedule.seed, purpose, self.batch, *more, first_row=first_row, device=device)

    # -- looks --------------------------------------------------------------------------------------------------------

    def evaluate(self) -> Metrics:
        """The objective on held-out rows, by the averaged model where there is one; always the same rows and noise."""
        model = self.sampler().eval()
        rows = min(self.recipe.schedule.evaluate_rows, self.data.held_out_rows)
        parts = [(start, min(self.rows, rows - start)) for start in range(0, rows, self.rows)]
        look = partial(self._held_out_round, model)
        with self.machine.scope():
            found = over_parts(self.world, lambda part: losses(self.objective, look(*part)), parts, rows // self.rows)
        model.train()
        return report(found)

    def _held_out_round(self, model: nn.Module, start: int, rows: int) -> Round:
        models, batch = {**self.models, "model": model}, self._to_device(self.data.held_out(start, rows))
        noise = Noise(self.recipe.schedule.seed, "evaluate", device=self.machine.device)
        drawn = drawing(self.divided, self.rollout, models)
        return Round(models, batch, noise, drawn, self.data.codec.read, learning=False)

    def sample(self, count: int) -> list[Any]:
        """Samples from the model as it is now, as a person reads them; sample i is drawn with seed i."""
        codec, models = self.data.codec, {**self.models, "model": self.sampler()}
        follower = codec.follow(stops_of(self.recipe.strategy))
        draw(self.strategy, models, codec.condition(None, count), torch.arange(count), follower.update)
        return follower.results()

    def sampler(self) -> nn.Module:
        """The weights one samples from: the average, where the recipe keeps one."""
        average = self.models.get("average")
        return average.module if isinstance(average, Following) else self.models["model"]

    def snapshot(self) -> dict[str, Tensor]:
        """What the average keeps of this round, for other averages to be made of."""
        average = self.models.get("average")
        return average.snapshot() if isinstance(average, Following) else {}

    # -- state --------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything needed to continue bit for bit, as a tree. Frozen modules come from their parents instead."""
        return {
            "step": self.step,
            "turn": self.turn,
            "skipped": self.skipped,
            "rewinds": self.rewinds,
            "metrics": dict(self.metrics) if self.turn else {},
            "experience": self._batch if self.turn else {},
            "models": {name: weights_here(self.divided, module) for name, module in self._changing().items()},
            "searches": {
                player: search_state(self.divided, player, self.learners(player), search)
                for player, search in self.searches.items()
            },
        }

    def restore(self, state: dict[str, Any], folder: Path) -> None:
        """Take up a state."""
        self.divided.give_back(self.models)
        for name, module in self._changing().items():
            load_weights(module, fitted(self.divided, module, state["models"][name]), folder)
        for player, search in self.searches.items():
            load_search(self.divided, player, self.learners(player), search, state["searches"][player])
        self.step, self.turn, self._next = state["step"], 0, None
        self.skipped, self.rewinds = state.get("skipped", 0), state.get("rewinds", 0)
        if state["turn"]:
            self._begin_round(self._to_device(state["experience"]), state["turn"])
            self.metrics = dict(state["metrics"])

    def rewind(self, state: dict[str, Any], folder: Path) -> None:
        """Take up an earlier state, and leave out the batches that were used since."""
        following, rewinds = self.batch + (self._next is not None), self.rewinds + 1
        self.restore(state, folder)
        self.skipped, self.rewinds = following - self.step, rewinds

    def check_finite(self) -> None:
        """Raise NotFinite when a weight is NaN or infinite, so that no checkpoint holds one."""
        broken = ""
        for name, module in self._changing().items():
            for weight, tensor in module.state_dict().items():
                held = local(tensor)
                if held.is_floating_point() and not bool(held.isfinite().all()):
                    broken = broken or f"the weight {weight!r} of {name!r} became NaN or infinite"
        if self.world.any(bool(broken))[0]:
            raise NotFinite(broken or "a weight of another process became NaN or infinite")

    def _changing(self) -> dict[str, nn.Module]:
        parents = self.recipe.parents.keys() - {"model"}
        return {name: module for name, module in self.models.items() if name not in parents}

    # -- details ------------------------------------------------------------------------------------------------------

    @property
    def batch(self) -> int:
        """The number of the batch of this step: random numbers belong to it, the learning rate to the step."""
        return self.step + self.skipped

    @property
    def rows(self) -> int:
        """Rows per step, of all ranks."""
        batch = self.recipe.schedule.batch
        assert isinstance(batch, int), "resolve the recipe first"
        return batch

    @property
    def _micro_batch(self) -> int:
        micro = self.recipe.schedule.micro_batch
        assert isinstance(micro, int), "resolve the recipe first"
        return micro

    def _search(self, player: str) -> Search:
        config = self.recipe.players.get(player, self.recipe.optimizer)
        return config.build(self.learners(player), self.recipe.schedule.steps)

    def learners(self, player: str) -> dict[str, nn.Module]:
        """The models that a player may change."""
        return {name: self.models[name] for name in self.objective.players[player]}

    def _to_device(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.machine.device) for name, tensor in batch.items()}

    def _check(self) -> None:
        parts = self.world.degrees.data
        if self.rows % parts:
            raise SanbuError(
                f"schedule.batch: given {self.rows}, but the rows are divided over {parts} data ranks;"
                f" allowed: a multiple of {parts}, such as {-(-self.rows // parts) * parts}"
            )
        self.recipe.strategy.check_samples(self.recipe.schedule.samples)
        kind = kind_of(self.recipe.objective)
        if parts > 1 and not self.objective.additive:
            raise SanbuError(f"layout.data: given {parts}, but the objective {kind!r} couples the rows; allowed: 1")
        if self._micro_batch < self.rows and not self.objective.additive:
            raise SanbuError(
                f"schedule.micro_batch: given {self._micro_batch}, but the objective {kind!r} couples the rows"
                f" of a batch and cannot be split; allowed: {self.rows}, the whole batch"
            )
        if unknown := self.recipe.players.keys() - self.objective.players.keys():
            players = ", ".join(self.objective.players)
            raise SanbuError(
                f"players: given {', '.join(sorted(unknown))!r}, but this objective's players are: {players}"
            )


def build_models(
    recipe: Recipe, parent: Run | None, attach: Callable[[nn.Module], dict[str, nn.Module]]
) -> dict[str, nn.Module]:
    """The model, what the objective attaches to it, and the average, from the seed, or from a parent's weights."""
    with torch.random.fork_rng():
        torch.manual_seed(key(recipe.schedule.seed, "weights"))
        model = recipe.model.build(recipe.data.space())
        if parent is not None:
            found = recipe.model.begin_from(weights(parent.model), weights(model))
            load_weights(model, found, parent.folder)
        models = {"model": model, **attach(model)}
    if recipe.average is not None:
        models["average"] = recipe.average.build(model)
    return models


def check_needs(recipe: Recipe, parents: dict[str, Run]) -> None:
    """Every parent that the objective and the model need is there and can be called. Raises SanbuError in one line."""
    for name in recipe.objective.needs():
        if name not in parents:
            raise SanbuError(
                f"parents.{name}: the objective {kind_of(recipe.objective)!r} needs a run here: parents.{name}=RUN"
            )
    for name in recipe.model.parents:
        if name not in parents:
            raise SanbuError(
                f"parents.{name}: the model {kind_of(recipe.model)!r} needs a run here: parents.{name}=RUN"
            )
    for name, families in recipe.objective.parent_families.items():
        model = parents[name].recipe.model
        if model.family not in families:
            known = ", ".join(kind for kind, each in ModelConfig.kinds().items() if each.family in families)
            raise SanbuError(f"parents.{name}: {parents[name].folder} is a {kind_of(model)}; allowed: {known}")


def check_parents(recipe: Recipe, parents: dict[str, Run], data: Data) -> None:
    """Every parent reads the same tokens and mels as the data. Raises SanbuError in one line."""
    ours, mel = data.codec.vocabulary(), recipe.data.space().mel
    for name, run in parents.items():
        heard = run.recipe.data.space().mel
        if mel is not None and heard is not None and mel != heard:
            raise SanbuError(f"parents.{name}: {run.folder} has another mel than this run: {heard.difference(mel)}")
        theirs = run.codec.vocabulary()
        if ours is not None and theirs is not None and list(theirs) != list(ours):
            sizes = f"{len(theirs)} tokens against {len(ours)}"
            raise SanbuError(
                f"parents.{name}: {run.folder} has another vocabulary than this run's data ({sizes}, or other tokens)"
            )


def seed_dropout(seed: int, micro: int) -> None:
    """The default generators, which dropout reads, for one micro-batch."""
    torch.manual_seed(key(seed, micro))
