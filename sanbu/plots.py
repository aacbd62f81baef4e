"""Pictures of a run."""

from __future__ import annotations

from pathlib import Path

from sanbu.files import replacing
from sanbu.run import Run


def loss_curve(run: Run) -> Path:
    """loss.png in the run folder: training loss, smoothed, and held-out loss, over steps."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    rows = run.metrics()
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in sorted(
        {key for row in rows for key in row if key == "loss" or (key.endswith("/loss") and key != "held_out/loss")}
    ):
        steps, values = zip(*((row["step"], row[name]) for row in rows if name in row), strict=True)
        axes.plot(steps, values, alpha=0.25, linewidth=0.8, color="C0")
        axes.plot(steps, smooth(values), label=name, color="C0")
    looks = [(row["step"], row["held_out/loss"]) for row in rows if "held_out/loss" in row]
    if looks:
        axes.plot(*zip(*looks, strict=True), "o-", color="C1", label="held out")
    axes.set(xlabel="step", ylabel="loss", title=run.recipe.name)
    axes.legend()
    axes.grid(alpha=0.3)
    path = run.folder / "loss.png"
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path


def smooth(values: tuple[float, ...], weight: float = 0.95) -> list[float]:
    """Exponential average, corrected for its start."""
    total, mass, smoothed = 0.0, 0.0, []
    for value in values:
        total = weight * total + (1 - weight) * value
        mass = weight * mass + (1 - weight)
        smoothed.append(total / mass)
    return smoothed
