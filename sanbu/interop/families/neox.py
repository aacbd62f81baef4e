"""GPT-NeoX, the shape of Pythia: queries, keys and values of a head below each other in one matrix."""

from __future__ import annotations

from sanbu.interop.families.family import Family
from sanbu.interop.families.rope import rope_in, rope_out
from sanbu.interop.families.sheet import Fields, Sheet
from sanbu.interop.families.tensors import Rule, by_head, same
from sanbu.models.tokens.neox import NeoX

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu-tanh", "gelu_pytorch_tanh": "gelu-tanh", "relu": "relu"}
BLOCK = {
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "mlp.up": "mlp.dense_h_to_4h",
    "mlp.down": "mlp.dense_4h_to_h",
}
JOINED = ("attention.query", "attention.key", "attention.value")
PARTS = ("weight", "bias")


def neox_in(sheet: Sheet) -> Fields:
    """What the tables do not say."""
    activation = sheet.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        sheet.refuse("hidden_act", ", ".join(map(repr, ACTIVATIONS)))
    sheet.only("head_dim", sheet.get("hidden_size", 6144) // sheet.get("num_attention_heads", 64), None)
    residual = "parallel" if sheet.get("use_parallel_residual", True) else "sequential"
    rope = rope_in(sheet, ("rotary_emb_base", 10000.0), ("rotary_pct", 0.25))
    return {**rope, "residual": residual, "activation": ACTIVATIONS[activation]}


def neox_out(config: NeoX) -> Fields:
    """The inverse of `neox_in`."""
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    rope = rope_out(config)
    older = {"rotary_emb_base": rope.pop("rope_theta"), "rotary_pct": config.rotated}
    inner = {"hidden_act": names[config.activation], "use_parallel_residual": config.residual == "parallel"}
    return {**rope, **older, **inner, "intermediate_size": config.hidden_size()}


def neox_rules(config: NeoX) -> list[Rule]:
    """The tensors of GPT-NeoX."""
    rules = [same("gpt_neox.embed_in.weight", "embedding.tokens.weight")]
    rules += [same(f"gpt_neox.final_layer_norm.{part}", f"norm.{part}") for part in PARTS]
    rules += [] if config.tied else [same("embed_out.weight", "head.weight")]
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}", f"gpt_neox.layers.{layer}"
        for part in PARTS:
            rules += [same(f"{theirs}.{other}.{part}", f"{ours}.{name}.{part}") for name, other in BLOCK.items()]
        for part in PARTS if config.attention_bias else PARTS[:1]:
            names = [f"{ours}.{name}.{part}" for name in JOINED]
            rules.append(by_head(f"{theirs}.attention.query_key_value.{part}", names, config.heads))
            rules.append(same(f"{theirs}.attention.dense.{part}", f"{ours}.attention.out.{part}"))
    return rules


NEOX_FAMILY = Family(
    "gpt_neox",
    "GPTNeoXForCausalLM",
    NeoX,
    {
        "layers": ("num_hidden_layers", 44),
        "heads": ("num_attention_heads", 64),
        "width": ("hidden_size", 6144),
        "hidden": ("intermediate_size", 24576),
        "context": ("max_position_embeddings", 2048),
        "epsilon": ("layer_norm_eps", 1e-5),
        "dropout": ("hidden_dropout", 0.0),
        "attention_bias": ("attention_bias", True),
        "tied": ("tie_word_embeddings", False),
    },
    {"attention_dropout": (0.0,)},
    (),
    neox_in,
    neox_out,
    neox_rules,
    "gpt_neox.",
)
