"""HiFi-GAN's generator from the original project's folder: config.json and a checkpoint such as g_02500000.

A checkpoint is a pickle, {"generator": weights}; only tensors are read from it (`weights_only`), so it cannot run code.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sanbu.checkpoints import Writer
from sanbu.codecs.waves import WaveCodec
from sanbu.config import load
from sanbu.data.waves import Waves
from sanbu.files import load_weights, read_object
from sanbu.interop.families.sheet import InteropError
from sanbu.layers.spectrogram import Mel
from sanbu.models.vocoders.hifigan import HifiGan
from sanbu.recipe import Recipe
from sanbu.recipes.vocoders import hifigan
from sanbu.run import Run

MODEL = {  # our field: that of config.json
    "resblock": "resblock",
    "rates": "upsample_rates",
    "kernels": "upsample_kernel_sizes",
    "width": "upsample_initial_channel",
    "block_kernels": "resblock_kernel_sizes",
    "dilations": "resblock_dilation_sizes",
}
SOUND = {
    "rate": "sampling_rate",
    "n_fft": "n_fft",
    "hop": "hop_size",
    "window": "win_size",
    "mels": "num_mels",
    "fmin": "fmin",
    "fmax": "fmax",
}
NAMES = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
CHECKPOINT = re.compile(r"g_\d+|generator.*|.*\.(pt|pth|ckpt)")


def is_hifigan(folder: Path) -> bool:
    """Whether a folder has the config of a HiFi-GAN generator."""
    path = folder / "config.json"
    return path.is_file() and "upsample_initial_channel" in path.read_text(encoding="utf-8", errors="replace")


def import_run(source: Path, folder: Path) -> Run:
    """Make a run from a folder. Raises InteropError naming the field, file or tensor that does not fit."""
    recipe = recipe_of(source)
    model = recipe.model.build(recipe.data.space())
    load_weights(model, renamed(read_checkpoint(checkpoint_of(source))), source)
    mel: Any = recipe.data
    made = Writer.create(folder, recipe, WaveCodec(mel.mel).save)
    made.save_model(model)
    return Run.open(folder)


def recipe_of(source: Path) -> Recipe:
    """The recipe of a folder's config.json."""
    path = source / "config.json"
    about = read_object(path, *MODEL.values(), *SOUND.values())
    sound = {ours: about[theirs] for ours, theirs in SOUND.items()}
    shape = {ours: about[theirs] for ours, theirs in MODEL.items()}
    mel = load(Mel, sound, str(path))
    model = load(HifiGan, {"kind": "hifigan", **shape}, str(path))
    segment = max(2, int(about.get("segment_size", 8192)) // mel.hop)
    return hifigan("paper").change(data=Waves(mel=mel, segment=segment), model=model)


def checkpoint_of(source: Path) -> Path:
    """The generator of a folder; the latest of several. Raises InteropError if there is none."""
    found = sorted(path for path in source.iterdir() if path.is_file() and CHECKPOINT.fullmatch(path.name))
    if not found:
        raise InteropError(f"{source} has a config.json, but no generator; it is called g_00000000 or generator_v1")
    return found[-1]


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint. Raises InteropError for a damaged file, and for one that holds more than tensors."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InteropError(f"{path} cannot be read as tensors: {str(error).splitlines()[0][:160]}") from None
    state = found.get("generator", found) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InteropError(f"{path} has no 'generator' of tensors by name")
    return state


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that weight normalisation has here; plain weights (norm removed) become v and |v|."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stem, _, last = name.rpartition(".")
        if last == "weight":
            found[f"{stem}.{NAMES['weight_g']}"] = tensor.norm(dim=(1, 2), keepdim=True)
            found[f"{stem}.{NAMES['weight_v']}"] = tensor
        else:
            found[f"{stem}.{NAMES.get(last, last)}"] = tensor
    return found
