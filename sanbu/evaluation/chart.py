"""The chart of a comparison: quality against speed, and against model evaluations; every row can be seen."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

from sanbu.evaluation.picture_metrics import Row

SMALLEST, LARGEST = 60, 600  # area of a bubble, in points squared, for coverage 0 and 1
STEPS = re.compile(r"(, )?\d+ steps?$")


def plot(rows: Sequence[Row], title: str) -> bytes:
    """A PNG with two charts of quality: against speed (bubble size: diversity), and against model evaluations."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(13, 5.5), layout="constrained")
    speed, curve = canvas.subplots(1, 2)
    models = [row for row in rows if not row.floor]
    groups: dict[str, list[Row]] = {}
    for row in models:
        groups.setdefault(row.group or row.name, []).append(row)
    labels = ("ms per picture, one thread (lower is faster)", "model evaluations per picture")
    for axes, label in zip((speed, curve), labels, strict=True):  # scales first: the margins follow them
        axes.set(xscale="log", xlabel=label, ylabel="KID x1e3 on pixels (lower is better)")
        axes.set_yscale("symlog", linthresh=threshold(models))
        axes.margins(0.1)
        axes.grid(alpha=0.3)
        plot_floors(axes, rows)
    for name, group in groups.items():
        plot_group(speed, curve, literal(name), group)
    if groups:
        legend = canvas.legend(
            *speed.get_legend_handles_labels(), loc="outside right upper", title="bubble: coverage", fontsize=8
        )
        handles: list[Any] = legend.legend_handles
        for handle in handles:
            handle.set_sizes([60])
    canvas.suptitle(literal(title), wrap=True)
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the font may lack the letters of a run's name
        canvas.savefig(written, format="png", dpi=110)
    return written.getvalue()


def plot_group(speed: Any, curve: Any, name: str, rows: Sequence[Row]) -> None:
    """The rows of one contestant in both charts; rows of one sampler are joined in the order of their evaluations."""
    times = [row.ms_per_image or 1e-3 for row in rows]
    kids = [1000 * row.kid for row in rows]
    sizes = [SMALLEST + (LARGEST - SMALLEST) * row.coverage**2 for row in rows]
    points = speed.scatter(times, kids, sizes, alpha=0.5, label=name)
    for row, x, y in zip(rows, times, kids, strict=True):
        speed.annotate(literal(label_of(row)), (x, y), fontsize=7, ha="center")
    colour = points.get_facecolor()[0][:3]
    samplers: dict[str, list[Row]] = {}
    for row in rows:
        samplers.setdefault(STEPS.sub("", label_of(row)), []).append(row)
    for found in samplers.values():
        ordered = sorted(found, key=lambda row: row.nfe)
        curve.plot([max(1, row.nfe) for row in ordered], [1000 * row.kid for row in ordered], "o-", color=colour)


def plot_floors(axes: Any, rows: Sequence[Row]) -> None:
    """A dotted line at the KID of each baseline row; names beside each other, as lines may be close."""
    for number, row in enumerate(row for row in rows if row.floor):
        y = 1000 * row.kid
        axes.axhline(y, color="grey", linewidth=0.7, linestyle=":")
        place = ("axes fraction", "data")
        axes.annotate(row.name, (0.005 + 0.11 * number, y), xycoords=place, fontsize=7, color="grey")


def threshold(rows: Sequence[Row]) -> float:
    """The KID x 1e3 below which the axis is linear: four times the median error, at least 0.1; above, logarithmic."""
    errors = sorted(1000 * row.kid_error for row in rows if row.kid_error)
    return max(0.1, 4 * errors[len(errors) // 2]) if errors else 1.0


def label_of(row: Row) -> str:
    """The way to sample of a row, without the name of its contestant."""
    return row.name.removeprefix(row.group).removeprefix(", ") if row.group else ""


def literal(text: str) -> str:
    """A text that matplotlib draws as it is: no formula between dollars, and no entry lost to a first underscore."""
    return ("\u2009" if text.startswith("_") else "") + text.replace("$", r"\$")
