"""Every field of every supported config.json is changed in turn: equal logits, or a refusal in one line.

The config is edited as JSON, transformers builds a model with random weights from it, and we import both. A value that
transformers itself cannot build or run is no case.
"""

import json
import os

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")

from sanbu.interop.huggingface import InteropError, import_run
from tests.parity.peers import PEERS, logits, shaken

FAMILIES = ["gpt1", "gpt2", "opt", "llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3", "neox"]
TOKENS = torch.randint(3, 200, (1, 30), generator=torch.Generator().manual_seed(0))
QUICK = ["gpt2", "gemma3"]  # the other families are marked slow
ACTIVATIONS = ("relu", "gelu", "gelu_new", "gelu_pytorch_tanh", "silu", "quick_gelu", "tanh")
OLDER = {  # fields of older files, or of neighbours, that a current config does not write
    "rope_theta": (500.0,),
    "rope_scaling": (
        {"type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 4.0},
        {"type": "yarn", "factor": 4.0},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 8},
        {"mrope_section": [2, 2, 2], "rope_type": "default"},
    ),
    "rope_local_base_freq": (500.0,),
    "rotary_pct": (0.5,),
    "rotary_emb_base": (500.0,),
    "partial_rotary_factor": (0.5,),
    "sliding_window": (4, None),
    "sliding_window_pattern": (2,),
    "use_sliding_window": (True,),
    "head_dim": (8, 24, None),
    "attention_bias": (True,),
    "mlp_bias": (True,),
    "n_inner": (100,),
    "n_ctx": (32,),
    "embedding_multiplier": (2.0,),
    "logit_scale": (2.0,),
    "quantization_config": ({"quant_method": "bitsandbytes"},),
    "tie_word_embeddings": (True, False),
    "word_embed_proj_dim": (24,),
    "original_max_position_embeddings": (8,),
    "is_decoder": (True,),
    "layer_types": (["full_attention", "sliding_attention", "sliding_attention"], ["full_attention"] * 3),
}  # fmt: skip


def others(value):
    """Plausible values in the place of this one."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value * 2, value + 1, max(1, value // 2)]
    if isinstance(value, float):
        return [value * 2, value + 0.25, 1]
    if isinstance(value, str):
        return [each for each in ACTIVATIONS if each != value] if value in ACTIVATIONS else ["other"]
    if isinstance(value, list):
        return [value[::-1], value[:-1], [value[-1]] * len(value)]
    if isinstance(value, dict):
        inside = [{**value, name: new} for name, old in value.items() for new in others(old)]
        return [*inside, {**value, "factor": 4.0}, {**value, "partial_rotary_factor": 0.5}]
    return [True, 1, 0.5, "gelu"]


def changes(fields):
    """(name, changed fields) for each field, without it and with other values."""
    for name, value in fields.items():
        if name in ("model_type", "transformers_version", "dtype", "architectures", "vocab_size"):
            continue
        if name not in ("hidden_size", "num_hidden_layers"):  # their defaults are large
            yield name, {key: old for key, old in fields.items() if key != name}
        for new in others(value):
            yield name, {**fields, name: new}
    for name, values in OLDER.items():
        for new in values:
            changed = {**fields, name: new}
            if name in ("rope_scaling", "rope_theta"):
                changed.pop("rope_parameters", None)
            yield name, changed


def peer_of(fields, folder):
    """A model that transformers builds from this config.json, saved beside it; None if it cannot."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields))
    try:
        peer = shaken(transformers.AutoConfig.from_pretrained(folder))
        expected = logits(peer, TOKENS)
        peer.save_pretrained(folder)
    except Exception:  # whatever a strange value leads to
        return None
    (folder / "config.json").write_text(json.dumps(fields))
    return expected


def outcome(fields, folder):
    """One of: equal, refused, no case, off by the gap between the logits."""
    expected = peer_of(fields, folder)
    if expected is None or not expected.isfinite().all():
        return "no case"
    try:
        run = import_run(str(folder), folder / "run")
    except InteropError as error:
        told = str(error)
        return "refused" if str(folder) in told and "\n" not in told else f"off: {told}"
    gap = float((run.model(TOKENS) - expected).abs().max())
    return "equal" if gap < 1e-4 else f"off by {gap:.4f}"


@pytest.mark.parametrize("family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES])
@pytest.mark.timeout(1200)
def test_no_field_is_lost(family, tmp_path):
    fields = json.loads(json.dumps(PEERS[family]().to_dict() | {"dtype": "float32"}))
    found = {}
    for number, (name, changed) in enumerate(changes(fields)):
        result = outcome(changed, tmp_path / str(number))
        assert not result.startswith("off"), f"{name}: {result}, given {changed.get(name, 'nothing')}"
        found.setdefault(result, set()).add(name)
    assert len(found["equal"]) > 15 and len(found["refused"]) > 10  # neither all refused nor all accepted
