"""Speed, waiting and memory of each rank, and the ranks that the others wait for.

A rank waits while its training thread sleeps: for other ranks, or for the disk. Linux counts how long a thread ran and
how long it stood in the queue of a busy machine; the rest it slept. Where several ranks wait for one, that one waits
less than the others.

ranks.jsonl of a run has one line per checkpoint: the step, and for each rank since the line before: the steps, seconds
of wall-clock time, seconds of waiting (CPU only), rows, FLOPs of the model, and the most bytes of memory so far; also
the FLOP/s of a large matrix product on its device.
"""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from sanbu.machine import product_flops
from sanbu.parallel.world import World

NAME = "ranks.jsonl"
LATE = 1.25  # of the median of the others: a rank that computes so much longer is named
Rank = dict[str, Any]


class Pace:
    """The clock of a run on this rank. rows: of a step, of all ranks. flops: counts those of a row; 0: unknown."""

    def __init__(
        self,
        world: World,
        rows: int,
        folder: Path,
        precision: torch.dtype = torch.float32,
        flops: Callable[[], int] = lambda: 0,
    ) -> None:
        self.world, self.rows, self.path = world, rows // world.degrees.data, folder / NAME
        self.flops = 0.0 if world.alone else flops() * world.degrees.data / world.size  # of a row, on this rank
        self.peak = 0.0 if world.alone else product_flops(world.device.type, precision)
        self.awake = time.perf_counter if world.alone else awake  # reading a file takes 20 microseconds
        self.steps, self.seconds, self.waiting = 0, 0.0, 0.0
        self.start()

    def start(self) -> None:
        """A step begins."""
        self.began = time.perf_counter(), time.process_time(), self.awake()

    def stop(self) -> dict[str, float]:
        """A step has ended; its times, for the metrics."""
        wall, cpu, busy = self.began
        seconds = time.perf_counter() - wall
        self.steps, self.seconds = self.steps + 1, self.seconds + seconds
        self.waiting += max(0.0, seconds - (self.awake() - busy))
        return {"time/seconds": round(seconds, 6), "time/cpu_seconds": round(time.process_time() - cpu, 6)}

    def report(self, step: int) -> None:
        """Write a line about all ranks, where there are several. Every rank takes part."""
        if self.world.alone or not self.steps:
            return
        device = self.world.device.type
        mine: Rank = {"machine": socket.gethostname(), "steps": self.steps, "seconds": round(self.seconds, 6)}
        mine |= {"waiting": round(self.waiting, 6)} if device == "cpu" else {}
        rows = self.steps * self.rows
        mine |= {"rows": rows, "flops": rows * self.flops, "peak_flops": self.peak, "memory_bytes": memory(device)}
        self.steps, self.seconds, self.waiting = 0, 0.0, 0.0
        found = self.world.of_all(mine)
        if self.world.first:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "ranks": found}) + "\n")


def awake() -> float:
    """Seconds in which this thread has run or could have run."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            ran, queued, _ = map(int, file.read().split())
    except (OSError, ValueError):
        return time.thread_time()
    return (ran + queued) / 1e9


def memory(device: str) -> int:
    """The most bytes that this process has held so far, on its device."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def ranks_of(folder: Path) -> list[Rank]:
    """Each rank of a run over all its lines, as long as there were as many ranks; empty for a run of one process."""
    lines = list(whole_lines(folder / NAME))
    alike = [ranks for ranks in lines if len(ranks) == len(lines[-1])]
    return [together(parts) for parts in zip(*alike, strict=True)]


def whole_lines(path: Path) -> Iterator[list[Rank]]:
    """The lines of the file; one that is being written is left out."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, LookupError, TypeError):
            yield json.loads(line)["ranks"]


def together(parts: Sequence[Rank]) -> Rank:
    """Several lines about a rank as one."""
    found = {**parts[-1], "memory_bytes": max(part["memory_bytes"] for part in parts)}
    names = ("steps", "seconds", "waiting", "rows", "flops")
    return found | {name: sum(part[name] for part in parts) for name in names if name in parts[-1]}


def utilisation(rank: Rank) -> float | None:
    """Model FLOPs utilisation (MFU): the model's FLOP/s as a part of those of a large product; None if unknown.

    (Chowdhery and others, 2022: what is computed a second time for activation checkpointing does not count.)
    """
    return rank["flops"] / (rank["seconds"] * rank["peak_flops"]) if rank.get("flops") else None


def late(ranks: Sequence[Rank]) -> dict[int, float]:
    """The ranks that the others wait for, and how many times as long as the median of the others they compute."""
    if any("waiting" not in rank for rank in ranks):
        return {}
    busy = [rank["seconds"] - rank["waiting"] for rank in ranks]
    found = {}
    for number, seconds in enumerate(busy):
        others = statistics.median(busy[:number] + busy[number + 1 :])
        if seconds > LATE * others > 0:
            found[number] = seconds / others
    return found
