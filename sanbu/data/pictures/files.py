"""Pictures in files: a folder, or a ZIP. Hidden files and what macOS adds (__MACOSX, ._NAME) are left out.

Labels come from a dataset.json of NVIDIA's dataset_tool where there is one (with "labels": null it says that there are
none), otherwise from the folders (`labels.folder_labels`).
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from sanbu.codecs.pixels import Pixels, Scale, Shape, channels_first, on_white, read_pixels, read_shape, scale_of
from sanbu.data.pictures.labels import Labels, class_numbers, folder_labels
from sanbu.data.pictures.source import Pictures, Seen, counted
from sanbu.data.reading import SourceError, read_file, readable
from sanbu.data.sources import hidden, walk
from sanbu.files import file_hash

SUFFIXES = frozenset(
    (
        ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff",
        ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif", ".avifs", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k",
        ".jpx", ".jpf", ".jpc", ".tga", ".qoi", ".pcx", ".sgi", ".dds",
    )
)  # fmt: skip
ABOUT = "dataset.json"
Entry = tuple[str, Callable[[], bytes]]  # the name of a file, with slashes, and its content


@lru_cache
def readable_suffixes() -> frozenset[str]:
    """The suffixes of pictures that this installation of Pillow reads."""
    Image.init()
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return SUFFIXES & known


def from_folder(place: Path) -> Pictures:
    """Pictures of a folder and the folders in it; links to folders elsewhere are followed."""
    found, skipped = walk(place)
    entries: list[Entry] = [(file.relative_to(place).as_posix(), partial(read_file, file)) for file in found]

    def hashed() -> str:
        digest = hashlib.sha256()
        for name, _ in chosen(entries, Counter()):
            digest.update(f"{name}\0{file_hash(place / name)}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    return from_entries(place, entries, skipped, hashed)


def from_zip(file: Path) -> Pictures:
    """Pictures of a ZIP."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise SourceError(f"{file} is not a ZIP file, or is damaged: {str(error)[:80]}") from None
    skipped: Counter[str] = Counter()
    entries: dict[str, Entry] = {}
    for member in sorted({info.filename for info in archive.infolist() if not info.is_dir()}):
        name = member.replace("\\", "/")
        if hidden(PurePosixPath(name).parts):
            skipped["hidden"] += 1
        else:
            entries[name] = (name, partial(read_member, file, archive, member))
    return from_entries(file, list(entries.values()), skipped, lambda: file_hash(file))


