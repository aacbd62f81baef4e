"""Sources of music: the built-in pieces, a folder of MIDI files, or one file."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np

from sanbu.codecs.music.midi import SUFFIXES, from_bytes, is_midi
from sanbu.codecs.music.note_tokens import VOCABULARY, encode
from sanbu.config import SanbuError
from sanbu.data.builtin import compositions
from sanbu.data.cache import cache_folder
from sanbu.data.sources import built_in
from sanbu.files import nearest_file, read_json, write_json
from sanbu.progress import progress_rows

RULES = 1  # the version of how a source becomes tokens


def pieces(path: str, count: int) -> tuple[list[str], list[np.ndarray], str]:
    """Names, tokens (END to END) and the fingerprint of a source. count: built-in pieces. Raises SanbuError."""
    if built_in(path, compositions.NAME):
        name = f"music-{compositions.RULES}-{RULES}-{VOCABULARY}-{count}"
        folder = cache_folder(name, lambda place: store_composed(count, place))
    else:
        found = midi_files(path)
        contents = [file.read_bytes() for file in found]
        digest = hashlib.sha256(f"{RULES} {VOCABULARY}".encode())
        for file, content in zip(found, contents, strict=True):
            digest.update(f"{file.name} ".encode() + hashlib.sha256(content).digest())
        name = f"music-{digest.hexdigest()[:24]}"
        folder = cache_folder(name, lambda place: store_files(path, found, contents, place))
    about = read_json(folder / "pieces.json")
    tokens = np.load(folder / "tokens.npy")
    edges = np.cumsum([0, *about["lengths"]])
    return about["names"], [tokens[start:end] for start, end in pairwise(edges)], name


def midi_files(path: str) -> list[Path]:
    """The MIDI files of a path, in order. Raises SanbuError if there are none."""
    place = Path(path)
    if not place.exists():
        allowed = f"allowed: {compositions.NAME}, a folder of MIDI files, one file"
        raise SanbuError(f"data.path: {path!r} does not exist; {allowed}{nearest_file(path, [compositions.NAME])}")
    found = sorted(filter(is_midi, place.rglob("*"))) if place.is_dir() else [place]
    if not found:
        raise SanbuError(f"data.path: {path!r} has no MIDI files; allowed: {', '.join(SUFFIXES)}")
    return found


def store_composed(count: int, folder: Path) -> None:
    """Compose the built-in pieces."""
    found = [encode(compositions.compose(number).score) for number in range(count)]
    store([f"{number:05d}" for number in range(count)], found, folder)


def store_files(path: str, files: list[Path], contents: list[bytes], folder: Path) -> None:
    """Read all files. Raises SanbuError naming the first that cannot be read or has no notes."""
    names, found = [], []
    with progress_rows("reading MIDI", len(files)) as progress:
        for file, content in zip(files, contents, strict=True):
            names.append(str(file.relative_to(path)) if file != Path(path) else file.name)
            found.append(encode(from_bytes(content, str(file))))
            progress(1)
    store(names, found, folder)


def store(names: list[str], found: list[list[int]], folder: Path) -> None:
    """Write tokens.npy, one stream, and pieces.json."""
    np.save(folder / "tokens.npy", np.concatenate([np.array(ids, np.int16) for ids in found]))
    write_json(folder / "pieces.json", {"names": names, "lengths": [len(ids) for ids in found]})
