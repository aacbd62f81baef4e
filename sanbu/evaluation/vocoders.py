"""Vocoders by copy synthesis: held-out sound -> mel -> sound again, beside Griffin-Lim.

rtf     CPU seconds per second of sound, all threads together
pesq    PESQ wide band at 16 kHz (ITU-T P.862.2), of sound that keeps its timing; higher is better, at most 4.64
stoi    short-time intelligibility, 0 to 1 (Taal and others, 2011)
mel_l1  mean |difference| of log-mels

All of them compare a copy with its original, so none of them fits sound that was made of text.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.codecs.audio import library, resample
from sanbu.config import SanbuError
from sanbu.evaluation.held_out import nothing_held_out
from sanbu.evaluation.options import Measurement, Options, figure_table
from sanbu.layers.griffin_lim import griffin_lim
from sanbu.layers.spectrogram import Mel, log_mel
from sanbu.progress import progress_rows
from sanbu.run import Run

CLIPS, LONGEST = 16, 6.0  # held-out clips, and seconds of each
FEW, SHORT, SLOW = 2, 1.5, 3.0  # the same where a model is slower than this RTF
RATE = 16000  # of PESQ and STOI
NARROW = 0.4  # seconds, below which PESQ has nothing to measure
COLUMNS = {"parameters": ",d", "rtf": ".4f", "pesq": ".2f", "stoi": ".3f", "mel_l1": ".3f"}
Draw = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Copies:
    """Sounds and their copies: float32 [N] each, of one length per pair. cpu: seconds that the copies took."""

    true: list[np.ndarray]
    made: list[np.ndarray]
    rate: int
    cpu: float

    @property
    def seconds(self) -> float:
        """Seconds of sound."""
        return sum(map(len, self.true)) / self.rate


def measure(runs: Sequence[Run], options: Options) -> Measurement:
    """A row per run and one of Griffin-Lim, on the first run's held-out clips."""
    rows = measure_rows(runs)
    styles = [""] * (len(rows) - 1) + ["dim"]
    seconds, clips = rows[-1]["seconds"], rows[-1]["clips"]
    text = f"{figure_table(rows, COLUMNS, styles)}\n"
    text += f"copy synthesis of {clips} held-out clips, {seconds:.1f} s; rtf is CPU seconds per second of sound"
    return {"rows": rows}, text


def measure_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The figures of each run, then those of Griffin-Lim. Raises SanbuError for runs of different mels."""
    first: Any = runs[0].recipe.data
    for run in runs[1:]:
        other: Any = run.recipe.data
        said = first.mel.difference(other.mel)
        if said:
            raise SanbuError(f"{runs[0].folder} and {run.folder} have different mels: {said}")
    data: Any = first.build()
    if not data.held_out_rows:
        raise SanbuError(f"{runs[0].folder}: {nothing_held_out(first, data)}")
    models: dict[str, Any] = {str(run.folder): run.model for run in runs}
    draws = {name: with_model(model) for name, model in models.items()}
    clips = chosen(data.held_out_waves(CLIPS), first.mel, list(draws.values()))
    draws["griffin-lim, 60 iterations"] = lambda mel: griffin_lim(mel, first.mel, torch.zeros(1, dtype=torch.long))
    rows = []
    for name, draw in draws.items():
        found = figures(copied(clips, first.mel, draw), first.mel)
        model = models.get(name)
        size = sum(each.numel() for each in model.parameters()) if model is not None else 0
        rows.append({"name": name, "parameters": size, **found})
    return rows


def with_model(model: Any) -> Draw:
    """A model's draw of one row with seed 0."""
    return lambda mel: model.draw(mel, torch.zeros(1, dtype=torch.long))


def chosen(clips: list[np.ndarray], mel: Mel, draws: Sequence[Draw]) -> list[np.ndarray]:
    """The clips to copy: fewer and shorter ones where a model is slow."""
    trial = [clips[0][: mel.samples(8)]]
    times = [copied(trial, mel, draw) for draw in draws]
    slow = max(each.cpu / each.seconds for each in times) > SLOW
    count, seconds = (FEW, SHORT) if slow else (CLIPS, LONGEST)
    return [clip[: int(seconds * mel.rate)] for clip in clips[:count]]


def copied(clips: Sequence[np.ndarray], mel: Mel, draw: Draw) -> Copies:
    """Copies of sounds, each cut to whole frames."""
    true, made, cpu = [], [], 0.0
    with torch.no_grad(), progress_rows("copying", len(clips)) as progress:
        for clip in clips:
            frames = log_mel(torch.from_numpy(np.ascontiguousarray(clip))[None], mel)
            before = time.process_time()
            wave = draw(frames)[0]
            cpu += time.process_time() - before
            size = min(len(wave), len(clip))
            true.append(clip[:size])
            made.append(wave[:size].numpy())
            progress(1)
    return Copies(true, made, mel.rate, cpu)


def figures(copies: Copies, mel: Mel) -> dict[str, Any]:
    """RTF, PESQ, STOI and mel L1, means over clips."""
    pairs = list(zip(copies.true, copies.made, strict=True))
    distances = [mel_distance(true, made, mel) for true, made in pairs]
    slower = [[resample(wave, copies.rate, RATE) for wave in pair] for pair in pairs]
    return {
        "rtf": copies.cpu / copies.seconds,
        "pesq": mean([pesq(*pair) for pair in slower]),
        "stoi": mean([stoi(*pair) for pair in slower]),
        "mel_l1": mean(distances),
        "clips": len(pairs),
        "seconds": copies.seconds,
    }


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of what was measured."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def mel_distance(true: np.ndarray, made: np.ndarray, mel: Mel) -> float:
    """Mean |difference| of two log-mels."""
    first, second = (log_mel(torch.from_numpy(wave)[None], mel) for wave in (true, made))
    return float((first - second).abs().mean())


def pesq(true: np.ndarray, made: np.ndarray) -> float | None:
    """PESQ wide band of sounds at 16 kHz; None where the package is missing or the clip has no speech."""
    try:
        measured = library("pesq")
    except SanbuError:
        return None
    if len(true) < NARROW * RATE:
        return None
    try:
        return float(measured.pesq(RATE, true, made, "wb"))
    except measured.PesqError:
        return None


def stoi(true: np.ndarray, made: np.ndarray) -> float | None:
    """STOI of sounds at 16 kHz; None where the package is missing."""
    try:
        measured = library("pystoi")
    except SanbuError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(measured.stoi(true, made, RATE))
