"""A comparison as people read it: a table, a picture, a page, and a few plain sentences."""

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
from sanbu.files import replacing, write_text

Column = tuple[str, Callable[[Row], str]]


def fixed(name: str, digits: int = 2, scale: float = 1.0) -> Callable[[Row], str]:
    """A figure of a row, with its deviation over seeds."""

    def text(row: Row) -> str:
        value = getattr(row, name)
        if value is None:
            return ""
        spread = row.spread.get(name)
        return f"{value * scale:.{digits}f}" + (f" ±{spread * scale:.{digits}f}" if spread else "")

    return text


COLUMNS: tuple[Column, ...] = (
    ("name", lambda row: row.name),
    ("KID x1e3", fixed("kid", 2, 1000)),
    ("Frechet", fixed("frechet")),
    ("precision", fixed("precision")),
    ("recall", fixed("recall")),
    ("coverage", fixed("coverage")),
    ("copies", fixed("copy_rate")),
    ("classes off", fixed("class_variation")),
    ("bits/dim", fixed("bits_per_dimension")),
    ("NFE", lambda row: "" if row.floor else str(row.nfe)),
    ("ms/picture", lambda row: "" if row.floor else fixed("ms_per_image", 3)(row).split(" ")[0]),
    ("ms alone", lambda row: "" if row.floor else fixed("ms_alone", 1)(row).split(" ")[0]),
    ("trained, CPU s", lambda row: "" if row.floor else f"{row.training_cpu_seconds:.0f}"),
    ("MB", lambda row: "" if row.memory_mb is None else f"{row.memory_mb:.0f}"),
    ("parameters", lambda row: "" if row.floor else f"{row.parameters:,}"),
)


def write(rows: Sequence[Row], folder: Path, title: str) -> dict[str, Any]:
    """compare.json, compare.png and compare.html in the folder; returns what the JSON holds."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"title": title, "rows": [asdict(row) for row in rows], "advice": advice(rows)}
    write_text(folder / "compare.json", json.dumps(content, indent=1) + "\n")
    picture = plot(rows, title)
    with replacing(folder / "compare.png") as temporary:
        temporary.write_bytes(picture)
    write_text(folder / "compare.html", page(rows, title, picture))
    return content


def advice(rows: Sequence[Row]) -> list[str]:
    """What to pick for what, in plain words, from the figures alone."""
    learnt = [row for row in rows if not row.floor]
    floors = {row.name: row for row in rows if row.floor}
    honest = [row for row in learnt if row.copy_rate <= 0.1]
    if not honest:
        return ["Every run copies its training pictures: train shorter, on more pictures, or with more regularisation."]
    best = min(honest, key=lambda row: row.kid)
    varied = max(honest, key=lambda row: row.coverage)
    said = [
        f"Quality: {best.name} is nearest to unseen pictures (KID {1000 * best.kid:.2f}e-3).",
        f"Diversity: {varied.name} covers most of them (coverage {varied.coverage:.2f}, recall {varied.recall:.2f}).",
    ]
    good = [row for row in honest if row.coverage >= 0.85 and row.ms_per_image is not None]
    if good:
        fast = min(good, key=lambda row: row.ms_per_image or 0.0)
        said.append(
            f"Speed: {fast.name} draws a picture in {fast.ms_per_image:.3f} ms and still covers {fast.coverage:.2f}."
        )
    for strategy, what in (
        ("pixel-by-pixel", "exactly"),
        ("one-shot", "at most (a bound)"),
    ):  # never one against the other
        likely = [row for row in learnt if row.strategy == strategy and row.bits_per_dimension is not None]
        if likely:
            row = min(likely, key=lambda row: row.bits_per_dimension or 0.0)
            said.append(
                f"Likelihood: {row.name} gives unseen pictures {what} {row.bits_per_dimension:.2f} bits a dimension."
            )
    if mixture := floors.get("GMM-60"):
        better = [row.name for row in learnt if row.kid < mixture.kid]
        said.append(f"Better than a mixture of 60 Gaussians by KID: {', '.join(better) or 'none'}.")
    if any(row.frechet is None for row in rows):
        said.append("Frechet distance left out: there are fewer samples than pixels, and it would measure that.")
    if copying := [row.name for row in learnt if row.copy_rate > 0.1]:
        said.append(f"Copies more than a tenth of its samples: {', '.join(copying)}.")
    return said


def plain(row: Row) -> dict[str, Any]:
    """A row's figures, those that do not apply left out."""
    return {name: value for name, value in asdict(row).items() if value is not None and name not in ("name", "spread")}


