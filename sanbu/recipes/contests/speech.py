"""Speech: every acoustic model with every vocoder on the same sentences: intelligibility, speed, unfinished ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sanbu.codecs.speech.languages import ENGLISH
from sanbu.config import ConfigError, nearest
from sanbu.data.speech import check_spoken
from sanbu.evaluation import vocoders as copies
from sanbu.evaluation.contest import Contestant, place_of, train_contestants
from sanbu.evaluation.figures import Entry, Figures, Shown
from sanbu.evaluation.speech import row_of
from sanbu.machine import fitting_threads
from sanbu.progress import progress_tasks
from sanbu.recipe import Recipe
from sanbu.recipes import speech, vocoders
from sanbu.run import Run

SECONDS = 600.0
ACOUSTIC = {"fastspeech2": speech.fastspeech2, "tacotron2": speech.tacotron2, "flow-speech": speech.flow_speech}
VOCODERS = {
    "magnitude-head": vocoders.vocoder,
    "istft-head": vocoders.istft_head,
    "hifigan": vocoders.hifigan,
    "waveglow": vocoders.waveglow,
    "wavenet": vocoders.wavenet,
}
JUDGE, FLOOR = "recogniser", "griffin-lim"
SLOW = ("wavenet",)  # sample by sample: few sentences
QUIET = ("schedule.evaluate_every=0", "schedule.sample_every=0", "schedule.checkpoint_every=0", "machine.device=cpu")
SHOWN = (
    Shown("name", "acoustic model + vocoder", "s"),
    Shown("cer", "CER"),
    Shown("cer_ceiling", "CER of true sound", rank=3),
    Shown("rtf", "RTF", ".4f"),
    Shown("first_audio_ms", "first sound, ms", ".0f", 1),
    Shown("unfinished", "unfinished", "d", 2),
    Shown("skipped", "skipped words, share", ".3f", 4),
    Shown("repeated", "repeated words, share", ".3f", 4),
    Shown("pesq", "PESQ of the vocoder", ".2f", 2),
    Shown("stoi", "STOI of the vocoder", rank=4),
    Shown("mcd", "MCD, dB", ".2f", 3),
    Shown("f0", "pitch error, semitones", ".2f", 5),
    Shown("sentences", "sentences", "d", 6),
)
NOTES = (
    "Every model was trained for the same CPU time on the same sentences. CER: character error rate of our own"
    " recogniser, trained on other sentences and voices; the ceiling is its error on the true sound. RTF: CPU seconds"
    " per second of sound. PESQ and STOI: the vocoder alone, copying true sound. MCD and pitch error: along the best"
    " alignment with the true sound. None of this is a listening test."
)


def compete(entry: Entry) -> Figures:
    """Train every model, then measure every pair. Settings: path=CORPUS, models=A,B (acoustic models and vocoders),
    language=de (of the texts).
    """
    given = entry.values("speech", path="CORPUS", models="A,B", language="de")
    path, seconds = given.get("path", "spoken"), entry.seconds or SECONDS
    language = given.get("language", ENGLISH)
    check_spoken(path, language)
    names = chosen(given.get("models", ""))
    contestants = [Contestant(name, recipe(name, path, language)) for name in [JUDGE, *names]]
    runs = {each.name: run for each, _, run in train_contestants(contestants, entry.folder, seconds, 1)}
    rows = measured(runs, entry.folder)
    title = f"{Path(path).name}: {seconds:g} CPU seconds each"
    return Figures(
        title, SHOWN, rows, advice(rows), (), frozenset(row["name"] for row in rows if FLOOR in row["name"]), NOTES
    )


def chosen(models: str) -> list[str]:
    """The models of these names, all without names. Raises ConfigError if one is unknown, or none is acoustic."""
    known = [*ACOUSTIC, *VOCODERS]
    names = models.split(",") if models else [name for name in known if name not in SLOW]
    for name in names:
        if name not in known:
            raise ConfigError(f"models: given {name!r}, allowed: {', '.join(known)}{nearest(name, known)}")
    if not ACOUSTIC.keys() & set(names):
        raise ConfigError(f"models: given {models!r}, but one of {', '.join(ACOUSTIC)} is needed")
    return list(dict.fromkeys(names))


def recipe(name: str, path: str, language: str) -> Recipe:
    """The recipe of a model. language: of the texts; a vocoder has none."""
    make: Any = speech.recogniser if name == JUDGE else {**ACOUSTIC, **VOCODERS}[name]
    own = () if name in VOCODERS else (f"data.language={language}",)
    return make("nano", path).change(*QUIET, *own)


def measured(runs: Mapping[str, Run], folder: Path) -> list[dict[str, Any]]:
    """A row for each pair of an acoustic model and a vocoder; Griffin-Lim last."""
    speaking = [name for name in ACOUSTIC if name in runs]
    sounding = [name for name in VOCODERS if name in runs]
    rows = []
    with progress_tasks("measuring", (len(speaking) + 1) * (len(sounding) + 1)) as progress:
        alone = copied(runs, sounding)
        progress(len(sounding) + 1, "vocoders")
        for name in speaking:
            for vocoder in [*sounding, FLOOR]:
                parents = () if vocoder == FLOOR else (f"parents.vocoder={place_of(folder, vocoder, 0)}",)
                few = {"sentences": 2, "streams": 1} if vocoder in SLOW else {}
                with fitting_threads(runs[name].model):
                    row = row_of(runs[name], parents, runs[JUDGE], **few)
                rows.append({**row, "name": f"{name} + {vocoder}", **alone[vocoder]})
                progress(1, row["name"])
    return rows


def copied(runs: Mapping[str, Run], names: list[str]) -> dict[str, dict[str, Any]]:
    """PESQ and STOI of each vocoder, and of Griffin-Lim, when they copy true sound."""
    found = {}
    for name in names:
        own, floor = copies.measure_rows([runs[name]])
        for each, row in ((name, own), (FLOOR, floor)):
            found[each] = {"pesq": row["pesq"], "stoi": row["stoi"]}
    return found or {FLOOR: {"pesq": None, "stoi": None}}


def advice(rows: list[dict[str, Any]]) -> list[str]:
    """Which pair is understood best, and which is fastest."""
    best = min(rows, key=lambda row: row["cer"])
    fastest = min(rows, key=lambda row: row["rtf"])
    return [
        f"{best['name']} is understood best: CER {best['cer']:.3f}, the true sound has {best['cer_ceiling']:.3f}.",
        f"{fastest['name']} is fastest: {1 / fastest['rtf']:.0f} seconds of sound per CPU second.",
    ]
