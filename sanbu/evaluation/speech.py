"""Speech made of text, on held-out sentences.

rtf             CPU seconds per second of sound, from the text to the wave
first_audio_ms  wall time from the request to the first sound of a stream, median; _p95: 95th percentile
mcd, f0         mel-cepstral distortion (dB) and pitch error (semitones) along the best alignment with the true sound
duration_ms     mean error of the length of a symbol, of models that say it, against the corpus
cer             character error rate of a recogniser (parents.judge) on the speech
cer_ceiling     the same on the true sound
cer_floor       the same on the speech, against the texts of other sentences
skipped         words of the text that the recogniser did not read, per word; _ceiling: on the true sound
repeated        words that it read twice, per word; _ceiling: on the true sound
unfinished      sentences that the model did not end by itself

No listening test stands behind these figures, so none of them is a mean opinion score.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sanbu.config import SanbuError
from sanbu.data.speech import SpeechRows
from sanbu.evaluation.edit_distance import error_rate, spoken_letters
from sanbu.evaluation.held_out import nothing_held_out
from sanbu.evaluation.lost_words import lost_words
from sanbu.evaluation.options import Measurement, Options, figure_table, measured_alike
from sanbu.evaluation.warping import distances
from sanbu.layers.pitch import pitch
from sanbu.layers.spectrogram import Mel, log_mel
from sanbu.progress import progress_rows
from sanbu.run import Drawing, Run

SENTENCES, STREAMS = 32, 16  # that are spoken, and that are streamed
CHUNK = 32  # frames per step of a stream
COLUMNS = {
    "parameters": ",d", "rtf": ".4f", "first_audio_ms": ".0f", "cer": ".3f", "cer_ceiling": ".3f", "mcd": ".2f",
    "f0": ".2f", "duration_ms": ".1f", "skipped": ".3f", "repeated": ".3f", "unfinished": "d",
}  # fmt: skip


def measure(runs: Sequence[Run], options: Options) -> Measurement:
    """A row per run, on the held-out sentences of its own data."""
    measured_alike(runs)
    rows = [row_of(run) for run in runs]
    text = f"{figure_table(rows, COLUMNS)}\n"
    text += f"{rows[0]['sentences']} held-out sentences; rtf is CPU seconds per second of sound"
    if rows[0].get("cer") is not None:
        text += f"; the judge is our own recogniser; with other texts cer is {rows[0]['cer_floor']:.2f}"
    return {"rows": rows}, text


def row_of(
    run: Run,
    overrides: Sequence[str] = (),
    judge: Run | None = None,
    sentences: int = SENTENCES,
    streams: int = STREAMS,
) -> dict[str, Any]:
    """The figures of a run, drawn with overrides (another vocoder, say). judge: in place of `parents.judge`.

    Raises SanbuError if it has no held-out sentences.
    """
    data: Any = run.recipe.data
    rows: SpeechRows = data.build()
    if not rows.held_out_rows:
        raise SanbuError(f"{run.folder}: {nothing_held_out(data, rows)}")
    chosen = rows.held[:sentences]
    drawing = run.drawing(overrides)
    models = [model for name, model in drawing.models.items() if name != "judge"]
    size = sum(each.numel() for model in models for each in model.parameters())
    waves, spent, unfinished = spoken(drawing, rows, chosen)
    seconds = sum(map(len, waves)) / rows.mel.rate
    found: dict[str, Any] = {"name": str(run.folder), "parameters": size, "sentences": len(chosen)}
    found |= {"rtf": spent / seconds, "unfinished": unfinished}
    streaming = run.drawing(overrides, {"chunk": CHUNK})
    found |= first_audio(streaming, rows, chosen[:streams]) | nearness(rows, chosen, waves)
    if judge is None and "judge" in run.recipe.parents:
        judge = run.parent("judge")
    return found | lengths(run, rows, len(chosen)) | judged(judge, rows, chosen, waves)


def spoken(drawing: Drawing, rows: SpeechRows, chosen: Sequence[int]) -> tuple[list[np.ndarray], float, int]:
    """The speech of held-out texts in their own voices, the CPU seconds it took, and how many were not finished."""
    waves, unfinished, began = [], 0, time.process_time()
    with progress_rows("speaking", len(chosen)) as progress:
        for row in chosen:
            follower, draft = drawing.follow(), None
            for draft in drawing.drafts(drawing.run.codec.condition(request(rows, row), 1), 0, follower.update):
                pass
            assert draft is not None
            unfinished += int((~draft.record["finished"]).sum())
            waves.append(follower.results()[0])
            progress(1)
    return waves, time.process_time() - began, unfinished


def request(rows: SpeechRows, row: int) -> dict[str, str]:
    """The text and the voice of a row."""
    return {"text": rows.text(row), "voice": str(rows.about[row]["voice"])}


def first_audio(drawing: Drawing, rows: SpeechRows, chosen: Sequence[int]) -> dict[str, float]:
    """Wall time to the first sound of a stream, ms; the models are loaded before."""
    times = []
    assert drawing.models
    for row in chosen:
        began = time.perf_counter()
        follower = drawing.follow()
        condition = drawing.run.codec.condition(request(rows, row), 1)
        next(draft for draft in drawing.drafts(condition, 0, follower.update) if len(follower.pieces[0]))
        times.append(1000 * (time.perf_counter() - began))
    return {"first_audio_ms": float(np.median(times)), "first_audio_ms_p95": float(np.quantile(times, 0.95))}


def nearness(rows: SpeechRows, chosen: Sequence[int], waves: Sequence[np.ndarray]) -> dict[str, float]:
    """Means of mcd and f0."""
    found = []
    for row, wave in zip(chosen, waves, strict=True):
        true = rows.mel_of(row).T
        made, made_hertz = heard(wave, rows.mel)
        found.append(distances(true, made, rows.hertz(row), made_hertz))
    return {name: float(np.nanmean([each[name] for each in found])) for name in ("mcd", "f0")}


def heard(wave: np.ndarray, mel: Mel) -> tuple[np.ndarray, np.ndarray]:
    """The log-mel and the pitch of a wave."""
    found = log_mel(torch.from_numpy(np.ascontiguousarray(wave))[None], mel)[0].numpy()
    return found, pitch(wave, mel.rate, mel.hop, found.shape[1])


def lengths(run: Run, rows: SpeechRows, count: int) -> dict[str, Any]:
    """The mean error of predicted durations, ms; None for models or corpora without durations."""
    if not rows.timed or not hasattr(run.model, "durations"):
        return {"duration_ms": None}
    batch = rows.held_out(0, count)
    model: Any = run.model
    with torch.no_grad():
        hidden, real = model.hear(batch["ids"], batch["voice"]), batch["ids"] > 0
        frames = model.durations(hidden, real).expm1()
    error = ((frames - batch["durations"]).abs() * real).sum() / real.sum()
    return {"duration_ms": float(error) * 1000 * rows.mel.hop / rows.mel.rate}


def judged(judge: Run | None, rows: SpeechRows, chosen: Sequence[int], waves: Sequence[np.ndarray]) -> dict[str, Any]:
    """Character error rates and lost words by a recogniser; None without one."""
    if judge is None:
        return dict.fromkeys(("cer", "cer_ceiling", "cer_floor", "skipped", "repeated"))
    texts = [spoken_letters(rows.letters(row)) for row in chosen]
    read = [spoken_letters(judge.generate(wave)) for wave in waves]
    true = [spoken_letters(judge.generate(rows.wave(row))) for row in chosen]
    others = [*texts[1:], texts[0]]
    ceiling = lost_words(zip(texts, true, strict=True))
    return {
        **lost_words(zip(texts, read, strict=True)),
        **{f"{name}_ceiling": value for name, value in ceiling.items()},
        "cer": error_rate(zip(texts, read, strict=True)),
        "cer_ceiling": error_rate(zip(texts, true, strict=True)),
        "cer_floor": error_rate(zip(others, read, strict=True)),
    }
