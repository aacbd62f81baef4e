"""Reports of a comparison: a table, a chart, an HTML page, and a few sentences of advice."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sanbu.evaluation.picture_metrics import Row
from sanbu.files import replace_atomically, write_text

Column = tuple[str, Callable[[Row], str]]  # title, and the text of a row
COPIES = 0.1  # runs with a higher copy rate are not recommended


def figure(name: str, digits: int = 2, scale: float = 1.0, spread: bool = True) -> Callable[[Row], str]:
    """A function that formats one figure of a row, with its standard deviation over seeds."""

    def text(row: Row) -> str:
        value = getattr(row, name)
        if value is None:
            return ""
        deviation = row.spread.get(name) if spread else None
        after = f" ±{deviation * scale:.{digits}f}" if deviation else ""
        return f"{value * scale:.{digits}f}{after}"

    return text


def of_models(text: Callable[[Row], str]) -> Callable[[Row], str]:
    """The same text for rows of models, and nothing for baseline rows."""
    return lambda row: "" if row.floor else text(row)


COLUMNS: tuple[Column, ...] = (
    ("name", lambda row: row.name),
    ("KID x1e3", figure("kid", 2, 1000)),
    ("Frechet", figure("frechet")),
    ("precision", figure("precision")),
    ("recall", figure("recall")),
    ("coverage", figure("coverage")),
    ("copies", figure("copy_rate")),
    ("classes off", figure("class_variation")),
    ("bits/dim", figure("bits_per_dimension")),
    ("NFE", of_models(lambda row: str(row.nfe))),
    ("ms/picture", of_models(figure("ms_per_image", 3, spread=False))),
    ("ms alone", of_models(figure("ms_alone", 1, spread=False))),
    ("trained, CPU s", of_models(figure("training_cpu_seconds", 0, spread=False))),
    ("MB", figure("memory_mb", 0, spread=False)),
    ("parameters", of_models(lambda row: f"{row.parameters:,}")),
)


def write(rows: Sequence[Row], folder: Path, title: str) -> dict[str, Any]:
    """Write compare.json, compare.png and compare.html to the folder; returns the content of the JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"title": title, "rows": [asdict(row) for row in rows], "advice": advice(rows)}
    write_text(folder / "compare.json", json.dumps(content, indent=1) + "\n")
    picture = plot(rows, title)
    with replace_atomically(folder / "compare.png") as temporary:
        temporary.write_bytes(picture)
    write_text(folder / "compare.html", page(rows, title, picture))
    return content


def advice(rows: Sequence[Row]) -> list[str]:
    """Sentences that say which run is best for what, from the figures alone."""
    models = [row for row in rows if not row.floor]
    original = [row for row in models if row.copy_rate <= COPIES]
    if not original:
        return ["Every run copies its training pictures: train shorter, on more pictures, or with more regularisation."]
    best = min(original, key=lambda row: row.kid)
    varied = max(original, key=lambda row: row.coverage)
    sentences = [
        f"Quality: {best.name} is closest to unseen pictures (KID {1000 * best.kid:.2f}e-3).",
        f"Diversity: {varied.name} covers the most of them (coverage {varied.coverage:.2f}, recall"
        f" {varied.recall:.2f}).",
        *speed_advice(original),
        *likelihood_advice(models),
    ]
    mixture = next((row for row in rows if row.name == "GMM-60" and row.floor), None)
    if mixture is not None:
        better = [row.name for row in models if row.kid < mixture.kid]
        sentences.append(f"Better than a mixture of 60 Gaussians by KID: {', '.join(better) or 'none'}.")
    if any(row.frechet is None for row in rows):
        sentences.append("The Frechet distance is left out: it needs at least as many samples as pixels.")
    copying = [row.name for row in models if row.copy_rate > COPIES]
    if copying:
        sentences.append(f"More than a tenth of the samples are copies: {', '.join(copying)}.")
    return sentences


def speed_advice(rows: Sequence[Row]) -> list[str]:
    """The fastest run of good coverage, if there is one."""
    good = [row for row in rows if row.coverage >= 0.85 and row.ms_per_image is not None]
    if not good:
        return []
    fast = min(good, key=lambda row: row.ms_per_image or 0.0)
    return [f"Speed: {fast.name} draws a picture in {fast.ms_per_image:.3f} ms, with coverage {fast.coverage:.2f}."]


