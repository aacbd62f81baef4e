"""Speech from text: acoustic models. `size="nano"` trains within minutes on two CPU cores, `paper` as published."""

from __future__ import annotations

from typing import Any

from sanbu.data.speech import Speech, Transcripts
from sanbu.data.speech_waves import SpeechWaves
from sanbu.machine import MachineConfig
from sanbu.models.acoustic.fastspeech2 import ConvolutionalSpeech, FastSpeech2
from sanbu.models.acoustic.flow_speech import FlowSpeech
from sanbu.models.acoustic.tacotron2 import Tacotron2
from sanbu.models.recognisers.ctc import CtcRecogniser
from sanbu.objectives.acoustic_copies import AcousticCopies
from sanbu.objectives.ctc import Ctc
from sanbu.objectives.distilled_speaking import DistilledSpeaking
from sanbu.objectives.reading_aloud import ReadingAloud
from sanbu.objectives.speaking import Speaking
from sanbu.objectives.speaking_flow import SpeakingFlow
from sanbu.optimizers.gradient import AdamW
from sanbu.optimizers.rate import LinearRate
from sanbu.recipe import Recipe, Schedule
from sanbu.recipes import vocoders
from sanbu.recipes.text import pick
from sanbu.run import Run
from sanbu.strategies.in_stages import InStages
from sanbu.strategies.transcribe import Transcribe

JUDGES = ("en-us+f1", "en-us+f4", "en-us+f5", "en-us+m2", "en-us+m4", "en-us+m5", "en-us+m6", "en-us+m8")
SPOKEN = 1200  # built-in sentences that the speaking models use
FLOAT32 = MachineConfig(precision="float32")


def fastspeech2(size: str = "nano", path: str = "spoken", vocoder: str = "", judge: str = "") -> Recipe:
    """FastSpeech 2: durations, pitch and energy first, then all frames at once (Ren and others, 2021)."""
    shapes = {
        "nano": ConvolutionalSpeech(),
        "paper": FastSpeech2(width=256, predictor=256, dropout=0.2),
    }
    model, nano = pick(shapes, size), size == "nano"
    steps, batch = (1000, 16) if nano else (160_000, 48)
    return acoustic("fastspeech2", path, model, Speaking(), 1e-3 if nano else 5e-4, steps, batch, vocoder, judge)


def fastspeech(
    size: str = "nano", teacher: str = "", path: str = "spoken", vocoder: str = "", judge: str = ""
) -> Recipe:
    """FastSpeech: durations from the attention of a Tacotron 2, teacher=RUN (Ren and others, 2019)."""
    made = fastspeech2(size, path, vocoder, judge)
    parents = {**made.parents, **({"teacher": teacher} if teacher else {})}
    return made.change(name="fastspeech", objective=DistilledSpeaking(), parents=parents)


def flow_speech(size: str = "nano", path: str = "spoken", vocoder: str = "", judge: str = "") -> Recipe:
    """Flow matching: FastSpeech 2 predicts the mean mel, a flow samples around it (Mehta and others, 2023)."""
    large = FlowSpeech(base=FastSpeech2(width=256, predictor=256, dropout=0.2), width=384, decoder=12)
    model, nano = pick({"nano": FlowSpeech(), "large": large}, size), size == "nano"
    steps, batch = (1000, 16) if nano else (200_000, 48)
    return acoustic("flow-speech", path, model, SpeakingFlow(), 1e-3 if nano else 3e-4, steps, batch, vocoder, judge)


def tacotron2(size: str = "nano", path: str = "spoken", vocoder: str = "", judge: str = "") -> Recipe:
    """Tacotron 2: frame by frame, with attention over the symbols (Shen and others, 2018)."""
    small = Tacotron2(width=128, recurrent=192, prenet=64, attention=64, postnet=96, reduction=5)
    model, nano = pick({"nano": small, "paper": Tacotron2()}, size), size == "nano"
    steps, batch = (4000, 16) if nano else (150_000, 64)
    return acoustic("tacotron2", path, model, ReadingAloud(), 4e-3 if nano else 1e-3, steps, batch, vocoder, judge)


def tuned_vocoder(size: str = "nano", voice: str = "", vocoder: str = "") -> Recipe:
    """A vocoder that learns on with the mels of an acoustic model: voice=RUN, vocoder=RUN."""
    made = vocoders.vocoder(size) if not vocoder else Run.open(vocoder).recipe
    heard = Run.open(voice).recipe.data.model_dump(exclude={"kind"}) if voice else {}
    steps = max(1, made.schedule.steps // 10)
    parents = {name: run for name, run in (("model", vocoder), ("acoustic", voice)) if run}
    return made.change(
        name="tuned-vocoder", data=SpeechWaves(**heard), objective=AcousticCopies(of=made.objective),
        parents=parents, steps=steps, evaluate_every=steps // 2, sample_every=steps // 2, checkpoint_every=steps // 2,
    )  # fmt: skip


def acoustic(
    name: str,
    path: str,
    model: Any,
    objective: Any,
    rate: float,
    steps: int,
    batch: int,
    vocoder: str,
    judge: str,
) -> Recipe:
    """What the acoustic recipes have in common. vocoder, judge: run folders, or empty."""
    every = max(1, steps // 10)
    parents = {name: run for name, run in (("vocoder", vocoder), ("judge", judge)) if run}
    return Recipe(
        name=name, data=Speech(path=path), model=model, objective=objective,
        optimizer=AdamW(learning_rate=rate, betas=(0.9, 0.98), clip=1.0, rate=LinearRate()),
        strategy=InStages(), parents=parents, machine=FLOAT32,
        schedule=Schedule(
            steps=steps, batch=batch, micro_batch=batch, evaluate_every=every, evaluate_rows=64,
            sample_every=every, checkpoint_every=every,
        ),
    )  # fmt: skip


def recogniser(size: str = "nano", path: str = "spoken") -> Recipe:
    """A recogniser of letters by CTC, on other built-in sentences and voices than those of the speaking models."""
    shapes = {
        "nano": CtcRecogniser(),
        "large": CtcRecogniser(width=384, convolutions=8, transformer=6, heads=6, kernel=15),
    }
    model, nano = pick(shapes, size), size == "nano"
    steps, batch = (800, 16) if nano else (100_000, 64)
    every = max(1, steps // 10)
    own: dict[str, Any] = {"voices": JUDGES, "skip": SPOKEN, "sentences": 1600} if path == "spoken" else {}
    return Recipe(
        name="recogniser", data=Transcripts(path=path, **own), model=model, objective=Ctc(),
        optimizer=AdamW(learning_rate=2e-3 if nano else 1e-3, betas=(0.9, 0.98), clip=1.0, rate=LinearRate()),
        strategy=Transcribe(), machine=FLOAT32,
        schedule=Schedule(
            steps=steps, batch=batch, micro_batch=batch, evaluate_every=every, evaluate_rows=64,
            sample_every=0, checkpoint_every=every,
        ),
    )  # fmt: skip
