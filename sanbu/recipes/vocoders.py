"""Vocoders: from a mel to the wave. `size="nano"` trains within minutes on one CPU core, `paper` as published."""

from __future__ import annotations

from typing import Any

from sanbu.data.waves import Waves
from sanbu.machine import MachineConfig
from sanbu.models.vocoders.hifigan import HifiGan
from sanbu.models.vocoders.istft_head import IstftHead
from sanbu.models.vocoders.magnitude_head import MagnitudeHead
from sanbu.models.vocoders.waveglow import WaveGlow
from sanbu.models.vocoders.wavenet import WaveNet
from sanbu.objectives.spectral import Spectral
from sanbu.objectives.wave_game import WaveGame
from sanbu.objectives.wave_likelihood import WaveLikelihood
from sanbu.optimizers.gradient import Adam, AdamW
from sanbu.optimizers.rate import LinearRate
from sanbu.optimizers.search import OptimizerConfig
from sanbu.recipe import Recipe, Schedule
from sanbu.recipes.text import pick
from sanbu.strategies.vocoding import Vocoding

FLOAT32 = MachineConfig(precision="float32")  # phases need more digits than bfloat16 has


def recipe(
    name: str, path: str, segment: int, model: Any, objective: Any, optimizer: OptimizerConfig, steps: int, batch: int
) -> Recipe:
    """What the recipes below have in common."""
    every = max(1, steps // 10)
    return Recipe(
        name=name, data=Waves(path=path, segment=segment), model=model, objective=objective, optimizer=optimizer,
        strategy=Vocoding(), machine=FLOAT32,
        schedule=Schedule(
            steps=steps, batch=batch, micro_batch=batch, evaluate_every=every, evaluate_rows=64,
            sample_every=every, checkpoint_every=every,
        ),
    )  # fmt: skip


def adamw(rate: float) -> AdamW:
    """AdamW as HiFi-GAN uses it."""
    return AdamW(learning_rate=rate, betas=(0.8, 0.99), weight_decay=0.01, clip=None, rate=LinearRate())


def vocoder(size: str = "nano", path: str = "spoken") -> Recipe:
    """Magnitude head: learned magnitudes, phases by Griffin-Lim; good within minutes of training."""
    shapes = {"nano": MagnitudeHead(), "large": MagnitudeHead(width=512, layers=8, iterations=32)}
    model, nano = pick(shapes, size), size == "nano"
    steps = 5000 if nano else 100_000
    return recipe("vocoder", path, 32, model, Spectral(), adamw(2e-3 if nano else 5e-4), steps, 16)


def istft_head(size: str = "nano", path: str = "spoken") -> Recipe:
    """iSTFT head: magnitudes and phases of frames, the fastest vocoder (Siuzdak, "Vocos", 2023)."""
    shapes = {"nano": IstftHead(width=192, layers=6), "large": IstftHead(width=512, layers=8)}
    model, nano = pick(shapes, size), size == "nano"
    objective = Spectral() if nano else WaveGame(scales=0, stft_weight=1.0)
    steps, batch = (5000, 8) if nano else (1_000_000, 16)
    return recipe("istft-head", path, 32, model, objective, adamw(1e-3 if nano else 2e-4), steps, batch)


def hifigan(size: str = "nano", path: str = "spoken") -> Recipe:
    """HiFi-GAN: transposed convolutions against critics by period and scale (Kong, Kim and Bae, 2020)."""
    small = HifiGan.version("v2").model_copy(update={"width": 64})
    shapes = {"nano": small, **{name: HifiGan.version(name) for name in ("v3", "v2", "v1")}}
    model, nano = pick(shapes, size), size == "nano"
    objective = WaveGame(share=0.125, scales=1, stft_weight=1.0) if nano else WaveGame()
    steps, batch = (2000, 4) if nano else (2_500_000, 16)
    return recipe("hifigan", path, 16 if nano else 32, model, objective, adamw(5e-4 if nano else 2e-4), steps, batch)


def wavenet(size: str = "nano", path: str = "spoken") -> Recipe:
    """WaveNet: sample by sample, exact likelihood (van den Oord and others, 2016)."""
    shapes = {
        "nano": WaveNet(width=32, skip=32, layers=12, cycle=6),
        "large": WaveNet(width=128, skip=256, layers=30, cycle=10, outputs="logistics"),
    }
    model, nano = pick(shapes, size), size == "nano"
    steps, batch = (2000, 4) if nano else (1_000_000, 8)
    optimizer = Adam(learning_rate=3e-3 if nano else 1e-3, betas=(0.9, 0.999), rate=LinearRate())
    made = recipe("wavenet", path, 16 if nano else 32, model, WaveLikelihood(), optimizer, steps, batch)
    return made.change(sample_every=0)  # a second of sound takes many


def waveglow(size: str = "nano", path: str = "spoken") -> Recipe:
    """WaveGlow: invertible flows between noise and wave, all samples at once (Prenger and others, 2018)."""
    shapes = {
        "nano": WaveGlow(flows=6, layers=5, width=48, early_every=4),
        "large": WaveGlow(flows=12, layers=8, width=512, early_every=4),
    }
    model, nano = pick(shapes, size), size == "nano"
    steps, batch = (2000, 4) if nano else (580_000, 24)
    optimizer = Adam(learning_rate=1e-3 if nano else 1e-4, betas=(0.9, 0.999), clip=1.0, rate=LinearRate())
    return recipe("waveglow", path, 16 if nano else 64, model, WaveLikelihood(), optimizer, steps, batch)
