"""Sources of pictures: digits of scikit-learn, folders, ZIP, IDX, NPZ, Parquet, the Hugging Face hub.

`open_source` reads the header and the labels; `Pictures.read` yields the pictures in order as uint8 [C, H, W]. How a
file becomes pixels is in `codecs/pixels.py`, how classes are found in `labels.py`. What a source leaves out is counted
in its `remarks`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from sanbu.codecs.pixels import Shape, as_picture, fit, resize
from sanbu.data.pictures.arrays import digits, from_idx, from_npz, labels_beside
from sanbu.data.pictures.files import from_folder, from_zip
from sanbu.data.pictures.records import from_hub, from_parquet
from sanbu.data.pictures.source import Pictures
from sanbu.data.reading import SourceError
from sanbu.data.sources import files, stamp

__all__ = ["Pictures", "Shape", "as_picture", "fit", "open_source", "resize"]


def open_source(path: str) -> Pictures:
    """The source at a path, as it is now: it is read again when its files have changed. Raises SourceError."""
    if path == "digits" or path.startswith("hub:"):
        return opened(path, "")
    place = Path(path)
    found = files(path)
    return opened(path, stamp([*found, *(labels_beside(place) if is_idx(place) else ())]))


def is_idx(place: Path) -> bool:
    """Whether a file has the name of an IDX file."""
    return place.is_file() and ("idx3" in place.name or "idx4" in place.name)


@lru_cache(maxsize=8)
def opened(path: str, state: str) -> Pictures:
    """The source at a path whose files are in this state."""
    if path == "digits":
        return digits()
    if path.startswith("hub:"):
        return from_hub(path.removeprefix("hub:"))
    place = Path(path)
    if place.is_dir():
        return from_folder(place)
    suffix = (place.with_suffix("") if place.suffix.lower() == ".gz" else place).suffix.lower()
    readers = {".npz": from_npz, ".zip": from_zip, ".parquet": from_parquet}
    if suffix in readers:
        return readers[suffix](place)
    if is_idx(place):
        return from_idx(place)
    raise SourceError(
        f"data.path: {path!r} is not one of: a folder of pictures, .zip, .npz, .parquet, idx3-ubyte (may be .gz),"
        " digits, hub:NAME"
    )
