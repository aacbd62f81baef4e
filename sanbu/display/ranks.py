"""The ranks of a run in many processes: speed, waiting and memory of each, and those that the others wait for."""

from __future__ import annotations

from collections.abc import Sequence

from sanbu.display.tables import Column, FittedTable
from sanbu.memory.parts import size
from sanbu.parallel.pace import Rank, late

MOST = 16  # ranks that are listed; of more, those that wait least and take most memory
COLUMNS = [Column("rank"), Column("machine", 4, False), Column("speed"), Column("waiting", 1), Column("memory", 2)]


def table(ranks: Sequence[Rank], amount: float, unit: str) -> str:
    """A line per rank, and a line per rank that is late; empty without ranks. amount: units per row."""
    if not ranks:
        return ""
    shown = list(range(len(ranks)))
    if len(ranks) > MOST:
        waiting = sorted(shown, key=lambda number: ranks[number].get("waiting", 0.0))[: MOST // 2]
        largest = sorted(shown, key=lambda number: -ranks[number]["memory_bytes"])[: MOST // 2]
        shown = sorted({*waiting, *largest})
    rows = [cells(number, ranks[number], amount, unit) for number in shown]
    lines = [str(FittedTable(COLUMNS, rows))]
    for number, factor in late(ranks).items():
        place = f"rank {number} on {ranks[number]['machine']}"
        lines.append(f"{place} computes {factor:.1f} times as long as the others, which wait for it")
    return "\n".join(lines)


def cells(number: int, rank: Rank, amount: float, unit: str) -> list[str]:
    """One rank."""
    seconds = max(rank["seconds"], 1e-9)
    waiting = f"{100 * rank['waiting'] / seconds:.0f} %" if "waiting" in rank else ""
    speed = f"{rank['rows'] * amount / seconds:,.0f} {unit}"
    return [str(number), rank["machine"], speed, waiting, size(rank["memory_bytes"])]
