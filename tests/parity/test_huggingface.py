"""Parity with transformers: logits, greedy tokens, import and export of weights, for GPT-1, GPT-2 and LLaMA shapes."""

import os

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
)

import sanbu
from sanbu.codecs.bpe import train
from sanbu.config import SanbuError
from sanbu.interop.huggingface import InteropError, export_folder, import_run

SIZES = {"vocab_size": 320, "n_positions": 64, "n_embd": 48, "n_layer": 3, "n_head": 4}


def peers():
    yield GPT2LMHeadModel(GPT2Config(**SIZES, eos_token_id=0, bos_token_id=0))
    yield OpenAIGPTLMHeadModel(OpenAIGPTConfig(**SIZES))
    llama = {
        "vocab_size": 320,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    yield LlamaForCausalLM(
        LlamaConfig(**llama, num_key_value_heads=2, max_position_embeddings=64, eos_token_id=0, bos_token_id=0)
    )


@pytest.fixture(scope="module", params=range(3), ids=["gpt2", "gpt1", "llama"])
def pair(request, tmp_path_factory):
    """A transformers model with random weights (including norms and biases), and our run imported from it."""
    torch.manual_seed(request.param)
    peer = list(peers())[request.param].eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("huggingface") / "peer"
    peer.save_pretrained(folder)
    train(["some text to learn pairs from, and some more text"] * 5, 320).save(folder)
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


def test_refuses_what_it_cannot_build(tmp_path):
    GPT2LMHeadModel(GPT2Config(**SIZES, activation_function="relu")).save_pretrained(tmp_path / "peer")
    with pytest.raises(InteropError, match="activation_function is 'relu', allowed: 'gelu_new'"):
        import_run(str(tmp_path / "peer"), tmp_path / "run")
