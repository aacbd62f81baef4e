"""Scores: tokens and MIDI give back the same score; composed pieces keep their rules, and notes their pitch."""

import io

import mido
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sanbu.codecs.music.midi import from_bytes, read_midi, to_bytes
from sanbu.codecs.music.note_tokens import (
    BEGINS_BAR,
    END,
    LENGTH,
    NOTE,
    POSITION,
    TEMPO,
    VOCABULARY,
    allowed,
    decode,
    encode,
    first_illegal,
)
from sanbu.codecs.music.score import BAR, LONGEST, LOWEST, PITCHES, Note, Score, score_of
from sanbu.codecs.music.synthesiser import INSTRUMENTS, RELEASE, TAIL, additive, hertz, synthesise, tone_of
from sanbu.config import SanbuError
from sanbu.data.builtin.compositions import FORMS, MELODY, PHRASE, SCALES, compose
from sanbu.layers.pitch import pitch as yin
from sanbu.noise import uniform_at

NOTES = st.builds(
    Note,
    st.integers(0, 70),
    st.integers(0, 3),
    st.integers(LOWEST, LOWEST + PITCHES - 1),
    st.integers(1, LONGEST),
)
SCORES = st.builds(score_of, st.lists(NOTES, min_size=1, max_size=40), st.integers(10, 60).map(lambda n: 4 * n))


@settings(max_examples=150, deadline=None)
@given(SCORES)
def test_tokens_give_back_the_score(score):
    ids = encode(score)
    assert decode(ids) == score and encode(decode(ids)) == ids
    assert ids[0] == ids[-1] == END and all(0 <= each < VOCABULARY for each in ids)
    assert first_illegal(ids) is None


@settings(max_examples=100, deadline=None)
@given(SCORES)
def test_midi_gives_back_the_score(score):
    assert from_bytes(to_bytes(score)) == score


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**40), st.integers(2, 120))
def test_every_legal_sequence_is_the_tokens_of_its_score(seed, steps):
    """Tokens drawn at random from the legal ones, every note of few pitches, so that notes meet."""
    few = torch.ones(VOCABULARY, dtype=torch.bool)
    few[NOTE:] = False
    few[[NOTE + 40, NOTE + 41, NOTE + PITCHES + 40, NOTE + 3 * PITCHES]] = True
    tokens, uniform = [END], uniform_at(torch.tensor([seed]), torch.arange(steps)).tolist()
    for chance in uniform:
        may = allowed(torch.tensor([tokens]), torch.tensor([len(tokens)]))[0]
        assert may.any()
        if len(tokens) > 3 and bool(may[END]) and chance > 0.97:
            break
        choices = (may & few).nonzero()[:, 0].tolist()
        choices = [each for each in choices if each != END]
        if not choices:  # every one of the few sounds
            break
        tokens.append(choices[int(chance * len(choices))])
    while tokens[-1] != END and not bool(allowed(torch.tensor([tokens]), torch.tensor([len(tokens)]))[0, END]):
        tokens.pop()
    if len(tokens) > 1:
        assert encode(decode(tokens)) == [*tokens, END]


def test_what_the_grammar_forbids():
    note, other = NOTE + 40, NOTE + 50
    head = [END, TEMPO + 20, BEGINS_BAR, POSITION + 4]
    wrong = {
        "a note before its bar": [END, TEMPO, POSITION],
        "two tempi": [END, TEMPO, TEMPO],
        "a bar after a position": [*head, BEGINS_BAR],
        "a position that goes back": [*head, note, LENGTH, POSITION + 4],
        "notes in descending order": [*head, other, LENGTH, note],
        "the same note twice": [*head, note, LENGTH, note],
        "a note that still sounds": [*head, note, LENGTH + 2, POSITION + 6, note],
        "a note that still sounds in the next bar": [*head, note, LENGTH + 15, BEGINS_BAR, POSITION, note],
        "a length without a note": [*head, LENGTH],
        "a note without a length": [*head, note, other],
        "an end after an empty bar": [*head, note, LENGTH, BEGINS_BAR, END],
        "an end without a note": [END, TEMPO, END],
    }
    for name, ids in wrong.items():
        assert first_illegal(ids) == len(ids) - 1, name
    assert first_illegal([*head, note, LENGTH + 1, POSITION + 6, note, LENGTH, END]) is None
    assert first_illegal([NOTE]) == 0


