"""Names of weights and config fields: Hugging Face model families to and from ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sanbu.models.model import ModelConfig
from sanbu.models.tokens.gpt import GPT1, GPT2
from sanbu.models.tokens.llama import Llama

Tensors = dict[str, Tensor]
Fields = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """model_type, with four functions that convert configs and weights in both directions."""

    model_type: str
    kind: type[ModelConfig]
    config_in: Callable[[Fields], ModelConfig]
    config_out: Callable[[Any, int], Fields]
    weights_in: Callable[[Tensors, Any], Tensors]
    weights_out: Callable[[Tensors, Any], Tensors]


# -- GPT-1 and GPT-2: transposed weights; queries, keys and values in one matrix -------------------------------------

BLOCK = {
    "attention_norm": "ln_1",
    "attention.out": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
JOINED = ("attention.query", "attention.key", "attention.value")


def transpose(tensor: Tensor) -> Tensor:
    """The transpose of a matrix; a vector unchanged."""
    return (tensor.T if tensor.ndim == 2 else tensor).contiguous()


def gpt_in(tensors: Tensors, layers: int, tokens: str, positions: str, last_norm: bool) -> Tensors:
    """Their names to ours; prefixes `transformer.` and buffers are dropped, a head equal to the embedding is tied."""
    theirs = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    ours = {"embedding.tokens.weight": theirs[tokens], "embedding.positions.weight": theirs[positions]}
    if last_norm:
        ours |= {f"norm.{part}": theirs[f"ln_f.{part}"] for part in ("weight", "bias")}
    for layer in range(layers):
        for name, other in BLOCK.items():
            for part in ("weight", "bias"):
                tensor = theirs[f"h.{layer}.{other}.{part}"]
                ours[f"blocks.{layer}.{name}.{part}"] = transpose(tensor)
        for part in ("weight", "bias"):
            joined = theirs[f"h.{layer}.attn.c_attn.{part}"]
            for name, tensor in zip(JOINED, joined.chunk(3, dim=-1), strict=True):
                ours[f"blocks.{layer}.{name}.{part}"] = transpose(tensor)
    return ours


def gpt_out(ours: Tensors, layers: int, tokens: str, positions: str, last_norm: bool) -> Tensors:
    """Our names to theirs."""
    theirs = {tokens: ours["embedding.tokens.weight"], positions: ours["embedding.positions.weight"]}
    if last_norm:
        theirs |= {f"ln_f.{part}": ours[f"norm.{part}"] for part in ("weight", "bias")}
    for layer in range(layers):
        for name, other in BLOCK.items():
            for part in ("weight", "bias"):
                tensor = ours[f"blocks.{layer}.{name}.{part}"]
                theirs[f"h.{layer}.{other}.{part}"] = transpose(tensor)
        for part in ("weight", "bias"):
            joined = torch.cat([ours[f"blocks.{layer}.{name}.{part}"] for name in JOINED])
            theirs[f"h.{layer}.attn.c_attn.{part}"] = transpose(joined)
    return {f"transformer.{name}": tensor for name, tensor in theirs.items()}


def gpt_fields(config: GPT1 | GPT2, vocabulary: int) -> Fields:
    """The common fields of GPT-1 and GPT-2 configs."""
    return {
        "vocab_size": vocabulary,
        "n_positions": config.context,
        "n_ctx": config.context,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    }


def expect(fields: Fields, **allowed: Any) -> None:
    """Raise ValueError for a field whose value is not supported."""
    for name, values in allowed.items():
        if name in fields and fields[name] not in values:
            raise ValueError(f"config.json: {name} is {fields[name]!r}, allowed: {', '.join(map(repr, values))}")


def gpt_sizes(fields: Fields) -> dict[str, Any]:
    """Our fields of a GPT-1 or GPT-2 config."""
    names = {"layers": "n_layer", "heads": "n_head", "width": "n_embd", "context": "n_positions"}
    dropout = float(fields.get("resid_pdrop", 0.1))
    return {"dropout": dropout, **{ours: fields[theirs] for ours, theirs in names.items()}}


def gpt1_in(fields: Fields) -> GPT1:
    """A config of `openai-gpt`."""
    expect(fields, afn=("gelu", "gelu_new"), layer_norm_epsilon=(1e-5,), tie_word_embeddings=(True,))
    return GPT1(**gpt_sizes(fields))


def gpt2_in(fields: Fields) -> GPT2:
    """A config of `gpt2`."""
    expect(
        fields,
        activation_function=("gelu_new", "gelu_pytorch_tanh"),
        layer_norm_epsilon=(1e-5,),
        tie_word_embeddings=(True,),
        n_inner=(None, 4 * fields["n_embd"]),
        scale_attn_by_inverse_layer_idx=(False,),
    )
    return GPT2(**gpt_sizes(fields))


GPT1_FAMILY = Family(
    "openai-gpt",
    GPT1,
    gpt1_in,
    lambda config, size: (
        gpt_fields(config, size)
        | {"model_type": "openai-gpt", "architectures": ["OpenAIGPTLMHeadModel"], "afn": "gelu"}
    ),
    lambda tensors, config: gpt_in(tensors, config.layers, "tokens_embed.weight", "positions_embed.weight", False),
    lambda tensors, config: gpt_out(tensors, config.layers, "tokens_embed.weight", "positions_embed.weight", False),
)
GPT2_FAMILY = Family(
    "gpt2",
    GPT2,
    gpt2_in,
    lambda config, size: (
        gpt_fields(config, size)
        | {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new"}
    ),
    lambda tensors, config: gpt_in(tensors, config.layers, "wte.weight", "wpe.weight", True),
    lambda tensors, config: gpt_out(tensors, config.layers, "wte.weight", "wpe.weight", True),
)

# -- LLaMA: the same tensors under other names -----------------------------------------------------------------------

LLAMA_BLOCK = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}


def llama_names(layers: int) -> dict[str, str]:
    """Our name to theirs."""
    names = {"embedding.tokens": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
    for layer in range(layers):
        names |= {f"blocks.{layer}.{ours}": f"model.layers.{layer}.{theirs}" for ours, theirs in LLAMA_BLOCK.items()}
    return {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in names.items()}


def llama_weights_in(tensors: Tensors, config: Llama) -> Tensors:
    """Their names to ours; a tied head is untied."""
    tensors = {"lm_head.weight": tensors["model.embed_tokens.weight"], **tensors}
    return {ours: tensors[theirs] for ours, theirs in llama_names(config.layers).items()}


def llama_in(fields: Fields) -> Llama:
    """A config of `llama`."""
    rope = fields.get("rope_parameters") or {"rope_theta": fields.get("rope_theta", 10000.0), "rope_type": "default"}
    expect(fields, hidden_act=("silu",), attention_bias=(False,), mlp_bias=(False,))
    expect({"rope_scaling": fields.get("rope_scaling"), **rope}, rope_type=("default",), rope_scaling=(None,))
    expect(fields, head_dim=(None, fields["hidden_size"] // fields["num_attention_heads"]))
    return Llama(
        layers=fields["num_hidden_layers"],
        heads=fields["num_attention_heads"],
        key_heads=fields.get("num_key_value_heads") or fields["num_attention_heads"],
        width=fields["hidden_size"],
        hidden=fields["intermediate_size"],
        context=fields["max_position_embeddings"],
        rope_base=float(rope["rope_theta"]),
        epsilon=float(fields.get("rms_norm_eps", 1e-6)),
    )


def llama_out(config: Llama, vocabulary: int) -> Fields:
    """A config of `llama`."""
    from sanbu.models.tokens.llama import swiglu_width

    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocabulary,
        "hidden_size": config.width,
        "intermediate_size": swiglu_width(config.width) if config.hidden == "auto" else config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads if config.key_heads == "auto" else config.key_heads,
        "max_position_embeddings": config.context,
        "rope_theta": config.rope_base,
        "rms_norm_eps": config.epsilon,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": False,
    }


LLAMA_FAMILY = Family(
    "llama",
    Llama,
    llama_in,
    llama_out,
    llama_weights_in,
    lambda tensors, config: {theirs: tensors[ours] for ours, theirs in llama_names(config.layers).items()},
)

FAMILIES = {family.model_type: family for family in (GPT1_FAMILY, GPT2_FAMILY, LLAMA_FAMILY)}
