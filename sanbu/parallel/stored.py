"""Checkpoints that every rank writes a part of, and how a part is taken out of one that was written in another layout.

A folder holds `rank-00000.safetensors` and so on, with the pieces that each rank holds, and `state.json`, which says
where each piece lies and has the hash of every file. The first rank writes it last and then gives the folder its name,
so what has that name is complete. There is no pickle, and one process reads it like any other checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from sanbu.checkpoints import RunError, Writer
from sanbu.config import SanbuError
from sanbu.files import facts_of, fsync, pack, remove, seal, write_tensors
from sanbu.machine import local
from sanbu.parallel.reading import Stored
from sanbu.parallel.world import World

Index = dict[str, tuple[str, list[int], list[int], list[int]]]  # name: type, whole shape, offset, shape of the piece


# -- writing ----------------------------------------------------------------------------------------------------------


def save_together(world: World, writer: Writer, name: str, state: dict[str, Any], about: dict[str, Any]) -> Path:
    """Write a checkpoint folder atomically, each rank its pieces. Raises SanbuError in all ranks if one cannot."""
    path = writer.folder / "checkpoints" / name
    place = path.with_name(f".{name}.tmp")
    world.once(lambda: begin(path, place))
    tensors: dict[str, Tensor] = {}
    tree = pack(state, tensors)
    mine = {key: local(tensor) for key, tensor in tensors.items()}
    index = {key: describe(tensor) for key, tensor in tensors.items()}
    owned, trees, indices = owners(world, index, tree)
    file = f"rank-{world.rank:05d}.safetensors"
    written = write(place / file, {key: mine[key] for key in owned}, name)
    hashes = all_or_none(world, place, written)
    world.once(lambda: finish(writer, path, place, merge(trees), indices, hashes, about))
    return path


def begin(path: Path, place: Path) -> None:
    """Make the folder under its temporary name."""
    remove(path)
    remove(place)
    try:
        place.mkdir(parents=True)
    except OSError as error:
        raise SanbuError(f"cannot write {path}: {error.strerror}") from None


def owners(world: World, index: Index, tree: Any) -> tuple[list[str], list[Any], list[Index]]:
    """The tensors that this rank writes (of equal pieces the first rank's), and what every rank has."""
    found = world.of_all((index, tree))
    taken: set[tuple[str, tuple[int, ...]]] = set()
    owned: list[Index] = []
    for held, _ in found:
        fresh = {key: facts for key, facts in held.items() if (key, tuple(facts[2])) not in taken}
        taken |= {(key, tuple(facts[2])) for key, facts in fresh.items()}
        owned.append(fresh)
    return list(owned[world.rank]), [each for _, each in found], owned


def write(path: Path, tensors: dict[str, Tensor], checkpoint: str) -> tuple[str, str]:
    """Write the pieces of this rank; the hash, or what went wrong."""
    if not path.parent.is_dir():
        return "", f"{path.parent.parent} is not on storage that all processes share"
    try:
        write_tensors(path, tensors, {"checkpoint": checkpoint})
        fsync(path)
        return facts_of(path)["sha256"], ""
    except (SanbuError, OSError) as error:
        return "", str(error)


def all_or_none(world: World, place: Path, written: tuple[str, str]) -> list[str]:
    """The hashes of all ranks. If one could not write, the folder is removed and SanbuError raised everywhere."""
    found = world.of_all(written)
    trouble = [(rank, error) for rank, (_, error) in enumerate(found) if error]
    if trouble:
        if world.first:
            remove(place)
        world.wait()
        raise SanbuError(f"rank {trouble[0][0]} could not write a checkpoint: {trouble[0][1]}")
    return [digest for digest, _ in found]


def finish(
    writer: Writer, path: Path, place: Path, tree: Any, indices: list[Index], hashes: list[str], about: dict[str, Any]
) -> None:
    """(First rank) Write state.json and give the folder its name."""
    pieces: dict[str, Any] = {}
    for rank, index in enumerate(indices):
        for key, (kind, whole, offset, shape) in index.items():
            entry = pieces.setdefault(key, {"type": kind, "shape": whole, "pieces": []})
            entry["pieces"].append([rank, offset, shape])
    facts = {**writer.facts(), **about, "state": tree, "tensors": pieces, "ranks": hashes}
    try:
        writer.flush_metrics()
        (place / "state.json").write_text(json.dumps(seal(facts)), encoding="utf-8")
        for written in (place / "state.json", place):
            fsync(written)
        place.replace(path)
        fsync(path.parent)
    except OSError as error:
        remove(place)
        raise SanbuError(f"cannot write {path}: {error.strerror}") from None


def describe(tensor: Tensor) -> tuple[str, list[int], list[int], list[int]]:
    """Type and shape of the whole, offset and shape of the part that this rank holds."""
    kind, whole = str(tensor.dtype).removeprefix("torch."), list(tensor.shape)
    if not isinstance(tensor, DTensor):
        return kind, whole, [0] * len(whole), whole
    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return kind, whole, list(offset), list(shape)


def merge(trees: list[Any]) -> Any:
    """One tree of what several ranks have: all pairs of all dictionaries; other values are those of the first."""
    first = trees[0]
    if isinstance(first, dict) and "pairs" in first:
        held: dict[Any, list[Any]] = {}
        for tree in trees:
            for key, value in tree["pairs"]:
                held.setdefault(key, []).append(value)
        return {"pairs": [[key, merge(values)] for key, values in held.items()]}
    if isinstance(first, list):
        return [merge(list(values)) for values in zip(*trees, strict=True)]
    return first


# -- reading ----------------------------------------------------------------------------------------------------------


def as_held(held: Tensor, whole: Tensor | Stored) -> Tensor:
    """A whole tensor divided as another one is, without sending anything; of a stored one only that part is read."""
    if not isinstance(held, DTensor) or whole.shape != held.shape:
        return whole.whole() if isinstance(whole, Stored) else whole
    shape, offset = compute_local_shape_and_global_offset(held.shape, held.device_mesh, held.placements)
    part = whole[tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))]
    part = part.to(held.to_local().device).clone()
    return DTensor.from_local(part, held.device_mesh, held.placements, shape=held.shape, stride=held.stride())


