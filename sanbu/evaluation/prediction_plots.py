"""A picture of predictions: reliability and confusions of classes, or numbers against their targets, and importance."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BINS, MOST = 10, 15


def draw(
    target: np.ndarray,
    predicted: np.ndarray,
    classes: Sequence[str],
    importance: Mapping[str, float],
    interval: tuple[np.ndarray, np.ndarray, float] | None = None,
) -> bytes:
    """A PNG. predicted: probabilities [B, K] of classes, or numbers [B, O]."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    count = (2 if classes else 1) + bool(importance)
    canvas = Figure(figsize=(4.6 * count, 4.4), layout="constrained")
    axes = list(canvas.subplots(1, count, squeeze=False)[0])
    if classes:
        draw_reliability(axes.pop(0), target, predicted)
        draw_confusion(axes.pop(0), target, predicted, classes)
    else:
        draw_numbers(axes.pop(0), target, predicted, interval)
    if importance:
        draw_importance(axes.pop(0), importance)
    written = io.BytesIO()
    canvas.savefig(written, format="png", dpi=110)
    return written.getvalue()


def draw_reliability(axes: Any, target: np.ndarray, law: np.ndarray) -> None:
    """Accuracy against confidence in ten bins; the size of a point is its number of rows."""
    confidence, right = law.max(1), law.argmax(1) == target
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    full = count > 0
    mean = np.bincount(place, confidence, minlength=BINS)[full] / count[full]
    accuracy = np.bincount(place, right, minlength=BINS)[full] / count[full]
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.plot(mean, accuracy, color="C0", linewidth=1)
    axes.scatter(mean, accuracy, s=20 + 200 * count[full] / count.sum(), color="C0")
    axes.set(xlabel="confidence", ylabel="accuracy", title="reliability", xlim=(0, 1.05), ylim=(0, 1.05))


def draw_confusion(axes: Any, target: np.ndarray, law: np.ndarray, classes: Sequence[str]) -> None:
    """Shares of each true class; the counts are written where there is room."""
    matrix = np.zeros((len(classes), len(classes)))
    np.add.at(matrix, (target, law.argmax(1)), 1)
    axes.imshow(matrix / np.maximum(matrix.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="taken for", ylabel="is", title="confusion")
    if len(classes) > MOST:
        return
    axes.set_xticks(range(len(classes)), [plain(name) for name in classes], rotation=90)
    axes.set_yticks(range(len(classes)), [plain(name) for name in classes])
    for row, column in np.argwhere(matrix > 0):
        share = matrix[row, column] / matrix[row].sum()
        axes.text(column, row, f"{matrix[row, column]:.0f}", ha="center", va="center", fontsize=8,
                  color="white" if share > 0.5 else "black")  # fmt: skip


def draw_numbers(
    axes: Any, target: np.ndarray, predicted: np.ndarray, interval: tuple[np.ndarray, np.ndarray, float] | None
) -> None:
    """Predictions against targets, with their intervals."""
    first = target.reshape(len(target), -1)[:, 0]
    every = np.concatenate((first, predicted[:, 0]))
    ends = [every.min(), every.max()]
    axes.plot(ends, ends, color="0.7", linewidth=1)
    if interval is not None:
        axes.vlines(first, interval[0], interval[1], color="C0", alpha=0.3, linewidth=1)
    axes.scatter(first, predicted[:, 0], s=10, alpha=0.6)
    title = "predictions" if interval is None else f"predictions, intervals of {100 * interval[2]:g} %"
    axes.set(xlabel="is", ylabel="predicted", title=title)


def draw_importance(axes: Any, importance: Mapping[str, float]) -> None:
    """Bars of the most important columns."""
    shown = list(importance.items())[:MOST][::-1]
    axes.barh([plain(name) for name, _ in shown], [value for _, value in shown], color="C0")
    axes.set(xlabel="rise of the loss when shuffled", title="importance")


def plain(name: str) -> str:
    """A name that fits beside a chart, with no sign that matplotlib reads as mathematics."""
    return (name if len(name) <= 20 else name[:19] + "…").replace("$", r"\$")
