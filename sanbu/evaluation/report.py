"""Reports of a comparison: a table and an HTML page, with the chart of `chart.py` and the sentences of `advice.py`."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sanbu.display.tables import Column, FittedTable
from sanbu.evaluation.advice import advice, how_to_tell
from sanbu.evaluation.chart import plot
from sanbu.evaluation.picture_metrics import Row
from sanbu.files import replace_atomically, write_text


def figure(name: str, digits: int = 2, scale: float = 1.0, spread: bool = True) -> Callable[[Row], str]:
    """A function that formats one figure of a row, with its standard deviation over seeds."""

    def text(row: Row) -> str:
        value = getattr(row, name)
        if value is None:
            return ""
        deviation = row.spread.get(name) if spread else None
        after = f" ±{deviation * scale:.{digits}f}" if deviation else ""
        return f"{round(value * scale, digits) + 0.0:.{digits}f}{after}"  # no minus before a zero

    return text


def of_models(text: Callable[[Row], str]) -> Callable[[Row], str]:
    """The same text for rows of models, and nothing for baseline rows."""
    return lambda row: "" if row.floor else text(row)


COLUMNS: tuple[tuple[Column, Callable[[Row], str]], ...] = (  # and the text of a row
    (Column("name", number=False), lambda row: row.name),
    (Column("KID x1e3"), figure("kid", 2, 1000)),
    (Column("error", 4), figure("kid_error", 2, 1000, spread=False)),
    (Column("Frechet", 7), figure("frechet")),
    (Column("precision", 5), figure("precision")),
    (Column("recall", 6), figure("recall")),
    (Column("coverage"), figure("coverage")),
    (Column("copies", 2), figure("copy_rate")),
    (Column("classes off", 11), figure("class_variation")),
    (Column("bits/dim", 8), figure("bits_per_dimension")),
    (Column("NFE", 1), of_models(lambda row: str(row.nfe))),
    (Column("ms/picture"), of_models(figure("ms_per_image", 3, spread=False))),
    (Column("ms alone", 10), of_models(figure("ms_alone", 1, spread=False))),
    (Column("trained, CPU s", 3), of_models(figure("training_cpu_seconds", 0, spread=False))),
    (Column("MB", 12), figure("memory_mb", 0, spread=False)),
    (Column("parameters", 9), of_models(lambda row: f"{row.parameters:,}")),
)


@dataclass(frozen=True)
class PictureReport:
    """The rows of a comparison of pictures, as a report."""

    rows: Sequence[Row]
    title: str

    def write(self, folder: Path) -> dict[str, Any]:
        """Write compare.json, compare.png and compare.html."""
        return write(self.rows, folder, self.title)

    def table(self) -> FittedTable:
        """The rows for the terminal."""
        return table(self.rows)


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


def row_figures(row: Row) -> dict[str, Any]:
    """The figures of a row that are not None."""
    figures = {name: value for name, value in asdict(row).items() if value is not None}
    return {name: value for name, value in figures.items() if name not in ("name", "spread")}


def table(rows: Sequence[Row]) -> FittedTable:
    """The rows as a table for the terminal."""
    return FittedTable(
        [column for column, _ in COLUMNS],
        [[text(row) for _, text in COLUMNS] for row in rows],
        ["dim" if row.floor else "" for row in rows],
        rest="wider terminal, or compare.html",
    )


def page(rows: Sequence[Row], title: str, picture: bytes) -> str:
    """One self-contained HTML page."""
    head = "".join(f"<th>{html.escape(column.title)}</th>" for column, _ in COLUMNS)
    body = "".join(
        f"<tr class={'floor' if row.floor else 'run'}>"
        + "".join(f"<td>{html.escape(text(row))}</td>" for _, text in COLUMNS)
        + "</tr>"
        for row in rows
    )
    sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in advice(rows))
    data = base64.b64encode(picture).decode()
    ties = how_to_tell(rows, lambda value: f"{1000 * value:.2f}")
    return PAGE.format(title=html.escape(title), head=head, body=body, sentences=sentences, data=data, ties=ties)


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
<p>Grey rows are baselines without a learned model, from the best that is possible to noise; a good model is better
than most of them. KID: unbiased kernel distance on pixels (0 is best); error: its standard error. {ties} Coverage:
fraction of unseen pictures with a sample near them. Copies: fraction of samples that are closer to a training picture
than 95% of unseen pictures are. ±: standard deviation over seeds.</p></html>
"""
