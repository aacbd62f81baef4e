"""Health checks for reinforcement learning: each metric with its normal range, and what to do outside of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sanbu.display.tables import Column, FittedTable

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Gauge:
    """A metric, its normal range, and advice for values below and above."""

    name: str
    label: str
    low: float
    high: float
    below: str = ""
    above: str = ""


TOO_FAR = "updates move too far in one round; lower the learning rate or objective.epochs"
GAUGES = (
    Gauge("reward", "reward", float("-inf"), float("inf")),
    Gauge("exact", "right answers", 0.0, 1.0),
    Gauge(
        "kl",
        "KL from reference",
        -0.1,
        8.0,
        "negative: answers are not sampled from the policy that is scored (filters, temperature, other weights?)",
        "the policy is far from its reference; raise objective.kl or lower the learning rate",
    ),
    Gauge(
        "entropy",
        "entropy per token",
        0.005,
        3.0,
        "the policy is nearly deterministic; raise objective.kl, or stop earlier",
        "answers are close to noise; lower the learning rate, or start from a better run",
    ),
    Gauge("ratio", "probability ratio", 0.9, 1.1, TOO_FAR, TOO_FAR),
    Gauge("update_kl", "KL per update", 0.0, 0.05, "", TOO_FAR),
    Gauge(
        "clip_fraction",
        "clip fraction",
        0.0,
        0.3,
        "",
        "much of each update is clipped away; lower the learning rate or objective.epochs",
    ),
    Gauge(
        "explained_variance",
        "explained variance",
        0.0,
        1.0,
        "the value function is worse than a constant; train it longer or raise objective.value_weight",
    ),
    Gauge(
        "end_rate",
        "answers that end",
        0.9,
        1.0,
        "answers are cut off; raise strategy.max_tokens, or end answers in the training data",
    ),
)


def is_policy(row: Row) -> bool:
    """Whether a row of metrics comes from a policy objective."""
    return "kl" in row and "clip_fraction" in row


def panel(rows: Sequence[Row]) -> FittedTable:
    """The last round as a table: metric, value, verdict, normal range."""
    row, lines, styles = rows[-1], [], []
    for gauge in GAUGES:
        if gauge.name in row:
            fine = gauge.low <= row[gauge.name] <= gauge.high
            sides = (f"{side:g}" if abs(side) < 1e9 else "any" for side in (gauge.low, gauge.high))
            span = " to ".join(sides).replace("any to any", "rising")
            lines.append([gauge.label, f"{row[gauge.name]:.3f}", "ok" if fine else "check", span])
            styles.append("" if fine else "red")
    columns = (Column("metric", number=False), Column("value"), Column("", number=False), Column("normal range", 1))
    return FittedTable(columns, lines, styles, f"health at step {row['step']:,}", "wider terminal")


def diagnose(rows: Sequence[Row]) -> list[str]:
    """Warnings about the last round and the course of the run; empty when all is well."""
    row = rows[-1]
    found = []
    for gauge in GAUGES:
        value = row.get(gauge.name)
        if value is not None and not gauge.low <= value <= gauge.high:
            meaning = gauge.below if value < gauge.low else gauge.above
            found.append(f"{gauge.label} is {value:.3f}: {meaning}")
    warning = overoptimisation(rows)
    return [*found, warning] if warning else found


def overoptimisation(rows: Sequence[Row]) -> str:
    """A warning when held-out reward rises while right answers fall by more than their noise; empty otherwise."""
    evaluations = [row for row in rows if "held_out/exact" in row and "held_out/reward" in row]
    if len(evaluations) < 2:
        return ""
    best, last = max(evaluations, key=lambda row: row["held_out/exact"]), evaluations[-1]
    lost = best["held_out/exact"] - last["held_out/exact"]
    gained = last["held_out/reward"] - best["held_out/reward"]
    if lost < 0.03 or gained <= 0:
        return ""
    return (
        f"over-optimisation: since step {best['step']:,} the reward rose by {gained:.2f} while right answers fell from"
        f" {best['held_out/exact']:.2f} to {last['held_out/exact']:.2f}: the policy exploits the reward model."
        " Stop here (schedule.patience), raise objective.kl, or train the reward model on these answers"
    )
