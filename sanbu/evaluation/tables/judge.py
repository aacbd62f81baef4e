"""All figures of generated rows of one table, and the rows that bound them: real rows, copies with noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.data.tables import Table, TableRows
from sanbu.evaluation.tables.copies import copy_rate, nearer_share
from sanbu.evaluation.tables.distances import column_distances, pair_distance, transport
from sanbu.evaluation.tables.two_sample import MOST, two_sample
from sanbu.evaluation.tables.utility import utility
from sanbu.models.columns.columns import on_grid
from sanbu.noise import Noise

FEWEST = 10  # held-out rows
NOISE = 0.05  # deviations that a number of a copy moves, and the share of its names that are another row's


class Judge:
    """The training and the held-out rows of a table. seed: of the models that judge."""

    def __init__(self, config: Table, seed: int = 0) -> None:
        self.data, self.seed = TableRows(config.resolve()), seed
        self.features, self.columns = self.data.features, self.data.features.columns
        self.train, self.held_out = self.data.parts["train"], self.data.parts["held_out"]
        if len(self.held_out) < FEWEST:
            raise SanbuError(
                f"data.validation: {len(self.held_out)} rows are held out, allowed: at least {FEWEST} to measure by"
            )

    @property
    def count(self) -> int:
        """How many rows to generate: as many as were trained on, or as the two-sample test can use."""
        return max(len(self.train), min(MOST, len(self.held_out)))

    def row(self, name: str, generated_BC: Tensor, train_BC: Tensor | None = None, **more: Any) -> dict[str, Any]:
        """The figures of generated rows. train_BC: the rows that they may copy, if not all training rows."""
        train = self.train if train_BC is None else train_BC
        judged = utility(self.features, generated_BC[: len(self.train)], self.held_out, self.seed)
        area, rows = two_sample(generated_BC, self.held_out, self.seed)
        distances = column_distances(self.columns, generated_BC, self.held_out)
        return {
            "name": name,
            **{f"tstr_{figure}": value for figure, value in judged.items()},
            "c2st": area,
            "c2st_rows": rows,
            "w_train": transport(self.columns, generated_BC, train, self.seed),
            "w_test": transport(self.columns, generated_BC, self.held_out, self.seed),
            "columns": float(np.mean(distances)),
            "pairs": pair_distance(self.columns, generated_BC, self.held_out),
            "copies": copy_rate(generated_BC, train),
            "nearer": nearer_share(self.columns, generated_BC, train, self.held_out, self.seed),
            **more,
        }

    def floors(self) -> list[dict[str, Any]]:
        """Real rows, a half of them against the other half, and copies with noise."""
        order = Noise(self.seed, "halves").together().permutation(len(self.train))
        first, second = self.train[order].chunk(2)
        return [
            self.row("training rows", self.train),
            self.row("half of them", first, second),
            self.row("copies + noise", self.noisy()),
        ]

    def noisy(self) -> Tensor:
        """Training rows whose numbers moved a little, and of whose names a few are another row's."""
        noise = Noise(self.seed, "copies")
        rows, width = self.train.shape
        normal, uniform = noise.normal(rows, width).double(), noise.uniform(rows, width)
        others = self.train[noise.integers(rows, rows)]
        found = self.train.clone()
        for place, column in enumerate(self.columns):
            if column.dense:
                moved = found[:, place] + NOISE * column.deviation * normal[:, place]
                found[:, place] = on_grid(column, moved.clamp(column.low, column.high))
            else:
                swapped = uniform[:, place] < NOISE
                found[:, place] = torch.where(swapped, others[:, place], found[:, place])
        return found
