"""Gemma 2, and Gemma 3 for text."""

from __future__ import annotations

from typing import Any

from sanbu.interop.families.family import Family
from sanbu.interop.families.llama import (
    GLOBAL,
    HEAD_NORMS,
    HEADS,
    LOCAL,
    MLP,
    OUT,
    heads_in,
    heads_out,
    layered,
    local_in,
    local_out,
    named,
    sizes,
)
from sanbu.interop.families.rope import one_rope, rope_in, rope_out, scaling_out
from sanbu.interop.families.sheet import Fields, Sheet
from sanbu.interop.families.tensors import Rule
from sanbu.models.tokens.gemma import Gemma2, Gemma3, GemmaConfig

NORMS = {
    "attention_norm": "input_layernorm",
    "attended_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mapped_norm": "post_feedforward_layernorm",
}
GELU = "gelu_pytorch_tanh"
FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_activation": (GELU, None),
    "hidden_act": (GELU, "gelu"),  # older files name it so; it is not read
    "attention_dropout": (0.0,),
    "use_bidirectional_attention": (False, None),
}


def gemma_rules(config: GemmaConfig) -> list[Rule]:
    """The tensors of Gemma 2 and 3."""
    more = HEAD_NORMS if isinstance(config, Gemma3) else {}
    weights = {**NORMS, **HEADS, **OUT, **MLP, **more}
    biases = {**HEADS, **OUT} if config.attention_bias else {}
    return layered(config, lambda ours, theirs: named(ours, theirs, weights) + named(ours, theirs, biases, ("bias",)))


def gemma_in(sheet: Sheet, period: int) -> Fields:
    """What both read. period: one global layer in so many."""
    layers, scale = sheet.get("num_hidden_layers", 26), sheet.get("query_pre_attn_scalar", 256.0)
    local = local_in(sheet, layers, [layer for layer in range(layers) if (layer + 1) % period])
    window = sheet.optional("sliding_window", 4096)
    if window is None:
        sheet.refuse("sliding_window", "a number")
    bias = sheet.get("attention_bias", False)
    inner = {"query_scale": scale, "window": window, "local": local, "attention_bias": bias}
    return {**heads_in(sheet, 4, 256), **inner}


def gemma_out(config: GemmaConfig) -> Fields:
    """The inverse of `gemma_in`."""
    local = {"sliding_window": config.window, "layer_types": local_out(config.layers, config.local_layers())}
    scale = config.head_size() if config.query_scale == "auto" else config.query_scale
    whole = int(scale) if scale == int(scale) else scale
    rest = {"query_pre_attn_scalar": whole, "attention_bias": config.attention_bias}
    return {**heads_out(config), **local, **rest, "final_logit_softcapping": config.cap}


def gemma2_in(sheet: Sheet) -> Fields:
    """What the tables do not say."""
    caps = {"cap": sheet.optional("final_logit_softcapping", 30.0)}
    caps["attention_cap"] = sheet.optional("attn_logit_softcapping", 50.0)
    return {**gemma_in(sheet, 2), **rope_in(sheet), **caps}


def gemma2_out(config: Gemma2) -> Fields:
    """The inverse of `gemma2_in`."""
    return {**gemma_out(config), **rope_out(config), "attn_logit_softcapping": config.attention_cap}


GEMMA2_FAMILY = Family(
    "gemma2",
    "Gemma2ForCausalLM",
    Gemma2,
    sizes(26, 8, 2304, 9216, 8192, 1e-6, tied=True),
    FIXED,
    ("sliding_window_size",),
    gemma2_in,
    gemma2_out,
    gemma_rules,
    "model.",
)


def gemma3_in(sheet: Sheet) -> Fields:
    """What the tables do not say: a period of local layers, and two rotary bases."""
    period = sheet.get("sliding_window_pattern", sheet.get("_sliding_window_pattern", 6))
    if period < 1:
        sheet.refuse("sliding_window_pattern", "1 or more")
    return {**gemma_in(sheet, period), **two_ropes(sheet), "cap": sheet.optional("final_logit_softcapping", None)}


def two_ropes(sheet: Sheet) -> Fields:
    """The rotary positions of the global and of the local layers; only the global ones can be scaled."""
    bases = sheet.get("rope_theta", 1e6), sheet.get("rope_local_base_freq", 1e4)
    context = sheet.get("max_position_embeddings", 131072)
    both, older = sheet.part("rope_parameters"), sheet.part("rope_scaling")
    far, near = both.part(GLOBAL), both.part(LOCAL)
    both.close()
    older.only("type", None)  # transformers does not read this older spelling of rope_type here
    far.fields = {**far.fields, **older.fields}
    found, local = one_rope(far, bases[0], context), one_rope(near, bases[1], context)
    if local["scaling"] is not None:
        near.refuse("rope_type", "'default'")
    for inside in (far, near):
        inside.only("partial_rotary_factor", 1.0, None)
        inside.close()
    return {**found, "local_rope_base": local["rope_base"]}


def gemma3_out(config: Gemma3) -> Fields:
    """The inverse of `gemma3_in`."""
    bases = {"rope_theta": config.rope_base, "rope_local_base_freq": config.local_rope_base}
    return {**gemma_out(config), **bases, "rope_scaling": scaling_out(config.scaling)}


GEMMA3_FAMILY = Family(
    "gemma3_text",
    "Gemma3ForCausalLM",
    Gemma3,
    sizes(26, 8, 2304, 9216, 131072, 1e-6, tied=True),
    {**FIXED, "attn_logit_softcapping": (None,)},
    (),
    gemma3_in,
    gemma3_out,
    gemma_rules,
    "model.",
)
