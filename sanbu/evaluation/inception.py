"""Inception FID and KID by torch-fidelity (extra `fidelity`): the only figures comparable to those in papers.

The first call downloads the weights of Inception, and thousands of pictures are needed. The distances in `distances.py`
need neither.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sanbu.codecs.images import write_image
from sanbu.config import SanbuError
from sanbu.evaluation.picture_metrics import NEEDED, some
from sanbu.evaluation.pictures import draw_pictures
from sanbu.progress import progress_tasks
from sanbu.run import Run


def inception(run: Run, count: int, seed: int = 10**6) -> dict[str, float]:
    """FID, KID and Inception score of `count` samples against the same number of test pictures, or all of them.

    Labels are drawn as often as the data has them.

    Raises SanbuError if torch-fidelity is missing or the test part is too small.
    """
    try:
        import torch_fidelity
    except ImportError:
        raise SanbuError("--inception: torch-fidelity is not installed; pip install 'sanbu[fidelity]'") from None
    data: Any = run.recipe.data.build()
    places = some(data.places["test"], count)
    if len(places) < NEEDED:
        raise SanbuError(f"{run.folder}: {len(places)} test pictures are too few for a distance; {NEEDED} are needed")
    count = len(places)
    with progress_tasks("inception", 1) as progress:
        samples, _, _ = draw_pictures(run, count, seed, progress=lambda part: progress(part, "drawing"))
    with tempfile.TemporaryDirectory() as place:
        found, real = Path(place) / "found", Path(place) / "real"
        write_pictures(found, samples)
        write_pictures(real, [run.codec.read(levels) for levels in data.take(places)["levels"]])
        inputs = {"input1": str(found), "input2": str(real), "kid_subset_size": min(1000, count)}
        cuda = run.device.type == "cuda"
        return dict(torch_fidelity.calculate_metrics(**inputs, cuda=cuda, verbose=False, isc=True, fid=True, kid=True))


def write_pictures(folder: Path, pictures: Iterable[np.ndarray]) -> None:
    """Write each picture into a new folder."""
    folder.mkdir()
    for number, picture in enumerate(pictures):
        write_image(folder / f"{number:06d}.png", np.ascontiguousarray(picture))
