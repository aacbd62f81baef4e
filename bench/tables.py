"""Generated tables against real ones, and against peers: python -m bench.tables [--part small] [--json]

small: iris, wine and breast cancer, 80 % of each class to train on, three splits; as many rows generated.
adult: 5,000 rows of the census file to train on, 30 % of the file held out, three splits; and the whole file once.
imputation: holes of iris, breast cancer and the numbers of adult, with their intervals (bench/table_holes.py).
peers: ForestDiffusion (flow, its defaults) and UnmaskingTrees on iris, one split, where they are installed; what they
import without using it may be absent (lightgbm, catboost).

Everything on one thread, in CPU seconds. F1 and AUC are means of four models trained on generated rows and tested on
held-out ones (sanbu/evaluation/tables/utility.py); real: the same for training rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sanbu
from bench.table_holes import imputation
from sanbu.data.table_files import SETS, Frame, read_frame
from sanbu.data.tables import Table, TableRows
from sanbu.evaluation.tables.copies import copy_rate
from sanbu.evaluation.tables.distances import transport
from sanbu.evaluation.tables.two_sample import two_sample
from sanbu.evaluation.tables.utility import utility
from sanbu.models.columns.forest import ColumnForest
from sanbu.strategies.cells import Cells
from sanbu.strategies.strategy import draw

Figures = dict[str, float | str]
SMALL, SPLITS = ("iris", "wine", "breast-cancer"), 3


def fit(data: TableRows, seed: int) -> tuple[torch.nn.Module, float]:
    """The forest of each column, and its CPU seconds."""
    torch.manual_seed(seed)
    model: Any = ColumnForest().build(data.config.space()).eval()
    begun = time.process_time()
    model.fit({"cells": data.parts["train"]})
    return model, time.process_time() - begun


def sample(model: torch.nn.Module, data: TableRows, count: int) -> tuple[Tensor, float]:
    """Rows, and their CPU seconds."""
    begun = time.process_time()
    condition = data.codec.condition(None, count)
    drawn = draw(Cells().build(data.config.space()), {"model": model}, condition, torch.arange(count))
    return drawn.sample, time.process_time() - begun


def stratified(frame: Frame, target: str, seed: int) -> tuple[TableRows, Tensor]:
    """80 % of each class as a table, and the cells of the rest."""
    from sklearn.model_selection import train_test_split

    labels = frame.column(target)
    train, test = train_test_split(np.arange(len(frame)), test_size=0.2, stratify=labels, random_state=seed)
    columns = {name: column[train] for name, column in zip(frame.names, frame.columns, strict=True)}
    data = TableRows(sanbu.data.table(columns, target=target, validation=0.0).resolve())
    rest = frame.take(test)
    return data, data.codec.cells(dict(zip(rest.names, rest.columns, strict=True)), rest.places)


def small() -> Figures:
    """The three small tables."""
    found: Figures = {}
    for name in SMALL:
        frame, rows = read_frame(name), []
        for seed in range(SPLITS):
            data, test = stratified(frame, SETS[name][1], seed)
            model, fit_s = fit(data, seed)
            generated, draw_s = sample(model, data, data.rows)
            judged = utility(data.features, generated, test)
            real = utility(data.features, data.parts["train"], test)
            distances = [transport(data.features.columns, cells, test) for cells in (generated, data.parts["train"])]
            rows.append((judged["f1"], judged["auc"], *distances, real["f1"], fit_s, draw_s))
        titles = ("f1", "auc", "w_test", "w_test_real", "f1_real", "fit_s", "draw_s")
        found |= {f"{name}.{title}": float(value) for title, value in zip(titles, np.mean(rows, 0), strict=True)}
        print(f"  {name}: {found[f'{name}.f1']:.3f}", file=sys.stderr)
    return found


def adult(path: str) -> Figures:
    """Splits of 5,000 training rows, and the whole file."""
    rows = []
    for split in range(SPLITS):
        data = TableRows(Table(path=path, target="income", rows=5000, validation=0.3, split=split).resolve())
        test = data.parts["held_out"]
        model, fit_s = fit(data, split)
        generated, draw_s = sample(model, data, data.rows)
        judged, real = (utility(data.features, cells, test) for cells in (generated, data.parts["train"]))
        area, side = two_sample(generated, test)
        copies = copy_rate(generated, data.parts["train"])
        rows.append((judged["f1"], judged["auc"], real["f1"], real["auc"], area, side, copies, fit_s, draw_s))
        print(f"  adult, split {split}: AUC {judged['auc']:.4f}, C2ST {area:.3f}", file=sys.stderr)
    titles = ("f1", "auc", "f1_real", "auc_real", "c2st", "c2st_rows", "copies", "fit_s", "draw_s")
    found: Figures = {f"adult.{title}": float(value) for title, value in zip(titles, np.mean(rows, 0), strict=True)}
    begun = time.process_time()
    data = TableRows(Table(path=path, target="income").resolve())
    model, fit_s = fit(data, 0)
    _, draw_s = sample(model, data, data.rows)
    whole = {"rows": float(data.rows), "fit_s": fit_s, "draw_s": draw_s, "seconds": time.process_time() - begun}
    return found | {f"adult.whole.{title}": value for title, value in whole.items()}


# -- peers ------------------------------------------------------------------------------------------------------------


def peers() -> Figures:
    """The peers on the first split of iris, and this forest beside them."""
    data, test = stratified(read_frame("iris"), "species", 0)
    model, fit_s = fit(data, 0)
    generated, draw_s = sample(model, data, data.rows)
    found: Figures = {"peers.sanbu.f1": utility(data.features, generated, test)["f1"],
                      "peers.sanbu.fit_s": fit_s, "peers.sanbu.draw_s": draw_s}  # fmt: skip
    for name, generate in {"forest-diffusion": forest_diffusion, "utrees": unmasking_trees}.items():
        cells = data.parts["train"].numpy()
        try:
            made, fit_s, draw_s = generate(cells)
        except ImportError as error:
            found[f"peers.{name}"] = f"not installed: {error}"
            continue
        f1 = utility(data.features, torch.from_numpy(made), test)["f1"]
        mine = {"f1": f1, "fit_s": fit_s, "draw_s": draw_s}
        found |= {f"peers.{name}.{title}": value for title, value in mine.items()}
        print(f"  {name}: F1 {f1:.3f}, fit {fit_s:.1f} s, draw {draw_s:.2f} s", file=sys.stderr)
    return found


def stand_in(name: str, *classes: str) -> None:
    """An empty module, for what a peer imports but does not use here."""
    try:
        __import__(name)
    except ImportError:
        module = types.ModuleType(name)
        for each in classes:
            setattr(module, each, type(each, (), {}))
        sys.modules[name] = module


def forest_diffusion(cells: np.ndarray) -> tuple[np.ndarray, float, float]:
    """ForestDiffusion's flow with its defaults, a model for each class."""
    stand_in("lightgbm", "LGBMRegressor")
    stand_in("catboost", "CatBoostRegressor")
    from ForestDiffusion import ForestDiffusionModel

    begun = time.process_time()
    model = ForestDiffusionModel(X=cells[:, :-1], label_y=cells[:, -1], diffusion_type="flow", n_jobs=1, seed=0)
    middle = time.process_time()
    made = model.generate(batch_size=len(cells))
    return np.asarray(made, dtype=np.float64), middle - begun, time.process_time() - middle


