"""Data in memory as configs: kept in the cache under a hash of its content, so that a run stays loadable."""

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
from sanbu.data.image_rows import Images
from sanbu.data.shards import cached
from sanbu.data.tensor_rows import Rows
from sanbu.data.text_rows import Text
from sanbu.files import write_tensors


def text(documents: Sequence[str], **fields: Any) -> Text:
    """Documents as data. fields: of `Text`, as in context=64, tokenizer=Byte().

    Raises SanbuError when there is no document, or something that is not text.
    """
    if isinstance(documents, str) or not documents or not all(isinstance(document, str) for document in documents):
        raise SanbuError("data.text: a list of one or more texts is needed, as in data.text(['one', 'another'])")
    lines = "".join(json.dumps({"text": document}, ensure_ascii=False) + "\n" for document in documents)
    path = keep("documents", lines.encode(), "documents.jsonl", lambda file: file.write_bytes(lines.encode()))
    return Text(path=str(path), **fields)


def images(array: Any, labels: Any = None, **fields: Any) -> Images:
    """Pictures as data: uint8 or floats from 0 to 1, [N, H, W], [N, H, W, C] or [N, C, H, W].

    labels: integers from 0, [N]. fields: of `Images`, as in validation=0.2, flip=True.
    Raises SanbuError for another type or number of axes.
    """
    pictures = as_bytes(np.asarray(array))
    arrays = {"images": pictures}
    if labels is not None:
        numbers = np.asarray(labels)
        if numbers.shape != pictures.shape[:1] or not np.issubdtype(numbers.dtype, np.integer) or numbers.min() < 0:
            raise SanbuError(f"data.images: labels must be {len(pictures)} integers from 0, one per picture")
        arrays["labels"] = numbers.astype(np.int64)
    content = b"".join(f"{a.shape}".encode() + a.tobytes() for a in arrays.values())
    path = keep("pictures", content, "pictures.npz", lambda file: np.savez(file, allow_pickle=False, **arrays))
    return Images(path=str(path), **fields)


def as_bytes(pictures: np.ndarray) -> np.ndarray:
    """Pictures as uint8. Raises SanbuError when they are neither bytes nor floats from 0 to 1."""
    if pictures.ndim not in (3, 4):
        raise SanbuError(
            f"data.images: given an array of {pictures.ndim} axes, allowed: [N, H, W] or 4 axes with channels"
        )
    if pictures.dtype == np.uint8:
        return pictures
    if not np.issubdtype(pictures.dtype, np.floating) or pictures.min() < 0 or pictures.max() > 1:
        raise SanbuError(f"data.images: given {pictures.dtype}, allowed: uint8, or floats from 0 to 1")
    return np.rint(pictures * 255).astype(np.uint8)


def rows(validation: float = 0.1, **tensors: Any) -> Rows:
    """Tensors as data, by the name under which an objective finds them in its batch; axis 0 is the row.

    Raises SanbuError when there is none, or when their numbers of rows differ.
    """
    found = {name: torch.as_tensor(tensor).detach().clone().contiguous() for name, tensor in tensors.items()}
    counts = {name: len(tensor) for name, tensor in found.items() if tensor.ndim}
    if not found or len(set(counts.values())) != 1 or len(counts) != len(found):
        shapes = [f"{name} {list(tensor.shape)}" for name, tensor in found.items()]
        given = ", ".join(shapes) or "nothing"
        raise SanbuError(f"data.rows: given {given}; tensors with the same number of rows are needed")
    content = b"".join(content_of(name, found[name]) for name in sorted(found))
    path = keep("rows", content, "rows.safetensors", lambda file: write_tensors(file, found))
    return Rows(path=str(path), validation=validation)


def content_of(name: str, tensor: Tensor) -> bytes:
    """Name, type, shape and memory of a tensor, to be hashed."""
    about = f"{name} {tensor.dtype} {list(tensor.shape)}".encode()
    return about + (tensor.cpu().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")


def keep(kind: str, content: bytes, name: str, write: Callable[[Path], Any]) -> Path:
    """A file in the cache under a hash of its content, written the first time."""
    digest = hashlib.sha256(content).hexdigest()[:24]
    return cached(f"{kind}-{digest}", lambda folder: write(folder / name)) / name
