"""Pictures in arrays: the digits, NPZ, IDX.

In an NPZ the labels are the array that has a name of labels (`LABELS`), or else the only other one with a row for each
picture. Arrays of one file that name a split (x_train, y_train, x_test, y_test) are read together.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sanbu.codecs.pixels import PictureError, Shape, as_bytes
from sanbu.data.pictures.labels import SPLITS, Labels, class_numbers
from sanbu.data.pictures.source import Pictures, Seen
from sanbu.data.reading import SourceError, read_unzipped
from sanbu.files import file_hash

PICTURES = ("images", "image", "imgs", "img", "pictures", "picture", "x", "data")
LABELS = ("labels", "label", "targets", "target", "y", "classes", "class", "category", "categories", "arr")
IDS = ("id", "ids", "index", "indices", "idx", "name", "names", "file", "files", "filenames", "path", "paths")
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def digits() -> Pictures:
    """1,797 handwritten digits of 8 x 8 pixels and 17 levels (Alpaydin and Kaynak, 1998), from scikit-learn."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = found.images.astype(np.uint8)[:, None]
    labels = found.target.astype(np.int64)
    return from_array("digits", images, (labels, ()), lambda: "digits", levels=17)


def from_array(
    place: str,
    images: np.ndarray,
    labels: Labels | None,
    content_hash: Callable[[], str],
    levels: int = 256,
    remarks: tuple[str, ...] = (),
) -> Pictures:
    """Pictures of an array, uint8 [N, C, H, W]."""
    shape: Any = images.shape[1:]

    def each() -> Iterator[Seen]:
        return ((image, ()) for image in images)

    def shapes() -> Iterator[tuple[str, Shape]]:
        return iter(())

    numbers, names = labels or (None, ())
    return Pictures(place, shape, len(images), numbers, each, shapes, content_hash, names, levels, remarks)


def pictures_array(place: str, images: np.ndarray) -> np.ndarray:
    """[N, H, W], [N, H, W, C] or [N, C, H, W] of numbers as uint8 [N, C, H, W]; channels are 1 or 3."""
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise SourceError(f"{place}: an array of shape {list(images.shape)} has no pictures; [N, H, W] is needed")
    if images.dtype.kind not in "buif":
        raise SourceError(f"{place}: pictures of type {images.dtype}; integers or floats are needed")
    try:
        levels = as_bytes(place, images)
    except PictureError as error:
        raise SourceError(str(error)) from None
    if levels.ndim == 3:
        return levels[:, None]
    if levels.shape[1] in (1, 3):
        return levels
    if levels.shape[3] in (1, 3):
        return np.ascontiguousarray(levels.transpose(0, 3, 1, 2))
    raise SourceError(
        f"{place}: pictures of shape {list(levels.shape[1:])} have neither 1 nor 3 channels; 1 or 3 are allowed"
    )


# -- NPZ --------------------------------------------------------------------------------------------------------------


