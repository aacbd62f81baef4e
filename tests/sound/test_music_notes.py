"""Language models over notes: rows, legal samples, files, the command line, figures with their floors, bad requests."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import sanbu
from sanbu import recipes
from sanbu.cli.main import app
from sanbu.codecs.audio import read_wave
from sanbu.codecs.music.midi import read_midi, write_midi
from sanbu.codecs.music.note_tokens import BEGINS_BAR, END, NOTE, VOCABULARY, decode, encode, first_illegal
from sanbu.codecs.music.score import Note, Score
from sanbu.codecs.music.tune import Tune
from sanbu.config import ConfigError, SanbuError
from sanbu.data.builtin.compositions import compose
from sanbu.data.notes import Notes, sections_of
from sanbu.evaluation import music as measured
from sanbu.evaluation.note_chain import NoteChain
from sanbu.evaluation.note_figures import (
    divergence,
    figures,
    in_key,
    intervals,
    regularity,
    runs_of,
    transition_divergence,
    transitions,
    voice_of,
)
from sanbu.models.tokens.modern import Modern
from sanbu.space import IGNORED
from sanbu.strategies.autoregressive import Autoregressive


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SANBU_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def small(**fields):
    return Notes(**{"pieces": 40, "validation": 0.3, **fields})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A model and a chain, trained for a few steps."""
    place = tmp_path_factory.mktemp("runs")
    model = Modern(layers=1, heads=2, width=16, context=128)
    made = {
        "notes": recipes.notes().change(
            data=small(context=128), model=model, strategy=Autoregressive(max_tokens=60), steps=3, batch=4,
            evaluate_every=3, evaluate_rows=4, sample_every=3, samples=2, checkpoint_every=3,
        ),
        "chain": recipes.note_chain().change(data=small(), strategy=Autoregressive(max_tokens=60), samples=2),
    }  # fmt: skip
    for name, recipe in made.items():
        sanbu.train(recipe, place / name, watchers=[])
    return place


def pieces_in(batch):
    """The sequences of a batch, from its tokens and targets."""
    for tokens, targets, positions in zip(batch["tokens"], batch["targets"], batch["positions"], strict=True):
        starts = [*(positions == 0).nonzero()[:, 0].tolist(), len(tokens)]
        for start, stop in pairwise(starts):
            if targets[start] != IGNORED:
                real = targets[start:stop] != IGNORED
                yield tokens[start:stop][real].tolist(), targets[start:stop][real].tolist()


def test_rows_hold_every_piece_once():
    rows = small().build()
    assert len(rows.train_pieces) + len(rows.held_pieces) == 40 and rows.held_pieces
    for batch, found in (
        (rows.batch(0, rows.rows), rows.train_pieces),
        (rows.held_out(0, rows.held_out_rows), rows.held_pieces),
    ):
        read = []
        for tokens, targets in pieces_in(batch):
            assert tokens[1:] == targets[:-1] and tokens[0] == targets[-1] == END
            read.append((*tokens, END))
        assert sorted(read) == sorted(tuple(ids.tolist()) for ids in found)
    again = small().build()
    assert again.fingerprint == rows.fingerprint and torch.equal(
        again.batch(3, 2)["tokens"], rows.batch(3, 2)["tokens"]
    )


def test_long_pieces_are_cut_at_bars():
    for number in range(30):
        ids = np.array(encode(compose(number).score))
        sections = sections_of(ids, 100)
        assert len(sections) > 1 and all(len(each) <= 101 and list(each[:2]) == list(ids[:2]) for each in sections)
        assert np.array_equal(np.concatenate([ids[:2], *(each[2:] for each in sections)]), ids)
        assert all(each[2] == BEGINS_BAR and first_illegal(each.tolist()) is None for each in sections)
        assert all(len(a) + first_bar(b) > 101 for a, b in pairwise(sections))  # no bar more would fit
    with pytest.raises(SanbuError, match=r"data.context: given 64, but a bar has 129 tokens"):
        sections_of(np.array([END, 2, BEGINS_BAR, *[NOTE] * 128, BEGINS_BAR]), 64)


def first_bar(section):
    bars = [*np.flatnonzero(section == BEGINS_BAR).tolist(), len(section)]
    return bars[1] - bars[0]


def test_a_folder_of_midi_files(tmp_path):
    scores = [compose(number).score for number in range(6)]
    for number, score in enumerate(scores):
        write_midi(tmp_path / "sub" / f"{number}.mid", score)
    rows = Notes(path=str(tmp_path), validation=0).build()
    assert [decode(ids.tolist()) for ids in rows.pieces] == scores and rows.names[0] == "sub/0.mid"
    assert len(Notes(path=str(tmp_path / "sub" / "1.mid"), validation=0).build().pieces) == 1
    write_midi(tmp_path / "sub" / "0.mid", scores[5])
    assert Notes(path=str(tmp_path), validation=0).build().fingerprint != rows.fingerprint


