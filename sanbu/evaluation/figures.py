"""A comparison as figures: rows, the columns that show them, curves and sentences; a table, a page and a JSON file."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sanbu.config import ConfigError, nearest
from sanbu.display.tables import Column, FittedTable
from sanbu.files import replace_atomically, write_text

ACROSS = 3  # panels in a line


@dataclass(frozen=True)
class Entry:
    """What `sanbu compare NAME` was asked for. seconds, seeds: None is the contest's own. settings: name=value."""

    folder: Path
    seconds: float | None = None
    seeds: int | None = None
    settings: tuple[str, ...] = ()

    def values(self, contest: str, **allowed: str) -> dict[str, str]:
        """The settings by name. allowed: what each may be, for the error. Raises ConfigError for another name."""
        found = {}
        for text in self.settings:
            name, _, value = text.removeprefix("data.").partition("=")
            if not value or name not in allowed:
                names = ", ".join(f"{each}={what}" for each, what in allowed.items()) or "no settings"
                raise ConfigError(f"compare {contest}: given {text!r}, allowed: {names}{nearest(name, allowed)}")
            found[name] = value
        return found


class Report(Protocol):
    """The result of a contest."""

    def write(self, folder: Path) -> dict[str, Any]:
        """Write compare.html, compare.png and compare.json; returns the content of the JSON, with `advice`."""

    def table(self) -> FittedTable:
        """The rows for the terminal."""


@dataclass(frozen=True)
class Shown:
    """A column: the key of its figure in a row, its heading, its format, and its rank (see `Column`)."""

    key: str
    title: str
    format: str = ".3f"
    rank: int = 0

    def text(self, row: Mapping[str, Any]) -> str:
        """The figure of a row as text; empty where the row has none."""
        value = row.get(self.key)
        if value is None or isinstance(value, str):
            return value or ""
        return format(value, self.format)


@dataclass(frozen=True)
class Panel:
    """A chart of the page: a line per name, points (x, y)."""

    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Figures:
    """Rows of figures with the columns that show them. floors: names of rows that are baselines, printed in grey.

    notes: sentences for the page that say how to read the table.
    """

    title: str
    columns: Sequence[Shown]
    rows: Sequence[Mapping[str, Any]]
    advice: Sequence[str] = ()
    panels: Sequence[Panel] = ()
    floors: frozenset[str] = field(default_factory=frozenset)
    notes: str = ""

    def table(self) -> FittedTable:
        """The rows as a table for the terminal."""
        columns = [Column(each.title, each.rank, each.format != "s") for each in self.columns]
        cells = [[each.text(row) for each in self.columns] for row in self.rows]
        styles = ["dim" if row["name"] in self.floors else "" for row in self.rows]
        return FittedTable(columns, cells, styles, rest="wider terminal, or compare.html")

    def write(self, folder: Path) -> dict[str, Any]:
        """Write compare.json, compare.html and, where there are panels, compare.png."""
        folder.mkdir(parents=True, exist_ok=True)
        curves = [{"x": panel.x, "y": panel.y, "lines": dict(panel.lines)} for panel in self.panels]
        content = {"title": self.title, "rows": list(self.rows), "advice": list(self.advice), "curves": curves}
        write_text(folder / "compare.json", json.dumps(content, indent=1) + "\n")
        picture = draw_panels(self.panels, self.title) if self.panels else b""
        if picture:
            with replace_atomically(folder / "compare.png") as temporary:
                temporary.write_bytes(picture)
        write_text(folder / "compare.html", self.page(picture))
        return content

    def page(self, picture: bytes) -> str:
        """One self-contained HTML page."""
        head = "".join(f"<th>{html.escape(each.title)}</th>" for each in self.columns)
        body = "".join(
            f"<tr class={'floor' if row['name'] in self.floors else 'run'}>"
            + "".join(f"<td>{html.escape(each.text(row))}</td>" for each in self.columns)
            + "</tr>"
            for row in self.rows
        )
        sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.advice)
        encoded = base64.b64encode(picture).decode()
        image = f'<img alt="curves" src="data:image/png;base64,{encoded}">' if picture else ""
        notes = html.escape(self.notes)
        return PAGE.format(
            title=html.escape(self.title), head=head, body=body, sentences=sentences, image=image, notes=notes
        )


def draw_panels(panels: Sequence[Panel], title: str) -> bytes:
    """A PNG with the panels side by side, three in a line."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    across = min(len(panels), ACROSS)
    down = -(-len(panels) // across)
    canvas = Figure(figsize=(6.5 * across, 5 * down), layout="constrained")
    every = canvas.subplots(down, across, squeeze=False).flatten().tolist()
    for axes in every[len(panels) :]:
        axes.remove()
    for axes, panel in zip(every, panels, strict=False):
        for name, points in panel.lines.items():
            axes.plot(*zip(*points, strict=True), label=name, marker="o" if len(points) < 12 else None)
        axes.set(xlabel=panel.x, ylabel=panel.y)
        axes.set_xscale("log" if panel.log_x else "linear")
        axes.set_yscale("log" if panel.log_y else "linear")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    canvas.suptitle(title.replace("$", r"\$"), wrap=True)
    written = io.BytesIO()
    canvas.savefig(written, format="png", dpi=110)
    return written.getvalue()


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body{{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em}}
table{{border-collapse:collapse;font-size:13px}} th,td{{padding:.2em .6em;text-align:right;white-space:nowrap}}
td:first-child,th:first-child{{text-align:left}} tr.floor{{color:#777}} tr:hover{{background:#eef}}
div{{overflow-x:auto}} img{{max-width:100%}}
</style>
<h1>{title}</h1><ul>{sentences}</ul>
{image}
<div><table><tr>{head}</tr>{body}</table></div>
<p>{notes}</p></html>
"""