def test_rows_are_masked_alone():
    """A row gets the same mask in every batch, and what lies beyond its length is not seen."""
    rows = [encode(compose(number).score)[: 20 + 30 * number] for number in range(4)]
    longest = max(map(len, rows))
    together = torch.full((4, longest), NOTE)
    for place, row in enumerate(rows):
        together[place, : len(row)] = torch.tensor(row)
    both = allowed(together, torch.tensor([len(row) for row in rows]))
    for place, row in enumerate(rows):
        alone = allowed(torch.tensor([row]), torch.tensor([len(row)]))
        assert torch.equal(both[place], alone[0])


def test_notes_of_one_pitch_never_overlap():
    score = score_of(
        [Note(0, 0, 60, 8), Note(4, 0, 60, 4), Note(4, 0, 60, 2), Note(0, 1, 60, 8), Note(0, 0, 200, 8)], 121
    )
    assert score == Score((Note(0, 0, 60, 4), Note(0, 1, 60, 8), Note(4, 0, 60, 4)), 120)


def test_pieces_keep_their_rules():
    pieces = [compose(number) for number in range(120)]
    assert pieces[7] == compose(7) and len({piece.score for piece in pieces}) == 120
    assert {piece.form for piece in pieces} == set(FORMS)
    assert {len({note.voice for note in piece.score.notes}) for piece in pieces} == {2, 3, 4}
    for piece in pieces:
        scale = {(piece.tonic + step) % 12 for step in SCALES[piece.mode]}
        assert {note.pitch % 12 for note in piece.score.notes} <= scale
        assert piece.score.steps == len(piece.form) * PHRASE * BAR == 128
        melody = [note for note in piece.score.notes if note.voice == 0]
        assert melody[-1].pitch % 12 == piece.tonic and melody[-1].length == 8 and piece.chords[-1] == 0
        assert all(MELODY[0] - 3 <= note.pitch <= MELODY[1] + 3 for note in melody if note.start < 7 * BAR)
        bass = {note.start: note.pitch for note in piece.score.notes if note.voice == 2}
        for bar, degree in enumerate(piece.chords):
            assert bass[bar * BAR] % 12 == (piece.tonic + SCALES[piece.mode][degree]) % 12


def test_phrases_come_back():
    for piece in map(compose, range(60)):
        first, last = piece.form.index("A"), piece.form.rindex("A")
        if first == last or last == len(piece.form) - 1:
            continue
        spans = [
            [
                (note.start - place * PHRASE * BAR, note.pitch, note.length)
                for note in piece.score.notes
                if note.voice == 0 and note.start // (PHRASE * BAR) == place
            ]
            for place in (first, last)
        ]
        assert spans[0] == spans[1]


def test_midi_as_mido_reads_it():
    score = compose(11).score
    file = mido.MidiFile(file=io.BytesIO(to_bytes(score)))
    assert abs(file.length - score.seconds) < 1e-3
    found, sounding = [], {}
    for track in file.tracks:
        time = 0
        for message in track:
            time += message.time
            if message.type == "note_on":
                sounding[message.channel, message.note] = time
            elif message.type == "note_off":
                begun = sounding.pop((message.channel, message.note))
                step = file.ticks_per_beat // 4
                found.append(Note(begun // step, message.channel, message.note, (time - begun) // step))
    assert tuple(sorted(found)) == score.notes and not sounding


def written(*messages, ticks=96, tempo=500_000):
    file = mido.MidiFile(ticks_per_beat=ticks)
    file.tracks.append(mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=tempo), *messages]))
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


