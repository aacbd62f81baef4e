"""Conversion of a GPT-2 folder of transformers to a GGUF file for llama.cpp, in float32."""

from __future__ import annotations

import json
from pathlib import Path


def as_gguf(source: Path, target: Path) -> None:
    """Convert a GPT-2 folder of transformers to a GGUF file."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((source / "config.json").read_text())
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tensors = {
        name.removeprefix("transformer."): tensor for name, tensor in load_file(source / "model.safetensors").items()
    }
    writer = gguf.GGUFWriter(str(target), "gpt2")
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    names = {number: text for text, number in tokenizer["model"]["vocab"].items()}
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    rows = tensors["wte.weight"].shape[0]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([special.get(i, names.get(i, f"[unused{i}]")) for i in range(rows)])
    writer.add_token_types([3 if i in special else 1 if i in names else 5 for i in range(rows)])
    writer.add_token_merges(
        [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    )
    writer.add_bos_token_id(config["eos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
    for name, tensor in tensors.items():
        if (found := gguf_name(name)) is not None:
            turned = name.endswith(("attn.c_attn.weight", "c_proj.weight", "c_fc.weight"))
            writer.add_tensor(found, (tensor.T if turned else tensor).copy())
    writer.add_tensor("output.weight", tensors["wte.weight"].copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


PARTS = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}  # fmt: skip
WHOLE = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}


def gguf_name(name: str) -> str | None:
    """The GGUF name of a GPT-2 tensor of transformers; None for a tensor that GGUF does not store."""
    path, _, kind = name.rpartition(".")
    if path in WHOLE:
        return f"{WHOLE[path]}.{kind}"
    _, number, part = path.split(".", 2)
    return f"blk.{number}.{PARTS[part]}.{kind}" if part in PARTS else None
