"""Holes of a table filled by models of columns and by chained equations with forests (MICE), for bench/tables.py.

A fifth of the numbers is removed at random. Every method sees the table with its holes and fills each hole DRAWS times.
Labels stay complete.

mae              mean absolute error of a draw, in ranges of the column; mae_median: of the median of the draws
cover80, cover90 how often the true cell lies between the middle draws, by its rank among them (equal ones in a random
                 order), which is exact for draws from the true law

MICE: five rounds over the columns; a forest of 10 trees with leaves of 5 rows predicts each column from all others, and
a hole gets the cell of a random row of the leaf of a random tree (Doove and others, 2014). Each draw is a chain.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import sanbu
from sanbu.data.table_files import SETS, Frame, frame_of, read_frame
from sanbu.data.tables import TableRows
from sanbu.models.columns.boosted import ColumnBoosted
from sanbu.models.columns.columns import ColumnsConfig
from sanbu.models.columns.copula import Copula
from sanbu.models.columns.forest import ColumnForest
from sanbu.strategies.cells import Cells
from sanbu.strategies.strategy import draw

Array = np.ndarray
DRAWS, HOLES, ROUNDS, ADULT_ROWS, PARTICLES = 19, 0.2, 5, 2000, 20
MODELS: dict[str, ColumnsConfig] = {
    "column-forest": ColumnForest(),
    "copula": Copula(),
    "column-boosted": ColumnBoosted(),
}


def imputation(adult: str, splits: int = 3) -> dict[str, float]:
    """The figures of every method on iris, breast cancer and the numbers of adult, means over choices of holes."""
    found: dict[str, float] = {}
    for name in ("iris", "breast-cancer", "adult"):
        rows: dict[str, list[dict[str, float]]] = {}
        for seed in range(splits):
            frame, numbers = table_of(name, adult, seed)
            for method, figures in filled(frame, numbers, seed):
                rows.setdefault(method, []).append(figures)
        for method, each in rows.items():
            means = {title: float(np.mean([row[title] for row in each])) for title in each[0]}
            found |= {f"{name}.{method}.{title}": value for title, value in means.items()}
            print(f"  {name}, {method}: {means}", file=sys.stderr)
    return found


def table_of(name: str, adult: str, seed: int) -> tuple[Frame, list[str]]:
    """A table, and the names of its columns of numbers; of adult these alone, in rows drawn at random."""
    if name != "adult":
        frame = read_frame(name)
        return frame, [each for each in frame.names if each != SETS[name][1]]
    frame = read_frame(adult)
    numbers = [each for each in frame.names if frame.column(each).dtype != object]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(frame))[:ADULT_ROWS])
    taken = frame.take(chosen)
    return frame_of({each: taken.column(each) for each in numbers}, "adult"), numbers


def filled(frame: Frame, numbers: Sequence[str], seed: int) -> list[tuple[str, dict[str, float]]]:
    """Each method on one choice of holes."""
    noise = np.random.default_rng(1000 + seed)
    holes = {name: noise.random(len(frame)) < HOLES for name in numbers}
    columns = {name: frame.column(name) for name in frame.names}
    given = {
        name: np.where(holes[name], np.nan, column) if name in holes else column for name, column in columns.items()
    }
    data = TableRows(sanbu.data.table(given, target="none", validation=0.0).resolve())
    names = [column.name for column in data.features.columns]
    cells = data.codec.cells(given, [""] * len(frame))
    truth = data.codec.cells(columns, [""] * len(frame)).numpy()
    hole_BC = np.stack([holes.get(name, np.zeros(len(frame), dtype=bool)) for name in names], 1)
    methods: dict[str, Callable[[], Array]] = {
        name: lambda config=config: by_columns(config, data, cells, seed) for name, config in MODELS.items()
    }
    methods["mice-forest"] = lambda: mice(
        cells.numpy(), hole_BC, [column.dense for column in data.features.columns], seed
    )
    found = []
    for name, method in methods.items():
        begun = time.process_time()
        drawn_DBC = method()
        spent = time.process_time() - begun
        found.append((name, figures(drawn_DBC, truth, hole_BC, noise) | {"seconds": spent}))
    return found


def figures(drawn_DBC: Array, truth_BC: Array, hole_BC: Array, noise: np.random.Generator) -> dict[str, float]:
    """Errors in ranges of the column, and coverage by ranks."""
    width_C = np.nanmax(truth_BC, 0) - np.nanmin(truth_BC, 0)
    drawn_DN, truth_N = drawn_DBC[:, hole_BC], truth_BC[hole_BC]
    width_N = np.broadcast_to(width_C, truth_BC.shape)[hole_BC]
    equal_N = (drawn_DN == truth_N).sum(0)
    rank_N = (drawn_DN < truth_N).sum(0) + noise.integers(0, equal_N + 1)
    covered = {f"cover{percent}": float(inside(rank_N, percent / 100).mean()) for percent in (80, 90)}
    error_DN = np.abs(drawn_DN - truth_N) / width_N
    middle_N = np.abs(np.median(drawn_DN, 0) - truth_N) / width_N
    return {"mae": float(error_DN.mean()), "mae_median": float(middle_N.mean()), **covered}


def inside(rank_N: Array, share: float) -> Array:
    """Whether a rank among DRAWS draws is one of the middle ones, which have that share of all ranks."""
    out = round((1 - share) / 2 * (DRAWS + 1))
    return (rank_N >= out) & (rank_N <= DRAWS - out)


def by_columns(config: ColumnsConfig, data: TableRows, cells: torch.Tensor, seed: int) -> Array:
    """Draws of a model of columns that was fitted to the rows with their holes."""
    torch.manual_seed(seed)
    model: Any = config.build(data.config.space()).eval()
    model.fit({"cells": data.parts["train"]})
    strategy, condition = (
        Cells(missing="never", law="further", particles=PARTICLES).build(data.config.space()),
        {"cells": cells, "given": ~cells.isnan()},
    )
    seeds = [torch.arange(number * len(cells), (number + 1) * len(cells)) for number in range(DRAWS)]
    return np.stack([draw(strategy, {"model": model}, condition, each).sample.numpy() for each in seeds])


def mice(cells_BC: Array, hole_BC: Array, dense: Sequence[bool], seed: int) -> Array:
    """Draws by chained equations with forests."""
    noise = np.random.default_rng(seed)
    return np.stack([chain(cells_BC.copy(), hole_BC, dense, noise) for _ in range(DRAWS)])


def chain(cells_BC: Array, hole_BC: Array, dense: Sequence[bool], noise: np.random.Generator) -> Array:
    """One filling: holes begin as random cells of their column."""
    from sklearn.ensemble import RandomForestRegressor

    places = [place for place in range(cells_BC.shape[1]) if hole_BC[:, place].any()]
    names = [place for place, each in enumerate(dense) if not each]
    for place in places:
        hole_B = hole_BC[:, place]
        cells_BC[hole_B, place] = noise.choice(cells_BC[~hole_B, place], hole_B.sum())
    codes = [np.eye(int(cells_BC[:, place].max()) + 1)[cells_BC[:, place].astype(int)] for place in names]
    for place in places * ROUNDS:
        others = [other for other in range(cells_BC.shape[1]) if other != place and dense[other]]
        x_BF = np.concatenate([cells_BC[:, others], *codes], 1)
        hole_B = hole_BC[:, place]
        forest = RandomForestRegressor(
            10, min_samples_leaf=5, max_features=1 / 3, random_state=int(noise.integers(2**31))
        )
        forest.fit(x_BF[~hole_B], cells_BC[~hole_B, place])
        cells_BC[hole_B, place] = donors(forest, x_BF, cells_BC[:, place], hole_B, noise)
    return cells_BC


def donors(forest: Any, x_BF: Array, cell_B: Array, hole_B: Array, noise: np.random.Generator) -> Array:
    """For each hole the cell of a random complete row in the leaf of a random tree."""
    own_BT, cells = forest.apply(x_BF[~hole_B]), cell_B[~hole_B]
    leaf_NT = forest.apply(x_BF[hole_B])
    tree_N = noise.integers(leaf_NT.shape[1], size=len(leaf_NT))
    return np.array([
        noise.choice(cells[own_BT[:, tree] == leaf_NT[row, tree]]) for row, tree in enumerate(tree_N)
    ])  # fmt: skip
