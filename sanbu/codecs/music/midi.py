"""MIDI files: a score out, and any file in, by mido (the extra `music`).

In: times are rounded to sixteenths, the first tempo holds, and the voice of a note is its channel modulo 4. Percussion
(channel 10), velocities, pedals and changes of tempo are left out. Out: a track and a channel for each voice.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from sanbu.codecs.music.score import BEAT, VOICES, Note, Score, score_of
from sanbu.config import SanbuError
from sanbu.files import replace_atomically

SUFFIXES = (".mid", ".midi")
TICKS = 480  # per beat, of files that are written
PROGRAMS = (73, 24, 33, 46)  # flute, nylon guitar, finger bass, harp: General MIDI, from 0
VELOCITY = 80
PERCUSSION = 9  # channel, from 0
MINUTE = 60_000_000  # microseconds
USUAL = 500_000  # microseconds per beat where a file does not say


def library() -> ModuleType:
    """mido. Raises SanbuError if it is not installed."""
    try:
        import mido
    except ImportError:
        raise SanbuError("MIDI needs the package 'mido'; install it with: pip install 'sanbu[music]'") from None
    return mido


def is_midi(path: Path | str) -> bool:
    """Whether a path has the suffix of a MIDI file."""
    return Path(path).suffix.lower() in SUFFIXES


def read_midi(path: Path | str) -> Score:
    """The score of a MIDI file. Raises SanbuError, in one line that names it, if it cannot be read or has no notes."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise SanbuError(f"{path} cannot be read as MIDI: {error.strerror}") from None
    return from_bytes(content, str(path))


def from_bytes(content: bytes, name: str = "the file") -> Score:
    """The score of the content of a MIDI file. Raises SanbuError as `read_midi`."""
    mido = library()
    if not content:
        raise SanbuError(f"{name} is empty, 0 bytes")
    try:
        file = mido.MidiFile(file=io.BytesIO(content))
    except Exception as error:  # the library raises many types of errors for damaged files
        reason = str(error).split("\n")[0] or "it ends too early"
        raise SanbuError(f"{name} cannot be read as MIDI: {reason}") from None
    if file.ticks_per_beat <= 0:
        raise SanbuError(f"{name} counts time in frames of film; allowed: MIDI files that count it in beats")
    tracks = [timed(track) for track in file.tracks]
    changes = [event for track in tracks for event in track if event[1].type == "set_tempo"]
    tempi = [(time, message.tempo) for time, message in changes if message.tempo > 0]
    _, beat = min(tempi, default=(0, USUAL))
    step = file.ticks_per_beat / BEAT
    return score_of((note for track in tracks for note in notes_of(track, step)), MINUTE / beat, name)


def timed(track: Iterable[Any]) -> list[tuple[int, Any]]:
    """The messages of a track with their times in ticks from the start."""
    found, time = [], 0
    for message in track:
        time += message.time
        found.append((time, message))
    return found


def notes_of(events: list[tuple[int, Any]], step: float) -> list[Note]:
    """The notes of a track. step: ticks. One that is not ended ends with the track, or where it is struck again."""
    notes: list[Note] = []
    open_at: dict[tuple[int, int], int] = {}

    def close(place: tuple[int, int], time: int) -> None:
        channel, pitch = place
        start, end = round(open_at.pop(place) / step), round(time / step)
        notes.append(Note(start, channel % len(VOICES), pitch, max(1, end - start)))

    for time, message in events:
        if message.type not in ("note_on", "note_off") or message.channel == PERCUSSION:
            continue
        place = message.channel, message.note
        if place in open_at:
            close(place, time)
        if message.type == "note_on" and message.velocity:
            open_at[place] = time
    for place in list(open_at):
        close(place, events[-1][0])
    return notes


def to_bytes(score: Score) -> bytes:
    """A score as the content of a MIDI file."""
    mido = library()
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS)
    first = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=round(MINUTE / score.tempo))])
    file.tracks.append(first)
    by_voice: dict[int, list[Note]] = defaultdict(list)
    for note in score.notes:
        by_voice[note.voice].append(note)
    for voice, notes in sorted(by_voice.items()):
        file.tracks.append(mido.MidiTrack(messages(mido, voice, notes)))
    written = io.BytesIO()
    file.save(file=written)
    return written.getvalue()


def messages(mido: Any, voice: int, notes: Iterable[Note]) -> list[Any]:
    """The messages of a voice, with the ticks between them; at equal times notes end before others begin."""
    tick = TICKS // BEAT
    events = [(note.start * tick, 1, note.pitch) for note in notes]
    events += [((note.start + note.length) * tick, 0, note.pitch) for note in notes]
    found = [
        mido.MetaMessage("track_name", name=VOICES[voice]),
        mido.Message("program_change", channel=voice, program=PROGRAMS[voice]),
    ]
    before = 0
    for time, begins, pitch in sorted(events):
        kind = "note_on" if begins else "note_off"
        found.append(mido.Message(kind, channel=voice, note=pitch, velocity=VELOCITY, time=time - before))
        before = time
    return found


def write_midi(path: Path, score: Score) -> Path:
    """Write a score as a MIDI file, atomically."""
    content = to_bytes(score)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path) as temporary:
        temporary.write_bytes(content)
    return path
