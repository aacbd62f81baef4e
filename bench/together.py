"""Alternating measurements: each candidate in its own process, so that background load affects all alike."""

from __future__ import annotations

import importlib
import multiprocessing
import statistics
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

Setup = Callable[..., Callable[[], float]]


def work(pipe: Connection, module: str, setup: str, arguments: tuple[Any, ...]) -> None:
    """Child process: set up once, then measure on each request."""
    measure = getattr(importlib.import_module(module), setup)(*arguments)
    pipe.send("ready")
    while pipe.recv() == "go":
        pipe.send(measure())


def side_by_side(setups: dict[str, tuple[Setup, tuple[Any, ...]]], rounds: int) -> dict[str, float]:
    """Median of each measurement over the rounds; every round measures each candidate once, one at a time.

    A candidate that cannot be set up is left out.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    children = []
    for name, (setup, arguments) in setups.items():
        ours, theirs = context.Pipe()
        child = context.Process(target=work, args=(theirs, setup.__module__, setup.__name__, arguments), daemon=True)
        child.start()
        theirs.close()  # so that a child that fails ends the wait for it
        try:
            ours.recv()
        except EOFError:
            print(f"  failed: {name}", file=sys.stderr, flush=True)
            continue
        print(f"  ready: {name}", file=sys.stderr, flush=True)
        pipes[name] = ours
        children.append(child)
    values: dict[str, list[float]] = {name: [] for name in pipes}
    for _ in range(rounds):
        for name, pipe in pipes.items():
            pipe.send("go")
            values[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send("stop")
    for child in children:
        child.join()
    medians = {name: statistics.median(found) for name, found in values.items()}
    for name, median in medians.items():
        print(f"  {name}: {median:.4g}", file=sys.stderr, flush=True)
    return medians


def best(figures: dict[str, float], who: str) -> tuple[str, float]:
    """The name and value of the largest figure whose name begins with `who`."""
    mine = {name: figure for name, figure in figures.items() if name.startswith(who)}
    name = max(mine, key=lambda key: mine[key])
    return name, mine[name]
