"""Sources of pictures: scikit-learn's digits, folders, ZIP, IDX, NPZ, Parquet, a hub. All as uint8 [C, H, W].

`look` reads no more than a header and the labels; `Pictures.read` yields every picture in order. Labels are the
numbers of a label array, or the folders that pictures lie in, in order of name.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from sanbu.config import nearest
from sanbu.data.sources import SourceError, files

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Pictures:
    """A source after reading its header and labels. labels_N: None if unlabelled. names: of the classes, if any."""

    shape: Shape
    count: int
    labels: np.ndarray | None
    read: Callable[[Shape], Iterator[np.ndarray]]
    names: tuple[str, ...] = ()
    levels: int = 256

    @property
    def classes(self) -> int:
        """How many labels there are; 0 where there are none."""
        return 0 if self.labels is None else max(int(self.labels.max()) + 1, len(self.names))


@lru_cache(maxsize=16)
def look(path: str) -> Pictures:
    """A source by its path. Raises SourceError in one line."""
    if path == "digits":
        return digits()
    if path.startswith("hub:"):
        return hub(path.removeprefix("hub:"))
    place = Path(path)
    if place.is_dir():
        return named(place, folder(path))
    files(path)
    inner = place.with_suffix("").suffix if place.suffix == ".gz" else place.suffix
    if inner == ".npz":
        return npz(place)
    if inner == ".zip":
        return zipped(place)
    if inner == ".parquet":
        return parquet(place)
    if "idx3" in place.name or "idx4" in place.name:
        return idx(place)
    raise SourceError(
        f"data.path: {path!r} is not one of: a folder of pictures, .zip, .npz, .parquet, idx3-ubyte (may be .gz),"
        " digits, hub:NAME"
    )


def digits() -> Pictures:
    """1,797 handwritten digits of 8 x 8 pixels and 17 levels (Alpaydin and Kaynak, 1998), from scikit-learn."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return in_memory(found.images.astype(np.uint8)[:, None], found.target, levels=17)


def in_memory(images: np.ndarray, labels: np.ndarray | None, levels: int = 256) -> Pictures:
    """Pictures that are an array [N, C, H, W] already."""
    shape: Any = images.shape[1:]

    def read(wanted: Shape) -> Iterator[np.ndarray]:
        yield from images if wanted == shape else (fit(as_picture(image), wanted) for image in images)

    return Pictures(shape, len(images), None if labels is None else labels.astype(np.int64), read, levels=levels)


# -- arrays -----------------------------------------------------------------------------------------------------------


