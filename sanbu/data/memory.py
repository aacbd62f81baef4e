"""Data in memory as configs. It is stored in the cache under a hash of its content, so a run can be loaded later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.data.cache import cache_folder
from sanbu.data.image_rows import Images
from sanbu.data.pictures.labels import class_numbers
from sanbu.data.table_files import Frame, check_names, frame_of
from sanbu.data.tables import Table
from sanbu.data.tensor_rows import Rows
from sanbu.data.text_rows import Text
from sanbu.files import write_tensors


def text(documents: Sequence[str], **fields: Any) -> Text:
    """Documents as data. fields: other fields of `Text`, for example context=64, tokenizer=Byte().

    Raises SanbuError for an empty list and for documents that are not str.
    """
    if isinstance(documents, str) or not documents or not all(isinstance(document, str) for document in documents):
        raise SanbuError("data.text: give a non-empty list of str, for example data.text(['one', 'another'])")
    lines = "".join(json.dumps({"text": document}, ensure_ascii=False) + "\n" for document in documents)
    path = keep("documents", lines.encode(), "documents.jsonl", lambda file: file.write_bytes(lines.encode()))
    return Text(path=str(path), **fields)


def images(array: Any, labels: Any = None, **fields: Any) -> Images:
    """Pictures as data: uint8 or floats from 0 to 1, [N, H, W], [N, H, W, C] or [N, C, H, W].

    labels: whole numbers, names or one-hot rows, one per picture (data/pictures/labels.py). fields: other fields of
    `Images`, for example validation=0.2, flip=True.
    Raises SanbuError for another dtype, number of axes or number of labels.
    """
    pictures = as_bytes(np.asarray(array))
    arrays = {"images": pictures}
    if labels is not None:
        given = list(labels) if isinstance(labels, (list, tuple)) else np.asarray(labels)
        if len(given) != len(pictures):
            raise SanbuError(
                f"data.images: given {len(given)} labels, allowed: {len(pictures)} integers from 0, or names,"
                " one per picture"
            )
        numbers, names = class_numbers("data.images: labels", given, len(pictures))
        arrays["labels"] = np.array(names)[numbers] if names else numbers
    content = b"".join(f"{a.shape}".encode() + a.tobytes() for a in arrays.values())
    path = keep("pictures", content, "pictures.npz", lambda file: np.savez(file, allow_pickle=False, **arrays))
    return Images(path=str(path), **fields)


def as_bytes(pictures: np.ndarray) -> np.ndarray:
    """Pictures as uint8. Raises SanbuError unless they are uint8 or floats from 0 to 1."""
    if pictures.ndim not in (3, 4):
        raise SanbuError(
            f"data.images: given an array of {pictures.ndim} axes, allowed: [N, H, W], [N, H, W, C], [N, C, H, W]"
        )
    if pictures.dtype == np.uint8:
        return pictures
    if not np.issubdtype(pictures.dtype, np.floating) or pictures.min() < 0 or pictures.max() > 1:
        raise SanbuError(f"data.images: given {pictures.dtype}, allowed: uint8, or floats from 0 to 1")
    return np.rint(pictures * 255).astype(np.uint8)


def rows(validation: float = 0.1, **tensors: Any) -> Rows:
    """Tensors as data. The names are those that the objective reads from its batch; axis 0 is the row.

    Raises SanbuError when no tensor is given, or when their numbers of rows differ.
    """
    found = {name: torch.as_tensor(tensor).detach().clone().contiguous() for name, tensor in tensors.items()}
    counts = {name: len(tensor) for name, tensor in found.items() if tensor.ndim}
    if not found or len(set(counts.values())) != 1 or len(counts) != len(found):
        shapes = [f"{name} {list(tensor.shape)}" for name, tensor in found.items()]
        given = ", ".join(shapes) or "nothing"
        raise SanbuError(f"data.rows: given {given}; give tensors with the same number of rows")
    content = b"".join(content_of(name, found[name]) for name in sorted(found))
    path = keep("rows", content, "rows.safetensors", lambda file: write_tensors(file, found))
    return Rows(path=str(path), validation=validation)


def table(source: Any, **fields: Any) -> Table:
    """A table as data: a pandas DataFrame, or a dictionary of columns (lists, numpy arrays).

    fields: other fields of `Table`, for example target="income", types={"id": "drop"}. Raises SanbuError for anything
    else, and for columns of different lengths.
    """
    named = hasattr(source, "columns") and hasattr(source, "__getitem__")
    if not named and not isinstance(source, dict):
        raise SanbuError(f"data.table: given {type(source).__name__}, allowed: a DataFrame or a dictionary of columns")
    names = list(source.columns) if named else list(source)
    check_names([str(name) for name in names], "data.table")
    frame = frame_of({name: source[name] for name in names}, "data.table")
    content = json.dumps([frame.names, [column.tolist() for column in frame.columns]]).encode()
    path = keep("table", content, "table.json", lambda file: write_frame(frame, file))
    return Table(path=str(path), **fields)


def write_frame(frame: Frame, file: Path) -> None:
    """Write a frame as records, with null for a missing number."""
    columns = [[None if cell != cell else cell for cell in column.tolist()] for column in frame.columns]
    records = [dict(zip(frame.names, row, strict=True)) for row in zip(*columns, strict=True)]
    file.write_text(json.dumps(records), encoding="utf-8")


def content_of(name: str, tensor: Tensor) -> bytes:
    """The bytes to hash of a tensor: name, dtype, shape and values."""
    about = f"{name} {tensor.dtype} {list(tensor.shape)}".encode()
    return about + (tensor.cpu().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")


def keep(kind: str, content: bytes, name: str, write: Callable[[Path], Any]) -> Path:
    """A file in the cache, under a hash of its content; written when it does not exist yet."""
    digest = hashlib.sha256(content).hexdigest()[:24]
    return cache_folder(f"{kind}-{digest}", lambda folder: write(folder / name)) / name
