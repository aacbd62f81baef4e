"""Weight averages of any length, rebuilt after training from the snapshots of a run (Karras and others, 2024b)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sanbu.checkpoints import RunError, Writer, weights_hash
from sanbu.files import load_weights, read_tensors
from sanbu.layers.average import power_of, snapshot_factors
from sanbu.run import Run


def rebuild(run: Run, length: float, folder: Path | str) -> Run:
    """A new run with the weights of an average of another length (a fraction of the run, 0 to 0.28).

    Raises RunError when the run kept no averages (average=power-function) or the length is impossible.
    """
    if not 0 < length < 0.28:
        raise RunError(f"--length: given {length:g}, allowed: more than 0 and less than 0.28, as a fraction of the run")
    files = sorted((run.folder / "averages").glob("step-*.safetensors"))
    if not files:
        raise RunError(f"{run.folder} has no snapshots of averages; train with average=power-function")
    run.metrics()  # raises where they are damaged
    for name, expected in run.end().get("weights", {}).items():
        if name.startswith("averages/") and weights_hash(run.folder / name) != expected:
            raise RunError(f"{run.folder / name} is missing or damaged: it does not match its hash in finished.json")
    tensors = combine_snapshots(files, power_of(length), run.sealed)
    model = run.recipe.model.build(run.recipe.data.space())
    load_weights(model, tensors, files[-1])

    def save(made: Path) -> None:
        run.codec.save(made)
        shutil.copyfile(run.folder / "metrics.jsonl", made / "metrics.jsonl")

    made = Writer.create(folder, run.recipe, save)
    made.save_model(model)
    return Run.open(made.folder)


def combine_snapshots(files: list[Path], power: float, sealed: bool = False) -> dict[str, Tensor]:
    """The weighted sum of the snapshots that is nearest to an average of this power at the last snapshot."""
    kept: list[tuple[float, int, dict[str, Tensor]]] = []
    for file in files:
        tracks: dict[float, dict[str, Tensor]] = {}
        for name, tensor in read_tensors(file, sealed).items():
            track, _, weight = name.partition("/")
            tracks.setdefault(float(track), {})[weight] = tensor
        step = int(file.stem.partition("-")[2])
        kept += [(track, step, tensors) for track, tensors in tracks.items()]
    powers = np.array([track for track, _, _ in kept], dtype=np.float64)
    rounds = np.array([step for _, step, _ in kept], dtype=np.float64)
    factors = snapshot_factors(powers, rounds, power, rounds.max())
    last = kept[-1][2]
    return {
        name: sum(
            (f * each[2][name].double() for f, each in zip(factors.tolist(), kept, strict=True)), torch.zeros(())
        ).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in last.items()
    }
