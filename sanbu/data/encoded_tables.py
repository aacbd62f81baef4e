"""Rows of a table as real numbers, for models of real numbers: flows and diffusion.

A batch holds image_BF, the code of each row (codecs/row_code.py), and label_B: the target where it is a class, else 0.
Where the score of a number lies in its interval is drawn anew each time the row comes, by its position.
"""

from __future__ import annotations

from functools import lru_cache
from json import dumps
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.codecs.codec import Codec
from sanbu.codecs.row_code import Knots, RowCode, fit_code
from sanbu.codecs.tables import TableCodec
from sanbu.config import dump
from sanbu.data.data import Data, DataConfig, no_tokens
from sanbu.data.tables import Table, TableRows, state_of
from sanbu.noise import key, uniform_at
from sanbu.space import Batch, Space


class EncodedTable(DataConfig):
    """Rows of a table as real numbers: normal scores, and one number per name of a category."""

    measure: ClassVar[str] = "tables"
    kind: Literal["encoded-table"] = "encoded-table"
    rows: Table = Table()
    knots: tuple[Knots, ...] | Literal["auto"] = Field("auto", description="quantiles of numbers; auto reads the data")
    shares: tuple[float, ...] | Literal["auto"] = Field("auto", description="shares of the classes of the target")

    def space(self) -> Space:
        found = self.resolve()
        features, code = found.rows.features(), found.code()
        return Space(
            (code.width,), classes=len(code.shares), unlabelled=False, columns=code.columns, target=features.place,
            code=code,
        )  # fmt: skip

    def code(self) -> RowCode:
        """How a resolved config codes rows."""
        assert self.knots != "auto" and self.shares != "auto", "resolve the data first"
        features = self.rows.features()
        return RowCode(features.columns, self.knots, features.place if self.shares else -1, self.shares)

    def resolve(self) -> EncodedTable:
        if self.knots != "auto" and self.shares != "auto":
            return self
        table = self.rows.resolve()
        knots, shares = fitted(dumps(dump(table)), state_of(table.path))
        return EncodedTable(rows=table, knots=knots, shares=shares)

    def build(self) -> Data:
        return EncodedRows(self)

    def example(self, rows: int) -> Batch:
        x = torch.zeros(rows, *self.space().shape)
        return {"image": x, "label": no_tokens(rows), "row": no_tokens(rows)}

    def codec(self, folder: Path) -> Codec:
        return TableCodec(self.rows.resolve().features())


@lru_cache(maxsize=16)
def fitted(config_json: str, state: tuple[int, int]) -> tuple[tuple[Knots, ...], tuple[float, ...]]:
    """Knots and shares of the training rows of a table, in a file of that state."""
    table = TableRows(Table.model_validate_json(config_json))
    features = table.features
    return fit_code(features.columns, features.place if features.classes else -1, table.parts["train"])


class EncodedRows:
    """The rows of a table with their code."""

    def __init__(self, config: EncodedTable) -> None:
        self.config = config.resolve()
        self.table, self.code = TableRows(self.config.rows), self.config.code()
        self.rows, self.held_out_rows = self.table.rows, self.table.held_out_rows
        self.fingerprint = self.table.fingerprint

    @property
    def codec(self) -> Codec:
        """That of the table."""
        return self.table.codec

    def describe(self) -> str:
        """The table, and the width of the code."""
        return f"{self.table.describe()}, coded by {self.code.width} numbers"

    def batch(self, start: int, size: int) -> Batch:
        """Rows at positions start .. start + size - 1 of the endless training order."""
        position = torch.arange(start, start + size)
        return self._encoded(self.table.batch(start, size), position + key("code", "train"))

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out rows in the order of the file."""
        batch = self.table.held_out(start, size)
        return self._encoded(batch, batch["row"] + key("code", "held-out"))

    def _encoded(self, batch: Batch, keys_B: Tensor) -> Batch:
        cells_BC = batch["cells"]
        uniform_BC = uniform_at(keys_B[:, None], torch.arange(cells_BC.shape[1]))
        x_BF = self.code.encode(cells_BC, uniform_BC)
        return {"image": x_BF, "label": self.code.labels(cells_BC), "row": batch["row"]}

    def preview(self, rows: int) -> tuple[dict[str, Any], list[str]]:
        """That of the table."""
        return self.table.preview(rows)
