"""Parity with transformers for every family: logits, greedy tokens, import and export of weights; what is refused."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")
from transformers import AutoModelForCausalLM, AutoTokenizer

import sanbu
from sanbu.codecs.bpe import train
from sanbu.config import SanbuError
from sanbu.interop.huggingface import InteropError, export_folder, import_run
from tests.parity.peers import PEERS, logits, shaken


@pytest.fixture(scope="module")
def tokenizer():
    """A byte-level BPE of 320 tokens."""
    return train(["some text to learn pairs from, and some more text"] * 5, 320)


@pytest.fixture(scope="module", params=PEERS)
def pair(request, tmp_path_factory, tokenizer):
    """A transformers model with random weights (including norms and biases), and our run imported from it."""
    peer = shaken(PEERS[request.param]())
    folder = tmp_path_factory.mktemp("huggingface") / "peer"
    peer.save_pretrained(folder)
    tokenizer.save(folder)
    return peer, folder, import_run(str(folder), tmp_path_factory.mktemp("run") / "run")


def test_logits_are_equal(pair):
    peer, _, run = pair
    tokens = torch.randint(1, 320, (3, 40))
    with torch.no_grad():
        expected = peer(tokens).logits
    ours = sanbu.load(run.folder).model(tokens)
    assert (ours - expected).abs().max() < 1e-4
    assert expected.std() > 0.1  # the logits differ enough for a meaningful comparison


def test_greedy_tokens_are_equal(pair):
    peer, _, run = pair
    tokens = torch.randint(1, 320, (2, 9))
    peer.generation_config.eos_token_id = None
    expected = peer.generate(tokens, max_new_tokens=40, do_sample=False, pad_token_id=0)
    strategy = sanbu.config.override(run.recipe, ["strategy.temperature=0", "strategy.max_tokens=40"]).strategy.build(
        run.recipe.data.space()
    )
    strategy.ends = ()
    from sanbu.strategies.strategy import generate, last

    draft = last(generate(strategy, run.models, {"tokens": tokens, "length": torch.tensor([9, 9])}, torch.arange(2)))
    assert draft.sample[:, :49].equal(expected)


def test_round_trip_is_bit_exact(pair, tmp_path):
    peer, _, run = pair
    export_folder(run, tmp_path / "out")
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert type(back) is type(peer)
    for (name, ours), (other, theirs) in zip(back.state_dict().items(), peer.state_dict().items(), strict=True):
        assert name == other and ours.equal(theirs), name
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    from sanbu.codecs.tokenizer import encode

    text = "some text, 三步 and\n\n  more"
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == encode(run.codec.tokenizer, text)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_weights_without_a_tokenizer_go_in_and_out(pair, tmp_path):
    peer, _, _ = pair
    peer.save_pretrained(tmp_path / "bare")
    run = import_run(str(tmp_path / "bare"), tmp_path / "run")
    tokens = torch.randint(1, 320, (2, 20))
    with torch.no_grad():
        assert (sanbu.load(tmp_path / "run").model(tokens) - peer(tokens).logits).abs().max() < 1e-4
    with pytest.raises(
        SanbuError, match="has no tokenizer.json: the model can be called from Python, but cannot read text"
    ):
        run.generate("text")
    export_folder(run, tmp_path / "out")
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert all(
        ours.equal(theirs) for ours, theirs in zip(back.state_dict().values(), peer.state_dict().values(), strict=True)
    )


# -- what is refused, in one line ------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path):
    """A LLaMA folder, a function that changes its tensors, and one that changes its config."""
    shaken(PEERS["llama"]()).save_pretrained(tmp_path / "peer")

    def tensors(change, **config):
        found = load_file(tmp_path / "peer" / "model.safetensors")
        save_file({k: t.contiguous() for k, t in change(found).items()}, tmp_path / "peer" / "model.safetensors")
        about = json.loads((tmp_path / "peer" / "config.json").read_text()) | config
        (tmp_path / "peer" / "config.json").write_text(json.dumps(about))
        return str(tmp_path / "peer")

    return tensors


def quantised(tensors, suffix, dtype):
    """The matrices of the blocks in another type, with a scale beside each."""
    matrices = [name for name in tensors if "_proj.weight" in name]
    scales = {name.removesuffix(".weight") + suffix: torch.ones(1) for name in matrices}
    return tensors | {name: tensors[name].to(dtype) for name in matrices} | scales


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        (".weight_scale", torch.float8_e4m3fn),
        (".weight_scale_inv", torch.float8_e5m2),
        (".SCB", torch.int8),
        (".weight.absmax", torch.uint8),
        (".weight_scale", torch.float32),  # the scale alone tells
        (".input_scale", torch.bfloat16),
    ],
)
def test_quantised_weights_are_refused(suffix, dtype, place, tmp_path):
    folder = place(lambda tensors: quantised(tensors, suffix, dtype))
    with pytest.raises(InteropError, match="the weights are quantised"):
        import_run(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_packed_weights_are_refused(place, tmp_path):
    """GPTQ and AWQ: qweight in the place of weight."""
    rename = lambda tensors: {name.replace("q_proj.weight", "q_proj.qweight"): t for name, t in tensors.items()}
    with pytest.raises(InteropError, match=r"quantised \('model.layers.0.self_attn.q_proj.qweight'"):
        import_run(place(rename), tmp_path / "run")


NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if k != NORM}, f"there is no tensor '{NORM}'"),
        (lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"}, "there is no tensor 'lm_head.weight'"),
        (
            lambda t: t | {"model.layers.1.q_norm.weight": torch.ones(12)},
            "unknown tensor 'model.layers.1.q_norm.weight'",
        ),
        (lambda t: t | {"model.layers.3.mlp.up_proj.weight": torch.ones(2, 2)}, "did you mean 'model.layers.2.mlp.up"),
        (lambda t: t | {NORM: torch.ones(24)}, r"has shape \[24\], expected \[48\]"),
        (lambda t: t | {"score.weight": torch.ones(2, 48)}, "unknown tensor 'score.weight'"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change, message, place, tmp_path):
    with pytest.raises(InteropError, match=message):
        import_run(place(change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_act": "relu"}, "config.json: hidden_act is 'relu', allowed: 'silu', 'swish'"),
        ({"hiden_size": 48}, "hiden_size is 48, an unknown field; did you mean 'hidden_size'"),
        ({"hidden_size": "48"}, "hidden_size is '48', allowed: a value such as 4096"),
        ({"num_attention_heads": 0}, "heads: given 0"),
        ({"num_key_value_heads": 3}, "model.key_heads: given 3, but it must divide"),
        ({"attention_bias": 1}, "attention_bias is 1, allowed: a value such as False"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
            "rope_parameters.rope_type is 'yarn', allowed: 'def",
        ),
        ({"rope_parameters": {"type": "linear"}}, "rope_parameters.factor is None, allowed: a number"),
        ({"rope_parameters": {"rope_theta": 1e4, "mscale": 1.0}}, "rope_parameters.mscale is 1.0, an unknown field"),
        ({"model_type": "llama4"}, "given 'llama4', allowed: .*did you mean 'llama'"),
        ({"model_type": "mixtral"}, "given 'mixtral', allowed: .*did you mean 'mistral'"),
        ({"vocab_size": None}, "vocab_size is None, allowed: 1 or more"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config.quant_method is 'awq'"),
    ],
)
def test_configs_that_mean_something_else_are_refused(config, message, place, tmp_path):
    folder = place(lambda tensors: tensors, **config)
    with pytest.raises(InteropError, match=message) as caught:
        import_run(folder, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_head_that_is_not_tied_is_refused_where_the_config_ties_it(tmp_path):
    peer = shaken(PEERS["gpt2"]())
    peer.save_pretrained(tmp_path / "peer")
    tensors, file = load_file(tmp_path / "peer" / "model.safetensors"), tmp_path / "peer" / "model.safetensors"
    save_file(tensors | {"lm_head.weight": tensors["transformer.wte.weight"].clone()}, file)
    import_run(str(tmp_path / "peer"), tmp_path / "copy")
    save_file(tensors | {"lm_head.weight": torch.randn(320, 48)}, file)
    with pytest.raises(InteropError, match="tied, but lm_head.weight differs from transformer.wte.weight"):
        import_run(str(tmp_path / "peer"), tmp_path / "run")


# -- which files count -----------------------------------------------------------------------------------------------


def test_the_index_says_which_files_count(tmp_path):
    """Older shards beside the new ones, and a stray file, are not read."""
    old, new = shaken(PEERS["llama"](), 1), shaken(PEERS["llama"](), 2)
    old.save_pretrained(tmp_path / "old", max_shard_size="60KB")
    new.save_pretrained(tmp_path / "new", max_shard_size="100KB")
    for file in (tmp_path / "old").glob("*.safetensors"):
        shutil.copy(file, tmp_path / "new" / file.name)
    save_file({"adapter": torch.ones(1)}, tmp_path / "new" / "adapter_model.safetensors")
    run, tokens = import_run(str(tmp_path / "new"), tmp_path / "run"), torch.randint(0, 320, (1, 20))
    assert (run.model(tokens) - logits(new, tokens)).abs().max() < 1e-4


def test_one_file_counts_before_an_index(tmp_path):
    old, new = shaken(PEERS["llama"](), 1), shaken(PEERS["llama"](), 2)
    old.save_pretrained(tmp_path / "peer", max_shard_size="60KB")
    new.save_pretrained(tmp_path / "whole")
    shutil.copy(tmp_path / "whole" / "model.safetensors", tmp_path / "peer")
    run, tokens = import_run(str(tmp_path / "peer"), tmp_path / "run"), torch.randint(0, 320, (1, 20))
    assert (run.model(tokens) - logits(new, tokens)).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"a": "model-00009-of-00009.safetensors"}, "is missing or damaged"),
        ({"a": "../peer/other.safetensors"}, "is not the name of a file in this folder"),
        ({"a": "other.safetensors"}, "'a' is not in other.safetensors"),
        ({"a": 1}, "weight_map must lead from names of tensors to names of files"),
        (None, "no model.safetensors.index.json says whether other.safetensors belongs to the model"),
    ],
)
def test_an_index_that_is_wrong_is_refused(places, message, place, tmp_path):
    folder = tmp_path / "peer"
    place(lambda tensors: tensors)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    if places is not None:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(SanbuError, match=message):
        import_run(str(folder), tmp_path / "run")


def test_weights_saved_without_their_head_are_read(tmp_path):
    """A tied model saved as its body, as the published GPT-2 is: names without the prefix."""
    peer = shaken(PEERS["gpt2"]())
    peer.save_pretrained(tmp_path / "peer")
    peer.transformer.save_pretrained(tmp_path / "body")
    shutil.copy(tmp_path / "peer" / "config.json", tmp_path / "body")
    run, tokens = import_run(str(tmp_path / "body"), tmp_path / "run"), torch.randint(0, 320, (1, 20))
    assert (run.model(tokens) - logits(peer, tokens)).abs().max() < 1e-4


def test_half_precision_weights_are_read(tmp_path):
    shaken(PEERS["qwen3"]()).bfloat16().save_pretrained(tmp_path / "peer")
    peer = AutoModelForCausalLM.from_pretrained(tmp_path / "peer", dtype=torch.float32).eval()
    run, tokens = import_run(str(tmp_path / "peer"), tmp_path / "run"), torch.randint(0, 320, (1, 20))
    assert (run.model(tokens) - logits(peer, tokens)).abs().max() < 1e-4
