"""An open source of pictures, whatever it was read from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sanbu.codecs.pixels import Shape, fit
from sanbu.data.reading import SourceError
from sanbu.progress import progress_rows

Seen = tuple[np.ndarray, tuple[str, ...]]  # a picture as uint8 [C, H, W], and what was done to it


@dataclass(frozen=True)
class Pictures:
    """An open source. shape: of the first picture. labels: class numbers [N], None without labels.

    each: every picture in order, in the shape it is stored in. shapes: their names and shapes, from the headers.
    names: names of the classes, or empty where numbers from 0 name them. content_hash: of the pictures alone.
    remarks: what was left out, and what the classes are.
    """

    place: str
    shape: Shape
    count: int
    labels: np.ndarray | None
    each: Callable[[], Iterator[Seen]]
    shapes: Callable[[], Iterator[tuple[str, Shape]]]
    content_hash: Callable[[], str]
    names: tuple[str, ...] = ()
    levels: int = 256
    remarks: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """The number of classes; 0 without labels."""
        return 0 if self.labels is None else max(int(self.labels.max()) + 1, len(self.names))

    @cached_property
    def one_shape(self) -> Shape:
        """The shape of every picture. Raises SourceError, which proposes a shape, if they differ."""
        first = ""
        with progress_rows("reading headers", self.count) as progress:
            for name, shape in self.shapes():
                first = first or name
                if shape != self.shape:
                    raise SourceError(self._differ(first, name, shape))
                progress(1)
        return self.shape

    def _differ(self, first: str, name: str, shape: Shape) -> str:
        kind = "channels (grey and colour mixed)" if shape[0] != self.shape[0] else "size"
        height, width = self.shape[1:]
        proposal = (3, height, width) if shape[1:] == self.shape[1:] else (3, *[min(height, width) // 2 or 1] * 2)
        return (
            f"{self.place}: {name} is {describe_shape(shape)}, but {first} is {describe_shape(self.shape)}; all must"
            f" have the same {kind}; data.shape=[{','.join(map(str, proposal))}] resizes all"
        )

    def read(self, wanted: Shape, done: Counter[str] | None = None) -> Iterator[np.ndarray]:
        """Every picture in the wanted shape. done: counts what was done to the pictures."""
        counts: Counter[str] = Counter() if done is None else done
        for picture, remarks in self.each():
            counts.update(remarks)
            if picture.shape == wanted:
                yield picture
                continue
            if picture.shape[0] != wanted[0]:
                counts["grey, as colour" if wanted[0] == 3 else "colour, as grey"] += 1
            if picture.shape[1:] != wanted[1:]:
                counts["resized"] += 1
            yield fit(picture, wanted, self.levels - 1)


def describe_shape(shape: Sequence[int]) -> str:
    """A shape as text."""
    return f"{shape[2]} x {shape[1]} {'grey' if shape[0] == 1 else 'colour'}"


def counted(counts: Counter[str], what: str) -> tuple[str, ...]:
    """One remark, "3 files that are no pictures (.json 1, .txt 2)"; none where nothing was counted."""
    kinds = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
    return (f"{counts.total():,} {what} ({kinds})",) if counts else ()
