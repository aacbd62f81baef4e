"""LLaMA and what has its shape: Mistral, Qwen 2 and 3, Phi-3."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sanbu.interop.families.family import Family, dropout_in
from sanbu.interop.families.rope import rope_in, rope_out
from sanbu.interop.families.sheet import Fields, Sheet
from sanbu.interop.families.tensors import Rule, same, stacked
from sanbu.models.tokens.grouped import GroupedConfig
from sanbu.models.tokens.llama import Llama, Mistral
from sanbu.models.tokens.phi import Phi3
from sanbu.models.tokens.qwen import Qwen2, Qwen3, QwenConfig

LOCAL, GLOBAL = "sliding_attention", "full_attention"  # layer_types
NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
HEADS = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
}
OUT = {"attention.out": "self_attn.o_proj"}
MLP = {"mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj", "mlp.down": "mlp.down_proj"}
HEAD_NORMS = {"attention.query_norm": "self_attn.q_norm", "attention.key_norm": "self_attn.k_norm"}
Names = Mapping[str, str]


def layered(config: GroupedConfig, block: Callable[[str, str], list[Rule]]) -> list[Rule]:
    """The tensors outside of the blocks, and those of each block, from our name and their name of the block."""
    rules = [same("model.embed_tokens.weight", "embedding.tokens.weight"), same("model.norm.weight", "norm.weight")]
    rules += [] if config.tied else [same("lm_head.weight", "head.weight")]
    return rules + [rule for i in range(config.layers) for rule in block(f"blocks.{i}", f"model.layers.{i}")]


def named(ours: str, theirs: str, names: Names, parts: Sequence[str] = ("weight",)) -> list[Rule]:
    """The same tensors under other names."""
    return [
        same(f"{theirs}.{other}.{part}", f"{ours}.{name}.{part}") for name, other in names.items() for part in parts
    ]


def plain_rules(config: Any, biased: Sequence[Names] = (), more: Names | None = None) -> list[Rule]:
    """The tensors of LLaMA. biased: the matrices that have biases. more: further norms."""
    weights = {**NORMS, **HEADS, **OUT, **MLP, **(more or {})}
    biases = {ours: theirs for names in biased for ours, theirs in names.items()}

    def block(ours: str, theirs: str) -> list[Rule]:
        return named(ours, theirs, weights) + named(ours, theirs, biases, ("bias",))

    return layered(config, block)


def sizes(layers: int, heads: int, width: int, hidden: int, context: int, epsilon: float, tied: bool = False) -> Any:
    """The table of the common fields, with their defaults."""
    return {
        "layers": ("num_hidden_layers", layers),
        "heads": ("num_attention_heads", heads),
        "width": ("hidden_size", width),
        "hidden": ("intermediate_size", hidden),
        "context": ("max_position_embeddings", context),
        "epsilon": ("rms_norm_eps", epsilon),
        "tied": ("tie_word_embeddings", tied),
    }


def heads_in(sheet: Sheet, key_heads: int | None = None, head_width: int | None = None) -> Fields:
    """Key heads and the width of a head, with their defaults; null is one per query head, and width / heads."""
    keys, width = sheet.optional("num_key_value_heads", key_heads), sheet.optional("head_dim", head_width)
    return {"key_heads": "auto" if keys is None else keys, "head_width": "auto" if width is None else width}


def heads_out(config: GroupedConfig) -> Fields:
    """Key heads, the width of a head and the width inside the MLP as numbers."""
    numbers = {"num_key_value_heads": config.key_size(), "head_dim": config.head_size()}
    return {**numbers, "intermediate_size": config.hidden_size(), "attention_dropout": 0.0}


# -- LLaMA and Mistral -----------------------------------------------------------------------------------------------


def llama_in(sheet: Sheet) -> Fields:
    """What the tables do not say."""
    biases = {"attention_bias": sheet.get("attention_bias", False), "mlp_bias": sheet.get("mlp_bias", False)}
    return {**heads_in(sheet), **rope_in(sheet), **biases}


def llama_out(config: Llama) -> Fields:
    """The inverse of `llama_in`."""
    biases = {"attention_bias": config.attention_bias, "mlp_bias": config.mlp_bias}
    return {**heads_out(config), **rope_out(config), **biases}


def llama_rules(config: Llama) -> list[Rule]:
    """The tensors of LLaMA."""
    return plain_rules(config, (HEADS, OUT) * config.attention_bias + (MLP,) * config.mlp_bias)


SILU = {"hidden_act": ("silu", "swish"), "attention_dropout": (0.0,)}
LLAMA_FAMILY = Family(
    "llama",
    "LlamaForCausalLM",
    Llama,
    sizes(32, 32, 4096, 11008, 2048, 1e-6),
    SILU,
    (),
    llama_in,
    llama_out,
    llama_rules,
    "model.",
)


def mistral_in(sheet: Sheet) -> Fields:
    """What the tables do not say."""
    return {**heads_in(sheet, 8), **rope_in(sheet), "window": sheet.optional("sliding_window", 4096)}


def mistral_out(config: Mistral) -> Fields:
    """The inverse of `mistral_in`."""
    return {**heads_out(config), **rope_out(config), "sliding_window": config.window}


MISTRAL_FAMILY = Family(
    "mistral",
    "MistralForCausalLM",
    Mistral,
    sizes(32, 32, 4096, 14336, 4096 * 32, 1e-6),
    {**SILU, "attention_bias": (False,), "mlp_bias": (False,)},
    (),
    mistral_in,
    mistral_out,
    plain_rules,
    "model.",
)

# -- Qwen ------------------------------------------------------------------------------------------------------------


def local_in(sheet: Sheet, layers: int, otherwise: Sequence[int]) -> tuple[int, ...]:
    """The local layers: from layer_types, or `otherwise` without it."""
    types = sheet.get("layer_types", None)
    if types is None:
        return tuple(otherwise)
    if not isinstance(types, list) or len(types) != layers or not set(types) <= {LOCAL, GLOBAL}:
        sheet.refuse("layer_types", f"{layers} of {LOCAL!r} and {GLOBAL!r}")
    return tuple(layer for layer, kind in enumerate(types) if kind == LOCAL)


def local_out(layers: int, local: Sequence[int]) -> list[str]:
    """layer_types."""
    return [LOCAL if layer in local else GLOBAL for layer in range(layers)]


def window_in(sheet: Sheet) -> Fields:
    """The window and the layers that have it: those from max_window_layers on, or those that layer_types names."""
    layers, first = sheet.get("num_hidden_layers", 32), sheet.get("max_window_layers", 28)
    asked, size = sheet.get("use_sliding_window", False), sheet.optional("sliding_window", 4096)
    window = size if asked else None
    local = local_in(sheet, layers, range(first, layers) if window is not None else ())
    if local and window is None:
        sheet.refuse("layer_types", f"{GLOBAL!r} where use_sliding_window is false or sliding_window is null")
    return {"window": window, "local": local}


def window_out(config: QwenConfig) -> Fields:
    """The inverse of `window_in`."""
    first = min(config.local, default=config.layers)
    layers = {"max_window_layers": first, "layer_types": local_out(config.layers, config.local)}
    return {"use_sliding_window": config.window is not None, "sliding_window": config.window, **layers}


def qwen2_in(sheet: Sheet) -> Fields:
    """What the tables do not say."""
    return {**heads_in(sheet, 32), **rope_in(sheet), **window_in(sheet)}


def qwen2_out(config: Qwen2) -> Fields:
    """The inverse of `qwen2_in`."""
    return {**heads_out(config), **rope_out(config), **window_out(config)}


QWEN2_FAMILY = Family(
    "qwen2",
    "Qwen2ForCausalLM",
    Qwen2,
    sizes(32, 32, 4096, 22016, 32768, 1e-6),
    SILU,
    (),
    qwen2_in,
    qwen2_out,
    lambda config: plain_rules(config, (HEADS,)),
    "model.",
)


def qwen3_in(sheet: Sheet) -> Fields:
    """What the tables do not say."""
    bias = sheet.get("attention_bias", False)
    return {**heads_in(sheet, 32, 128), **rope_in(sheet), **window_in(sheet), "attention_bias": bias}


def qwen3_out(config: Qwen3) -> Fields:
    """The inverse of `qwen3_in`."""
    bias = {"attention_bias": config.attention_bias}
    return {**heads_out(config), **rope_out(config), **window_out(config), **bias}


QWEN3_FAMILY = Family(
    "qwen3",
    "Qwen3ForCausalLM",
    Qwen3,
    sizes(32, 32, 4096, 22016, 32768, 1e-6),
    SILU,
    (),
    qwen3_in,
    qwen3_out,
    lambda config: plain_rules(config, (HEADS, OUT) * config.attention_bias, HEAD_NORMS),
    "model.",
)

# -- Phi-3: queries, keys and values in one matrix, gate and up in another --------------------------------------------


def phi3_in(sheet: Sheet) -> Fields:
    """What the tables do not say. The embedding has no dropout in transformers, whatever embd_pdrop is."""
    rope = rope_in(sheet, fraction=("partial_rotary_factor", 1.0))
    inner = {"window": sheet.optional("sliding_window", None), "dropout": dropout_in(sheet, "resid_pdrop")}
    return {**heads_in(sheet), **rope, **inner}


def phi3_out(config: Phi3) -> Fields:
    """The inverse of `phi3_in`."""
    inner = {"sliding_window": config.window, "resid_pdrop": config.dropout, "embd_pdrop": 0.0}
    return {**heads_out(config), **rope_out(config), "partial_rotary_factor": config.rotated, **inner}


def phi3_rules(config: Phi3) -> list[Rule]:
    """The tensors of Phi-3."""
    queries, keys = config.heads * config.head_size(), config.key_size() * config.head_size()
    hidden = config.hidden_size()
    rest = {**NORMS, **OUT, "mlp.down": "mlp.down_proj"}

    def block(ours: str, theirs: str) -> list[Rule]:
        heads = [f"{ours}.{name}.weight" for name in HEADS]
        gate = [f"{ours}.mlp.gate.weight", f"{ours}.mlp.up.weight"]
        fused = stacked(f"{theirs}.self_attn.qkv_proj.weight", heads, (queries, keys, keys))
        return [fused, stacked(f"{theirs}.mlp.gate_up_proj.weight", gate, (hidden, hidden)),
                *named(ours, theirs, rest)]  # fmt: skip

    return layered(config, block)


PHI3_FAMILY = Family(
    "phi3",
    "Phi3ForCausalLM",
    Phi3,
    sizes(32, 32, 3072, 8192, 4096, 1e-5),
    {**SILU, "attention_bias": (False,), "mlp_bias": (False,)},
    ("original_max_position_embeddings", "embd_pdrop"),
    phi3_in,
    phi3_out,
    phi3_rules,
    "model.",
)
