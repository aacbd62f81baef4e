"""GPT-1, GPT-2 and OPT. GPT-1 and GPT-2 have transposed weights, with queries, keys and values in one matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sanbu.interop.families.family import Family, dropout_in
from sanbu.interop.families.sheet import Fields, Sheet
from sanbu.interop.families.tensors import Rule, same, transposed, transposed_stack
from sanbu.models.tokens.gpt import GPT1, GPT2
from sanbu.models.tokens.opt import OPT

PARTS = ("weight", "bias")
BLOCK = {
    "attention_norm": "ln_1",
    "attention.out": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
JOINED = ("attention.query", "attention.key", "attention.value")
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
SUMMARY = ("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout")


def gpt_rules(config: GPT1 | GPT2, tokens: str, positions: str, last_norm: bool) -> list[Rule]:
    """The tensors of GPT-1 or GPT-2."""
    rules = [same(f"transformer.{tokens}.weight", "embedding.tokens.weight")]
    rules.append(same(f"transformer.{positions}.weight", "embedding.positions.weight"))
    rules += [same(f"transformer.ln_f.{part}", f"norm.{part}") for part in PARTS if last_norm]
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
        for part in PARTS:
            names = [f"{ours}.{name}.{part}" for name in JOINED]
            rules.append(transposed_stack(f"{theirs}.attn.c_attn.{part}", names))
            for name, other in BLOCK.items():
                rules.append(transposed(f"{theirs}.{other}.{part}", f"{ours}.{name}.{part}"))
    return rules


def gpt_in(sheet: Sheet) -> Fields:
    """The one dropout of a GPT config, and the width inside the MLP, which must be four times the width."""
    sheet.only("n_ctx", sheet.fields.get("n_positions"), None)
    sheet.only("n_inner", None, 4 * sheet.get("n_embd", 768))
    return {"dropout": dropout_in(sheet, *DROPOUTS, default=0.1)}


def gpt_out(config: GPT1 | GPT2) -> Fields:
    """Their dropouts and context."""
    return {"n_ctx": config.context, **dict.fromkeys(DROPOUTS, config.dropout)}


def gpt_family(
    model_type: str, architecture: str, kind: Any, context: int, fixed: Fields, rules: Callable[[Any], Sequence[Rule]]
) -> Family:
    """GPT-1 or GPT-2."""
    sizes = {"layers": ("n_layer", 12), "heads": ("n_head", 12), "width": ("n_embd", 768)}
    always = {"layer_norm_epsilon": (1e-5,), "tie_word_embeddings": (True,)}
    fields = {**sizes, "context": ("n_positions", context)}
    return Family(
        model_type, architecture, kind, fields, always | fixed, SUMMARY, gpt_in, gpt_out, rules, "transformer."
    )


GPT1_FAMILY = gpt_family(
    "openai-gpt",
    "OpenAIGPTLMHeadModel",
    GPT1,
    512,
    {"afn": ("gelu", "gelu_new", "gelu_pytorch_tanh")},
    partial(gpt_rules, tokens="tokens_embed", positions="positions_embed", last_norm=False),
)
GPT2_FAMILY = gpt_family(
    "gpt2",
    "GPT2LMHeadModel",
    GPT2,
    1024,
    {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "reorder_and_upcast_attn": (False, True),
    },
    partial(gpt_rules, tokens="wte", positions="wpe", last_norm=True),
)

# -- OPT -------------------------------------------------------------------------------------------------------------

OPT_BLOCK = {
    "attention_norm": "self_attn_layer_norm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.out_proj",
    "mlp_norm": "final_layer_norm",
    "mlp.up": "fc1",
    "mlp.down": "fc2",
}


def opt_rules(config: OPT) -> list[Rule]:
    """The tensors of OPT."""
    names = {f"blocks.{layer}.{ours}": f"layers.{layer}.{theirs}" for layer in range(config.layers)
             for ours, theirs in OPT_BLOCK.items()}  # fmt: skip
    names |= {"norm": "final_layer_norm"} if config.norms == "before" else {}
    rules = [same("model.decoder.embed_tokens.weight", "embedding.tokens.weight")]
    rules.append(same("model.decoder.embed_positions.weight", "embedding.positions.weight"))
    for ours, theirs in names.items():
        rules += [same(f"model.decoder.{theirs}.{part}", f"{ours}.{part}") for part in PARTS]
    return rules + ([] if config.tied else [same("lm_head.weight", "head.weight")])


def opt_in(sheet: Sheet) -> Fields:
    """Where the norms stand; embeddings have the width of the model."""
    sheet.only("word_embed_proj_dim", sheet.get("hidden_size", 768), None)
    sheet.only("attention_dropout", 0.0)
    return {"norms": "before" if sheet.get("do_layer_norm_before", True) else "after"}


def opt_out(config: OPT) -> Fields:
    """The fields that OPT has beside the sizes."""
    before = config.norms == "before"
    sizes = {"ffn_dim": config.hidden_size(), "word_embed_proj_dim": config.width}
    return {"do_layer_norm_before": before, "attention_dropout": 0.0, **sizes}


OPT_FAMILY = Family(
    "opt",
    "OPTForCausalLM",
    OPT,
    {
        "layers": ("num_hidden_layers", 12),
        "heads": ("num_attention_heads", 12),
        "width": ("hidden_size", 768),
        "hidden": ("ffn_dim", 3072),
        "context": ("max_position_embeddings", 2048),
        "dropout": ("dropout", 0.1),
        "tied": ("tie_word_embeddings", True),
    },
    {
        "activation_function": ("relu",),
        "_remove_final_layer_norm": (False,),
        "enable_bias": (True,),
        "layer_norm_elementwise_affine": (True,),
        "layerdrop": (0.0,),
        "activation_dropout": (0.0,),
    },
    ("init_std", "prefix"),
    opt_in,
    opt_out,
    opt_rules,
    "model.",
)
