"""Performances: rolls, a performer, tunes that are drawn in stages, files, figures, the pipeline, bad requests."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import sanbu
from sanbu import recipes
from sanbu.checkpoints import PIPELINE
from sanbu.cli.main import app
from sanbu.codecs.audio import read_wave
from sanbu.codecs.music.midi import read_midi, write_midi
from sanbu.codecs.music.note_tokens import NOTES, encode
from sanbu.codecs.music.performance_codec import PerformanceCodec
from sanbu.codecs.music.roll import WIDTH, frames_of, roll
from sanbu.codecs.music.score import LOWEST, PITCHES, Note, Score
from sanbu.codecs.music.synthesiser import synthesise
from sanbu.config import SanbuError
from sanbu.data.builtin import played
from sanbu.data.builtin.compositions import compose
from sanbu.data.notes import Notes
from sanbu.data.performances import Performances
from sanbu.data.waves import Waves
from sanbu.evaluation.onsets import onset_f1, onsets
from sanbu.layers.spectrogram import Mel, log_mel
from sanbu.models.acoustic.acoustic import Control
from sanbu.models.acoustic.mel_flow import scaled
from sanbu.models.acoustic.performer import FlowPerformer, Performer, rolls
from sanbu.models.tokens.modern import Modern
from sanbu.noise import Noise
from sanbu.objectives.performing import Performing, PerformingFlow
from sanbu.objectives.speaking import Speaking
from sanbu.objectives.speaking_flow import way_to
from sanbu.recipes.pipelines import music
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.strategies.in_stages import InStages
from sanbu.strategies.perform import Perform
from sanbu.testing import check_model, check_objective, check_strategy
from tests.sound.test_waves import TRAINED

MEL = Mel(rate=8000, n_fft=256, hop=128, window=256, mels=20, fmax=4000)
SMALL = Performer(width=16, layers=1, kernel=3)
STAGES = InStages(first=Perform(notes=Autoregressive(max_tokens=40)))


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SANBU_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def small(**fields):
    return Performances(**{"pieces": 8, "mel": MEL, "segment": 40, "validation": 0.3, **fields})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """notes, vocoder and performer, trained for a few steps."""
    place = tmp_path_factory.mktemp("runs")
    folder = tmp_path_factory.mktemp("sounds")
    for number in range(4):
        played.write_wave(folder / f"{number}.wav", synthesise(compose(number).score, 8000)[:20000], 8000)
    model, objective = TRAINED["spectral"]
    few = {"steps": 3, "batch": 4, "evaluate_every": 3, "evaluate_rows": 4, "checkpoint_every": 3}
    made = {
        "notes": recipes.notes().change(
            data=Notes(pieces=20, context=128, validation=0.3), model=Modern(layers=1, heads=2, width=16, context=128),
            strategy=Autoregressive(max_tokens=40), sample_every=0, **few,
        ),
        "vocoder": recipes.vocoder().change(
            data=Waves(path=str(folder), mel=MEL, segment=8, validation=0.5), model=model, objective=objective,
            sample_every=0, micro_batch=4, **few,
        ),
    }  # fmt: skip
    parents = {name: str(place / name) for name in made}
    made["performer"] = recipes.performer().change(
        data=small(), model=SMALL, strategy=STAGES, parents=parents, sample_every=3, samples=2, **few
    )
    for name, recipe in made.items():
        sanbu.train(recipe, place / name, watchers=[])
    return place


def test_the_roll_of_a_note():
    """A frame of this mel takes 16 ms; at 150 beats per minute a step takes 0.1 s, 6.25 frames."""
    score = Score((Note(1, 2, 60, 2), Note(4, 0, 72, 1)), 152)
    step = score.step_seconds * MEL.rate / MEL.hop
    whole = roll(score, MEL, 0, frames_of(score, MEL))
    column = 2 * PITCHES + 60 - LOWEST
    assert whole.shape[1] == WIDTH == 2 * NOTES
    assert np.count_nonzero(whole[:, :NOTES].any(0)) == 2
    assert np.isclose(whole[:, column].sum(), 2 * step, rtol=1e-5)
    first = int(step)
    assert np.isclose(whole[first, column], first + 1 - step, rtol=1e-4) and not whole[:first, column].any()
    fresh = whole[:, NOTES + column]
    assert np.isclose(fresh[first + 3] / fresh[first + 2], np.exp(-MEL.hop / MEL.rate / 0.5), rtol=1e-4)
    age = max(0, first + 0.5 - step) * MEL.hop / MEL.rate
    assert np.isclose(fresh[first], whole[first, column] * np.exp(-age / 0.5), rtol=1e-4)
    for start, count in ((0, 5), (7, 9), (first, 3), (10, len(whole) - 10)):
        np.testing.assert_allclose(roll(score, MEL, start, count), whole[start : start + count], atol=1e-5)


def test_rolls_and_mels_have_the_same_frames():
    for number in range(5):
        score = compose(number).score
        mel = log_mel(torch.from_numpy(synthesise(score, MEL.rate))[None], MEL)
        assert mel.shape[2] == frames_of(score, MEL)
    tokens = torch.full((3, 600), -1)
    for row in (0, 2):
        ids = encode(compose(row).score)
        tokens[row, : len(ids)] = torch.tensor(ids)
    found, frames = rolls(tokens, MEL)
    assert frames.tolist() == [frames_of(compose(0).score, MEL), 0, frames_of(compose(2).score, MEL)]
    assert np.array_equal(found[2, : frames[2]].numpy(), roll(compose(2).score, MEL, 0, int(frames[2])))


def test_segments_show_what_sounds():
    """Where the loudest note of a segment lies, its mel is loud, and silence is silent."""
    rows = small(segment=30).build()
    assert rows.rows == sum(-(-rows.frames(piece) // 30) for piece in rows.order)
    batch = rows.held_out(0, 6)
    piece, first = rows.held_segments[3]
    assert np.array_equal(batch["roll"][3].numpy(), roll(rows.scores[piece], MEL, first, 30))
    assert np.array_equal(batch["mel"][3].numpy(), rows.mel_of(piece)[first : first + 30].T)
    last = next(number for number, each in enumerate(rows.held_segments) if each[1] + 30 > rows.frames(each[0]))
    part = rows.held_out(last, 1)
    count = int(part["frames"])
    assert 0 < count < 30 and not part["roll"][0, count:].any() and not part["mel"][0, :, count:].any()
    wave = rows.wave(piece)
    np.testing.assert_allclose(log_mel(torch.from_numpy(wave)[None], MEL)[0].T, rows.mel_of(piece), atol=1e-5)
    same = rows.batch(5, 3)
    assert all(torch.equal(same[name], rows.batch(4, 4)[name][1:]) for name in same)


def test_conformance():
    rows = small().build()
    batch = rows.held_out(0, 3)
    space = small().space()
    check_model(SMALL, space, (batch["roll"], batch["frames"]))
    check_objective(Performing(), SMALL.build(space), batch)


def test_conformance_of_the_flow(runs):
    rows = small().build()
    batch, space, config = rows.held_out(0, 3), small().space(), FlowPerformer(base=SMALL, width=16, decoder=1)
    model = config.build(space)
    check_objective(PerformingFlow(), model, batch)
    codec = PerformanceCodec(MEL)
    models = {"model": model.eval(), "notes": sanbu.load(runs / "notes").model}
    check_strategy(STAGES.first, models, space, codec.condition([compose(1).score, None], 1))


def test_the_flow_follows_its_velocity():
    """Along the straight velocity (mel - x) / (1 - t) Euler's steps end at the mel, whatever the noise."""
    space, model = small().space(), FlowPerformer(base=SMALL, width=16, decoder=1).build(small().space())
    tokens = torch.tensor([encode(compose(0).score)])
    frames = frames_of(compose(0).score, MEL)
    wanted = torch.randn(1, space.mel.mels, frames)
    model.velocity = lambda noisy, mean, time, frames: (wanted - noisy) / (1 - time)[:, None, None]
    for steps in (1, 5):
        made = model.play(tokens, Control(steps=steps, temperature=0.7), torch.tensor([3]))
        torch.testing.assert_close(scaled(made.mel), wanted, atol=1e-4, rtol=1e-4)
    noisy = way_to(wanted, Noise("test"))
    start = noisy["noisy"] - noisy["time"] * noisy["velocity"]
    torch.testing.assert_close(start + noisy["velocity"], wanted)


