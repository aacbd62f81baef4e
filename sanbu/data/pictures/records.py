"""Pictures in records: Parquet, the Hugging Face hub. Columns are found by their usual names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sanbu.config import nearest
from sanbu.data.pictures.files import from_files
from sanbu.data.pictures.labels import Labels, class_numbers
from sanbu.data.pictures.source import Pictures
from sanbu.data.reading import SourceError, arrow_table

IMAGES = ("image", "img", "images", "picture", "png", "jpg", "bytes")
LABELS = ("label", "labels", "fine_label", "y", "class", "target", "category")


def from_parquet(file: Path) -> Pictures:
    """Pictures of Parquet records with `image`, encoded bytes or {"bytes": ...}, and perhaps `label`."""
    table = arrow_table(file)
    features = features_of(table.schema.metadata or {})
    named = {name: feature.get("names") for name, feature in features.items() if isinstance(feature, dict)}
    return from_columns(str(file), table.column_names, lambda name: table.column(name).to_pylist(), named)


def features_of(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """The features that the package datasets writes into the schema, or nothing."""
    try:
        found = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


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
    named = {column: getattr(feature, "names", None) for column, feature in rows.features.items()}
    return from_columns(f"hub:{name}", rows.column_names, lambda column: list(rows[column]), named)


def from_columns(
    place: str, columns: Sequence[str], column: Callable[[str], list[Any]], named: dict[str, Any] | None = None
) -> Pictures:
    """Pictures and labels of columns. named: names of the classes of a column, where the file has them."""
    image = next((name for name in IMAGES if name in columns), None)
    label = next((name for name in LABELS if name in columns), None)
    if image is None:
        raise SourceError(f"{place}: no column 'image'; columns: {', '.join(columns)}{nearest('image', columns)}")
    contents = [encoded(place, number, value) for number, value in enumerate(column(image))]
    if not contents:
        raise SourceError(f"{place} has no record")
    found = [(f"record {number}", lambda content=content: content) for number, content in enumerate(contents)]
    labels = class_numbers(f"{place}: {label}", column(label), len(found)) if label else None
    if labels is not None and label:
        labels = with_names(labels, (named or {}).get(label))
    unused = [name for name in columns if name not in (image, label)]
    remarks: tuple[str, ...] = (f"columns not used: {', '.join(unused)}",) if unused else ()
    remarks += () if label else ("no labels: there is no column 'label'",)

    def hashed() -> str:
        digest = hashlib.sha256()
        for content in contents:
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    return from_files(Path(place), found, labels, hashed, remarks)


def encoded(place: str, number: int, value: Any) -> bytes:
    """The content of a picture file in a record. Raises SourceError."""
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes) and content:
        return content
    path = value if isinstance(value, str) else value.get("path") if isinstance(value, dict) else None
    given = f"the path {path!r}" if path else type(content).__name__ if content is not None else "nothing"
    raise SourceError(f"{place}: record {number} has {given} for a picture; encoded bytes are needed")


def with_names(labels: Labels, names: Any) -> Labels:
    """The names of the classes that the file has, where they fit its numbers."""
    numbers, own = labels
    fits = isinstance(names, list) and len(set(names)) == len(names) and all(isinstance(n, str) for n in names)
    if not fits or not names:
        return labels
    values = np.array([int(name) for name in own]) if own and all(n.isdecimal() for n in own) else None
    if own and values is None:
        return labels
    numbers = numbers if values is None else values[numbers]
    return (numbers, tuple(names)) if numbers.max() < len(names) else labels
