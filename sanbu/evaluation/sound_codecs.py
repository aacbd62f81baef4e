"""Sound codecs: held-out sound -> codes -> sound again, beside a ceiling and floors.

kbps          kilobits per second: frames of codes per second times the bits of a frame
codes used    share of all codes that the held-out clips use; perplexity: exp of the entropy of the codes, mean
              over codebooks
rtf, pesq, stoi, mel_l1    as for vocoders
cer           character error rate of a recogniser (parents.judge) on copies of its own held-out sentences

The ceiling is the same model without quantization; the first half of the codebooks is a row of its own where they are
nested. Floors: the codes in a random order of their frames, and mu-law sound of as many bits per second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.codecs.audio import resample
from sanbu.config import SanbuError
from sanbu.evaluation.held_out import nothing_held_out
from sanbu.evaluation.options import Measurement, Options, figure_table
from sanbu.evaluation.speech import judged
from sanbu.evaluation.vocoders import CLIPS, Copies, Draw, chosen, copied, figures
from sanbu.layers.quantizers.quantizer import occurrences, use_of
from sanbu.layers.spectrogram import Mel, log_mel
from sanbu.layers.wave_distributions import MuLaw
from sanbu.noise import Noise
from sanbu.run import Run

COLUMNS = {
    "kbps": ".2f", "codes_used": ".0%", "perplexity": ".0f", "rtf": ".4f", "pesq": ".2f", "stoi": ".3f",
    "mel_l1": ".3f", "cer": ".3f",
}  # fmt: skip
CODEC = "codec"  # the name of the row of the model itself
LEVELS = 16  # of the mu-law floor: 4 bits per sample
SENTENCES = 16  # that the judge hears


def measure(runs: Sequence[Run], options: Options) -> Measurement:
    """Rows per run, each on the held-out clips of its own data."""
    other = next((run for run in runs if not hasattr(run.model, "quantizer")), None)
    if other is not None:
        raise SanbuError(f"evaluate: {other.folder} is no sound codec; evaluate it alone")
    rows = [row for run in runs for row in rows_of(run)]
    styles = ["" if row["rank"] == CODEC else "dim" for row in rows]
    text = f"{figure_table(rows, COLUMNS, styles)}\n"
    text += f"{rows[0]['clips']} held-out clips, {rows[0]['seconds']:.1f} s; rtf is CPU seconds per second of sound"
    if rows[0]["cer"] is not None:
        text += f"; the judge is our own recogniser, true sound {rows[0]['cer_ceiling']:.3f}"
    return {"rows": rows}, text


def rows_of(run: Run, judge: Run | None = None) -> list[dict[str, Any]]:
    """The codec, its ceiling, its floors. judge: in place of `parents.judge`.

    Raises SanbuError if its data holds nothing out.
    """
    if judge is None and "judge" in run.recipe.parents:
        judge = run.parent("judge")
    data: Any = run.recipe.data
    model: Any = run.model
    rows, mel = data.build(), data.mel
    if not rows.held_out_rows:
        raise SanbuError(f"{run.folder}: {nothing_held_out(data, rows)}")
    bits = model.config.bit_rate(mel)
    ways = ways_of(model, mel)
    clips = chosen(rows.held_out_waves(CLIPS), mel, [way.draw for way in ways])
    found = []
    for way in ways:
        name = str(run.folder) if way.name == CODEC else f"  {way.name}"
        kbps = None if way.share is None else way.share * bits / 1000
        row: dict[str, Any] = {"name": name, "rank": way.name, "kbps": kbps}
        row |= figures(copied(clips, mel, way.draw), mel)
        found.append(row | heard(judge, way.draw))
    found[0] |= codebook_use(model, mel, clips)
    low = {"name": "  mu-law", "rank": "mu-law", "kbps": bits / 1000, "cer": None}
    return [*found, low | figures(low_rate(clips, mel, bits), mel)]


@dataclass(frozen=True)
class Way:
    """A way to copy. share: of the bits of the codec; None: it needs more than any."""

    name: str
    share: float | None
    draw: Draw


def ways_of(model: Any, mel: Mel) -> list[Way]:
    """The codec, its first codebooks alone where they are nested, no quantization, codes in another order."""
    seed, count = torch.zeros(1, dtype=torch.long), model.quantizer.codebooks

    def decoded(codes: Tensor, frames: Tensor) -> Tensor:
        return model.decode(codes, seed)[:, : mel.samples(frames.shape[2])]

    def first(frames: Tensor) -> Tensor:
        return decoded(model.encode(frames)[:, :few], frames)

    def shuffled(frames: Tensor) -> Tensor:
        codes = model.encode(frames)
        return decoded(codes[..., Noise("shuffled").together().permutation(codes.shape[2])], frames)

    few = count // 2
    prefix = [Way(f"first {few} codebooks", few / count, first)] if few and model.quantizer.nested else []
    return [
        Way(CODEC, 1.0, lambda frames: model.draw(frames, seed)),
        *prefix,
        Way("unquantized", None, lambda frames: model.bypass(frames, seed)),
        Way("shuffled", 1.0, shuffled),
    ]


def codebook_use(model: Any, mel: Mel, clips: Sequence[np.ndarray]) -> dict[str, float]:
    """Share of codes used and perplexity, means over codebooks."""
    counts = torch.zeros(model.quantizer.codebooks, model.quantizer.codes)
    for clip in clips:
        counts += occurrences(model.encode(mel_of(clip, mel)), model.quantizer.codes)
    shares, perplexities = use_of(counts)
    return {"codes_used": float(shares.mean()), "perplexity": float(perplexities.mean())}


def mel_of(clip: np.ndarray, mel: Mel) -> Tensor:
    """The log-mel [1, M, F] of a sound."""
    return log_mel(torch.from_numpy(np.ascontiguousarray(clip))[None], mel)


def low_rate(clips: Sequence[np.ndarray], mel: Mel, bits: float) -> Copies:
    """Copies by mu-law at a rate that needs as many bits per second."""
    rate = max(1, round(bits / math.log2(LEVELS)))
    law, step = MuLaw(), MuLaw.levels // LEVELS
    true, made = [], []
    for clip in clips:
        slow = torch.from_numpy(resample(clip, mel.rate, rate))
        coarse = law.nearest(slow) // step * step + step // 2
        back = resample(law.value(coarse).numpy(), rate, mel.rate)
        size = min(len(clip), len(back))
        true.append(clip[:size])
        made.append(back[:size])
    return Copies(true, made, mel.rate, 0.0)


def heard(judge: Run | None, draw: Draw) -> dict[str, Any]:
    """What the judge reads in copies of its own held-out sentences; None without one."""
    if judge is None:
        return {"cer": None}
    data: Any = judge.recipe.data
    rows = data.build()
    sentences = rows.held[:SENTENCES]
    copies = copied([rows.wave(row) for row in sentences], data.mel, draw)
    return judged(judge, rows, sentences, copies.made)
