"""Music in two stages: a language model over notes, then their sound. `size="nano"` trains in minutes on two cores."""

from __future__ import annotations

from typing import Any

from sanbu.data.notes import Notes
from sanbu.data.performances import Performances
from sanbu.machine import MachineConfig
from sanbu.models.acoustic.performer import FlowPerformer, Performer
from sanbu.models.tokens.modern import Modern
from sanbu.models.tokens.ngram import NGram
from sanbu.objectives.next_token import NextToken
from sanbu.objectives.performing import Performing, PerformingFlow
from sanbu.optimizers.closed_form import ClosedForm
from sanbu.optimizers.gradient import AdamW
from sanbu.optimizers.muon import Muon
from sanbu.optimizers.rate import LinearRate
from sanbu.recipe import Recipe, Schedule
from sanbu.recipes.text import pick
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.strategies.in_stages import InStages
from sanbu.strategies.perform import Perform

FLOAT32 = MachineConfig(precision="float32")


def notes(size: str = "nano", path: str = "music") -> Recipe:
    """A language model over notes; path=FOLDER (your MIDI files)."""
    shapes = {
        "nano": Modern(layers=4, heads=4, width=128, context=512),
        "large": Modern(layers=12, heads=12, width=768, context=2048),
    }
    model, nano = pick(shapes, size), size == "nano"
    steps, batch = (500, 8) if nano else (50_000, 32)
    every = steps // 3
    return Recipe(
        name="notes",
        data=Notes(path=path, context=model.context),
        model=model,
        objective=NextToken(),
        optimizer=Muon(
            rest=AdamW(learning_rate=4e-3, weight_decay=0.0, clip=None, rate=LinearRate(hold=0.3)),
            rate=LinearRate(hold=0.3),
        ),
        strategy=Autoregressive(max_tokens=model.context),
        schedule=Schedule(
            steps=steps, batch=batch, micro_batch=batch, evaluate_every=every, evaluate_rows=32, sample_every=every,
            checkpoint_every=every,
        ),
    )  # fmt: skip


def performer(size: str = "nano", path: str = "music", notes: str = "", vocoder: str = "") -> Recipe:
    """A performer: the mel of a score, all frames at once; notes, vocoder: runs that draw the score and the wave."""
    shapes = {"nano": Performer(), "large": Performer(width=384, layers=10)}
    model, nano = pick(shapes, size), size == "nano"
    steps, batch = (500, 8) if nano else (50_000, 32)
    return played("performer", path, model, Performing(), 2e-3 if nano else 5e-4, steps, batch, notes, vocoder)


def flow_performer(size: str = "nano", path: str = "music", notes: str = "", vocoder: str = "") -> Recipe:
    """Flow matching: a performer predicts the mean mel of a score, a flow samples around it; notes, vocoder: runs."""
    large = FlowPerformer(base=Performer(width=384, layers=10), width=384, decoder=12)
    model, nano = pick({"nano": FlowPerformer(), "large": large}, size), size == "nano"
    steps, batch = (500, 8) if nano else (50_000, 32)
    return played("flow-performer", path, model, PerformingFlow(), 2e-3 if nano else 3e-4, steps, batch, notes, vocoder)


def played(
    name: str, path: str, model: Any, objective: Any, rate: float, steps: int, batch: int, notes: str, vocoder: str
) -> Recipe:
    """What the performers have in common. notes, vocoder: run folders, or empty."""
    every = max(1, steps // 4)
    parents = {name: run for name, run in (("notes", notes), ("vocoder", vocoder)) if run}
    return Recipe(
        name=name, data=Performances(path=path), model=model, objective=objective,
        optimizer=AdamW(learning_rate=rate, betas=(0.9, 0.98), clip=1.0, rate=LinearRate()),
        strategy=InStages(first=Perform()), parents=parents, machine=FLOAT32,
        schedule=Schedule(
            steps=steps, batch=batch, micro_batch=batch, evaluate_every=every, evaluate_rows=64,
            sample_every=2 * every if notes else 0, samples=1, checkpoint_every=every,
        ),
    )  # fmt: skip


def note_chain(size: str = "nano", path: str = "music") -> Recipe:
    """A second-order Markov chain over the tokens of notes, the baseline for `notes`; path=FOLDER (your MIDI files)."""
    order = pick({"nano": 3, "long": 6}, size)
    return Recipe(
        name="note-chain", data=Notes(path=path), model=NGram(order=order), objective=NextToken(),
        optimizer=ClosedForm(), strategy=Autoregressive(max_tokens=512),
        schedule=Schedule(steps=1, batch="all", micro_batch=16, evaluate_every=1, evaluate_rows=32, sample_every=1),
    )  # fmt: skip