def test_strategy_conformance(runs):
    run = sanbu.load(runs / "performer")
    condition = run.codec.condition([None, compose(1).score, None], 1)
    check_strategy(STAGES, run.models, run.recipe.data.space(), condition)


def test_what_fills_up_a_row_changes_nothing():
    rows = small(segment=200).build()
    batch = rows.held_out(0, 2)
    model = SMALL.build(small().space())
    torch.nn.init.normal_(model.out.weight)
    batch["frames"] = torch.tensor([50, 120])
    other = {name: tensor.clone() for name, tensor in batch.items()}
    other["roll"][0, 50:], other["mel"][0, :, 50:] = 1.0, 7.0
    losses = [Performing().build().loss({"model": model}, each).sums["frames"] for each in (batch, other)]
    torch.testing.assert_close(*losses)
    alone = model(batch["roll"][:1, :50], torch.tensor([50]))
    torch.testing.assert_close(model(other["roll"], batch["frames"])[:1, :, :50], alone, atol=1e-4, rtol=1e-4)


def test_a_performer_learns_the_sound():
    """Two pieces are learnt nearly by heart: a quarter of the distance that the mean mel has."""
    rows = small(pieces=2, validation=0, segment=64).build()
    model = SMALL.build(small().space())
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    batch = rows.batch(0, 12)
    mean = float((batch["mel"] - batch["mel"].mean((0, 2), keepdim=True)).abs().mean())
    for _ in range(150):
        loss = (model(batch["roll"], batch["frames"]) - batch["mel"]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < mean / 4


def test_onsets_of_a_sound():
    """Of true sound most onsets are found; of another score's few."""
    scores = [compose(number).score for number in range(6)]
    mel = Mel()
    mels = [log_mel(torch.from_numpy(synthesise(score, 22050))[None], mel)[0].numpy() for score in scores]
    found = [onsets(each, mel) for each in mels]
    own = [onset_f1(times, score) for times, score in zip(found, scores, strict=True)]
    others = [onset_f1(times, score) for times, score in zip(found, [*scores[1:], scores[0]], strict=True)]
    assert np.mean(own) > 0.9 and np.mean(others) < np.mean(own) - 0.2


def test_f1_of_onsets():
    """At 120 beats per minute a step takes an eighth of a second."""
    score = Score((Note(0, 0, 60, 2), Note(0, 1, 50, 2), Note(4, 0, 60, 2), Note(8, 0, 62, 2)), 120)
    true = np.array([0, 0.5, 1.0])
    assert onset_f1(true, score) == 1 and onset_f1(true + 0.049, score) == 1 and onset_f1(true + 0.06, score) == 0
    assert onset_f1(true[:2], score) == pytest.approx(0.8)
    assert onset_f1(np.array([0, 0.01, 0.5, 0.7, 1.0]), score) == pytest.approx(0.75)  # one onset is found once
    assert onset_f1(np.zeros(0), score) == 0
    quick = Score((Note(0, 0, 60, 1), Note(1, 0, 62, 1)), 240)  # an onset between two true ones is one of them
    assert onset_f1(np.array([0.03]), quick) == pytest.approx(2 / 3)


def test_evaluation_has_a_floor_and_a_ceiling(runs):
    rows = sanbu.evaluate(runs / "performer")["rows"]
    run, ceiling, floor, true = rows
    names = ["vocoder on the true mel", "another score", "the true sound"]
    assert [each["name"] for each in rows[1:]] == names and true["sound_l1"] == 0
    assert run["mel_l1"] > 0.5 and ceiling["sound_l1"] < floor["sound_l1"] and 0 <= run["onset_f1"] <= 1
    assert run["rtf"] > 0 and run["pieces"] == len(small().build().held)
    done = CliRunner().invoke(app, ["evaluate", str(runs / "performer")])
    assert done.exit_code == 0 and "another score" in " ".join(done.output.split()), done.output


def test_a_tune_is_drawn_in_stages(runs):
    run = sanbu.load(runs / "performer")
    tune = run.generate(seed=4)
    notes = sanbu.load(runs / "notes").generate(seed=4)
    assert tune.score == notes.score  # the first stage is the language model, with the same seed
    frames = frames_of(tune.score, MEL)
    assert tune.wave.dtype == np.float32 and len(tune.wave) == frames * MEL.hop
    streamed = np.concatenate(list(run.stream(seed=4, chunk=5)))
    np.testing.assert_allclose(streamed, tune.wave, atol=1e-5)
    given = Score(compose(3).score.notes[:20], 120)
    both = run.generate([None, given], seed=4)
    assert both[0].score == tune.score and both[1].score == given
    np.testing.assert_allclose(both[0].wave, tune.wave, atol=1e-4)
    assert len(both[1].wave) == frames_of(given, MEL) * MEL.hop
    warmer = run.generate(seed=4, overrides=["strategy.first.notes.temperature=0.5"])
    assert warmer.score != tune.score


def test_files_from_the_command_line(runs, tmp_path):
    def call(*line):
        return CliRunner().invoke(app, ["generate", str(runs / "performer"), *map(str, line)])

    for suffix in ("wav", "mid", "png"):
        done = call("--out", tmp_path / f"tune.{suffix}", "--seed", 2)
        assert done.exit_code == 0, done.output
    score = read_midi(tmp_path / "tune.mid")
    assert len(read_wave(tmp_path / "tune.wav", 8000)) == frames_of(score, MEL) * MEL.hop
    assert (tmp_path / "tune.png").read_bytes().startswith(b"\x89PNG")
    done = call("-p", tmp_path / "tune.mid", "--out", tmp_path / "again.flac")
    assert done.exit_code == 0, done.output
    first, again = (read_wave(tmp_path / name, 8000) for name in ("tune.wav", "again.flac"))
    np.testing.assert_allclose(first, again, atol=1e-4)
    (tmp_path / "empty.mid").write_bytes(b"")
    for line, said in (
        (("-p", tmp_path / "empty.mid"), "empty.mid is empty, 0 bytes"),
        (("--label", "3"), "music has no labels"),
        (("--out", tmp_path / "x.mp4"), "mp4"),
        (("strategy.first.notes.max_tokens=1",), "cut before its first note"),
    ):
        done = call(*line)
        assert isinstance(done.exception, SanbuError) and said in str(done.exception)
    assert list((runs / "performer" / "samples").glob("*.wav"))


def test_without_parents(runs, tmp_path):
    """Griffin-Lim makes the wave; without a language model a score is needed."""
    recipe = recipes.performer().change(data=small(), model=SMALL, strategy=STAGES, steps=1, batch=2)
    run = sanbu.train(recipe, tmp_path / "alone", watchers=[])
    assert len(run.generate(compose(0).score).wave)
    with pytest.raises(SanbuError, match="there is no score to play: give one, or parents.notes=RUN"):
        run.generate()


def test_parents_that_do_not_fit(runs, tmp_path):
    wrong = recipes.performer(vocoder=str(runs / "vocoder")).change(model=SMALL, steps=1, data=small(mel=Mel(hop=300)))
    with pytest.raises(SanbuError, match="another mel than this run: .*hop 128 against 300"):
        sanbu.train(wrong, tmp_path / "mel", watchers=[])
    with pytest.raises(SanbuError, match="set data=performances"):
        recipes.performer().change("data=notes")
    with pytest.raises(SanbuError, match="objective: given 'speaking'"):
        recipes.performer().change(objective=Speaking())
    with pytest.raises(SanbuError, match="set data=speech"):
        recipes.fastspeech2().change("data=performances")


def test_the_vocoders_of_music(monkeypatch):
    monkeypatch.setattr(played, "PIECES", 2)
    monkeypatch.setattr(played.played, "__defaults__", (2,))
    rows = Waves(path="music", validation=0).build()
    assert len(rows.waves) == 2 and rows.names == ["00000", "00001"]
    true = synthesise(compose(played.FIRST).score, 22050)
    np.testing.assert_allclose(rows.waves[0] / 32768, true, atol=1e-4)


def test_the_pipeline(tmp_path):
    stages = music()
    assert [(stage.name, stage.stands) for stage in stages] == [
        ("notes", False), ("vocoder", False), ("performer", True),
    ]  # fmt: skip
    made = stages[2].recipe(tmp_path)
    assert made.parents == {"notes": str(tmp_path / "notes"), "vocoder": str(tmp_path / "vocoder")}
    assert stages[1].recipe(tmp_path).data.mel == made.data.mel and PIPELINE
    done = CliRunner().invoke(app, ["show", "music"])
    assert done.exit_code == 0 and "performer" in done.output
    write_midi(tmp_path / "mine" / "a.mid", compose(0).score)
    own = music(path=str(tmp_path / "mine"))
    assert own[0].recipe(tmp_path).data.path == own[2].recipe(tmp_path).data.path == str(tmp_path / "mine")
