"""Pipelines: recipes that follow each other. `sanbu train assistant` makes base, sft, reward, ppo and dpo."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

from sanbu.checkpoints import PIPELINE
from sanbu.codecs.speech.languages import ENGLISH
from sanbu.config import ConfigError
from sanbu.data.sources import built_in
from sanbu.data.speech import check_spoken
from sanbu.evaluation.rank import rank
from sanbu.files import read_object
from sanbu.recipe import Recipe
from sanbu.recipes import alignment as recipes
from sanbu.recipes import arguments, speech, vocoders
from sanbu.recipes import music as tunes
from sanbu.recipes.stages import Stage
from sanbu.run import Run

TTS_PARENTS = ("vocoder", "recogniser")
MUSIC_PARENTS = ("notes", "vocoder")
MUSIC_STEPS = 1000  # of the small vocoder: instruments need fewer than voices


def assistant(
    size: str = "nano", path: str = "builtin:skills", text: str = "builtin:python", questions: str = "800"
) -> Sequence[Stage]:
    """The assistant pipeline: base, sft, reward, ppo, dpo; path=FILE (your preferences), text=FILE (base text).

    questions: number of questions whose answers are ranked, where no preferences are given.
    """
    if not (questions.isdecimal() and int(questions) > 0):
        raise ConfigError(f"questions: given {questions!r}, allowed: a whole number from 1")
    own = "" if built_in(path, "skills") else path

    def rank_answers(folder: Path) -> None:
        if not own and not (folder / "answers.jsonl").exists():
            rank(Run.open(folder / "sft"), folder / "answers.jsonl", int(questions), 4)

    def preferences(folder: Path, more: str = "") -> str:
        return own or more + str(folder / "answers.jsonl")

    def sft(folder: Path) -> Recipe:
        made = recipes.sft(size, str(folder / "base"))
        return made.change(f"data.path={path}")

    return (
        Stage("base", lambda folder: recipes.base(size, text)),
        Stage("sft", sft),
        Stage(
            "reward",
            lambda folder: recipes.reward(size, str(folder / "sft"), preferences(folder, "builtin:skills,")),
            rank_answers,
            stands=False,
        ),
        Stage("ppo", lambda folder: recipes.ppo(size, str(folder / "sft"), str(folder / "reward"), path)),
        Stage("dpo", lambda folder: recipes.dpo(size, str(folder / "sft"), preferences(folder)), rank_answers),
    )


def tts(size: str = "nano", path: str = "spoken", language: str = ENGLISH) -> Sequence[Stage]:
    """The speech pipeline: vocoder, recogniser, voice; path=FOLDER (your recordings with their texts).

    language: of the texts, as espeak-ng names it: en-us, de, fr, pt-br ...
    """
    check_spoken(path, language)
    spoken = f"data.language={language}"

    def voice(folder: Path) -> Recipe:
        return speech.fastspeech2(size, path, *(str(folder / name) for name in TTS_PARENTS)).change(spoken)

    return (
        Stage("vocoder", lambda folder: vocoders.vocoder(size, path), stands=False),
        Stage("recogniser", lambda folder: speech.recogniser(size, path).change(spoken), stands=False),
        Stage("voice", voice, recipe_name="fastspeech2"),
    )


def music(size: str = "nano", path: str = "music") -> Sequence[Stage]:
    """The music pipeline: notes, vocoder, performer; path=FOLDER (your MIDI files)."""

    def vocoder(folder: Path) -> Recipe:
        made = vocoders.vocoder(size, "music")
        return made.change(steps=MUSIC_STEPS, evaluate_every=MUSIC_STEPS // 5) if size == "nano" else made

    def performer(folder: Path) -> Recipe:
        return tunes.performer(size, path, *(str(folder / name) for name in MUSIC_PARENTS))

    return (
        Stage("notes", lambda folder: tunes.notes(size, path), stands=False),
        Stage("vocoder", vocoder, stands=False),
        Stage("performer", performer),
    )


def continued(name: str, assignments: Sequence[str], folder: Path) -> list[str]:
    """Assignments together with those that a folder was started with. Raises ConfigError for another argument."""
    path = folder / PIPELINE
    kept = read_object(path).get("given") if path.is_file() else None
    if kept is None:
        return list(assignments)
    before, now = (dict(text.partition("=")[::2] for text in texts) for texts in (kept, assignments))
    parameters = inspect.signature(globals()[name]).parameters
    for key in now.keys() & parameters.keys():
        if now[key] != before.get(key, parameters[key].default):
            known = "leave it out, or train into another folder: --run FOLDER"
            raise ConfigError(f"{key}={now[key]}: given, but {folder} was started with another {key}; {known}")
    return [f"{key}={value}" for key, value in {**before, **now}.items()]


def make(name: str, assignments: Sequence[str]) -> tuple[Sequence[Stage], list[str]]:
    """The stages of a pipeline with its own arguments (size=, path=, text=) taken out of the assignments."""
    function: Callable[..., Sequence[Stage]] = globals()[name]
    mine, rest = arguments(inspect.signature(function).parameters, list(assignments))
    return function(**mine), rest
