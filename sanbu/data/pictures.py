"""Sources of pictures: digits of scikit-learn, folders, ZIP, IDX, NPZ, Parquet, the Hugging Face hub.

`open_source` reads the header and the labels; `Pictures.read` yields the pictures in order as uint8 [C, H, W]. Labels
come from an array or column of numbers, or from the folders of the pictures, sorted by name.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from sanbu.config import nearest
from sanbu.data.sources import SourceError, files, read_unzipped, readable

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Pictures:
    """An open source. labels: [N], None without labels. names: names of the classes, or empty."""

    shape: Shape
    count: int
    labels: np.ndarray | None
    read: Callable[[Shape], Iterator[np.ndarray]]
    names: tuple[str, ...] = ()
    levels: int = 256

    @property
    def classes(self) -> int:
        """The number of classes; 0 without labels."""
        return 0 if self.labels is None else max(int(self.labels.max()) + 1, len(self.names))


@lru_cache(maxsize=16)
def open_source(path: str) -> Pictures:
    """The source at a path. Raises SourceError."""
    if path == "digits":
        return digits()
    if path.startswith("hub:"):
        return from_hub(path.removeprefix("hub:"))
    place = Path(path)
    if place.is_dir():
        return from_files(place, folder_files(path))
    files(path)
    inner = place.with_suffix("").suffix if place.suffix == ".gz" else place.suffix
    if inner == ".npz":
        return from_npz(place)
    if inner == ".zip":
        return from_zip(place)
    if inner == ".parquet":
        return from_parquet(place)
    if "idx3" in place.name or "idx4" in place.name:
        return from_idx(place)
    raise SourceError(
        f"data.path: {path!r} is not one of: a folder of pictures, .zip, .npz, .parquet, idx3-ubyte (may be .gz),"
        " digits, hub:NAME"
    )


def digits() -> Pictures:
    """1,797 handwritten digits of 8 x 8 pixels and 17 levels (Alpaydin and Kaynak, 1998), from scikit-learn."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return from_array(found.images.astype(np.uint8)[:, None], found.target, levels=17)


def from_array(images: np.ndarray, labels: np.ndarray | None, levels: int = 256) -> Pictures:
    """Pictures of an array [N, C, H, W]."""
    shape: Any = images.shape[1:]

    def read(wanted: Shape) -> Iterator[np.ndarray]:
        for image in images:
            yield image if wanted == shape else resize(as_picture(image), wanted)

    numbers = None if labels is None else labels.astype(np.int64)
    return Pictures(shape, len(images), numbers, read, levels=levels)


# -- arrays -----------------------------------------------------------------------------------------------------------


