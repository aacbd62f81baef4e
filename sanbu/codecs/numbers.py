"""The codec of plain tensors, for data without a modality."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.codecs.codec import Written
from sanbu.config import SanbuError
from sanbu.files import replace_atomically
from sanbu.space import Batch, Draft


class NumbersCodec:
    """A sample is an array; a prompt is the condition of the strategy, tensors by name."""

    medium, unit = "numbers", "rows"

    def save(self, folder: Path) -> None:
        """Nothing to save."""

    def vocabulary(self) -> None:
        """None: numbers have no tokens."""

    def request(self, prompt: str | None, label: str | None) -> None:
        if prompt is not None or label is not None:
            raise SanbuError("--prompt, --label: this run draws numbers and accepts neither; leave both out")

    def condition(self, prompt: dict[str, Any] | None, rows: int, seed: int = 0) -> Batch:
        """The tensors of a prompt, each repeated `rows` times; without a prompt, only the number of rows."""
        if prompt is None:
            return {"rows": torch.zeros(rows)}
        each = {name: torch.as_tensor(value) for name, value in prompt.items()}
        return {name: tensor.expand(rows, *tensor.shape).clone() for name, tensor in each.items()}

    def follow(self, stop: Sequence[str] = ()) -> NumbersFollower:
        """A follower that keeps the last draft."""
        return NumbersFollower(self)

    def read(self, sample: Tensor) -> np.ndarray:
        return sample.detach().cpu().numpy()

    def amount(self, batch: Batch) -> int:
        return len(next(iter(batch.values())))

    def show(self, sample: np.ndarray) -> str:
        return np.array2string(sample, precision=4, threshold=20)

    def render(self, samples: Sequence[np.ndarray], path: Path) -> Path:
        """Write all samples into one .npy file."""
        path = path.with_name(path.name + ".npy")
        with replace_atomically(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.stack(list(samples)))
        return path

    def export(self, samples: Sequence[np.ndarray], folder: Path, frames: Sequence[Sequence[Any]] = ()) -> Written:
        """Write all samples into one .npy file."""
        folder.mkdir(parents=True, exist_ok=True)
        return {
            "samples": len(samples),
            "folder": str(folder),
            "overview": str(self.render(samples, folder / "samples")),
        }


class NumbersFollower:
    """Keeps the last draft; rows end when the strategy ends them."""

    def __init__(self, codec: NumbersCodec) -> None:
        self.codec, self.sample = codec, torch.zeros(0)

    def update(self, draft: Draft) -> Tensor:
        """Keep the draft."""
        self.sample = draft.sample
        return draft.done

    @property
    def pieces(self) -> list[np.ndarray]:
        """The current array of each row."""
        return self.results()

    def results(self) -> list[np.ndarray]:
        """Each row as an array."""
        return [self.codec.read(row) for row in self.sample]