def npz(file: Path) -> Pictures:
    """An .npz with one array of pictures and, if it has another, one of labels; never a pickle."""
    try:
        with np.load(file, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise SourceError(f"{file} is not an .npz of plain arrays: {str(error).splitlines()[0]}") from None
    fits = lambda array: array.ndim in (3, 4) and array.dtype == np.uint8  # noqa: E731
    pictures = {name: array for name, array in arrays.items() if fits(array)}
    if len(pictures) != 1:
        found_arrays = [f"{name} {array.dtype}{list(array.shape)}" for name, array in arrays.items()]
        shapes = ", ".join(found_arrays)
        raise SourceError(f"{file}: one uint8 array of 3 or 4 axes is needed; it holds: {shapes}")
    images = channels_first(file, next(iter(pictures.values())))
    lists = [array for array in arrays.values() if array.shape == images.shape[:1]]
    rest = [array for array in lists if np.issubdtype(array.dtype, np.integer)]
    return in_memory(images, checked(file, rest[0]) if rest else None)


def channels_first(file: Path, images: np.ndarray) -> np.ndarray:
    """[N, H, W], [N, H, W, C] or [N, C, H, W] as [N, C, H, W]; channels are 1 or 3."""
    if images.ndim == 3:
        return images[:, None]
    if images.shape[1] in (1, 3):
        return images
    if images.shape[3] in (1, 3):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    raise SourceError(f"{file}: pictures of shape {list(images.shape[1:])} have neither 1 nor 3 channels")


def checked(file: Path, labels: np.ndarray) -> np.ndarray:
    """Labels that count from 0. Raises SourceError otherwise."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= max(10000, len(labels)):
        raise SourceError(f"{file}: labels go from {low} to {high}; they must count from 0")
    return labels


def idx(file: Path) -> Pictures:
    """Yann LeCun's format; the labels lie beside it under the same name with labels-idx1 for images-idx3."""
    images = channels_first(file, idx_array(file))
    beside = file.with_name(file.name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1"))
    labels = checked(beside, idx_array(beside)) if beside != file and beside.exists() else None
    if labels is not None and len(labels) != len(images):
        raise SourceError(f"{beside}: {len(labels)} labels for {len(images)} pictures")
    return in_memory(images, labels)


def idx_array(file: Path) -> np.ndarray:
    """The array of an IDX file of bytes."""
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (gzip.BadGzipFile, EOFError) as error:
        raise SourceError(f"{file} is not whole gzip: {error}") from None
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise SourceError(f"{file} is not IDX of bytes")
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    if values.size != np.prod(shape):
        raise SourceError(f"{file}: {list(shape)} are announced, but {values.size} bytes follow")
    return values.reshape(shape)


# -- files that are pictures ------------------------------------------------------------------------------------------


def named(
    place: Path, found: Sequence[tuple[str, Callable[[], bytes]]], labels: dict[str, int] | None = None
) -> Pictures:
    """Pictures that are files: (name, content) pairs; labels given, or by folder where every picture lies in one."""
    if not found:
        raise SourceError(f"data.path: {place} holds no picture ({', '.join(sorted(SUFFIXES))})")
    folders = [str(Path(name).parent) for name, _ in found]
    names = tuple(sorted(set(folders)))
    if labels is not None:
        if missing := [name for name, _ in found if name not in labels]:
            raise SourceError(f"{place}: dataset.json has no label for {missing[0]!r}")
        numbers, names = checked(place, np.array([labels[name] for name, _ in found])), ()
    elif len(names) > 1 and "." not in names:
        numbers = np.array([names.index(name) for name in folders])
    else:
        numbers, names = None, ()
    first = decode(f"{place}: {found[0][0]}", found[0][1]())
    return Pictures(first.shape, len(found), numbers, lambda wanted: alike(place, found, wanted), names)


def alike(place: Path, found: Sequence[tuple[str, Callable[[], bytes]]], wanted: Shape) -> Iterator[np.ndarray]:
    """Every picture, all of the wanted shape, or all brought to it when none has it from the start."""
    first = decode(f"{place}: {found[0][0]}", found[0][1]()).shape
    for name, content in found:
        picture = decode(f"{place}: {name}", content())
        if first == wanted and picture.shape != wanted:
            kind = "channels (grey and colour mixed)" if picture.shape[0] != wanted[0] else "size"
            raise SourceError(
                f"{place}: {name} is {shown(picture.shape)}, but {found[0][0]} is {shown(wanted)}: all must have one"
                f" {kind}; data.shape=[{','.join(map(str, smaller(wanted)))}] brings all to one"
            )
        yield picture if picture.shape == wanted else fit(as_picture(picture), wanted)


def smaller(shape: Shape) -> Shape:
    """A shape to propose: not the one that was taken for the pictures' own."""
    return 3, min(shape[1:]) // 2 or 1, min(shape[1:]) // 2 or 1


def shown(shape: Sequence[int]) -> str:
    """A shape as a person reads it."""
    return f"{shape[2]} x {shape[1]} {'grey' if shape[0] == 1 else 'colour'}"


def decode(name: str, content: bytes) -> np.ndarray:
    """One picture as uint8 [C, H, W]; transparency is dropped."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            grey = picture.mode in ("1", "L", "LA", "I;16", "I", "F")
            values = np.asarray(picture.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SourceError(f"{name} cannot be read as a picture: {str(error).splitlines()[0][:80]}") from None
    return values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))


def as_picture(values: np.ndarray) -> Image.Image:
    """uint8 [C, H, W] as Pillow has it."""
    return Image.fromarray(values[0] if values.shape[0] == 1 else values.transpose(1, 2, 0))


def fit(picture: Image.Image, shape: Shape) -> np.ndarray:
    """The middle of a picture at another size and number of channels, averaged over area so that nothing aliases."""
    channels, height, width = shape
    picture = picture.convert("L" if channels == 1 else "RGB")
    scale = min(picture.width / width, picture.height / height)
    left = (picture.width - width * scale) / 2
    top = (picture.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    values = np.asarray(
        picture.resize((width, height), Image.Resampling.BOX if scale >= 1 else Image.Resampling.BICUBIC, box)
    )
    return values[None] if channels == 1 else np.ascontiguousarray(values.transpose(2, 0, 1))


def folder(path: str) -> list[tuple[str, Callable[[], bytes]]]:
    """The pictures of a folder, by name relative to it."""
    found = [file for file in files(path) if file.suffix.lower() in SUFFIXES]
    return [(str(file.relative_to(path)), file.read_bytes) for file in found]


def zipped(file: Path) -> Pictures:
    """A ZIP of pictures; a dataset.json inside may give labels as [[name, label], ...]."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise SourceError(f"{file} is not a ZIP file") from None
    names = sorted(name for name in archive.namelist() if Path(name).suffix.lower() in SUFFIXES)
    labels = None
    if "dataset.json" in archive.namelist():
        content = json.loads(archive.read("dataset.json"))
        labels = {name: int(label) for name, label in content.get("labels") or []} or None
    return named(file, [(name, lambda name=name: archive.read(name)) for name in names], labels)  # type: ignore[misc]


# -- records ----------------------------------------------------------------------------------------------------------


def parquet(file: Path) -> Pictures:
    """Records with an `image` of encoded bytes (alone or under `bytes`) and perhaps a `label`."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise SourceError(f"reading {file} needs pyarrow: pip install 'sanbu[hub]'") from None
    try:
        table = pyarrow.parquet.read_table(file)
    except pyarrow.ArrowException as error:
        raise SourceError(f"{file} is not Parquet: {str(error).splitlines()[0]}") from None
    return records(file, table.column_names, lambda name: table.column(name).to_pylist())


def hub(name: str) -> Pictures:
    """The training split of a Hugging Face data set with an `image` and perhaps a `label`; NAME or NAME:CONFIG."""
    try:
        import datasets
    except ImportError:
        raise SourceError(f"data.path=hub:{name} needs the extra: pip install 'sanbu[hub]'") from None
    dataset, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(dataset, config or None, split="train")
    except Exception as error:  # the library raises many kinds for one cause: it cannot be had
        raise SourceError(f"data.path: cannot load the data set {name!r}: {str(error).splitlines()[0]}") from None
    for column, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return records(Path(f"hub:{name}"), rows.column_names, lambda column: list(rows[column]))


def records(place: Path, columns: Iterable[str], column: Callable[[str], list[Any]]) -> Pictures:
    """Pictures and labels out of columns."""
    columns = list(columns)
    image = next((name for name in ("image", "img", "png", "jpg", "bytes") if name in columns), None)
    label = next((name for name in ("label", "labels", "fine_label", "y", "class") if name in columns), None)
    if image is None:
        raise SourceError(f"{place}: no column 'image'; columns: {', '.join(columns)}{nearest('image', columns)}")
    contents = [value["bytes"] if isinstance(value, dict) else value for value in column(image)]
    found = [(f"record {number}", lambda content=content: content) for number, content in enumerate(contents)]
    numbers = checked(place, np.array(column(label))) if label else None
    made = named(place, found, None)
    return Pictures(made.shape, made.count, numbers, made.read)
