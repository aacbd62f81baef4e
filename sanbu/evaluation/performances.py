"""Performers on held-out scores, beside the synthesiser's own sound.

rtf       CPU seconds per second of sound, from the score to the wave
mel_l1    mean |difference| of the performer's log-mel from the true one
sound_l1  the same of the wave that the vocoder makes of it
onset_f1  agreement of the onsets in the wave with those of the score, by spectral flux

Ceilings: the vocoder on the true mel, and the true sound. Floor: the true sound of another held-out score.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sanbu.codecs.music.score import Score
from sanbu.config import SanbuError
from sanbu.data.performances import PerformanceRows
from sanbu.evaluation.held_out import nothing_held_out
from sanbu.evaluation.onsets import onset_f1, onsets
from sanbu.evaluation.options import Measurement, Options, figure_table, measured_alike
from sanbu.layers.spectrogram import Mel, log_mel
from sanbu.models.vocoders.griffin_lim import GriffinLim
from sanbu.progress import progress_rows
from sanbu.run import Run

PIECES = 8
COLUMNS = {"parameters": ",d", "rtf": ".4f", "mel_l1": ".3f", "sound_l1": ".3f", "onset_f1": ".3f"}


def measure(runs: Sequence[Run], options: Options) -> Measurement:
    """A row per run, then its ceilings and its floor; all of the first run's data."""
    measured_alike(runs)
    rows = measure_rows(runs)
    styles = [""] * len(runs) + ["dim"] * 3
    text = f"{figure_table(rows, COLUMNS, styles)}\n"
    text += f"{rows[0]['pieces']} held-out scores; rtf is CPU seconds per second of sound"
    return {"rows": rows}, text


def measure_rows(runs: Sequence[Run], most: int = PIECES) -> list[dict[str, Any]]:
    """The figures of each run, of a copy of the true sound, and of other scores. Raises SanbuError without any."""
    data: Any = runs[0].recipe.data
    rows: PerformanceRows = data.build()
    chosen = rows.held[:most]
    if not chosen:
        raise SanbuError(f"{runs[0].folder}: {nothing_held_out(data, rows)}")
    found = [row_of(run, rows, chosen) for run in runs]
    mel = rows.mel
    vocoder = runs[0].models.get("vocoder", GriffinLim(mel))
    true = [rows.mel_of(piece).T for piece in chosen]
    copies = [copied(vocoder, each, mel) for each in true]
    others = [rows.mel_of(piece).T for piece in (*chosen[1:], chosen[0])]
    scores = [rows.scores[piece] for piece in chosen]
    found.append({"name": "vocoder on the true mel", **heard(copies, true, scores, mel)})
    found.append({"name": "another score", **heard(others, true, scores, mel)})
    found.append({"name": "the true sound", **heard(true, true, scores, mel)})
    return [row | {"pieces": len(chosen)} for row in found]


def row_of(run: Run, rows: PerformanceRows, chosen: Sequence[int]) -> dict[str, Any]:
    """The figures of a run."""
    drawing, waves, mels = run.drawing(), [], []
    models, began = drawing.models, time.process_time()
    with progress_rows("playing", len(chosen)) as progress:
        for piece in chosen:
            follower = drawing.follow()
            for draft in drawing.drafts(run.codec.condition(rows.scores[piece], 1), 0, follower.update):
                if draft.stage == "mel":
                    mels.append(draft.record["mel"][0].T.numpy())
            waves.append(follower.results()[0].wave)
            progress(1)
    spent = time.process_time() - began
    playing = [model for name, model in models.items() if name != "notes"]
    size = sum(each.numel() for model in playing for each in model.parameters())
    true = [rows.mel_of(piece).T for piece in chosen]
    scores = [rows.scores[piece] for piece in chosen]
    seconds = sum(map(len, waves)) / rows.mel.rate
    found = {"name": str(run.folder), "parameters": size, "rtf": spent / seconds}
    found["mel_l1"] = mean_distance(mels, true)
    return found | heard([mel_of(wave, rows.mel) for wave in waves], true, scores, rows.mel)


def heard(
    found: Sequence[np.ndarray], true: Sequence[np.ndarray], scores: Sequence[Score], mel: Mel
) -> dict[str, float]:
    """Figures of sounds, given as log-mels."""
    times = [onsets(each, mel) for each in found]
    agreement = [onset_f1(each, score) for each, score in zip(times, scores, strict=True)]
    return {"sound_l1": mean_distance(found, true), "onset_f1": float(np.mean(agreement))}


def mean_distance(found: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> float:
    """The mean over sounds of `distance`."""
    return float(np.mean([distance(*pair) for pair in zip(found, true, strict=True)]))


def copied(vocoder: Any, mel_MT: np.ndarray, mel: Mel) -> np.ndarray:
    """The log-mel of what a vocoder makes of a log-mel."""
    with torch.no_grad():
        wave = vocoder.draw(torch.from_numpy(np.ascontiguousarray(mel_MT))[None], torch.zeros(1, dtype=torch.long))
    return mel_of(wave[0].numpy(), mel)


def mel_of(wave: np.ndarray, mel: Mel) -> np.ndarray:
    """The log-mel of a wave."""
    return log_mel(torch.from_numpy(np.ascontiguousarray(wave))[None], mel)[0].numpy()


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Mean |difference| of two log-mels, over the frames of the shorter."""
    frames = min(first.shape[1], second.shape[1])
    return float(np.abs(first[:, :frames] - second[:, :frames]).mean())
