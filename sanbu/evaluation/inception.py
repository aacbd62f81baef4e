"""Inception FID and KID by torch-fidelity (extra `fidelity`), the only figures that can stand beside a paper's.

It downloads Inception's weights the first time and wants thousands of pictures; the distances in `distances.py` want
neither.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sanbu.codecs.images import write_image
from sanbu.config import SanbuError
from sanbu.evaluation.picture_metrics import NEEDED
from sanbu.run import Run


def inception(run: Run, count: int, seed: int = 10**6) -> dict[str, float]:
    """FID, KID and Inception score of `count` samples against as many test pictures, or all where there are fewer.

    Raises SanbuError when torch-fidelity is missing or the test part is too small.
    """
    try:
        import torch_fidelity
    except ImportError:
        raise SanbuError("--inception needs the extra: pip install 'sanbu[fidelity]'") from None
    data: Any = run.recipe.data.build()
    test = data.part("test")["levels"]
    count = min(count, len(test))
    if count < NEEDED:
        raise SanbuError(f"{run.folder}: {len(test)} test pictures are too few for a distance; {NEEDED} are needed")
    with tempfile.TemporaryDirectory() as place:
        found, real = Path(place) / "found", Path(place) / "real"
        run.save(found, None, count, seed)
        for extra in (found / "grid.png", found / "refinement.gif"):
            extra.unlink(missing_ok=True)
        real.mkdir()
        for number, levels in enumerate(test[:count]):
            write_image(real / f"{number:06d}.png", np.ascontiguousarray(run.codec.read(levels)))
        told = {"input1": str(found), "input2": str(real), "cuda": run.device.type == "cuda", "verbose": False}
        subset = {"kid_subset_size": min(1000, count)}
        return dict(torch_fidelity.calculate_metrics(**told, **subset, isc=True, fid=True, kid=True))