def whole_weights(world: World, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Divided tensors made whole on the first rank; every rank takes part, and the others keep nothing."""
    place = world.place
    keeps = place.data == place.context == place.tensor == 0
    found = {}
    for name, tensor in tensors.items():
        made = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keeps:
            found[name] = made.detach().cpu()
    if world.degrees.pipeline == 1:
        return found if world.first else {}
    every: list[Any] = [None] * world.size
    dist.gather_object(found if keeps else {}, every if world.first else None, 0)
    return {name: tensor for part in every if part for name, tensor in part.items()} if world.first else {}


@dataclass(frozen=True)
class Order:
    """The parameters of an optimizer over the whole model: their names, and torch's groups of their numbers."""

    names: list[str]
    groups: list[dict[str, Any]]

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> Order:
        """The order of an optimizer; names: of parameters, by id."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        number = {id(parameter): index for index, parameter in enumerate(parameters)}
        groups = []
        for group in optimizer.param_groups:
            groups.append({**group, "params": [number[id(parameter)] for parameter in group["params"]]})
        return cls([names[id(parameter)] for parameter in parameters], groups)


def optimizer_state(optimizer: torch.optim.Optimizer, order: Order, names: Mapping[int, str]) -> dict[str, Any]:
    """The state of an optimizer in torch's form, with the numbers of the whole model: what this rank has of it."""
    inner = getattr(optimizer, "optim", optimizer)
    number = {name: index for index, name in enumerate(order.names)}
    state = {number[names[id(parameter)]]: dict(values) for parameter, values in inner.state.items()}
    return {"state": dict(sorted(state.items())), "param_groups": order.groups}


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, state: dict[str, Any], order: Order, names: Mapping[int, str]
) -> None:
    """Take up a whole state in torch's form: what this rank holds of it."""
    if len(state["state"]) > len(order.names):
        raise RunError(f"the checkpoint has states of {len(state['state'])} parameters, not of {len(order.names)}")
    held = {order.names[index]: values for index, values in state["state"].items()}
    inner = getattr(optimizer, "optim", optimizer)
    own = [parameter for group in inner.param_groups for parameter in group["params"]]
    local_state = {
        index: {name: fit_state(parameter, value) for name, value in held[names[id(parameter)]].items()}
        for index, parameter in enumerate(own)
        if names[id(parameter)] in held
    }
    inner.load_state_dict({"state": local_state, "param_groups": inner.state_dict()["param_groups"]})


def fit_state(parameter: Tensor, value: Any) -> Any:
    """A value of an optimizer's state, divided as its parameter is."""
    return as_held(parameter, value) if isinstance(value, (Tensor, Stored)) else value
