"""The memory of a training step, by part: every module, gradient and optimizer state is built without contents.

peak = weights + gradients + optimizer + the most that a forward and a backward pass of a micro-batch, an evaluation or
a snapshot of the averages takes besides. Parameters of all players, references and averages count.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from sanbu.config import dump, kind_of, load
from sanbu.layers.average import Following
from sanbu.machine import recompute
from sanbu.memory.parts import LIBRARIES, Parts
from sanbu.memory.peak import Answers, Peak, Unfilled, shapes_alone
from sanbu.noise import Noise
from sanbu.objectives.objective import Objective, Round, Turn
from sanbu.optimizers.search import Search, only_learning
from sanbu.recipe import Recipe
from sanbu.space import Batch, Draft, row_count

DEEP = (2, 8)  # layers; patterns of attention repeat after 1, 2, 3 or 6
PER_OUTPUT = 8  # tensors kept for each output of a layer: a rough bound
BYTES = 4
INSIDE = 1.1  # what kernels take within themselves and small blocks waste; fitted to measurements of ten recipes


@dataclass
class Hollow:
    """A run without contents: its modules and searches on tensors that have only shapes."""

    recipe: Recipe
    objective: Objective
    models: dict[str, nn.Module]
    searches: dict[str, Search] = field(default_factory=dict)

    @classmethod
    def build(cls, recipe: Recipe, parents: Mapping[str, Recipe]) -> Hollow:
        """Everything that a run builds but its data. Called on the meta device or under FakeTensorMode."""
        recipe = load(Recipe, dump(recipe))  # a copy of its own: configs may keep tensors that they have computed
        objective = recipe.objective.build()
        model = recipe.model.build(recipe.data.space())
        models = {"model": model, **objective.attach(model)}
        if recipe.average is not None:
            models["average"] = recipe.average.build(model)
        for name, parent in parents.items():
            if name != "model":
                models[name] = parent.model.build(parent.data.space()).eval().requires_grad_(False)
        return cls(recipe, objective, models)

    def begin(self) -> None:
        """Give every learner a gradient and every optimizer its state, as after a step."""
        for parameter in self.parameters():
            parameter.requires_grad_().grad = torch.empty_like(parameter)
        self.search()
        for optimizer in self.optimizers():
            optimizer.step()

    def search(self) -> None:
        """Build the searches."""
        for player in self.objective.players:
            config = self.recipe.players.get(player, self.recipe.optimizer)
            self.searches[player] = config.build(self.learners(player), self.recipe.schedule.steps)

    def populations(self) -> list[Tensor]:
        """What searches keep beside the states of optimizers, and make in a step: populations and covariances."""
        return [tensor for search in self.searches.values() for tensor in getattr(search, "tensors", list)()]

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers of all searches; a search of another kind has none."""
        return [optimizer for search in self.searches.values() for optimizer, _ in getattr(search, "pairs", ())]

    def states(self) -> list[Tensor]:
        """The tensors that optimizers keep."""
        kept = [state.values() for optimizer in self.optimizers() for state in optimizer.state.values()]
        return [value for values in kept for value in values if isinstance(value, Tensor)]

    def learners(self, player: str) -> dict[str, nn.Module]:
        """The modules that a player changes."""
        return {name: self.models[name] for name in self.objective.players[player]}

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that any player changes, each once."""
        modules = [module for player in self.objective.players for module in self.learners(player).values()]
        every = [parameter for module in modules for parameter in module.parameters()]
        return list({id(parameter): parameter for parameter in every}.values())

    def weights(self) -> list[Tensor]:
        """Parameters and buffers of all modules, each once."""
        every = [tensor for module in self.models.values() for tensor in (*module.parameters(), *module.buffers())]
        by_identity = {id(tensor): tensor for tensor in every}
        return list(by_identity.values())

    def snapshot(self) -> list[Tensor]:
        """The tensors of the averages that a checkpoint copies."""
        average = self.models.get("average")
        return list(average.snapshot().values()) if isinstance(average, Following) else []


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of these tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def estimate(
    recipe: Recipe, parents: Mapping[str, Recipe] | None = None, precision: torch.dtype = torch.float32
) -> Parts:
    """The memory of a resolved recipe. Takes seconds for the largest; draws no random number and builds nothing."""
    weights, gradients, states = kept = count_kept(recipe, parents or {})
    if in_closed_form(recipe):
        return Parts(*kept, None)
    try:
        activations = count_activations(recipe, parents or {}, precision)
    except Exception:  # code of a user may ask for contents in a way that has no answer here
        return Parts(*kept, None)
    return Parts(weights, gradients, states, activations)


def in_closed_form(recipe: Recipe) -> bool:
    """Whether every search fits its models at once: what that takes besides depends on the rows, not on shapes."""
    return all(kind_of(config) == "closed-form" for config in (recipe.optimizer, *recipe.players.values()))


def count_kept(recipe: Recipe, parents: Mapping[str, Recipe]) -> tuple[int, int, int]:
    """Bytes of weights, gradients and optimizer states; exact."""
    with shapes_alone():
        hollow = Hollow.build(recipe, parents)
        hollow.begin()
        states = nbytes((*hollow.states(), *hollow.populations()))
        return nbytes(hollow.weights()), nbytes(hollow.parameters()), states


def count_activations(recipe: Recipe, parents: Mapping[str, Recipe], precision: torch.dtype) -> int:
    """What a step takes besides; of a deep model from two shallower ones, since each block takes the same."""
    layers = getattr(recipe.model, "layers", 0)
    if layers <= sum(DEEP):
        return max(activations_of(recipe, parents, precision))
    few, more = (activations_of(recipe.change(f"model.layers={n}"), parents, precision) for n in DEEP)
    further = (layers - DEEP[1]) / (DEEP[1] - DEEP[0])
    return max(round(b + (b - a) * further) for a, b in zip(few, more, strict=True))


def activations_of(recipe: Recipe, parents: Mapping[str, Recipe], precision: torch.dtype) -> tuple[int, int]:
    """The most bytes of a run less those that it keeps: of its steps, and with evaluation and checkpoint."""
    with shapes_alone():
        hollow = Hollow.build(recipe, parents)
        hollow.begin()
        kept = nbytes((*hollow.weights(), *hollow.parameters(), *hollow.states()))
        steps, whole = peak_of(hollow, precision)
        steps, whole = max(0, steps - kept), max(0, whole - kept)
        return round(INSIDE * steps), round(INSIDE * whole)


# -- what lives only within a step -----------------------------------------------------------------------------------


def peak_of(hollow: Hollow, precision: torch.dtype) -> tuple[int, int]:
    """The most bytes at once from building the models to the second step, and to its evaluation and checkpoint."""
    recipe = hollow.recipe
    for optimizer in hollow.optimizers():
        optimizer.state.clear()
    for parameter in hollow.parameters():
        parameter.grad = None
    if recipe.machine.recompute == "on":
        for module in hollow.models.values():
            recompute(module)
    with Answers(max(recipe.data.space().shape)), Peak() as peak:
        peak.add(hollow.weights())
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            for _ in range(2):
                train(hollow, number(recipe.schedule.batch), number(recipe.schedule.micro_batch))
                for optimizer in hollow.optimizers():
                    optimizer.step()
            steps = peak.heap.most
            looks = min(number(recipe.schedule.batch), recipe.schedule.evaluate_rows)
            if recipe.schedule.evaluate_every and looks > number(recipe.schedule.micro_batch):
                evaluate(hollow, looks)  # fewer rows take less than training does
        kept = [tensor.clone() for tensor in hollow.snapshot()]
        kept.clear()
    return steps, peak.heap.most


def number(value: int | str) -> int:
    """A size of the schedule, which Recipe.resolve must have set."""
    assert isinstance(value, int), "resolve the recipe first"
    return value


def train(hollow: Hollow, rows: int, micro: int) -> None:
    """One round: what the first turn of each player does with the first two micro-batches."""
    given = round_of(hollow, rows, learning=True)
    with torch.no_grad():
        experience = hollow.objective.experience(given)
    seen: set[str] = set()
    for turn in hollow.objective.draw_turns(replace(given, batch=experience)):
        if turn.player not in seen:
            seen.add(turn.player)
            backward(hollow, turn, micro)
        if seen == set(hollow.objective.players):
            break


def backward(hollow: Hollow, turn: Turn, micro: int) -> None:
    """The gradient of a turn over at most two micro-batches: the second adds to what the first has left."""
    rows = row_count(turn.batch)
    with only_learning(hollow.models, hollow.learners(turn.player)):
        for start in range(0, min(rows, 2 * micro), micro):
            batch = {name: tensor[start : start + micro] for name, tensor in turn.batch.items()}
            loss = turn.loss(hollow.models, batch)
            total = sum(loss.sums.values(), torch.zeros(()))
            if total.requires_grad:  # an objective for searches by values alone has no gradient
                total.backward()


def evaluate(hollow: Hollow, rows: int) -> None:
    """The loss on held-out rows."""
    given = round_of(hollow, rows, learning=False)
    with torch.no_grad():
        experience = hollow.objective.experience(given)
        for turn in hollow.objective.draw_turns(replace(given, batch=experience)):
            turn.loss(hollow.models, turn.batch)


def round_of(hollow: Hollow, rows: int, learning: bool) -> Round:
    """A round of rows without contents."""
    space = hollow.recipe.data.space()

    def draw(condition: Batch, seeds: Tensor) -> Draft:
        shape = (len(seeds), *space.shape)
        sample = torch.zeros(shape, dtype=torch.long if space.vocabulary else torch.float32)
        nothing, none = torch.zeros(len(seeds)), torch.zeros(len(seeds), dtype=torch.long)
        record = {"logprobs": torch.zeros(shape), "ending": none, "end_logprob": nothing}
        return Draft(sample, torch.ones(shape, dtype=torch.bool), none.bool(), none, record=record)

    batch = hollow.recipe.data.example(rows)
    return Round(hollow.models, batch, Noise("memory"), draw, lambda ids: "", learning=learning)


# -- runs that are surely small --------------------------------------------------------------------------------------


def least_kept(recipe: Recipe) -> int:
    """Bytes of the weights and gradients of the model alone, in milliseconds."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"), Unfilled():
        model = load(Recipe, dump(recipe)).model.build(recipe.data.space())
    return 2 * nbytes(model.parameters())


def surely_below(recipe: Recipe, parents: Mapping[str, Recipe], most: int) -> bool:
    """Whether a rough bound of the memory is below so many bytes; takes a few milliseconds for a small model."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"), Unfilled():
        hollow = Hollow.build(recipe, parents)
        hollow.search()
    space, schedule = recipe.data.space(), recipe.schedule
    places = space.shape[0] if len(space.shape) < 2 else math.prod(space.shape[1:])
    outputs = [wide(module) for model in hollow.models.values() for module in model.modules()]
    training = number(schedule.micro_batch) * sum(outputs) * PER_OUTPUT
    looking = min(number(schedule.batch), schedule.evaluate_rows) * max(outputs, default=0) * PER_OUTPUT
    kept = 4 * nbytes(hollow.weights()) + nbytes(hollow.populations())
    passing = places * (training + looking) * BYTES
    return kept + passing + LIBRARIES < most


def wide(module: nn.Module) -> int:
    """The number of outputs of a layer at one place."""
    matrices = [each for each in copy.copy(module).parameters(recurse=False) if each.ndim > 1]
    return max((each.shape[0] for each in matrices), default=0)
