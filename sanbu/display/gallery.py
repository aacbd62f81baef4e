"""Pictures of a run on disk: one PNG a sample, a grid of all, and an animation of how they came to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sanbu.codecs.images import enlarged, grid, write_animation, write_image
from sanbu.config import SanbuError
from sanbu.data.image_rows import Images
from sanbu.files import replacing
from sanbu.progress import progress_rows
from sanbu.run import Run

FRAMES, SHOWN = 60, 100


def draw(run: Run, folder: Path, prompt: Any, n: int, seed: int, overrides: tuple[str, ...]) -> dict[str, str | int]:
    """Draw n pictures into a folder, in batches; returns what was written. The first 100 are in the grid and the animation."""
    if not isinstance(run.recipe.data, Images):
        raise SanbuError(f"{run.folder} draws no pictures; leave --out and --label away")
    folder.mkdir(parents=True, exist_ok=True)
    codec: Any = run.codec
    pictures: list[np.ndarray] = []
    frames: list[np.ndarray] = []
    condition = codec.condition(prompt, n)
    with progress_rows("drawing", n) as progress:
        for start in range(0, n, SHOWN):
            rows = {name: tensor[start : start + SHOWN] for name, tensor in condition.items()}
            drafts = []
            for draft in run.drawn(rows, seed + start, overrides):
                if start == 0:
                    drafts.append(draft.sample.clone())
            found = [codec.read(row) for row in draft.sample]
            frames = frames or [grid([codec.read(row) for row in sample]) for sample in thinned(drafts)]
            for number, picture in enumerate(found):
                write_picture(folder / f"{start + number:04d}.png", picture)
            pictures += found
            progress(len(found))
    written: dict[str, str | int] = {"pictures": n, "folder": str(folder), "grid": str(folder / "grid.png")}
    write_image(folder / "grid.png", enlarged(grid(pictures[:SHOWN])))
    if len(frames) > 1:
        write_animation(folder / "refinement.gif", [enlarged(frame) for frame in frames])
        written["animation"] = str(folder / "refinement.gif")
    return written | {"evaluations": int(draft.evaluations[0])}


def thinned(drafts: list[Any]) -> list[Any]:
    """At most so many, evenly chosen, the last one among them."""
    if len(drafts) <= FRAMES:
        return drafts
    return [drafts[round(i)] for i in np.linspace(0, len(drafts) - 1, FRAMES)]


def write_picture(path: Path, picture: np.ndarray) -> None:
    """One sample as it is, pixel for pixel."""
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
