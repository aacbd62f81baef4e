"""The fields of diffusers' configs: the default of each and the values that have an equal here.

A table lists every field of a class. `read_fields` refuses a field that is not in the table and a value that its rule
does not allow, so that no field is left unread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanbu.config import nearest
from sanbu.files import read_object
from sanbu.interop.huggingface import InteropError


@dataclass(frozen=True)
class Rule:
    """Which values of a field are supported, and how an error names them."""

    allows: Callable[[Any], bool]
    text: str


Fields = dict[str, Any]
Table = Mapping[str, tuple[Any, Rule]]  # field -> its default in diffusers, its rule

# -- rules ------------------------------------------------------------------------------------------------------------


def same(first: Any, second: Any) -> bool:
    """Equality that tells True from 1."""
    return first == second and isinstance(first, bool) == isinstance(second, bool)


def only(*values: Any) -> Rule:
    """These values alone."""
    return Rule(lambda given: any(same(given, value) for value in values), " or ".join(map(repr, values)))


def optional(rule: Rule) -> Rule:
    """None too."""
    return Rule(lambda given: given is None or rule.allows(given), f"{rule.text}, or None")


def each(rule: Rule) -> Rule:
    """A list whose entries all follow the rule."""
    return Rule(
        lambda given: isinstance(given, list) and bool(given) and all(map(rule.allows, given)), f"a list of {rule.text}"
    )


def numbers(kind: type, least: float, below: float, text: str) -> Rule:
    """Numbers from `least` to just under `below`; an integer is a float too."""
    kinds = (int, float) if kind is float else (int,)
    return Rule(lambda given: isinstance(given, kinds) and not isinstance(given, bool) and least <= given < below, text)


TINY = 1e-30  # the least positive number that is allowed
ANY = Rule(lambda given: True, "any value")
FLAG = only(True, False)
COUNT = numbers(int, 1, 2**31, "an integer from 1")
SHARE = numbers(float, 0, 1, "a number from 0 to just under 1")
BETA = numbers(float, TINY, 1, "a number between 0 and 1")
POSITIVE = numbers(float, TINY, 1e30, "a positive number")
NOT_NEGATIVE = numbers(float, 0, 1e30, "a number from 0")
SIDES = Rule(
    lambda given: COUNT.allows(given) or (each(COUNT).allows(given) and len(given) == 2),
    "a side in pixels, or [height, width]",
)

# -- reading ----------------------------------------------------------------------------------------------------------


def read_fields(path: Path, table: Table, also: Table | None = None) -> Fields:
    """Every field of a config, with defaults filled in. Raises InteropError naming a field that has no equal here.

    also: entries that replace those of the table. Names that begin with an underscore are diffusers' own notes.
    """
    whole = {**table, **(also or {})}
    given = {name: value for name, value in read_object(path).items() if not name.startswith("_")}
    for name, value in given.items():
        if name not in whole:
            raise InteropError(f"{path}: unknown field {name!r} (given {value!r}){nearest(name, whole)}")
        if not whole[name][1].allows(value):
            refuse(path, name, value, whole[name][1].text)
    missing = [name for name in whole if name not in given and not whole[name][1].allows(whole[name][0])]
    if missing:
        refuse(path, missing[0], "nothing", whole[missing[0]][1].text)
    return {name: given.get(name, default) for name, (default, _) in whole.items()}


def refuse(path: Path, name: str, given: Any, allowed: str) -> None:
    """Raise InteropError for the value of a field."""
    raise InteropError(f"{path}: {name}: given {shown(given)}, supported: {allowed}")


def shown(value: Any) -> str:
    """A value on one line, cut where it is long."""
    text = value if value == "nothing" else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# -- tables -----------------------------------------------------------------------------------------------------------

DOWN = only("DownBlock2D", "AttnDownBlock2D", "UNetResDownBlock2D", "UNetResAttnDownBlock2D")
UP = only("UpBlock2D", "AttnUpBlock2D", "UNetResUpBlock2D", "UNetResAttnUpBlock2D")

UNET_FIELDS: Table = {
    "sample_size": (None, SIDES),
    "in_channels": (3, only(1, 3)),
    "out_channels": (3, only(1, 3)),
    "center_input_sample": (False, only(False)),
    "time_embedding_type": ("positional", only("positional")),
    "time_embedding_dim": (None, optional(COUNT)),
    "freq_shift": (0, NOT_NEGATIVE),
    "flip_sin_to_cos": (True, FLAG),
    "down_block_types": (["DownBlock2D", *["AttnDownBlock2D"] * 3], each(DOWN)),
    "mid_block_type": ("UNetMidBlock2D", only("UNetMidBlock2D")),
    "up_block_types": ([*["AttnUpBlock2D"] * 3, "UpBlock2D"], each(UP)),
    "block_out_channels": ([224, 448, 672, 896], each(COUNT)),
    "layers_per_block": (2, COUNT),
    "mid_block_scale_factor": (1, only(1)),
    "downsample_padding": (1, only(0, 1)),
    "downsample_type": ("conv", only("conv")),
    "upsample_type": ("conv", only("conv")),
    "dropout": (0.0, SHARE),
    "act_fn": ("silu", only("silu", "swish")),
    "attention_head_dim": (8, optional(COUNT)),
    "norm_num_groups": (32, COUNT),
    "attn_norm_num_groups": (None, optional(COUNT)),
    "norm_eps": (1e-5, POSITIVE),
    "resnet_time_scale_shift": ("default", only("default")),
    "add_attention": (True, only(True)),
    "class_embed_type": (None, only(None)),
    "num_class_embeds": (None, optional(COUNT)),
    "num_train_timesteps": (None, ANY),  # read by time_embedding_type="learned" alone
}

DIT_FIELDS: Table = {
    "num_attention_heads": (16, COUNT),
    "attention_head_dim": (72, COUNT),
    "in_channels": (4, only(1, 3)),
    "out_channels": (None, optional(only(1, 3))),
    "num_layers": (28, COUNT),
    "dropout": (0.0, only(0)),
    "norm_num_groups": (32, ANY),  # read by nothing in diffusers
    "attention_bias": (True, only(True)),
    "sample_size": (32, COUNT),
    "patch_size": (2, COUNT),
    "activation_fn": ("gelu-approximate", only("gelu-approximate")),
    "num_embeds_ada_norm": (1000, COUNT),
    "upcast_attention": (False, FLAG),  # of half precision; here attention is in the model's own
    "norm_type": ("ada_norm_zero", only("ada_norm_zero")),
    "norm_elementwise_affine": (False, only(False)),
    "norm_eps": (1e-5, POSITIVE),
}

AUTOENCODER_FIELDS: Table = {
    "in_channels": (3, only(1, 3)),
    "out_channels": (3, only(1, 3)),
    "down_block_types": (["DownEncoderBlock2D"], each(only("DownEncoderBlock2D"))),
    "up_block_types": (["UpDecoderBlock2D"], each(only("UpDecoderBlock2D"))),
    "block_out_channels": ([64], each(COUNT)),
    "layers_per_block": (1, COUNT),
    "act_fn": ("silu", only("silu", "swish")),
    "latent_channels": (4, COUNT),
    "norm_num_groups": (32, COUNT),
    "sample_size": (32, SIDES),
    "scaling_factor": (0.18215, ANY),  # these four scale the latents of a diffusion model, not those of `encode`
    "shift_factor": (None, ANY),
    "latents_mean": (None, ANY),
    "latents_std": (None, ANY),
    "force_upcast": (True, FLAG),  # of half precision
    "use_quant_conv": (True, FLAG),
    "use_post_quant_conv": (True, FLAG),
    "mid_block_add_attention": (True, only(True)),
}
