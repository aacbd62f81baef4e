"""Searches without a gradient: python -m bench.evolution [--part digits|mnist|generations|functions] [--json]

digits       accuracy on held-out digits of the perceptron 64-32-10 (2,410 weights) after --seconds CPU seconds of
             OpenAI-ES, the genetic algorithm and SNES, batches of 128, populations of 256
mnist        the same of SNES on 28 x 28 digits, 784-32-10 (25,450 weights), five times as long; --mnist is the
             training file as .npz
generations  generations per second of SNES and OpenAI-ES beside evotorch's SNES and PGPE, with the same network, loss,
             rows and population; evotorch computes a population by torch.func.vmap, all at once or 32 at a time
functions    evaluations to 1e-8 in 10 dimensions beside cmaes, median of 15 seeds, population 10; Rastrigin 200
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import json
import statistics
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.together import best, side_by_side

POPULATION, ROWS = 256, (128, 1433)
SEEDS, SIZE, TARGET, MOST = 15, 10, 1e-8, 200_000


# -- accuracy ---------------------------------------------------------------------------------------------------------


def trained(recipe: Any, seconds: float) -> dict[str, float]:
    """Accuracy on held-out rows and the number of steps after so many CPU seconds of steps."""
    from sanbu.evaluation.contest import steps_within
    from sanbu.machine import decide
    from sanbu.training import Training

    steps = steps_within(recipe, seconds)
    recipe = recipe.change(steps=steps, evaluate_rows=10**6).resolve()
    training, since = Training(recipe, decide(recipe.machine)), time.process_time()
    while training.step < steps:
        training.advance()
    spent = time.process_time() - since
    return {"accuracy": training.evaluate()["accuracy"], "generations": steps, "seconds": spent}


def on_pictures(name: str, path: str, search: Sequence[str], seconds: float, seeds: int) -> dict[str, float]:
    """Means over seeds, under the name."""
    from sanbu.recipes.classifiers import digits_classify

    recipe = digits_classify(path).change("machine.threads=1", "machine.device=cpu", *search)
    found = [trained(recipe.change(seed=seed), seconds) for seed in range(seeds)]
    print(f"  {name}: {found}", file=sys.stderr, flush=True)
    return {f"{name}.{key}": statistics.mean(each[key] for each in found) for key in found[0]}


def digits(given: argparse.Namespace) -> dict[str, float]:
    """Three searches."""
    figures = {}
    for search in ("evolution", "genetic", "snes"):
        figures |= on_pictures(f"digits.{search}", "digits", [f"optimizer={search}"], given.seconds, given.seeds)
    return figures


def mnist(given: argparse.Namespace) -> dict[str, Any]:
    """SNES on larger pictures."""
    if not Path(given.mnist).exists():
        return {"mnist.skipped": f"{given.mnist} is absent; give --mnist FILE"}
    search = ["optimizer=snes", "data.validation=0.1666", "schedule.batch=256", "schedule.micro_batch=256"]
    return on_pictures("mnist.snes", given.mnist, search, 5 * given.seconds, 1)


# -- generations per second -------------------------------------------------------------------------------------------


def digit_rows(rows: int) -> tuple[Any, Any]:
    """Pictures [rows, 64] and labels."""
    import torch
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.from_numpy(found.data[:rows]).float() / 8 - 1, torch.from_numpy(found.target[:rows])


def network() -> Any:
    """The perceptron 64-32-10."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 10))


def timed(step: Callable[[], object]) -> Callable[[], float]:
    """Steps per CPU second, over at least a second."""
    for _ in range(3):
        step()

    def measure() -> float:
        count, since = 0, time.process_time()
        while time.process_time() - since < 1:
            step()
            count += 1
        return count / (time.process_time() - since)

    return measure


def ours(kind: str, rows: int) -> Callable[[], float]:
    """Generations of our search."""
    import torch

    from sanbu.noise import Noise
    from sanbu.objectives.objective import Loss, Turn
    from sanbu.objectives.supervised import negative_log
    from sanbu.optimizers.evolution import SNES, Evolution
    from sanbu.optimizers.search import Problem

    torch.set_num_threads(1)
    x, y = digit_rows(rows)
    model = network()
    loss = lambda models, b: Loss({"rows": negative_log(models["model"](b["x"]), b["y"])})
    turn = Turn("model", {"x": x, "y": y}, loss, lambda batch: {"rows": float(rows)})
    config = {"snes": SNES, "evolution": Evolution}[kind](population=POPULATION)
    search, numbers = config.build({"model": model}, 1000), iter(range(10**9))
    return timed(lambda: search.step(Problem({"model": model}, turn, {"model": model}, Noise(next(numbers)))))


def evotorch(kind: str, rows: int, chunk: int | None) -> Callable[[], float]:
    """Generations of evotorch's search."""
    import logging

    import torch
    from torch.func import functional_call, vmap

    from sanbu.objectives.supervised import negative_log

    sys.meta_path.append(Absent())
    logging.disable(logging.WARNING)
    from evotorch import Problem
    from evotorch.algorithms import PGPE, SNES
    from evotorch.decorators import vectorized

    torch.set_num_threads(1)
    x, y = digit_rows(rows)
    model = network()
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    sizes = [parameter.numel() for parameter in model.parameters()]

    def loss(vector: Any) -> Any:
        parts = zip(shapes.items(), vector.split(sizes), strict=True)
        return negative_log(functional_call(model, {name: part.view(shape) for (name, shape), part in parts}, x), y)

    @vectorized  # type: ignore[untyped-decorator]
    def losses(vectors: Any) -> Any:
        with torch.no_grad():
            return vmap(loss, chunk_size=chunk)(vectors)

    problem = Problem("min", losses, solution_length=sum(sizes), initial_bounds=(-0.1, 0.1))
    start = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    common = {"popsize": POPULATION, "stdev_init": 0.05, "center_init": start}
    if kind == "snes":
        return timed(SNES(problem, **common).step)
    rates = {"center_learning_rate": 0.02, "stdev_learning_rate": 0.0, "optimizer": "adam"}
    return timed(PGPE(problem, **common, **rates, ranking_method="centered").step)


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for packages that evotorch imports and does not use here."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in ("ray", "gymnasium"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return Nothing(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to execute."""


