"""Tiny transformers models of every family that can be imported, with random weights."""

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OpenAIGPTConfig,
    OPTConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

VOCABULARY = 320
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": VOCABULARY}
SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 64, **IDS}
GROUPED = {**SIZES, "intermediate_size": 96, "num_key_value_heads": 2}
GPT = {"n_positions": 64, "n_embd": 48, "n_layer": 3, "n_head": 4, **IDS}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
WINDOWED = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
TWO_ROPES = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
PEERS = {
    "gpt1": lambda: OpenAIGPTConfig(**GPT),
    "gpt2": lambda: GPT2Config(**GPT),
    "opt": lambda: OPTConfig(**SIZES, ffn_dim=80, word_embed_proj_dim=48),
    "opt-after": lambda: OPTConfig(**SIZES, ffn_dim=80, word_embed_proj_dim=48, do_layer_norm_before=False),
    "llama": lambda: LlamaConfig(**GROUPED),
    "llama3": lambda: LlamaConfig(**GROUPED, rope_parameters=LLAMA3, tie_word_embeddings=True, head_dim=16),
    "llama-biases": lambda: LlamaConfig(
        **GROUPED, attention_bias=True, mlp_bias=True, rope_parameters={"rope_type": "linear", "factor": 4.0}
    ),
    "mistral": lambda: MistralConfig(**GROUPED, sliding_window=5, head_dim=16),
    "mistral-wide": lambda: MistralConfig(**GROUPED, sliding_window=None),
    "qwen2": lambda: Qwen2Config(**GROUPED, tie_word_embeddings=True),
    "qwen2-window": lambda: Qwen2Config(**GROUPED, **WINDOWED),
    "qwen3": lambda: Qwen3Config(**GROUPED, head_dim=16),
    "qwen3-biases": lambda: Qwen3Config(**GROUPED, **WINDOWED, head_dim=16, attention_bias=True),
    "phi3": lambda: Phi3Config(**GROUPED),
    "phi3-part": lambda: Phi3Config(
        **GROUPED, sliding_window=5, rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.5}
    ),
    "gemma2": lambda: Gemma2Config(**GROUPED, head_dim=16, query_pre_attn_scalar=20, sliding_window=5),
    "gemma2-free": lambda: Gemma2Config(
        **GROUPED, head_dim=16, attention_bias=True, attn_logit_softcapping=None, final_logit_softcapping=None
    ),
    "gemma3": lambda: Gemma3TextConfig(**(GROUPED | {"num_hidden_layers": 7}), head_dim=16, sliding_window=5),
    "gemma3-long": lambda: Gemma3TextConfig(
        **GROUPED,
        head_dim=16,
        sliding_window=5,
        rope_parameters=TWO_ROPES,
        final_logit_softcapping=20.0,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
    ),
    "neox": lambda: GPTNeoXConfig(**SIZES, intermediate_size=96, rope_parameters={"partial_rotary_factor": 0.5}),
    "neox-sequential": lambda: GPTNeoXConfig(
        **SIZES,
        intermediate_size=96,
        use_parallel_residual=False,
        hidden_act="gelu_new",
        attention_bias=False,
        rope_parameters={"partial_rotary_factor": 1.0, "rope_theta": 500.0},
        tie_word_embeddings=True,
    ),
}


def shaken(config, seed=0):
    """A model with random weights, norms and biases included. Soft-capped scores need the eager attention."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def logits(model, tokens):
    """Logits of a transformers model."""
    with torch.no_grad():
        return model(tokens).logits
