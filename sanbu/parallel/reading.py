"""Checkpoints of which every rank reads what it holds.

A tensor of a checkpoint is read when it is used, and of a divided one only the part of this rank. The hashes are
checked once: the ranks divide the files among them for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from sanbu.checkpoints import RunError, Writer, check_header, files_of, read_file
from sanbu.config import SanbuError
from sanbu.parallel.world import World

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Files:
    """The files of a checkpoint, opened once."""

    paths: list[Path]
    opened: dict[int, Any] = field(default_factory=dict)

    def read(self, number: int, name: str, part: Slices) -> Tensor:
        """A part of a tensor in one of them."""
        if number not in self.opened:
            self.opened[number] = safe_open(self.paths[number], "pt").__enter__()
        file = self.opened[number]
        found: Tensor = file.get_slice(name)[part] if part else file.get_tensor(name)
        return found


@dataclass(frozen=True)
class Stored:
    """A tensor in a checkpoint. pieces: the number of a file, the offset and the shape of what it has of the tensor."""

    files: Files
    name: str
    dtype: torch.dtype
    shape: torch.Size
    pieces: list[tuple[int, list[int], list[int]]]

    def whole(self) -> Tensor:
        """All of it."""
        return self[tuple(slice(0, size) for size in self.shape)]

    def __getitem__(self, part: Slices) -> Tensor:
        """A part, of which slices give begin and end."""
        found = torch.empty([each.stop - each.start for each in part], dtype=self.dtype)
        for number, offset, shape in self.pieces:
            there, here = [], []
            for begin, size, each in zip(offset, shape, part, strict=True):
                low, high = max(begin, each.start), min(begin + size, each.stop)
                there.append(slice(low - begin, high - begin))
                here.append(slice(low - each.start, high - each.start))
            if all(each.stop > each.start for each in here):
                found[tuple(here)] = self.files.read(number, self.name, tuple(there))
        return found


def load_together(world: World, writer: Writer, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of a checkpoint, whose tensors are read later, and the facts about it.

    Raises RunError in all ranks if one of them finds damage.
    """
    state: dict[str, Any] = {}
    about: dict[str, Any] = {}
    trouble = ""
    try:
        state, about = writer.load_checkpoint(path, lambda path, about: open_tensors(world, path, about))
        state["experience"] = read_all(state["experience"])
    except SanbuError as error:
        trouble = str(error)
    first = next(filter(None, world.of_all(trouble)), "")
    if first:
        raise RunError(first)
    return state, about


def open_tensors(world: World, path: Path, about: dict[str, Any]) -> Mapping[str, Stored]:
    """The tensors of a checkpoint, of whose files this rank has checked some. Raises FileError if one is damaged."""
    paths = files_of(path, about)
    for number, file in enumerate(paths):
        if number % world.size == world.rank:
            read_file(path, about, number)
        else:
            check_header(file, about, number)
    files = Files(paths)
    if "ranks" not in about:
        return one_file(files)
    return {
        name: Stored(files, name, getattr(torch, entry["type"]), torch.Size(entry["shape"]), entry["pieces"])
        for name, entry in about["tensors"].items()
    }


def one_file(files: Files) -> dict[str, Stored]:
    """The tensors of a checkpoint of one process."""
    found = {}
    with safe_open(files.paths[0], "pt") as file:
        names = file.keys()
        for name in names:
            shape = torch.Size(file.get_slice(name).get_shape())
            some = file.get_slice(name)[:0] if shape else file.get_tensor(name)
            found[name] = Stored(files, name, some.dtype, shape, [(0, [0] * len(shape), list(shape))])
    return found


def read_all(tree: Any) -> Any:
    """A tree with its tensors read whole."""
    if isinstance(tree, Stored):
        return tree.whole()
    if isinstance(tree, dict):
        return {key: read_all(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [read_all(value) for value in tree]
    return tree
