"""The codec of pictures that are classified: a picture file in, the name of its label out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.codecs.codec import Written
from sanbu.codecs.images import ImageCodec, to_unit
from sanbu.codecs.labels import LabelFollower
from sanbu.codecs.pixels import as_bytes, channels_first, fit, read_pixels
from sanbu.config import SanbuError
from sanbu.files import write_text
from sanbu.space import Batch


class PictureLabelCodec(ImageCodec):
    """A prompt is a picture: a file, or an array [C, H, W] of levels; the answer is a label."""

    medium, unit = "text", "pictures"

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes."""
        return [self.label_name(number) for number in range(self.space.classes)]

    @property
    def groups(self) -> dict[str, list[int]]:
        """No columns, of which `sanbu evaluate` would tell the importance."""
        return {}

    def request(self, prompt: str | None, label: str | None) -> Any:
        if label is not None:
            raise SanbuError(f"--label: given {label}, but this run finds labels; leave --label out")
        return prompt

    def before(self, prompt: Any) -> str:
        """What is shown before the label: the file."""
        return f"{prompt}: " if isinstance(prompt, (str, Path)) else ""

    def condition(self, prompt: Any, rows: int, seed: int = 0) -> Batch:
        """x of the given pictures, `rows` times each. Raises SanbuError without a picture."""
        if prompt is None:
            raise SanbuError(
                "this run finds the label of a picture and draws nothing; give a picture, as in"
                " -p photo.png, or measure it with sanbu evaluate"
            )
        pictures = prompt if isinstance(prompt, (list, tuple)) else [prompt]
        return {"x": torch.stack([self.unit_picture(each) for each in pictures]).repeat_interleave(rows, 0)}

    def unit_picture(self, picture: Any) -> Tensor:
        """A picture in the shape of this run, from -1 to 1. Raises SanbuError for what cannot be read."""
        if isinstance(picture, (str, Path)):
            levels = self._read_file(Path(picture))
        else:
            levels = torch.as_tensor(np.asarray(picture)).long()
            if tuple(levels.shape) != self.space.shape:
                raise SanbuError(f"picture: given {list(levels.shape)}, but this run reads {list(self.space.shape)}")
        return to_unit(levels, self.space)

    def _read_file(self, path: Path) -> Tensor:
        try:
            with path.open("rb") as file:
                found = read_pixels(str(path), file)
        except OSError as error:
            raise SanbuError(f"{path} cannot be read as a picture: {error.strerror}") from None
        shape: Any = self.space.shape
        pixels = torch.from_numpy(fit(channels_first(as_bytes(str(path), found.values)), shape).astype(np.float32))
        return (pixels * ((self.space.vocabulary - 1) / 255)).round().long()

    def follow(self, stop: Sequence[str] = ()) -> Any:
        """A follower that reads the scores; `stop` has no meaning here."""
        return LabelFollower(list(self.classes))

    def read(self, sample: Tensor) -> Any:
        """The label of scores."""
        return self.label_name(int(sample.argmax())) if sample.numel() else ""

    def amount(self, batch: Batch) -> int:
        return len(batch["label"])

    def show(self, sample: Any) -> str:
        return str(sample)

    def render(self, samples: Sequence[Any], path: Path) -> Path:
        """Write all labels into one text file, a line each."""
        path = path.with_name(path.name + ".txt")
        write_text(path, "\n".join(map(str, samples)) + "\n")
        return path

    def export(self, samples: Sequence[Any], folder: Path, frames: Sequence[Sequence[Any]] = ()) -> Written:
        """Write all labels into one text file."""
        folder.mkdir(parents=True, exist_ok=True)
        return {"labels": len(samples), "folder": str(folder), "overview": str(self.render(samples, folder / "labels"))}
