"""Where the parts of a diffusers folder lie: components in folders of their own or flat, weights whole or in shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanbu.config import nearest
from sanbu.files import read_object, read_tensors
from sanbu.interop.diffusers_fields import shown
from sanbu.interop.diffusers_folder import Renames, rename
from sanbu.interop.huggingface import InteropError

PIPELINES = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline", "DiTPipeline")
NETWORKS = {  # the classes that are read: the name of the component, and what may stand beside it
    "UNet2DModel": ("unet", ("scheduler",)),
    "DiTTransformer2DModel": ("transformer", ("scheduler", "vae")),
    "AutoencoderKL": ("vae", ()),
}
WEIGHTS = "diffusion_pytorch_model.safetensors"
OLD = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}  # of attention


@dataclass(frozen=True)
class Component:
    """One component of a pipeline: its class, and the folder with its config and weights."""

    kind: str
    folder: Path

    @property
    def config(self) -> Path:
        """Its config file."""
        return config_path(self.folder, self.kind)


def config_path(folder: Path, kind: str) -> Path:
    """The config file of a class."""
    return folder / ("scheduler_config.json" if kind.endswith("Scheduler") else "config.json")


def is_diffusers(folder: Path) -> bool:
    """Whether a folder is a pipeline, or a model, of diffusers."""
    config = folder / "config.json"
    return (folder / "model_index.json").exists() or (config.exists() and "_class_name" in read_object(config))


def components(source: Path) -> dict[str, Component]:
    """The components of a pipeline, or of a folder of one model. Raises InteropError for what is not supported."""
    index = source / "model_index.json"
    return from_index(index) if index.exists() else from_config(source)


def check_classes(found: Mapping[str, Component]) -> None:
    """Raise InteropError where the config of a component names another class than model_index.json."""
    for name, component in found.items():
        kind = read_object(component.config, "_class_name")["_class_name"]
        if kind != component.kind:
            raise InteropError(
                f"{component.config}: a {kind}, but model_index.json gives {component.kind} for {name!r}"
            )


def from_index(index: Path) -> dict[str, Component]:
    """The components that a model_index.json lists; one without a folder of its own lies beside it."""
    listed = read_object(index, "_class_name")
    pipeline = listed["_class_name"]
    if pipeline not in PIPELINES:
        raise InteropError(f"{index}: given a {pipeline}, supported: {', '.join(PIPELINES)}")
    found = {}
    for name, entry in listed.items():
        if name.startswith("_") or entry in (None, [None, None]) or (name, pipeline) == ("id2label", "DiTPipeline"):
            continue
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == "diffusers"):
            raise InteropError(f"{index}: {name}: given {shown(entry)}, supported: classes of diffusers alone")
        folder = index.parent / name
        found[name] = Component(str(entry[1]), folder if folder.is_dir() else index.parent)
    return found


def from_config(source: Path) -> dict[str, Component]:
    """The model of a folder that has no model_index.json, with a scheduler where one lies beside it."""
    kind = str(read_object(source / "config.json", "_class_name")["_class_name"])
    name, _ = NETWORKS.get(kind, ("model", ()))
    found = {name: Component(kind, source)}
    schedule = source / "scheduler_config.json"
    if schedule.exists():
        found["scheduler"] = Component(str(read_object(schedule, "_class_name")["_class_name"]), source)
    return found


def network_of(source: Path, found: Mapping[str, Component]) -> Component:
    """The component that makes the run. Raises InteropError for another class, and for a component beside it."""
    chosen = next((found[name] for name in ("unet", "transformer", "vae", "model") if name in found), None)
    if chosen is None or chosen.kind not in NETWORKS:
        given = ", ".join(component.kind for component in found.values()) or "nothing"
        raise InteropError(f"{source}: given {given}; supported: {', '.join(NETWORKS)}")
    name, beside = NETWORKS[chosen.kind]
    for other in found:
        if other not in (name, *beside):
            raise InteropError(
                f"{source}: a {chosen.kind} with {other!r} ({found[other].kind}) beside it;"
                f" supported beside it: {', '.join(beside) or 'nothing'}"
            )
    return chosen


# -- weights ----------------------------------------------------------------------------------------------------------


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a component, under today's names. Raises InteropError for files and types that are not read."""
    index = folder / f"{WEIGHTS}.index.json"
    if not index.exists() and not (folder / WEIGHTS).exists():
        raise InteropError(f"{folder} has no {WEIGHTS} (pickled weights and variants are not read)")
    found = read_shards(index) if index.exists() else read_tensors(folder / WEIGHTS)
    named = {new_name(name): tensor for name, tensor in found.items()}
    if len(named) < len(found):
        raise InteropError(f"{folder}: the weights of an attention are there twice, under old and new names")
    for name, tensor in found.items():
        if not tensor.is_floating_point() or tensor.element_size() == 1:
            raise InteropError(f"{folder}: {name!r} has type {tensor.dtype}; supported: floats of 16 bits or more")
    return {name: tensor.to(torch.float32) for name, tensor in named.items()}


