"""Sound codecs: a wave as a few small numbers per frame. `size="nano"` trains within minutes on one CPU core."""

from __future__ import annotations

from typing import Any

from sanbu.config import ConfigError, kind_of
from sanbu.data.sounds import Sounds
from sanbu.layers.quantizers.rvq import Rvq
from sanbu.models.codes.code_transformer import CodeTransformer
from sanbu.models.sound_codecs.istft_codec import IstftCodec
from sanbu.models.sound_codecs.magnitude_codec import MagnitudeCodec
from sanbu.models.sound_codecs.sound_codec import CodecConfig
from sanbu.objectives.coding import Coding
from sanbu.objectives.next_code import NextCode
from sanbu.objectives.spectral import Spectral
from sanbu.objectives.wave_game import WaveGame
from sanbu.optimizers.gradient import AdamW
from sanbu.recipe import Recipe, Schedule
from sanbu.recipes.text import pick
from sanbu.recipes.vocoders import FLOAT32, adamw, recipe
from sanbu.run import Run
from sanbu.strategies.codes import Codes


def sound_codec(size: str = "nano", path: str = "spoken", judge: str = "") -> Recipe:
    """Sound codec: causal encoder, residual codebooks, causal decoder (after SoundStream, 2021, and Vocos, 2023)."""
    large = IstftCodec(width=512, encoder=8, decoder=8, quantizer=Rvq(codebooks=8, size=1024, dimensions=64))
    model, nano = pick({"nano": MagnitudeCodec(), "large": large}, size), size == "nano"
    objective = Coding(of=Spectral()) if nano else Coding(of=WaveGame(scales=0, stft_weight=1.0))
    steps, batch = (3000, 8) if nano else (1_000_000, 16)
    search, segment = adamw(1e-3 if nano else 2e-4), 32 if nano else 64
    made = recipe("sound-codec", path, segment, model, objective, search, steps, batch)
    return made.change(parents={"judge": judge} if judge else {})


def codec_language(size: str = "nano", path: str = "spoken", codec: str = "") -> Recipe:
    """Language model of codes: the delay pattern over a sound codec (codec=RUN), as in MusicGen (Copet, 2023)."""
    large = CodeTransformer(layers=24, heads=16, width=1024, context=2048)
    model, nano = pick({"nano": CodeTransformer(), "large": large}, size), size == "nano"
    data: dict[str, Any] = {"path": path, "seconds": 4.0 if nano else 30.0}
    if codec:
        coder, mel = coder_of(codec)
        model = model.model_copy(update={"codebooks": coder.quantizer.codebooks, "codes": coder.quantizer.codes})
        data["mel"] = mel
    steps, batch = (2000, 16) if nano else (1_000_000, 192)
    every = max(1, steps // 10)
    return Recipe(
        name="codec-language", data=Sounds(**data), model=model, objective=NextCode(),
        optimizer=AdamW(learning_rate=2e-3 if nano else 1e-4, betas=(0.9, 0.95), weight_decay=0.1, clip=1.0),
        strategy=Codes(seconds=data["seconds"], top_k=50), parents={"codec": codec} if codec else {}, machine=FLOAT32,
        schedule=Schedule(
            steps=steps, batch=batch, micro_batch=batch, evaluate_every=every, evaluate_rows=64,
            sample_every=every, checkpoint_every=every,
        ),
    )  # fmt: skip


def coder_of(path: str) -> tuple[CodecConfig, Any]:
    """The model of a sound codec's run, and its mel. Raises ConfigError for another run."""
    found = Run.open(path).recipe
    if not isinstance(found.model, CodecConfig):
        raise ConfigError(f"codec: {path} is no sound codec: its model is {kind_of(found.model)!r}")
    return found.model, found.data.space().mel