def from_npz(file: Path) -> Pictures:
    """Pictures of an .npz with arrays of pictures and perhaps of labels; pickles are refused."""
    try:
        with np.load(file, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except Exception as error:  # a damaged file makes its reader fail in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SourceError(f"{file} is not an .npz of plain arrays: {reason}") from None
    chosen = {split_of(name): name for name in picture_names(file, arrays)}
    used = set(chosen.values())
    images, labels = [], []
    for split, name in chosen.items():
        images.append(pictures_array(f"{file}: {name}", arrays[name]))
        others = {other: arrays[other] for other in arrays if other not in chosen.values() and split_of(other) == split}
        label = label_name(file, others, len(images[-1]))
        if label is not None:
            used.add(label)
            labels.append(as_rows(arrays[label]))
    kinds = {(part.shape[1:], part.dtype.kind) for part in labels}
    if len({part.shape[1:] for part in images}) > 1 or len(labels) not in (0, len(images)) or len(kinds) > 1:
        raise SourceError(f"{file}: its parts differ in shape or labels; arrays: {described(arrays)}")
    whole = np.concatenate(images) if len(images) > 1 else images[0]
    numbers = class_numbers(f"{file}: labels", np.concatenate(labels), len(whole)) if labels else None
    unused = [name for name in arrays if name not in used]
    remarks: tuple[str, ...] = (f"arrays not used: {', '.join(unused)}",) if unused else ()
    guessed = [name for name in used - set(chosen.values()) if not set(words(name)) & set(LABELS)]
    remarks += (f"labels from the array {guessed[0]}",) if guessed else ()
    return from_array(str(file), whole, numbers, lambda: file_hash(file), remarks=remarks)


def words(name: str) -> list[str]:
    """The words of an array's name."""
    return re.findall("[a-z]+|[0-9]+", name.lower())


def split_of(name: str) -> str:
    """The split that an array's name has in it, or nothing."""
    return next((word for word in words(name) if word in SPLITS), "")


def picture_names(file: Path, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The arrays of pictures: those so named, otherwise those of bytes, otherwise all of 3 or 4 axes; one per split."""
    found = [name for name, array in arrays.items() if array.ndim in (3, 4) and array.dtype.kind in "buif"]
    named = [name for name in found if set(words(name)) & set(PICTURES)]
    plain = [name for name in found if arrays[name].dtype == np.uint8]
    for names in (named, plain, found):
        if names and len({split_of(name) for name in names}) == len(names):
            return names
        if names:
            break
    raise SourceError(
        f"{file}: one uint8 array of 3 or 4 axes is needed, or one of other numbers named images;"
        f" arrays: {described(arrays)}"
    )


def label_name(file: Path, arrays: Mapping[str, np.ndarray], count: int) -> str | None:
    """The array of labels among the arrays beside `count` pictures, None if there is none. Raises SourceError."""
    others = {name: set(words(name)) for name in arrays if not set(words(name)) & set(IDS)}
    named = [name for word in LABELS for name in others if others[name] - SPLITS == {word}]
    named += [name for word in ("fine", *LABELS) for name in others if word in others[name]]
    if named:
        return named[0]
    rows = [name for name in others if arrays[name].ndim and len(arrays[name]) == count]
    rows = [name for name in rows if array_of_labels(arrays[name])]
    if len(rows) > 1:
        raise SourceError(f"{file}: {' or '.join(rows)} may be the labels; name one of them labels")
    return rows[0] if rows else None


def array_of_labels(array: np.ndarray) -> bool:
    """Whether an array could be labels: one axis or one column, of whole numbers or texts."""
    return array.dtype.kind in "buiUS" and array.size == len(array)


def as_rows(labels: np.ndarray) -> np.ndarray:
    """Labels with one column as one axis."""
    return labels.reshape(-1) if labels.ndim > 1 and labels.size == len(labels) else np.atleast_1d(labels)


def described(arrays: Mapping[str, np.ndarray]) -> str:
    """Names, types and shapes of arrays."""
    return ", ".join([f"{name} {array.dtype}{list(array.shape)}" for name, array in arrays.items()])


# -- IDX --------------------------------------------------------------------------------------------------------------


def from_idx(file: Path) -> Pictures:
    """Pictures of an IDX file, the format of MNIST; labels come from the file named labels-idx1 for images-idx3."""
    images = pictures_array(str(file), idx_array(file))
    beside = [other for other in labels_beside(file) if other.exists()]
    labels = class_numbers(str(beside[0]), idx_array(beside[0]), len(images)) if beside else None
    hashed = hashlib.sha256(images.tobytes()).hexdigest
    remarks = () if beside else (f"no labels: there is no {labels_beside(file)[0].name}",)
    return from_array(str(file), images, labels, hashed, remarks=remarks)


def labels_beside(file: Path) -> list[Path]:
    """Where the labels of an IDX file may be: packed like it, or not."""
    name = file.name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1")
    other = name.removesuffix(".gz") if name.endswith(".gz") else f"{name}.gz"
    return [file.with_name(each) for each in (name, other) if each != file.name]


def idx_array(file: Path) -> np.ndarray:
    """The array of an IDX file."""
    content = read_unzipped(file)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES or len(content) < 4 + 4 * content[3]:
        raise SourceError(f"{file} is not an IDX file of numbers")
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    kind = np.dtype(IDX_TYPES[content[2]])
    room = len(content) - 4 - 4 * content[3]
    if room != int(np.prod(shape, dtype=object)) * kind.itemsize:
        raise SourceError(f"{file}: the header says {list(shape)}, but {room} bytes follow")
    return np.frombuffer(content, kind, offset=4 + 4 * content[3]).reshape(shape)