def unmasking_trees(cells: np.ndarray) -> tuple[np.ndarray, float, float]:
    """UnmaskingTrees with its defaults; the species is a category."""
    from utrees import UnmaskingTrees

    begun = time.process_time()
    kinds = ["continuous"] * (cells.shape[1] - 1) + ["categorical"]
    model = UnmaskingTrees(random_state=0).fit(cells, quantize_cols=kinds)
    middle = time.process_time()
    made = model.generate(n_generate=len(cells))
    return np.asarray(made, dtype=np.float64), middle - begun, time.process_time() - middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("small", "adult", "imputation", "peers"))
    parser.add_argument("--adult", default="../shared/data/adult/train.parquet", metavar="PATH")
    parser.add_argument("--json", action="store_true", help="print the figures on standard output alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.part not in ("small", "peers") and not Path(given.adult).exists():
        parser.error(f"--adult: there is no file {given.adult}")
    parts: dict[str, Callable[[], Figures]] = {
        "small": small,
        "adult": lambda: adult(given.adult),
        "imputation": lambda: dict(imputation(given.adult)),
        "peers": peers,
    }
    found: Figures = {}
    for name, measure in parts.items():
        if given.part in (None, name):
            print(f"{name}:", file=sys.stderr)
            found |= measure()
    print(json.dumps(found) if given.json else "\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