class Whatever(type):
    """A class whose attributes are classes, and that decorates nothing."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Whatever(name, (), {})


class Nothing(types.ModuleType):
    """A module whose attributes are empty classes."""

    __version__ = "1.0.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "remote":
            return lambda *given, **named: given[0] if given else (lambda made: made)
        return Whatever(name, (), {})


def generations(given: argparse.Namespace) -> dict[str, Any]:
    """Both searches, on a batch and on all rows."""
    figures: dict[str, Any] = {}
    for kind in ("snes", "evolution"):
        for rows in ROWS:
            found = side_by_side(
                {
                    "sanbu": (ours, (kind, rows)),
                    "evotorch": (evotorch, (kind, rows, None)),
                    "evotorch, 32 at a time": (evotorch, (kind, rows, 32)),
                },
                3,
            )
            key = f"generations.{kind}.{rows}"
            figures[f"{key}.sanbu"] = found["sanbu"]
            if len(found) > 1:
                name, figures[f"{key}.evotorch"] = best(found, "evotorch")
                figures[f"{key}.setting"] = name
    return figures


# -- functions --------------------------------------------------------------------------------------------------------


def sphere(x: Any) -> Any:
    return (x**2).sum(-1)


def ellipsoid(x: Any) -> Any:
    scales = [10 ** (6 * number / (SIZE - 1)) for number in range(SIZE)]
    return sum(scale * x[..., number] ** 2 for number, scale in enumerate(scales))


def rosenbrock(x: Any) -> Any:
    return (100 * (x[..., 1:] - x[..., :-1] ** 2) ** 2 + (1 - x[..., :-1]) ** 2).sum(-1)


def rastrigin(x: Any) -> Any:
    import numpy as np
    import torch

    cos = torch.cos if isinstance(x, torch.Tensor) else np.cos
    return 10 * SIZE + (x**2 - 10 * cos(2 * np.pi * x)).sum(-1)


FUNCTIONS = {"sphere": sphere, "ellipsoid": ellipsoid, "rosenbrock": rosenbrock, "rastrigin": rastrigin}


def start(seed: int) -> Any:
    """The first mean, the same for both."""
    import numpy as np

    return np.random.default_rng(seed).uniform(-3, 3, SIZE)


def by_sanbu(name: str, population: int, seed: int) -> int | None:
    """Evaluations until a member reaches the target; None if it is not reached."""
    import torch

    from sanbu.noise import Noise
    from sanbu.optimizers.cma import CMA
    from sanbu.optimizers.population import generator_of, normal

    model = torch.nn.Linear(1, SIZE, bias=False).double()
    model.weight.data = torch.from_numpy(start(seed))[:, None]
    search: Any = CMA(population=population, deviation=2.0).build({"model": model}, 1)
    for step in range(MOST // population):
        search.covariance.decompose()
        noise = normal(generator_of(Noise(seed, step), torch.device("cpu")), search.mean, population, SIZE)
        y = search.covariance.colour(noise)
        losses = FUNCTIONS[name](search.mean + search.step_size * y)
        if float(losses.min()) <= TARGET:
            return (step + 1) * population
        search.tell(y[losses.argsort()])
    return None


def by_cmaes(name: str, population: int, seed: int) -> int | None:
    """The same by the package cmaes."""
    from cmaes import CMA

    search = CMA(mean=start(seed), sigma=2.0, population_size=population, seed=seed)
    for step in range(MOST // population):
        asked = [search.ask() for _ in range(population)]
        told = [(x, float(FUNCTIONS[name](x))) for x in asked]
        if min(value for _, value in told) <= TARGET:
            return (step + 1) * population
        search.tell(told)
    return None


def functions(given: argparse.Namespace) -> dict[str, Any]:
    """Median evaluations, the quartiles of both, and how many of the seeds reached the target."""
    figures: dict[str, Any] = {}
    for name in FUNCTIONS:
        population = 200 if name == "rastrigin" else 10
        for who, count in (("sanbu", by_sanbu), ("cmaes", by_cmaes)):
            found = [count(name, population, seed) for seed in range(SEEDS)]
            reached = [each for each in found if each is not None]
            key = f"functions.{name}.{who}"
            figures |= {key: statistics.median(reached) if reached else None, f"{key}.reached": len(reached)}
            if len(reached) > 1:
                figures[f"{key}.quartiles"] = statistics.quantiles(reached, n=4)[::2]
            print(f"  {key}: {figures[key]}, {len(reached)} of {SEEDS}", file=sys.stderr, flush=True)
    return figures


PARTS = {"digits": digits, "mnist": mnist, "generations": generations, "functions": functions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--seconds", type=float, default=60, help="CPU seconds on digits; five times as many on MNIST")
    parser.add_argument("--seeds", type=int, default=1, help="runs on digits")
    parser.add_argument("--mnist", default="data/mnist/train.npz", help="MNIST's training file as .npz")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures: dict[str, Any] = {}
    for part in [given.part] if given.part else PARTS:
        figures |= PARTS[part](given)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