def from_npz(file: Path) -> Pictures:
    """Pictures of an .npz with one array of pictures and perhaps one of labels; pickles are refused."""
    try:
        with np.load(file, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise SourceError(f"{file} is not an .npz of plain arrays: {str(error).splitlines()[0]}") from None
    pictures = [array for array in arrays.values() if array.ndim in (3, 4) and array.dtype == np.uint8]
    if len(pictures) != 1:
        shapes = ", ".join([f"{name} {array.dtype}{list(array.shape)}" for name, array in arrays.items()])
        raise SourceError(f"{file}: one uint8 array of 3 or 4 axes is needed; arrays: {shapes}")
    images = channels_first(file, pictures[0])
    vectors = [array for array in arrays.values() if array.shape == images.shape[:1]]
    labels = [array for array in vectors if np.issubdtype(array.dtype, np.integer)]
    return from_array(images, check_labels(file, labels[0]) if labels else None)


def channels_first(file: Path, images: np.ndarray) -> np.ndarray:
    """[N, H, W], [N, H, W, C] or [N, C, H, W] as [N, C, H, W]; channels are 1 or 3."""
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise SourceError(f"{file}: an array of shape {list(images.shape)} has no pictures; [N, H, W] is needed")
    if images.ndim == 3:
        return images[:, None]
    if images.shape[1] in (1, 3):
        return images
    if images.shape[3] in (1, 3):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    raise SourceError(
        f"{file}: pictures of shape {list(images.shape[1:])} have neither 1 nor 3 channels; 1 or 3 are allowed"
    )


def check_labels(file: Path, labels: np.ndarray) -> np.ndarray:
    """The labels, if they are class numbers from 0. Raises SourceError otherwise."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= max(10000, len(labels)):
        raise SourceError(f"{file}: labels go from {low} to {high}; they must be class numbers from 0")
    return labels


def from_idx(file: Path) -> Pictures:
    """Pictures of an IDX file, the format of MNIST; labels come from the file named labels-idx1 for images-idx3."""
    images = channels_first(file, idx_array(file))
    beside = file.with_name(file.name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1"))
    labels = check_labels(beside, idx_array(beside)) if beside != file and beside.exists() else None
    if labels is not None and len(labels) != len(images):
        raise SourceError(f"{beside}: {len(labels)} labels for {len(images)} pictures")
    return from_array(images, labels)


def idx_array(file: Path) -> np.ndarray:
    """The array of an IDX file of bytes."""
    content = read_unzipped(file)
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise SourceError(f"{file} is not an IDX file of bytes")
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    if values.size != np.prod(shape):
        raise SourceError(f"{file}: the header says {list(shape)}, but {values.size} bytes follow")
    return values.reshape(shape)


# -- picture files ----------------------------------------------------------------------------------------------------


def from_files(
    place: Path, found: Sequence[tuple[str, Callable[[], bytes]]], labels: dict[str, int] | None = None
) -> Pictures:
    """Pictures of (name, content) pairs; labels by name, or from the folders where every picture is in one."""
    if not found:
        raise SourceError(f"data.path: {place} has no picture ({', '.join(sorted(SUFFIXES))})")
    folders = [str(Path(name).parent) for name, _ in found]
    names = tuple(sorted(set(folders)))
    if labels is not None:
        missing = [name for name, _ in found if name not in labels]
        if missing:
            raise SourceError(f"{place}: dataset.json has no label for {missing[0]!r}")
        numbers, names = check_labels(place, np.array([labels[name] for name, _ in found])), ()
    elif len(names) > 1 and "." not in names:
        numbers = np.array([names.index(name) for name in folders])
    else:
        numbers, names = None, ()
    first = decode(f"{place}: {found[0][0]}", found[0][1]())
    return Pictures(first.shape, len(found), numbers, lambda wanted: read_files(place, found, wanted), names)


def read_files(place: Path, found: Sequence[tuple[str, Callable[[], bytes]]], wanted: Shape) -> Iterator[np.ndarray]:
    """Every picture in the wanted shape; pictures are resized unless the first has the wanted shape already."""
    first = decode(f"{place}: {found[0][0]}", found[0][1]()).shape
    for name, content in found:
        picture = decode(f"{place}: {name}", content())
        if first == wanted and picture.shape != wanted:
            kind = "channels (grey and colour mixed)" if picture.shape[0] != wanted[0] else "size"
            proposal = ",".join(map(str, proposed_shape(wanted)))
            raise SourceError(
                f"{place}: {name} is {describe_shape(picture.shape)}, but {found[0][0]} is {describe_shape(wanted)};"
                f" all must have the same {kind}; data.shape=[{proposal}] resizes all"
            )
        yield picture if picture.shape == wanted else resize(as_picture(picture), wanted)


def proposed_shape(shape: Shape) -> Shape:
    """A shape to propose in the error message: colour, at half the shorter side."""
    return 3, min(shape[1:]) // 2 or 1, min(shape[1:]) // 2 or 1


def describe_shape(shape: Sequence[int]) -> str:
    """A shape as text."""
    return f"{shape[2]} x {shape[1]} {'grey' if shape[0] == 1 else 'colour'}"


def decode(name: str, content: bytes) -> np.ndarray:
    """One picture as uint8 [C, H, W], without transparency. Raises SourceError."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            grey = picture.mode in ("1", "L", "LA", "I;16", "I", "F")
            values = np.asarray(picture.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SourceError(f"{name} cannot be read as a picture: {str(error).splitlines()[0][:80]}") from None
    return values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))


def as_picture(values: np.ndarray) -> Image.Image:
    """uint8 [C, H, W] as a Pillow image."""
    return Image.fromarray(values[0] if values.shape[0] == 1 else values.transpose(1, 2, 0))


