"""Runs that speak or recognise: training, files, the command line, evaluation, the pipeline, bad requests."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import sanbu
from sanbu import recipes
from sanbu.checkpoints import PIPELINE
from sanbu.cli.main import app
from sanbu.codecs.audio import read_wave, write_wave
from sanbu.config import SanbuError
from sanbu.data.speech import Speech, Transcripts
from sanbu.data.waves import Waves
from sanbu.evaluation import speech as measured
from sanbu.layers.spectrogram import Mel
from sanbu.memory.cost import cost
from sanbu.memory.training import estimate
from sanbu.objectives.ctc import Ctc
from sanbu.objectives.distilled_speaking import DistilledSpeaking
from sanbu.objectives.reading_aloud import ReadingAloud
from sanbu.objectives.speaking import Speaking
from sanbu.optimizers.gradient import Adam
from sanbu.recipe import Recipe, Schedule
from sanbu.recipes.contests import speech as contest
from sanbu.recipes.pipelines import tts
from sanbu.run import Run
from sanbu.strategies.in_stages import InStages
from sanbu.strategies.transcribe import Transcribe
from sanbu.strategies.vocoding import Vocoding
from tests.sound.test_spectrogram import speech_like
from tests.sound.test_speech_models import ACOUSTIC, EARS, MEL, TALKER
from tests.sound.test_waves import TRAINED

TEXTS = ["One step.", "Two more!", "Three steps, and done.", "Yes or no?", "A small thing.", "No more of it."]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SANBU_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    place = tmp_path_factory.mktemp("corpus")
    for number, text in enumerate(TEXTS):
        folder = place / ("ada" if number % 2 else "bob")
        folder.mkdir(exist_ok=True)
        wave = speech_like(0.8 + 0.1 * number, 8000, number)
        write_wave(folder / f"{number}.wav", wave / np.abs(wave).max() / 2, 8000)
        (folder / f"{number}.txt").write_text(text)
    return place


def recipe(data, model, objective, strategy, steps=4, **more):
    return Recipe(
        name="tiny", data=data, model=model, objective=objective, optimizer=Adam(learning_rate=3e-3), strategy=strategy,
        machine={"precision": "float32"},
        schedule=Schedule(
            steps=steps, batch=3, micro_batch=3, evaluate_every=steps, evaluate_rows=2, sample_every=steps
        ),
        **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory):
    """vocoder, recogniser and two voices, trained for a few steps."""
    place = tmp_path_factory.mktemp("runs")
    made = {
        "vocoder": recipe(Waves(path=str(corpus), mel=MEL, segment=8, validation=0.5), *TRAINED["spectral"], Vocoding())
    }
    made["recogniser"] = recipe(Transcripts(path=str(corpus), mel=MEL, validation=0.5), EARS, Ctc(), Transcribe())
    parents = {"vocoder": str(place / "vocoder"), "judge": str(place / "recogniser")}
    data = Speech(path=str(corpus), mel=MEL, validation=0.5)
    for name, model, objective in (("voice", ACOUSTIC["convolutions"], Speaking()), ("talker", TALKER, ReadingAloud())):
        made[name] = recipe(data, model, objective, InStages(), parents=parents)
    for name, each in made.items():
        sanbu.train(each, place / name, watchers=[])
    return place


def test_a_voice_is_saved_reloaded_and_speaks(runs, tmp_path):
    for name in ("voice", "talker"):
        run = sanbu.load(runs / name)
        assert run.recipe.data.voices == ("ada", "bob") and run.recipe.data.units == "letters"
        whole = run.generate("One step. Two more!", seed=4)
        parts = list(run.stream("One step. Two more!", seed=4, chunk=5))
        assert whole.dtype == np.float32 and whole.ndim == 1 and len(whole) and np.isfinite(whole).all()
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)
        both = run.generate(["Yes.", {"text": "One step.", "voice": "bob"}])
        alone = run.generate({"text": "One step.", "voice": 1}, seed=1)  # the seed of the second row
        np.testing.assert_allclose(alone, both[1], atol=1e-5)
        assert list((runs / name / "samples").glob("*.wav"))


def test_the_rate_of_speaking(runs):
    run = sanbu.load(runs / "voice")
    torch.nn.init.constant_(run.model.durations.out.bias, 1.7)
    lengths = [len(run.generate("Three steps, and done.", rate=rate)) for rate in (1.0, 0.8)]
    assert abs(lengths[1] - 1.25 * lengths[0]) <= MEL.hop


def test_resume_gives_the_same_run(runs, corpus, tmp_path):
    made = Run.open(runs / "talker").recipe.change("schedule.checkpoint_every=2")
    whole = sanbu.train(made, tmp_path / "whole", watchers=[]).model.state_dict()
    sanbu.train(made.change(steps=2), tmp_path / "part", watchers=[])
    again = sanbu.train(made, tmp_path / "again", watchers=[]).model.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_student_learns_from_a_teacher(runs, corpus, tmp_path):
    parents = {"teacher": str(runs / "talker"), "vocoder": str(runs / "vocoder")}
    data = Speech(path=str(corpus), mel=MEL, validation=0.5)
    made = recipe(data, ACOUSTIC["convolutions"], DistilledSpeaking(), InStages(), steps=2, parents=parents)
    run = sanbu.train(made, tmp_path / "student", watchers=[])
    assert len(sanbu.load(run.folder).generate("One step."))
    assert not any(name.startswith("teacher") for name in run.model.state_dict())


def test_generate_writes_sound_and_a_picture(runs, tmp_path):
    out = tmp_path / "hello.wav"
    line = ["generate", str(runs / "voice"), "-p", "Hello, it is 5 o'clock.", "--label", "bob", "--out", str(out)]
    done = CliRunner().invoke(app, [*line, "strategy.first.rate=0.9", "--json"])
    assert done.exit_code == 0, done.output
    assert len(read_wave(out, 8000)) > 100 and out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(done.output.strip().splitlines()[-1])["picture"].endswith("hello.png")
    done = CliRunner().invoke(app, ["generate", str(runs / "recogniser"), "-p", str(out)])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("voice", ["-p", "..."], "no letter or number"),
        ("voice", ["-p", "a" * 60_000], "allowed: at most 50,000"),
        ("voice", ["-p", "Hi.", "--label", "adda"], "voice: given 'adda', allowed: ada, bob; did you mean 'ada'"),
        ("voice", ["-p", "Hi.", "strategy.first.rate=9"], "rate"),
        ("talker", ["-p", "Hi.", "strategy.first.pitch=2"], "tacotron2 does not control it"),
        ("recogniser", [], "give the sound file"),
        ("recogniser", ["-p", "nowhere.wav"], "No such file"),
    ],
)
def test_bad_requests_are_one_line(runs, tmp_path, name, arguments, said):
    done = CliRunner().invoke(app, ["generate", str(runs / name), *arguments, "--out", str(tmp_path / "x.wav")])
    assert isinstance(done.exception, SanbuError) and said in str(done.exception), done.exception
    assert "\n" not in str(done.exception)


def test_wrong_files_voices_and_company_are_one_line(runs, corpus, tmp_path):
    done = CliRunner().invoke(app, ["generate", str(runs / "voice"), "-p", "Hi.", "--out", str(tmp_path / "x.aac")])
    assert "given the suffix 'aac', allowed: .wav" in str(done.exception) and not (tmp_path / "x.aac").exists()
    with pytest.raises(SanbuError, match="is of the voice 'ada', allowed \\(data.voices\\): bob, eve"):
        Speech(path=str(corpus), mel=MEL, voices=("bob", "eve")).build()
    with pytest.raises(ValueError, match="voices"):
        Speech(path=str(corpus), mel=MEL, voices=())
    done = CliRunner().invoke(app, ["evaluate", str(runs / "voice"), str(runs / "recogniser")])
    assert "is measured as speech" in str(done.exception) and "as transcripts" in str(done.exception)


def test_one_word_and_many(runs):
    run = sanbu.load(runs / "voice")
    assert len(run.generate("Yes"))
    text = "One small step. " * 40
    condition = run.codec.condition(text, 1)
    assert condition["ids"].shape[:2] == (1, 40)
    assert len(run.generate(text)) == 40 * len(run.generate("One small step."))


def test_a_vocoder_of_another_mel_is_refused(runs, corpus, tmp_path):
    other = Mel(rate=8000, n_fft=128, hop=64, window=128, mels=16, fmax=4000)
    made = Run.open(runs / "voice").recipe.change(data=Speech(path=str(corpus), mel=other))
    with pytest.raises(SanbuError, match=r"parents\.vocoder: .* has another mel than this run: hop 32 against 64"):
        sanbu.train(made, tmp_path / "run", watchers=[])


def test_evaluate_measures_speech_and_recognition(runs, monkeypatch):
    monkeypatch.setattr(measured, "CHUNK", 4)
    done = CliRunner().invoke(app, ["evaluate", str(runs / "voice"), str(runs / "talker"), "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.output.strip().splitlines()[-1])["rows"]
    keys = (
        "rtf",
        "first_audio_ms",
        "mcd",
        "cer",
        "cer_ceiling",
        "cer_floor",
        "skipped",
        "repeated_ceiling",
        "unfinished",
    )
    assert all(row[key] is not None for row in rows for key in keys) and len(rows) == 2
    done = CliRunner().invoke(app, ["evaluate", str(runs / "recogniser"), "--json"])
    row = json.loads(done.output.strip().splitlines()[-1])["rows"][0]
    assert row["texts"] >= 1 and row["cer"] > 0.5 and 0 <= row["exact"] <= 1


def test_the_folder_of_a_pipeline_stands_for_its_last_stage(runs, tmp_path):
    stages = tts(path="somewhere")
    assert [stage.name for stage in stages] == ["vocoder", "recogniser", "voice"]
    assert [stage.name for stage in stages if stage.stands] == ["voice"]
    (runs / PIPELINE).write_text(json.dumps({"stages": ["talker", "voice", "later"]}))
    assert Run.open(runs).folder == runs / "voice"
    (tmp_path / PIPELINE).write_text(json.dumps({"stages": ["voice"]}))
    with pytest.raises(SanbuError, match="is not a run"):
        Run.open(tmp_path)


def test_the_contest_of_speech(corpus, tmp_path, monkeypatch):
    given = {
        "recogniser": recipe(Transcripts(path=str(corpus), mel=MEL, validation=0.5), EARS, Ctc(), Transcribe()),
        "fastspeech2": recipe(
            Speech(path=str(corpus), mel=MEL, validation=0.5), ACOUSTIC["convolutions"], Speaking(), InStages()
        ),
        "istft-head": recipe(
            Waves(path=str(corpus), mel=MEL, segment=8, validation=0.5), *TRAINED["spectral"], Vocoding()
        ),
    }
    monkeypatch.setattr(contest, "recipe", lambda name, path, language: given[name].change(*contest.QUIET))
    monkeypatch.setattr(measured, "CHUNK", 4)
    line = [
        "compare",
        "speech",
        "--run",
        str(tmp_path / "run"),
        "--seconds",
        "1",
        "models=fastspeech2,istft-head",
        "--json",
    ]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    rows = json.loads(done.output.strip().splitlines()[-1])["rows"]
    assert [row["name"] for row in rows] == ["fastspeech2 + istft-head", "fastspeech2 + griffin-lim"]
    keys = ("rtf", "first_audio_ms", "cer", "cer_ceiling", "pesq", "stoi", "unfinished")
    assert all(key in row for row in rows for key in keys)
    assert (tmp_path / "run" / "compare.html").exists()
    done = CliRunner().invoke(app, ["compare", "speech", "models=fastspech2"])
    assert "did you mean 'fastspeech2'" in str(done.exception)


@pytest.mark.parametrize("name", ["fastspeech2", "tacotron2", "recogniser"])
@pytest.mark.parametrize("size", ["nano", "paper"])
def test_recipes_build(name, size):
    made = recipes.find(name)(size)
    with torch.device("meta"):
        model = made.model.build(made.data.space())
    assert sum(each.numel() for each in model.parameters()) > (400_000 if size == "nano" else 7e6)


@pytest.mark.parametrize(
    "name",
    ["fastspeech2", "recogniser", pytest.param("tacotron2", marks=pytest.mark.slow)],  # a loop over frames
)
def test_memory_and_cost_are_counted(name):
    made = recipes.find(name)("nano")
    assert cost(made).parameters > 400_000 and estimate(made, {}, torch.float32) is not None


def test_the_pipeline_is_shown():
    done = CliRunner().invoke(app, ["show", "tts", "--json"])
    assert list(json.loads(done.output)["stages"]) == ["vocoder", "recogniser", "voice"]