def test_bad_sources_are_one_clear_line(tmp_path):
    with pytest.raises(SanbuError, match=r"data.path: '.*musik' does not exist; allowed: music, a folder"):
        Notes(path=str(tmp_path / "musik")).build()
    with pytest.raises(SanbuError, match="has no MIDI files; allowed: .mid, .midi"):
        Notes(path=str(tmp_path)).build()
    write_midi(tmp_path / "a.mid", compose(0).score)
    with pytest.raises(SanbuError, match="none is left for training"):
        Notes(path=str(tmp_path), validation=0.999).build()
    (tmp_path / "b.mid").write_bytes(b"MThd")
    with pytest.raises(SanbuError, match=r"b.mid cannot be read as MIDI") as error:
        Notes(path=str(tmp_path)).build()
    assert "\n" not in str(error.value)


def test_only_legal_sequences_are_drawn(runs):
    """Even by a model that has learnt next to nothing; a row is the same in a batch and alone."""
    run = sanbu.load(runs / "notes")
    drafts = list(run.drafts(n=4, seed=3, temperature=1.5))
    for row, real in zip(drafts[-1].sample, drafts[-1].committed, strict=True):
        assert first_illegal(row[real].tolist()) is None
    tunes = run.generate(n=4, seed=3, temperature=1.5)
    assert run.generate(seed=5, temperature=1.5).score == tunes[2].score
    assert all(encode(tune.score)[0] == END for tune in tunes)
    pieces = list(run.stream(seed=5, temperature=1.5))
    assert tuple(note for piece in pieces for note in piece) == tunes[2].score.notes
    with pytest.raises(ConfigError, match="beam-search"):
        run.generate(strategy="beam-search")


def test_a_run_keeps_its_source(runs, tmp_path, monkeypatch):
    """A folder called `music` that appears later does not take the place of the built-in pieces."""
    config = sanbu.load(runs / "chain").recipe.data
    assert config.path == "builtin:music"
    before = config.build().fingerprint
    monkeypatch.chdir(tmp_path)
    (tmp_path / "music").mkdir()
    assert config.build().fingerprint == before
    with pytest.raises(SanbuError, match="'music' has no MIDI files"):
        Notes().build()


def test_a_score_is_continued(runs, tmp_path):
    run, given = sanbu.load(runs / "chain"), Score(compose(2).score.notes[:12], 100)
    path = write_midi(tmp_path / "start.mid", given)
    for prompt in (given, str(path), Tune(given, run.codec.mel)):
        tune = run.generate(prompt, seed=1)
        assert tune.score.notes[:11] == given.notes[:11] and tune.score.tempo == 100
        assert len(tune.score.notes) > 12
    with pytest.raises(SanbuError, match="prompt: given float, allowed: a MIDI file"):
        run.generate(3.5)
    with pytest.raises(SanbuError, match="cut before its first note; raise strategy.max_tokens"):
        run.generate(max_tokens=2)


def test_files_from_the_command_line(runs, tmp_path):
    def call(*line):
        return CliRunner().invoke(app, ["generate", str(runs / "notes"), *map(str, line)])

    for name in ("tune.mid", "tune.wav", "tune.png"):
        done = call("--out", tmp_path / name, "--seed", 2)
        assert done.exit_code == 0, done.output
    score = read_midi(tmp_path / "tune.mid")
    assert score == sanbu.load(runs / "notes").generate(seed=2).score
    assert len(read_wave(tmp_path / "tune.wav", 22050)) == len(Tune(score, sanbu.load(runs / "notes").codec.mel).wave)
    assert (tmp_path / "tune.png").read_bytes().startswith(b"\x89PNG")
    assert call("-n", 2, "--out", tmp_path / "both").exit_code == 0
    assert {path.name for path in (tmp_path / "both").iterdir()} == {
        f"{number:04d}.{suffix}" for number in range(2) for suffix in ("mid", "wav", "png")
    }
    assert call("-p", tmp_path / "tune.mid", "strategy.max_tokens=5", "--out", tmp_path / "more.mid").exit_code == 0
    for line, said in (
        (("-n", 2, "--out", tmp_path / "x.mid"), "given the file"),
        (("-p", tmp_path / "none.mid"), "cannot be read as MIDI: No such file"),
        (("--label", "3"), "music has no labels"),
    ):
        done = call(*line)
        assert isinstance(done.exception, SanbuError) and said in str(done.exception)
    assert list((runs / "notes" / "samples").glob("*.png"))