def read_member(file: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """One file of a ZIP. Raises SourceError."""
    if archive.getinfo(name).flag_bits & 1:
        raise SourceError(f"{file}: {name} is encrypted; pictures with a password cannot be read")
    with readable(f"{file}: {name}"):
        return archive.read(name)


def chosen(entries: Sequence[Entry], skipped: Counter[str]) -> list[Entry]:
    """The pictures among files; the others are counted by their suffix."""
    pictures = []
    for name, content in entries:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in readable_suffixes():
            pictures.append((name, content))
        elif suffix in SUFFIXES:
            skipped[f"{suffix}: Pillow cannot read it here;"] += 1
        elif PurePosixPath(name).name != ABOUT:
            skipped[suffix or "no suffix"] += 1
    return pictures


def from_entries(place: Path, entries: list[Entry], skipped: Counter[str], hashed: Callable[[], str]) -> Pictures:
    """Pictures among files. Raises SourceError if there is none."""
    found = chosen(entries, skipped)
    left_out = counted(skipped, "files skipped")
    if not found:
        others = f"; {left_out[0]}" if left_out else ""
        raise SourceError(f"data.path: {place} has no picture ({', '.join(sorted(readable_suffixes()))}){others}")
    labels, remarks = labels_of(place, entries, [name for name, _ in found])
    return from_files(place, found, labels, hashed, (*left_out, *remarks))


def from_files(
    place: Path, found: Sequence[Entry], labels: Labels | None, hashed: Callable[[], str], remarks: tuple[str, ...] = ()
) -> Pictures:
    """Pictures of encoded files; the first is read."""
    shape = channels_first(load(place, found[0]).values).shape

    def shapes() -> Iterator[tuple[str, Shape]]:
        for name, content in found:
            yield name, read_shape(f"{place}: {name}", content())

    numbers, names = labels or (None, ())
    each = partial(read_files, place, found)
    return Pictures(str(place), shape, len(found), numbers, each, shapes, hashed, names, remarks=remarks)


def load(place: Path, entry: Entry) -> Pixels:
    """One picture. Raises PictureError, which names it."""
    name, content = entry
    return read_pixels(f"{place}: {name}", content())


def read_files(place: Path, found: Sequence[Entry]) -> Iterator[Seen]:
    """Every picture; the scale of deep grey is that of all of them, found when the first comes."""
    scales: dict[str, Scale] = {}
    for entry in found:
        pixels = load(place, entry)
        kind = pixels.values.dtype.kind
        if pixels.deep and kind not in scales:
            loaded = (load(place, other).values for other in found)
            scales[kind] = scale_of(str(place), (values for values in loaded if values.dtype == pixels.values.dtype))
        levels = scales[kind].to_bytes(pixels.values) if pixels.deep else pixels.values
        yield channels_first(on_white(levels, pixels.opacity)), pixels.remarks


# -- labels -----------------------------------------------------------------------------------------------------------


def labels_of(place: Path, entries: Sequence[Entry], names: Sequence[str]) -> tuple[Labels | None, tuple[str, ...]]:
    """The labels of the pictures of these names, and remarks."""
    about = min((entry for entry in entries if PurePosixPath(entry[0]).name == ABOUT), key=depth, default=None)
    if about is not None and all(name.startswith(about[0].removesuffix(ABOUT)) for name in names):
        stated, given = dataset_labels(place, about[1]())
        if stated:
            return listed_labels(place, given, names, about[0].removesuffix(ABOUT))
    folders, remarks = folder_labels(names)
    return None if folders is None else class_numbers(f"{place}: folders", folders, len(names)), remarks


def depth(entry: Entry) -> int:
    """The number of folders that a file lies in."""
    return entry[0].count("/")


def dataset_labels(place: Path, content: bytes) -> tuple[bool, dict[str, Any]]:
    """Whether a dataset.json speaks of labels, and the label of each picture by name. Raises SourceError."""
    with readable(f"{place}: {ABOUT}"):
        value = json.loads(content)
    pairs = value.get("labels") if isinstance(value, dict) else value if value else [None]
    pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs or []
    found: dict[str, Any] = {}
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str)):
            raise SourceError(f'{place}: {ABOUT} must be {{"labels": [["name.png", 3], ...]}}, not {str(pair)[:40]}')
        name = pair[0].replace("\\", "/").removeprefix("./")
        if found.setdefault(name, pair[1]) != pair[1]:
            raise SourceError(f"{place}: {ABOUT} has two labels for {name!r}")
    return isinstance(value, dict) and "labels" in value, found


def listed_labels(
    place: Path, given: dict[str, Any], names: Sequence[str], root: str
) -> tuple[Labels | None, tuple[str, ...]]:
    """The labels of a dataset.json, in the order of the pictures; its names begin at the folder `root`."""
    if not given:
        return None, (f"no labels: {ABOUT} says that there are none",)
    missing = [name for name in names if name.removeprefix(root) not in given]
    if missing:
        raise SourceError(f"{place}: {ABOUT} has no label for {missing[0]!r}")
    labels = class_numbers(f"{place}: {ABOUT}", [given[name.removeprefix(root)] for name in names], len(names))
    absent = len(given) - len(names)
    return labels, (f"{absent:,} labels of {ABOUT} have no picture",) if absent else ()