def test_midi_of_others():
    """Times between steps, velocity 0 as an end, percussion, channel 5, a note struck again, one that never ends."""
    on = lambda note, time, channel=0, velocity=64: mido.Message(
        "note_on", note=note, time=time, channel=channel, velocity=velocity
    )
    content = written(
        on(60, 3), on(35, 0, channel=9), on(60, 47, velocity=0), on(64, 0, channel=5), on(64, 24, channel=5), on(67, 0),
        mido.MetaMessage("end_of_track", time=48), tempo=round(60e6 / 90),
    )  # fmt: skip
    score = from_bytes(content)
    assert score.tempo == 92 or score.tempo == 88  # 90 lies between
    assert score.notes == (Note(0, 0, 60, 2), Note(2, 1, 64, 1), Note(3, 0, 67, 2), Note(3, 1, 64, 2))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty, 0 bytes"),
        (b"MThd\x00\x00", "cannot be read as MIDI"),
        (b"RIFF" + bytes(100), "cannot be read as MIDI"),
        (to_bytes(compose(0).score)[:60], "cannot be read as MIDI"),
        (written(), "has no notes"),
        (written(mido.Message("note_on", note=1, time=0), mido.Message("note_off", note=1, time=96)), "has no notes"),
    ],
)
def test_bad_midi_is_one_clear_line(tmp_path, content, said):
    path = tmp_path / "tune.mid"
    path.write_bytes(content)
    with pytest.raises(SanbuError, match=said) as error:
        read_midi(path)
    assert "tune.mid" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(SanbuError, match="No such file"):
        read_midi(tmp_path / "missing.mid")


@pytest.mark.parametrize("voice", range(4))
def test_a_note_has_its_pitch(voice):
    """By YIN, whose range ends at 500 Hz; within 2 cents."""
    for pitch in (40, 47, 55, 60, 65, 70):
        wave = tone_of(voice, pitch, 1, 22050)[2000:16000]
        found = yin(wave, 22050, 256, 40)
        cents = 1200 * np.log2(found[np.isfinite(found)] / hertz(pitch))
        assert len(cents) > 20 and abs(np.median(cents)) < 2


def test_nothing_is_aliased():
    """All energy of an additive note lies at multiples of its frequency below 0.45 of the rate."""
    rate, samples = 22050, 22050
    frequency = 1500.0
    steady = INSTRUMENTS[2].__class__(tilt=0.5, decay=0.0)
    wave = additive(frequency, samples, rate, steady)
    spectrum = np.abs(np.fft.rfft(wave)) ** 2  # bins are whole Hz, so partials lie on bins
    partials = np.arange(1500, 0.45 * rate, 1500).astype(int)
    assert spectrum[partials].sum() / spectrum.sum() > 1 - 1e-9
    assert len(partials) == 6


def test_the_sound_of_a_score():
    score = compose(3).score
    wave = synthesise(score, 22050)
    assert wave.dtype == np.float32 and np.array_equal(wave, synthesise(score, 22050))
    assert len(wave) == int((score.seconds + TAIL) * 22050) + 1 and 0.1 < np.abs(wave).max() <= 0.95
    one = Score((Note(16, 2, 45, 4),), 120)
    wave = synthesise(one, 22050)
    begin, end = 2 * 22050, round(2.5 * 22050)  # a bar takes 2 s, a beat half a second
    assert not wave[:begin].any() and np.abs(wave[begin : begin + 2000]).max() > 0.05
    assert not wave[end + int(RELEASE * 22050) + 1 :].any() and np.abs(wave[end - 2000 : end]).max() > 0.01
    loud = Score(tuple(sorted(Note(0, voice, pitch, 8) for voice in range(4) for pitch in range(40, 80))), 120)
    assert np.isclose(np.abs(synthesise(loud, 22050)).max(), 0.95)
