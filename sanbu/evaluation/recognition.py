"""Recognisers on held-out sound.

cer    character error rate: edits per character of the true text, marks left out
wer    the same per word
exact  fraction of texts without an error
rtf    CPU seconds per second of sound
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sanbu.config import SanbuError
from sanbu.data.speech import SpeechRows
from sanbu.evaluation.edit_distance import error_rate, spoken_letters
from sanbu.evaluation.held_out import nothing_held_out
from sanbu.evaluation.options import Measurement, Options, figure_table, measured_alike
from sanbu.run import Run
from sanbu.strategies.strategy import consecutive, draw

AT_ONCE = 16
COLUMNS = {"parameters": ",d", "cer": ".4f", "wer": ".4f", "exact": ".3f", "rtf": ".4f"}


def measure(runs: Sequence[Run], options: Options) -> Measurement:
    """A row per run."""
    measured_alike(runs)
    rows = [row_of(run, options.questions) for run in runs]
    text = f"{figure_table(rows, COLUMNS)}\n"
    text += f"{rows[0]['texts']:,} held-out texts, {rows[0]['seconds']:.0f} s; rtf is CPU seconds per second of sound"
    return {"rows": rows}, text


def row_of(run: Run, most: int) -> dict[str, Any]:
    """The figures of a run on its held-out rows. Raises SanbuError if there are none."""
    data: Any = run.recipe.data
    rows: SpeechRows = data.build()
    if not rows.held_out_rows:
        raise SanbuError(f"{run.folder}: {nothing_held_out(data, rows)}")
    chosen = rows.held[:most]
    began = time.process_time()
    read: list[str] = []
    for start in range(0, len(chosen), AT_ONCE):
        read += transcribed(run, rows, start, len(chosen))
    spent = time.process_time() - began
    true = [rows.letters(row) for row in chosen]
    frames = sum(rows.about[row]["frames"] for row in chosen)
    seconds = rows.mel.samples(frames) / rows.mel.rate
    size = sum(each.numel() for each in run.model.parameters())
    return {"name": str(run.folder), "parameters": size, **errors(true, read), "rtf": spent / seconds} | {
        "texts": len(chosen), "seconds": seconds,
    }  # fmt: skip


def transcribed(run: Run, rows: SpeechRows, start: int, most: int) -> list[str]:
    """The texts that a run reads in some held-out rows."""
    batch = rows.held_out(start, min(AT_ONCE, most - start))
    strategy = run.recipe.strategy.build(run.recipe.data.space())
    drawn = draw(strategy, {"model": run.model}, batch, consecutive(0, len(batch["frames"])))
    return [str(run.codec.read(sample)) for sample in drawn.sample]


def errors(true: Sequence[str], read: Sequence[str]) -> dict[str, float]:
    """CER, WER and the fraction without an error of texts that were read."""
    pairs = [(spoken_letters(a), spoken_letters(b)) for a, b in zip(true, read, strict=True)]
    words = [(a.split(), b.split()) for a, b in pairs]
    exact = sum(a == b for a, b in pairs) / len(pairs)
    return {"cer": error_rate(pairs), "wer": error_rate(words), "exact": exact}