def test_the_figures_of_scores():
    scale = [60, 62, 64, 65, 67, 69, 71, 72]
    up = Score(tuple(Note(4 * place, 0, pitch, 4) for place, pitch in enumerate(scale)), 120)
    assert in_key(up) == 1 and regularity(up) == pytest.approx(1)
    wrong = Score((*up.notes[:-1], Note(28, 0, 61, 4)), 120)
    assert in_key(wrong) == pytest.approx(7 / 8)  # C sharp is not of C major
    short = Score((*up.notes[:-1], Note(28, 0, 61, 1)), 120)
    assert in_key(short) == pytest.approx(28 / 29)
    late = Score(tuple(Note(4 * place + (place > 3), 0, pitch, 3) for place, pitch in enumerate(scale)), 120)
    assert regularity(late) == pytest.approx(0)
    assert intervals(voice_of(up, 0)) == [2, 2, 1, 2, 2, 2, 1] and not voice_of(up, 1)
    chord = Score((Note(0, 1, 60, 4), Note(0, 1, 67, 4), Note(4, 1, 62, 4)), 120)
    assert [note.pitch for note in voice_of(chord, 1)] == [67, 62]
    far = Score((Note(0, 0, 30, 4), Note(4, 0, 90, 4), Note(8, 0, 31, 4)), 120)
    assert list(transitions([far])[0]) == [(13, -13)]
    counts = transitions([up])[0]
    assert counts[2, 2] == 3 and counts[2, 1] == 2 and counts[1, 2] == 1
    assert divergence(counts, counts) == 0 and divergence(counts, transitions([far])[0]) == pytest.approx(1)
    assert transition_divergence([up], [up]) == 0 and transition_divergence([chord], [up]) == 1


def test_copies_are_found():
    known = {run for number in range(20) for run in runs_of(compose(number).score)}
    same = compose(4).score
    higher = Score(tuple(note._replace(pitch=note.pitch + 1) for note in same.notes), same.tempo)
    assert figures([higher], [same], known)["copied"] == 1  # in another key
    assert figures([compose(30).score], [same], known)["copied"] == 0


def test_the_chain_of_notes_draws_what_it_counted():
    scores = [compose(number).score for number in range(30)]
    chain = NoteChain(scores)
    drawn = chain.draw(20)
    assert drawn == chain.draw(20) and len(set(drawn)) == 20
    seen = {
        (voice, *(note.pitch for note in notes[start : start + 3]))
        for score in scores
        for voice in range(4)
        for notes in [voice_of(score, voice)]
        for start in range(len(notes) - 2)
    }
    for score in drawn:
        for voice in range(4):
            pitches = [note.pitch for note in voice_of(score, voice)]
            assert all((voice, *pitches[start : start + 3]) in seen for start in range(len(pitches) - 2))
    assert transition_divergence(drawn, scores) < 0.35 < transition_divergence(scores[:1], scores)


def test_evaluation_has_floors_and_a_ceiling(runs):
    rows = sanbu.evaluate(runs / "notes", runs / "chain")["rows"]
    assert [row["name"].rpartition("/")[2] for row in rows] == [
        "notes", "chain", "Markov chain of tokens", "Markov chain of notes", "other held-out pieces",
    ]  # fmt: skip
    tokens, ceiling = rows[2], rows[4]
    assert ceiling["in_key"] == 1 and ceiling["transitions"] < tokens["transitions"]
    assert rows[0]["bits_per_note"] > rows[1]["bits_per_note"] > 1
    same = {name: rows[1][name] for name in ("bits_per_note", "pieces")}
    assert same["pieces"] == ceiling["pieces"] and 0 <= rows[0]["unfinished"] <= 1
    done = CliRunner().invoke(app, ["evaluate", str(runs / "chain")])
    assert done.exit_code == 0 and "other held-out pieces" in " ".join(done.output.split()), done.output


def test_bits_per_note_of_an_even_law():
    """A model that gives all tokens the same chance needs log2 of their number for each token."""

    class Even(torch.nn.Module):
        def forward(self, tokens, positions):
            return torch.zeros(*tokens.shape, VOCABULARY)

    rows = small().build()
    tokens = sum(len(ids) - 1 for ids in rows.held_pieces)
    notes = sum(int((ids >= NOTE).sum()) for ids in rows.held_pieces)
    assert measured.bits_per_note(Even(), rows) == pytest.approx(np.log2(VOCABULARY) * tokens / notes, rel=1e-5)
