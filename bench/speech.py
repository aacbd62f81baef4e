"""Speed and quality of vocoders: python -m bench.speech [--part speed|peers|quality|mels] [RUN ...] [--json]

speed    every model with random weights on a mel of 400 frames (4.6 s; WaveNet: 4 frames), best of three, one thread.
         rtf is CPU seconds per second of sound, chunk_ms CPU milliseconds of 32 frames (372 ms of sound).
peers    HiFi-GAN V1 beside the same architecture in transformers, and FastSpeech 2 of the published shape beside
         transformers' FastSpeech2Conformer (another shape, from ESPnet); random weights, in turn, least of five.
mels     acoustic models on 1,000 sentences of the built-in text that they were not trained on, 20 at a time: how many
         did not end by themselves, and CPU seconds per second of mel.
quality  runs on the held-out clips of the first, beside Griffin-Lim: what `sanbu evaluate RUN ...` prints.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import sanbu
from sanbu.data.builtin.spoken import sentences_of
from sanbu.evaluation.vocoders import measure_rows
from sanbu.layers.griffin_lim import griffin_lim
from sanbu.layers.spectrogram import Mel
from sanbu.models.acoustic.acoustic import Control
from sanbu.models.vocoders.hifigan import HifiGan
from sanbu.models.vocoders.istft_head import IstftHead
from sanbu.recipes.speech import SPOKEN, fastspeech2
from sanbu.recipes.vocoders import hifigan, istft_head, vocoder, waveglow, wavenet
from sanbu.space import Space

FRAMES, FEW, CHUNK, REPEATS = 400, 4, 32, 3
MODELS: dict[str, Any] = {
    "magnitude head, nano": vocoder().model,
    "iSTFT head, nano": istft_head().model,
    "iSTFT head, nano, causal": istft_head().model.model_copy(update={"causal": True}),
    "iSTFT head, 512 x 8": IstftHead(width=512, layers=8),
    "HiFi-GAN V1": HifiGan.version("v1"),
    "HiFi-GAN V2": HifiGan.version("v2"),
    "HiFi-GAN V3": HifiGan.version("v3"),
    "HiFi-GAN, nano": hifigan().model,
    "WaveGlow, nano": waveglow().model,
    "WaveGlow, paper": waveglow("paper").model,
    "WaveNet, nano": wavenet().model,
    "WaveNet, paper": wavenet("paper").model,
}


def cpu(function: Callable[[], Any], repeats: int) -> float:
    """The least CPU seconds of a call."""
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        function()
        times.append(time.process_time() - begun)
    return min(times)


def speed(leave_out: str) -> list[dict[str, Any]]:
    """RTF of every model, and of Griffin-Lim. leave_out: models whose name ends so are skipped."""
    mel, rows = Mel(), []
    seeds = torch.zeros(1, dtype=torch.long)
    draws: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {}
    for name, config in MODELS.items():
        if leave_out and name.endswith(leave_out):
            continue
        torch.manual_seed(0)
        model: Any = config.build(Space((8192,), mel=mel)).eval().requires_grad_(False)
        size = sum(each.numel() for each in model.parameters())
        draws[name] = (lambda frames, model=model: model.draw(frames, seeds)), size
    draws["Griffin-Lim, 60 iterations"] = (lambda frames: griffin_lim(frames, mel, seeds)), 0
    for name, (draw, size) in draws.items():
        slow = name.startswith("WaveNet")
        frames = torch.randn(1, mel.mels, FEW if slow else FRAMES) - 5
        with torch.no_grad():
            draw(frames[:, :, :2])
            whole = cpu(lambda frames=frames, draw=draw: draw(frames), 1 if slow else REPEATS)
            chunk = None if slow else cpu(lambda frames=frames, draw=draw: draw(frames[:, :, :CHUNK]), 5)
        rtf = whole / (mel.samples(frames.shape[2]) / mel.rate)
        rows.append({"name": name, "parameters": size, "rtf": rtf, "chunk_ms": chunk and 1000 * chunk})
    return rows


def peers() -> list[dict[str, Any]]:
    """RTF of ours and of transformers', in turn, on 400 frames or on 100 symbols of 4 frames."""
    from transformers import (
        FastSpeech2ConformerConfig,
        FastSpeech2ConformerModel,
        SpeechT5HifiGan,
        SpeechT5HifiGanConfig,
    )

    mel = Mel()
    shape: dict[str, Any] = {
        "upsample_rates": [8, 8, 2, 2],
        "upsample_kernel_sizes": [16, 16, 4, 4],
        "normalize_before": False,
    }
    generator = SpeechT5HifiGan(SpeechT5HifiGanConfig(**shape)).eval()
    conformer = FastSpeech2ConformerModel(FastSpeech2ConformerConfig()).eval()
    own: Any = HifiGan.version("v1").build(Space((8192,), mel=mel)).eval()
    speaker: Any = fastspeech2("paper").model.build(Space((80,), 100, classes=1, mel=mel)).eval()
    frames, ids, seeds = torch.randn(1, mel.mels, FRAMES) - 5, torch.randint(1, 70, (1, FRAMES // 4)), torch.zeros(1)
    with torch.no_grad():
        for last in (conformer.duration_predictor.linear, speaker.durations.out):
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.constant_(last.bias, math.log(5))  # both predict log(1 + frames): 4 frames per symbol
        voice = torch.zeros(1, dtype=torch.long)
        pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "HiFi-GAN V1": (lambda: own.draw(frames, seeds), lambda: generator(frames.transpose(1, 2))),
            "FastSpeech 2, published shape": (
                lambda: speaker.say(ids, voice, Control(), seeds), lambda: conformer(ids, return_dict=True)
            ),
        }  # fmt: skip
        assert speaker.say(ids, voice, Control(), seeds).mel.shape[2] == FRAMES
        assert conformer(ids, return_dict=True).spectrogram.shape[1] == FRAMES
        rows = []
        for name, (ours, theirs) in pairs.items():
            times = [(cpu(ours, 1), cpu(theirs, 1)) for _ in range(6)][1:]
            mine, other = (min(each) / (FRAMES * mel.hop / mel.rate) for each in zip(*times, strict=True))
            rows.append({"name": name, "rtf": mine, "peer_rtf": other, "ratio": other / mine})
    return rows


def mels(runs: list[Any], sentences: int) -> list[dict[str, Any]]:
    """How acoustic models end sentences after those of their training, and how fast they are."""
    texts, rows = sentences_of(SPOKEN + sentences)[SPOKEN:], []
    for run in runs:
        frames, unfinished, seconds = 0, 0, 0.0
        for start in range(0, len(texts), 20):
            batch = run.codec.condition(texts[start : start + 20], 1, start)
            begun = time.process_time()
            with torch.no_grad():
                spoken = run.model.say(batch["ids"][:, 0], batch["voice"], Control(), torch.arange(start, start + 20))
            seconds += time.process_time() - begun
            frames, unfinished = frames + int(spoken.frames.sum()), unfinished + int((~spoken.finished).sum())
        length = frames * run.recipe.data.mel.hop / run.recipe.data.mel.rate
        rows.append({"name": str(run.folder), "sentences": len(texts), "unfinished": unfinished})
        rows[-1] |= {"seconds_of_sound": length, "rtf": seconds / length}
    return rows


def main() -> None:
    """Print the figures as lines, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("speed", "peers", "quality", "mels"), default="speed")
    parser.add_argument("runs", nargs="*", help="(quality, mels) run folders")
    parser.add_argument("--sentences", type=int, default=1000, help="(mels) how many")
    parser.add_argument("--leave-out", default="", help="(speed) skip models whose name ends so: paper")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    parts = {
        "speed": lambda: speed(asked.leave_out),
        "peers": peers,
        "mels": lambda: mels([sanbu.load(run) for run in asked.runs], asked.sentences),
        "quality": lambda: measure_rows([sanbu.load(run) for run in asked.runs]),
    }
    rows = parts[asked.part]()
    about = {"torch": torch.__version__, "machine": platform.machine(), "threads": 1}
    if asked.json:
        print(json.dumps({"rows": rows, **about}, indent=1))
        return
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    for row in rows:
        figures = {name: value for name, value in row.items() if name != "name" and value is not None}
        print(f"{row['name']:32}", "  ".join(f"{name} {value:,.4g}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