def likelihood_advice(rows: Sequence[Row]) -> list[str]:
    """The best likelihood of each strategy; exact values and bounds are not compared with each other."""
    sentences = []
    for strategy, kind in (("pixel-by-pixel", "exact"), ("one-shot", "an upper bound")):
        likely = [row for row in rows if row.strategy == strategy and row.bits_per_dimension is not None]
        if likely:
            best = min(likely, key=lambda row: row.bits_per_dimension or 0.0)
            bits = f"{best.bits_per_dimension:.2f} bits per dimension ({kind})"
            sentences.append(f"Likelihood: {best.name} needs {bits} for unseen pictures.")
    return sentences


def row_figures(row: Row) -> dict[str, Any]:
    """The figures of a row that are not None."""
    figures = {name: value for name, value in asdict(row).items() if value is not None}
    return {name: value for name, value in figures.items() if name not in ("name", "spread")}


def table(rows: Sequence[Row]) -> Any:
    """The rows as a table for the terminal."""
    from rich.table import Table

    result = Table(*(name for name, _ in COLUMNS), box=None, pad_edge=False)
    for row in rows:
        result.add_row(*(text(row) for _, text in COLUMNS), style="dim" if row.floor else None)
    return result


def page(rows: Sequence[Row], title: str, picture: bytes) -> str:
    """One self-contained HTML page."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name, _ in COLUMNS)
    body = "".join(
        f"<tr class={'floor' if row.floor else 'run'}>"
        + "".join(f"<td>{html.escape(text(row))}</td>" for _, text in COLUMNS)
        + "</tr>"
        for row in rows
    )
    sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in advice(rows))
    data = base64.b64encode(picture).decode()
    return PAGE.format(title=html.escape(title), head=head, body=body, sentences=sentences, data=data)


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body{{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em}}
table{{border-collapse:collapse;font-size:13px}} th,td{{padding:.2em .6em;text-align:right;white-space:nowrap}}
td:first-child,th:first-child{{text-align:left}} tr.floor{{color:#888}} tr:hover{{background:#eef}}
div{{overflow-x:auto}} img{{max-width:100%}}
</style>
<h1>{title}</h1><ul>{sentences}</ul>
<img alt="quality against speed, and against model evaluations" src="data:image/png;base64,{data}">
<div><table><tr>{head}</tr>{body}</table></div>
<p>Grey rows are baselines without a learned model; a good model is better than they are. KID: unbiased kernel distance
on pixels (0 is best; differences below 0.4 are ties). Coverage: fraction of unseen pictures with a sample near them.
Copies: fraction of samples that are closer to a training picture than 95% of unseen pictures are. ±: standard
deviation over seeds.</p></html>
"""


def plot(rows: Sequence[Row], title: str) -> bytes:
    """A PNG with two charts of quality: against speed (bubble size: diversity), and against model evaluations."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(13, 5.5), layout="constrained")
    speed, curve = canvas.subplots(1, 2)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if not row.floor:
            groups.setdefault(row.name.split(",")[0], []).append(row)
    for name, group in groups.items():
        plot_group(speed, curve, name, group)
    for axes, label in (
        (speed, "ms per picture, one thread (lower is faster)"),
        (curve, "model evaluations per picture"),
    ):
        plot_floors(axes, rows)
        axes.set(xscale="log", xlabel=label, ylabel="KID x1e3 on pixels (lower is better)")
        axes.grid(alpha=0.3)
    legend = speed.legend(title="bubble: coverage", fontsize=8)
    for handle in legend.legend_handles:
        handle.set_sizes([60])
    canvas.suptitle(title)
    written = io.BytesIO()
    canvas.savefig(written, format="png", dpi=110)
    return written.getvalue()


def plot_group(speed: Any, curve: Any, name: str, rows: Sequence[Row]) -> None:
    """The rows of one contestant in both charts."""
    times = [row.ms_per_image or 1e-3 for row in rows]
    kids = [1000 * row.kid for row in rows]
    speed.scatter(times, kids, [600 * row.coverage**2 for row in rows], alpha=0.5, label=name)
    for row, x, y in zip(rows, times, kids, strict=True):
        speed.annotate(row.name.partition(", ")[2], (x, y), fontsize=7, ha="center")
    one_sampler = {row.nfe: row for row in rows if "Heun" not in row.name or name == "edm"}
    evaluations = sorted(one_sampler)
    kids = [1000 * one_sampler[nfe].kid for nfe in evaluations]
    curve.plot(evaluations, kids, "o-", label=name)


def plot_floors(axes: Any, rows: Sequence[Row]) -> None:
    """Dotted lines at the KID of three baseline rows."""
    for row in rows:
        if row.floor and row.name in ("real half", "one Gaussian", "GMM-60"):
            y = 1000 * row.kid
            axes.axhline(y, color="grey", linewidth=0.7, linestyle=":")
            place = ("axes fraction", "data")
            axes.annotate(row.name, (0.005, y), xycoords=place, fontsize=7, color="grey")
