"""Plots of a run's metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sanbu.files import replace_atomically
from sanbu.run import Run


def canvas() -> tuple[Any, Any]:
    """An empty figure and its axes, drawn without a screen."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    return figure, figure.add_subplot()


def save_figure(figure: Any, path: Path) -> Path:
    """Write the figure atomically."""
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path


def draw_curves(run: Run) -> Path:
    """Every plot that this run has figures for; returns the loss curve."""
    policy_curve(run)
    shots_curve(run)
    return loss_curve(run)


def loss_curve(run: Run) -> Path:
    """loss.png in the run folder: training loss, smoothed, and held-out loss, over steps."""
    rows = run.metrics()
    figure, axes = canvas()
    for name in sorted(
        {key for row in rows for key in row if key == "loss" or (key.endswith("/loss") and key != "held_out/loss")}
    ):
        points = [(row["step"], row[name]) for row in rows if name in row]
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, alpha=0.25, linewidth=0.8, color="C0")
        axes.plot(steps, smooth(values), label=name, color="C0")
    looks = [(row["step"], row["held_out/loss"]) for row in rows if "held_out/loss" in row]
    if looks:
        axes.plot(*zip(*looks, strict=True), "o-", color="C1", label="held out")
    axes.set(xlabel="step", ylabel="loss", title=run.recipe.name)
    if axes.lines:
        axes.legend()
    axes.grid(alpha=0.3)
    return save_figure(figure, run.folder / "loss.png")


def smooth(values: tuple[float, ...], weight: float = 0.95) -> list[float]:
    """Exponential average, corrected for its start."""
    total, mass, smoothed = 0.0, 0.0, []
    for value in values:
        total = weight * total + (1 - weight) * value
        mass = weight * mass + (1 - weight)
        smoothed.append(total / mass)
    return smoothed


def policy_curve(run: Run) -> Path | None:
    """policy.png: held-out right answers (gold) and reward (proxy) over the KL from the reference, if recorded."""
    looks = [row for row in run.metrics() if "held_out/kl" in row and "held_out/exact" in row]
    if not looks:
        return None
    figure, axes = canvas()
    kl = [row["held_out/kl"] for row in looks]
    axes.plot(kl, [row["held_out/exact"] for row in looks], "o-", color="C0", label="right answers (gold)")
    axes.set(xlabel="KL from the reference, nats per answer", ylabel="right answers", title=run.recipe.name)
    other = axes.twinx()
    other.plot(kl, [row["held_out/reward"] for row in looks], "s--", color="C1", label="reward (proxy)")
    other.set_ylabel("reward")
    axes.legend(handles=[*axes.lines, *other.lines], loc="lower right")
    axes.grid(alpha=0.3)
    return save_figure(figure, run.folder / "policy.png")


def shots_curve(run: Run) -> Path | None:
    """shots.png: held-out accuracy by the number of examples in the prompt, if recorded."""
    looks = [row for row in run.metrics() if "held_out/accuracy_0" in row]
    if not looks:
        return None
    figure, axes = canvas()
    for number, row in enumerate(looks):
        shots = [k for k in range(len(row)) if f"held_out/accuracy_{k}" in row]
        values = [row[f"held_out/accuracy_{k}"] for k in shots]
        axes.plot(
            shots,
            values,
            "o-",
            color="C0",
            alpha=0.15 + 0.85 * (number + 1) / len(looks),
            label=f"step {row['step']:,}",
        )
    axes.set(xlabel="examples in the prompt", ylabel="accuracy", title=run.recipe.name, ylim=(0, 1.02))
    axes.legend()
    axes.grid(alpha=0.3)
    return save_figure(figure, run.folder / "shots.png")