def resize(picture: Image.Image, shape: Shape) -> np.ndarray:
    """The centre crop of a picture at another size and number of channels; box filter to shrink, bicubic to enlarge."""
    channels, height, width = shape
    picture = picture.convert("L" if channels == 1 else "RGB")
    scale = min(picture.width / width, picture.height / height)
    left = (picture.width - width * scale) / 2
    top = (picture.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    method = Image.Resampling.BOX if scale >= 1 else Image.Resampling.BICUBIC
    values = np.asarray(picture.resize((width, height), method, box))
    return values[None] if channels == 1 else np.ascontiguousarray(values.transpose(2, 0, 1))


def folder_files(path: str) -> list[tuple[str, Callable[[], bytes]]]:
    """(name, content) of the picture files of a folder; names are relative to it."""
    found = [file for file in files(path) if file.suffix.lower() in SUFFIXES]
    return [(str(file.relative_to(path)), file.read_bytes) for file in found]


def from_zip(file: Path) -> Pictures:
    """Pictures of a ZIP; a dataset.json in it may have labels: [[name, label], ...]."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise SourceError(f"{file} is not a ZIP file") from None
    names = sorted(name for name in archive.namelist() if Path(name).suffix.lower() in SUFFIXES)
    labels = None
    if "dataset.json" in archive.namelist():
        labels = dataset_labels(file, read_member(file, archive, "dataset.json"))
    return from_files(file, [(name, partial(read_member, file, archive, name)) for name in names], labels)


def read_member(file: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """One file of a ZIP. Raises SourceError."""
    with readable(f"{file}: {name}"):
        return archive.read(name)


def dataset_labels(file: Path, content: bytes) -> dict[str, int] | None:
    """The labels of a dataset.json, by name of the picture; None where it has none. Raises SourceError."""
    with readable(f"{file}: dataset.json"):
        value = json.loads(content)
    pairs = value.get("labels") if isinstance(value, dict) else [value]
    pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs or []
    for pair in pairs:
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and type(pair[1]) is int):
            raise SourceError(f'{file}: dataset.json must be {{"labels": [["name.png", 3], ...]}}, with class numbers')
    return {str(name): label for name, label in pairs} or None


# -- records ----------------------------------------------------------------------------------------------------------


def from_parquet(file: Path) -> Pictures:
    """Pictures of Parquet records with `image`, encoded bytes or {"bytes": ...}, and perhaps `label`."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise SourceError(f"reading {file} needs pyarrow: pip install 'sanbu[hub]'") from None
    try:
        table = pyarrow.parquet.read_table(file)
    except pyarrow.ArrowException as error:
        raise SourceError(f"{file} is not Parquet: {str(error).splitlines()[0]}") from None
    return from_columns(file, table.column_names, lambda name: table.column(name).to_pylist())


def from_hub(name: str) -> Pictures:
    """Pictures, and labels if any, of the training split of a Hugging Face data set. name: NAME or NAME:CONFIG."""
    try:
        import datasets
    except ImportError:
        raise SourceError(f"data.path=hub:{name} needs the package datasets: pip install 'sanbu[hub]'") from None
    dataset, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(dataset, config or None, split="train")
    except Exception as error:  # the library raises many types of errors when it cannot load a data set
        raise SourceError(f"data.path: cannot load the data set {name!r}: {str(error).splitlines()[0]}") from None
    for column, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return from_columns(Path(f"hub:{name}"), rows.column_names, lambda column: list(rows[column]))


def from_columns(place: Path, columns: Iterable[str], column: Callable[[str], list[Any]]) -> Pictures:
    """Pictures and labels of columns, found by their usual names."""
    columns = list(columns)
    image = next((name for name in ("image", "img", "png", "jpg", "bytes") if name in columns), None)
    label = next((name for name in ("label", "labels", "fine_label", "y", "class") if name in columns), None)
    if image is None:
        raise SourceError(f"{place}: no column 'image'; columns: {', '.join(columns)}{nearest('image', columns)}")
    contents = [value["bytes"] if isinstance(value, dict) else value for value in column(image)]
    found = [(f"record {number}", lambda content=content: content) for number, content in enumerate(contents)]
    numbers = check_labels(place, np.array(column(label))) if label else None
    pictures = from_files(place, found)
    return Pictures(pictures.shape, pictures.count, numbers, pictures.read)