def read_shards(index: Path) -> dict[str, Tensor]:
    """The tensors that an index lists, each from its own file. Raises InteropError where index and files differ."""
    places = read_object(index, "weight_map")["weight_map"]
    if not (
        isinstance(places, dict) and all(isinstance(file, str) and file == Path(file).name for file in places.values())
    ):
        raise InteropError(f"{index} is damaged: weight_map has to give a file of its folder for each tensor")
    found: dict[str, Tensor] = {}
    for file in sorted(set(places.values())):
        tensors = read_tensors(index.parent / file)
        for name in tensors.keys() ^ {name for name, place in places.items() if place == file}:
            raise InteropError(f"{index.parent / file} and {index.name} do not agree on the tensor {name!r}")
        found |= tensors
    return found


def new_name(name: str) -> str:
    """Today's name of a weight; attention had others before version 0.15."""
    for old, new in OLD.items():
        name = name.replace(old, new) if ".attentions." in name else name
    return name


def matched(
    folder: Path, model: nn.Module, theirs: Mapping[str, Tensor], rules: Renames, own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Our state dict: `own` first, else the tensor under its name there.

    Raises InteropError, an import fault, for a tensor that is missing, left over, or of another shape.
    """
    state = model.state_dict()
    names = {name: rename(name, rules) for name in state}
    for there in theirs.keys() - set(names.values()):
        raise InteropError(f"{folder}: unknown tensor {there!r}{nearest(there, names.values())}")
    for name, there in names.items():
        if name not in own and there not in theirs:
            raise InteropError(f"{folder}: there is no tensor {there!r}")
        given, expected = list((own[name] if name in own else theirs[there]).shape), list(state[name].shape)
        if given != expected:
            raise InteropError(f"{folder}: the tensor {there!r} has shape {given}, but its config gives {expected}")
    return {name: own[name] if name in own else theirs[there] for name, there in names.items()}


def flipped(theirs: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """The weights of a time embedding that is given sines before cosines, for cosines before sines."""
    name, half = "time_embedding.linear_1.weight", width // 2
    if name not in theirs:
        return theirs
    sines, cosines, rest = (
        theirs[name][:, part] for part in (slice(half), slice(half, 2 * half), slice(2 * half, None))
    )
    return {**theirs, name: torch.cat((cosines, sines, rest), 1)}


def shared_embedders(folder: Path, theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a DiT with the embedders of its blocks once. Raises InteropError where the blocks' differ."""
    kept, first = {}, "transformer_blocks.0.norm1.emb."
    for name, tensor in theirs.items():
        block, mark, part = name.partition(".norm1.emb.")
        if not mark:
            kept[name] = tensor
            continue
        other: Any = theirs.get(first + part)
        if other is None or not torch.equal(tensor, other):
            raise InteropError(
                f"{folder}: {block} has an embedder of its own ({part}), unlike block 0; here all blocks share one"
            )
        kept[part] = tensor
    return kept
