"""Work on many rows that is divided over the processes of a job; each gets all results, in the order of one process.

The verbs evaluate, generate and compare use it under torchrun. A process that is alone does all the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from sanbu.config import SanbuError
from sanbu.parallel.layout import Layout
from sanbu.parallel.world import ALONE, World, join
from sanbu.progress import error_stream

A = TypeVar("A")
B = TypeVar("B")
TEAM: ContextVar[World] = ContextVar("TEAM", default=ALONE)  # in a thread or task that shares its work


@contextmanager
def sharing() -> Iterator[World]:
    """Inside, work is divided over the processes that torchrun started; the first one says how far it is."""
    with join(Layout(), "cpu") as world:
        token = TEAM.set(world)
        error_stream().quiet = not world.first
        try:
            yield world
        finally:
            error_stream().quiet = False
            TEAM.reset(token)


def sharers() -> int:
    """The number of processes that share the work."""
    return TEAM.get().size


def over_ranks(items: Sequence[A], work: Callable[[A], B]) -> list[B]:
    """work(item) of every item, in order. Raises SanbuError in every process if one of them does."""
    world = TEAM.get()
    if world.alone:
        return [work(item) for item in items]
    found: dict[int, B] = {}
    trouble = ""
    try:
        found = {number: work(items[number]) for number in range(world.rank, len(items), world.size)}
    except SanbuError as error:
        trouble = str(error)
    parts = world.of_all((found, trouble))
    for _, other in parts:
        if other:
            raise SanbuError(other)
    whole = {number: result for part, _ in parts for number, result in part.items()}
    return [whole[number] for number in range(len(items))]


def by_first(work: Callable[[], B]) -> B:
    """Work of the first process alone, such as writing files; each gets the result. It must be JSON."""
    world = TEAM.get()
    return world.from_first(world.once(work))  # type: ignore[return-value]
