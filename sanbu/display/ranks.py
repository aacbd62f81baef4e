"""The ranks of a run in many processes: speed, waiting and memory of each, and those that the others wait for."""

from __future__ import annotations

from collections.abc import Sequence

from sanbu.display.tables import Column, FittedTable
from sanbu.memory.parts import size
from sanbu.parallel.pace import Rank, late, utilisation

MOST = 16  # ranks that are listed; of more, those that wait least and take most memory
LATE = "rank {rank} on {machine} computes {factor:.1f} times as long as the others, which wait for it"
COLUMNS = [
    Column("rank"), Column("machine", 5, False), Column("speed"), Column("waiting", 1), Column("MFU", 3),
    Column("memory", 2),
]  # fmt: skip


def table(ranks: Sequence[Rank], amount: float, unit: str) -> str:
    """A line per rank, and one per rank that is late; empty without ranks. amount: units per row."""
    if not ranks:
        return ""
    rows = [cells(number, ranks[number], amount, unit) for number in listed(ranks)]
    return "\n".join([str(FittedTable(COLUMNS, rows)), *late_lines(ranks)])


def listed(ranks: Sequence[Rank]) -> list[int]:
    """The ranks that are shown."""
    shown = list(range(len(ranks)))
    if len(ranks) > MOST:
        waiting = sorted(shown, key=lambda number: ranks[number].get("waiting", 0.0))[: MOST // 2]
        largest = sorted(shown, key=lambda number: -ranks[number]["memory_bytes"])[: MOST // 2]
        shown = sorted({*waiting, *largest})
    return shown


def late_lines(ranks: Sequence[Rank], text: str = LATE) -> list[str]:
    """A line per rank that the others wait for. text: of the line, with the fields of LATE."""
    found = late(ranks).items()
    return [text.format(rank=rank, machine=ranks[rank]["machine"], factor=factor) for rank, factor in found]


def cells(number: int, rank: Rank, amount: float = 1.0, unit: str = "") -> list[str]:
    """One rank."""
    seconds = max(rank["seconds"], 1e-9)
    waiting = f"{100 * rank['waiting'] / seconds:.0f} %" if "waiting" in rank else ""
    fast = rank["rows"] * amount / seconds
    speed = f"{fast:,.0f} {unit}" if fast >= 100 else f"{fast:.3g} {unit}"
    used = utilisation(rank)
    mfu = "" if used is None else f"{100 * used:.0f} %"
    return [str(number), rank["machine"], speed.strip(), waiting, mfu, size(rank["memory_bytes"])]
