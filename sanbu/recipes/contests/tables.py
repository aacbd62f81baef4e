"""Tables: generators on the same rows: utility, a two-sample test, distances, copies, CPU seconds; with bounds.

Settings: path=FILE, target=COLUMN, rows=5000 (training rows at most), types={"id":"drop"}, only=copula,tree-flow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sanbu.config import ConfigError, nearest
from sanbu.data.tables import Table
from sanbu.evaluation.figures import Entry, Figures, Panel, Shown
from sanbu.evaluation.tables.copies import WARNING
from sanbu.evaluation.tables.judge import Judge
from sanbu.evaluation.tables.measure import figures, rows_of
from sanbu.loop import train
from sanbu.machine import fitting_threads
from sanbu.progress import progress_tasks
from sanbu.recipe import Recipe
from sanbu.recipes import tables as recipes
from sanbu.run import Run

SHOWN = (
    Shown("name", "name", "s"),
    Shown("tstr_f1", "TSTR F1"),
    Shown("tstr_auc", "TSTR AUC"),
    Shown("tstr_r2", "TSTR R2"),
    Shown("c2st", "C2ST"),
    Shown("c2st_rows", "rows a side", ",d", 3),
    Shown("w_test", "W test", rank=1),
    Shown("w_train", "W train", rank=5),
    Shown("columns", "columns", rank=4),
    Shown("pairs", "pairs", rank=4),
    Shown("copies", "copies", ".4f"),
    Shown("nearer", "nearer", rank=2),
    Shown("fit_s", "fit, CPU s", ".2f", 1),
    Shown("draw_s", "draw, CPU s", ".2f", 1),
)
NOTES = (
    "Generated rows against rows that no model has seen. TSTR: four classifiers (or regressors) trained on generated"
    " rows and tested on held-out ones; the training rows are the ceiling. C2ST: the AUC with which a booster tells"
    " generated from held-out rows; 0.5 is best, and more rows a side raise it. W: mean L1 distance of optimal"
    " transport. columns, pairs: mean distance of single columns and of pairs. copies: rows that are a training row;"
    " nearer: rows that are nearer to training than to as many held-out rows, 0.5 is neutral. Copies and nearer are"
    f" {WARNING}."
)
PANELS, POINTS = 6, 60


def compete(entry: Entry) -> Figures:
    """Train every generator on the table, and measure it."""
    settings = entry.values("tables", path="FILE", target="COLUMN", rows="N", types="JSON", only="NAMES")
    data = Table(
        path=settings.get("path", "breast-cancer"),
        target=settings.get("target", "auto"),
        rows=whole(settings.get("rows", "0")),
        types=recipes.wanted(settings.get("types", "{}")),
    )
    seeds = entry.seeds or 1
    chosen = chosen_of(list(recipes.generators(data)), settings.get("only", ""))
    found: dict[str, list[dict[str, Any]]] = {}
    drawn: dict[str, Tensor] = {}
    with progress_tasks("comparing", seeds * (len(chosen) + 1)) as progress:
        for seed in range(seeds):
            judge = Judge(data.model_copy(update={"split": seed}), seed)
            for row in judge.floors():
                found.setdefault(row["name"], []).append(row)
            progress(1, "floors")
            every = recipes.generators(judge.data.config)
            for name in chosen:
                run = trained(every[name], entry.folder / "runs" / f"{name}-{seed}", judge, entry.seconds)
                with fitting_threads(run.model):
                    found.setdefault(name, []).append(figures(run, judge, name))
                    drawn.setdefault(name, rows_of(run, judge.count))
                progress(1, name)
    rows = [mean(each) for each in found.values()]
    floors = frozenset(found) - frozenset(chosen)
    splits = "1 split" if seeds == 1 else f"{seeds} splits"
    title = f"{Path(data.path).name}: {len(judge.train):,} rows, {splits}"
    return Figures(title, SHOWN, rows, advice(rows, floors), panels(judge, drawn), floors, NOTES)


def chosen_of(names: Sequence[str], only: str) -> list[str]:
    """The generators of a text such as copula,tree-flow; all of them where it is empty. Raises ConfigError."""
    wanted = [part.strip() for part in only.split(",") if part.strip()]
    for part in wanted:
        if part not in names:
            raise ConfigError(f"only: given {part!r}, allowed: {', '.join(names)}{nearest(part, names)}")
    return [name for name in names if not wanted or name in wanted]


def whole(text: str) -> int:
    """A number of rows. Raises ConfigError."""
    if not text.isdecimal():
        raise ConfigError(f"rows: given {text!r}, allowed: a whole number; 0 takes all")
    return int(text)


def trained(recipe: Recipe, folder: Path, judge: Judge, seconds: float | None) -> Run:
    """The run of a generator on the judge's rows; a run that is there already is taken if it has the same recipe."""
    own = recipe.change(seed=judge.seed)
    made = own.change("machine.threads=1", *budget(own, seconds))
    if (folder / "recipe.json").exists():
        run = Run.open(folder)
        if run.finished() and run.recipe.data == made.data.resolve() and run.recipe.model == made.model:
            return run
        raise ConfigError(f"{folder} was trained with other settings; give another --run")
    return train(made, folder, watchers=[])


