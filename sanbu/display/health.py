"""Is learning from rewards well? Each figure with the range it should keep, and in plain words what it means when it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Gauge:
    """A figure, the range it should keep, and what it means below and above."""

    name: str
    label: str
    low: float
    high: float
    below: str = ""
    above: str = ""


GAUGES = (
    Gauge("reward", "reward of an answer", float("-inf"), float("inf")),
    Gauge("exact", "right answers, where known", 0.0, 1.0),
    Gauge(
        "kl", "KL from the reference, an answer", -0.1, 8.0,
        "negative: answers are not drawn from the policy that is scored (a filter, another temperature, other weights?)",
        "the policy is far from where it began; raise objective.kl or lower the learning rate",
    ),
    Gauge(
        "entropy", "entropy of a token, nats", 0.005, 3.0,
        "the policy nearly always says the same; raise objective.kl, or stop earlier",
        "answers are close to noise; lower the learning rate, or begin from a better run",
    ),
    Gauge(
        "ratio", "new over old probability", 0.9, 1.1,
        "updates move too far in one round; lower the learning rate or objective.epochs",
        "updates move too far in one round; lower the learning rate or objective.epochs",
    ),
    Gauge("update_kl", "KL of an update", 0.0, 0.05, "", "one update moves too far; lower the learning rate or objective.epochs"),
    Gauge(
        "clip_fraction", "tokens held by the clip", 0.0, 0.3,
        "", "much of each update is thrown away; lower the learning rate or objective.epochs",
    ),
    Gauge(
        "explained_variance", "of rewards, by the value", 0.0, 1.0,
        "the value function is worse than a constant; give it more steps or a higher objective.value_weight", "",
    ),
    Gauge("end_rate", "answers that end", 0.9, 1.0, "answers are cut off: give strategy.max_tokens room, or end them in the data", ""),
)  # fmt: skip


def is_policy(row: Row) -> bool:
    """Whether a row of metrics comes from learning from rewards."""
    return "kl" in row and "clip_fraction" in row


def panel(rows: Sequence[Row]) -> Table:
    """The last round as a table: figure, now, range, verdict."""
    row = rows[-1]
    table = Table(title=f"health at step {row['step']:,}", title_justify="left")
    for title in ("figure", "now", "should be", ""):
        table.add_column(title)
    for gauge in GAUGES:
        if gauge.name in row:
            fine = gauge.low <= row[gauge.name] <= gauge.high
            sides = (f"{side:g}" if abs(side) < 1e9 else "any" for side in (gauge.low, gauge.high))
            span = " to ".join(sides).replace("any to any", "rising")
            table.add_row(gauge.label, f"{row[gauge.name]:.3f}", span, "[green]well[/]" if fine else "[red]look[/]")
    return table


def diagnose(rows: Sequence[Row]) -> list[str]:
    """What is wrong with the last round, and with the course of the run, in plain words; nothing where all is well."""
    row = rows[-1]
    found = []
    for gauge in GAUGES:
        value = row.get(gauge.name)
        if value is not None and not gauge.low <= value <= gauge.high:
            meaning = gauge.below if value < gauge.low else gauge.above
            found.append(f"{gauge.label} is {value:.3f}: {meaning}")
    return found + ([gamed] if (gamed := overoptimised(rows)) else [])


def overoptimised(rows: Sequence[Row]) -> str:
    """The reward of held-out answers has risen since the check was best, and the check has fallen by more than its noise."""
    looks = [row for row in rows if "held_out/exact" in row and "held_out/reward" in row]
    if len(looks) < 2:
        return ""
    best, last = max(looks, key=lambda row: row["held_out/exact"]), looks[-1]
    lost = best["held_out/exact"] - last["held_out/exact"]
    gained = last["held_out/reward"] - best["held_out/reward"]
    if lost < 0.03 or gained <= 0:
        return ""
    return (
        f"over-optimisation: since step {best['step']:,} the reward rose by {gained:.2f} while right answers fell from"
        f" {best['held_out/exact']:.2f} to {last['held_out/exact']:.2f}; the policy has found what the reward model likes and people"
        f" do not. Stop here (schedule.patience), raise objective.kl, or train the reward model on these answers"
    )