def table(rows: Sequence[Row]) -> Any:
    """The rows as a table for the terminal."""
    from rich.table import Table

    made = Table(*(name for name, _ in COLUMNS), box=None, pad_edge=False)
    for row in rows:
        made.add_row(*(text(row) for _, text in COLUMNS), style="dim" if row.floor else None)
    return made


def page(rows: Sequence[Row], title: str, picture: bytes) -> str:
    """One self-contained HTML page."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name, _ in COLUMNS)
    body = "".join(
        f"<tr class={'floor' if row.floor else 'run'}>"
        + "".join(f"<td>{html.escape(text(row))}</td>" for _, text in COLUMNS)
        + "</tr>"
        for row in rows
    )
    said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in advice(rows))
    data = base64.b64encode(picture).decode()
    return PAGE.format(title=html.escape(title), head=head, body=body, said=said, data=data)


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body{{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em}}
table{{border-collapse:collapse;font-size:13px}} th,td{{padding:.2em .6em;text-align:right;white-space:nowrap}}
td:first-child,th:first-child{{text-align:left}} tr.floor{{color:#888}} tr:hover{{background:#eef}}
div{{overflow-x:auto}} img{{max-width:100%}}
</style>
<h1>{title}</h1><ul>{said}</ul>
<img alt="quality against speed, and against evaluations" src="data:image/png;base64,{data}">
<div><table><tr>{head}</tr>{body}</table></div>
<p>Grey rows are baselines that learnt nothing about pictures: no model should be worse. KID: unbiased kernel distance
on pixels (0 is best; differences below 0.4 are ties). Coverage: fraction of unseen pictures with a sample near them.
Copies: fraction of samples that are closer to a training picture than 95% of unseen pictures are. ±: standard
deviation over seeds.</p></html>
"""


def plot(rows: Sequence[Row], title: str) -> bytes:
    """Quality against speed, diversity as the size of the bubble; and quality against evaluations of the model. PNG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.5), layout="constrained")
    speed, curve = figure.subplots(1, 2)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if not row.floor:
            groups.setdefault(row.name.split(",")[0], []).append(row)
    for name, found in groups.items():
        times = [row.ms_per_image or 1e-3 for row in found]
        kids = [1000 * row.kid for row in found]
        speed.scatter(times, kids, [600 * row.coverage**2 for row in found], alpha=0.5, label=name)
        for row, x, y in zip(found, times, kids, strict=True):
            speed.annotate(row.name.partition(", ")[2], (x, y), fontsize=7, ha="center")
        single = sorted({row.nfe: row for row in found if "Heun" not in row.name or name == "edm"}.items())
        curve.plot([nfe for nfe, _ in single], [1000 * row.kid for _, row in single], "o-", label=name)
    for axes, label in (
        (speed, "ms a picture, one thread (lower is faster)"),
        (curve, "evaluations of the model a picture"),
    ):
        for row in rows:
            if row.floor and row.name in ("real half", "one Gaussian", "GMM-60"):
                axes.axhline(1000 * row.kid, color="grey", linewidth=0.7, linestyle=":")
                axes.annotate(
                    row.name, (0.005, 1000 * row.kid), xycoords=("axes fraction", "data"), fontsize=7, color="grey"
                )
        axes.set(xscale="log", xlabel=label, ylabel="KID x1e3 on pixels (lower is better)")
        axes.grid(alpha=0.3)
    legend = speed.legend(title="bubble: coverage", fontsize=8)
    for handle in legend.legend_handles:
        handle.set_sizes([60])
    figure.suptitle(title)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=110)
    return written.getvalue()