def budget(recipe: Recipe, seconds: float | None) -> list[str]:
    """The number of steps that fits the CPU seconds, for a recipe of many steps."""
    if seconds is None or recipe.schedule.steps == 1:
        return []
    from sanbu.evaluation.contest import steps_within

    return [f"schedule.steps={steps_within(recipe, seconds)}"]


def mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each figure over splits."""
    first = rows[0]
    names = [name for name, value in first.items() if isinstance(value, float)]
    return first | {name: float(np.mean([row[name] for row in rows])) for name in names}


def advice(rows: Sequence[dict[str, Any]], floors: frozenset[str]) -> list[str]:
    """Which generator is best at what."""
    models = [row for row in rows if row["name"] not in floors]
    real = next(row for row in rows if row["name"] == "training rows")
    closest = min(models, key=lambda row: abs(row["c2st"] - 0.5))
    sentences = [
        f"{closest['name']} is hardest to tell from held-out rows: AUC {closest['c2st']:.3f} with"
        f" {closest['c2st_rows']:,} rows a side (0.5 is best)."
    ]
    figure = next((name for name in ("tstr_f1", "tstr_r2") if name in real), None)
    if figure is not None:
        useful = max(models, key=lambda row: row[figure])
        title = {"tstr_f1": "macro F1", "tstr_r2": "R2"}[figure]
        sentences.insert(0, f"{useful['name']} is the most useful to train on: {title} {useful[figure]:.3f}, where the"
                            f" training rows give {real[figure]:.3f}.")  # fmt: skip
    copying = max(models, key=lambda row: row["copies"])
    return [*sentences, f"Copies of training rows: at most {copying['copies']:.2%} ({copying['name']}); {WARNING}."]


def panels(judge: Judge, drawn: Mapping[str, Tensor]) -> list[Panel]:
    """The laws of the columns: held-out rows against each generator; the columns that differ most."""
    from sanbu.evaluation.tables.distances import column_distances

    sets = {"held-out rows": judge.held_out, **drawn}
    worst = np.max([column_distances(judge.columns, cells, judge.held_out) for cells in drawn.values()], axis=0)
    return [panel(judge, place, sets) for place in np.argsort(-worst, kind="stable")[:PANELS].tolist()]


def panel(judge: Judge, place: int, sets: Mapping[str, Tensor]) -> Panel:
    """The shares of names, or the distribution function of numbers."""
    column = judge.columns[place]
    names = len(column.names)
    lines = {}
    for name, cells in sets.items():
        points = law(cells[:, place].numpy(), column.dense, names)
        if points:
            lines[name] = points
    shown = column.name if column.dense else f"{column.name} (number of the name)"
    return Panel(shown, "share below" if column.dense else "share", lines)


def law(cells: np.ndarray, dense: bool, names: int) -> list[tuple[float, float]]:
    """Points of a law; missing cells are left out."""
    there = np.sort(cells[~np.isnan(cells)])
    if not dense:
        shares = np.bincount(there.astype(int), minlength=names) / max(1, len(cells))
        return list(enumerate(shares.tolist()))
    if not len(there):
        return []
    share = np.linspace(0, 1, POINTS)
    return list(zip(np.quantile(there, share).tolist(), share.tolist(), strict=True))
