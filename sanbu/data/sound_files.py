"""Sources of sound: the built-in clips, a folder, one file, or Parquet files with a column of encoded audio."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from sanbu.codecs.audio import HIGHEST, READABLE, AudioError, read_wave
from sanbu.config import SanbuError
from sanbu.data.builtin import compositions, played, spoken
from sanbu.data.cache import cache_folder
from sanbu.data.reading import arrow_table, parquet_below
from sanbu.data.sources import built_in
from sanbu.files import nearest_file, read_json, write_json
from sanbu.progress import progress_rows

RULES = 1  # the version of how files become samples; another one reads the data anew
COLUMN = "audio"


def clips(path: str, rate: int) -> tuple[list[str], list[np.ndarray], str]:
    """Names, waves (int16, at the rate, on disk) and the fingerprint of a source. Raises AudioError in one line."""
    found = sounds(path)
    digest = hashlib.sha256(f"{RULES} {rate}".encode())
    for name, size, stamp in (identity(each) for each in found):
        digest.update(f"{name} {size} {stamp}\n".encode())
    name = f"waves-{digest.hexdigest()[:24]}"
    folder = cache_folder(name, lambda place: store(found, rate, place))
    about = read_json(folder / "clips.json")
    samples = np.load(folder / "samples.npy", mmap_mode="r")
    edges = np.cumsum([0, *about["lengths"]])
    waves = [samples[start:end] for start, end in pairwise(edges)]
    return about["names"], waves, name


def identity(source: Path | tuple[str, bytes]) -> tuple[str, int, str]:
    """What tells one sound from another without decoding it: its name, size, and a hash of its bytes."""
    if isinstance(source, Path):
        content = source.read_bytes()
        return source.name, len(content), hashlib.sha256(content).hexdigest()
    return source[0], len(source[1]), hashlib.sha256(source[1]).hexdigest()


def sounds(path: str) -> list[Path | tuple[str, bytes]]:
    """The sounds of a source, in order. Raises SanbuError if there are none."""
    place = Path(path)
    if built_in(path, spoken.NAME):
        return list(spoken.spoken())
    if built_in(path, compositions.NAME):
        return list(played.played())
    if not place.exists():
        allowed = "give spoken, music, a folder of sound files, a file, or .parquet"
        near = nearest_file(path, [spoken.NAME, compositions.NAME])
        raise SanbuError(f"data.path: {path!r} does not exist; {allowed}{near}")
    if place.suffix.lower() == ".parquet":
        return list(records(place))
    found = sorted(place.rglob("*")) if place.is_dir() else [place]
    sounding = filter(is_readable, found)
    kept: list[Path | tuple[str, bytes]] = list(sounding) or [
        each for file in parquet_below(place) for each in records(file)
    ]
    if not kept:
        raise SanbuError(f"data.path: {path!r} has no sound files; allowed: {', '.join(READABLE)}")
    return kept


def is_readable(path: Path) -> bool:
    """Whether a file has the suffix of a sound."""
    return path.suffix.lower() in READABLE


def records(file: Path) -> Iterator[tuple[str, bytes]]:
    """Name and encoded sound of each record of a Parquet file."""
    table = arrow_table(file)
    if COLUMN not in table.column_names:
        raise SanbuError(f"{file} has no column {COLUMN!r}; its columns: {', '.join(table.column_names)}")
    values: list[Any] = table.column(COLUMN).to_pylist()
    for number, value in enumerate(values):
        content = value["bytes"] if isinstance(value, dict) else value
        yield f"{file.name}[{number}]", content or b""


def store(found: list[Path | tuple[str, bytes]], rate: int, folder: Path) -> None:
    """Decode all sounds into one array of int16. Raises AudioError naming the first that cannot be read."""
    names, waves = [], []
    with progress_rows("reading sound", len(found)) as progress:
        for each in found:
            name, wave = taken(each, rate)
            names.append(name)
            loud = np.clip(wave, -1, HIGHEST) * 32768
            waves.append(np.round(loud).astype(np.int16))
            progress(1)
    if not waves:
        raise AudioError("data.path: the source has no sounds")
    np.save(folder / "samples.npy", np.concatenate(waves))
    write_json(folder / "clips.json", {"names": names, "lengths": [len(wave) for wave in waves]})


def taken(source: Path | tuple[str, bytes], rate: int) -> tuple[str, np.ndarray]:
    """The name and the wave of a file or record."""
    if isinstance(source, Path):
        return source.stem, read_wave(source, rate)
    name, content = source
    return name, read_wave(content, rate, name)
