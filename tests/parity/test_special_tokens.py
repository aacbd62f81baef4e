"""Ends, beginnings, pads, sampling settings and chat templates: import, export, and what transformers then reads."""

import json
import os
import shutil

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from sanbu.checkpoints import Writer
from sanbu.codecs.bpe import TokenizerFile, byte_file_tokenizer, train_chat
from sanbu.codecs.chat import Turns
from sanbu.codecs.jinja import Jinja
from sanbu.codecs.tokenizer import Byte
from sanbu.config import dump, load
from sanbu.data.chat import Chat
from sanbu.interop.huggingface import InteropError, export_folder, import_run
from sanbu.models.tokens.llama import Llama
from sanbu.recipe import Recipe
from sanbu.recipes.alignment import tokenizer_of
from sanbu.run import Run
from tests.parity.peers import PEERS, shaken

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|fill|>"]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}, {"role": "user", "content": "you?"}]


def byte_bpe():
    """Five special tokens and 256 bytes."""
    names = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(SPECIAL)
    return made


@pytest.fixture
def peer(tmp_path):
    """A function that makes a folder with these ids, generation_config.json and tokenizer_config.json."""

    def make(ids, generation=None, tokenizer=None, template=None):
        folder = tmp_path / "peer"
        shaken(PEERS["llama"]()).save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        config = {name: value for name, value in config.items() if not name.endswith("token_id")}
        (folder / "config.json").write_text(json.dumps(config | ids))
        (folder / "generation_config.json").unlink()
        byte_bpe().save(str(folder / "tokenizer.json"))
        named = {"generation_config.json": generation, "tokenizer_config.json": tokenizer}
        for name, fields in named.items():
            if fields is not None:
                (folder / name).write_text(json.dumps(fields))
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)
        return folder

    return make


def ids_of(folder):
    """The ids in the config and in the generation config, as transformers reads them."""
    config = AutoConfig.from_pretrained(folder)
    own = (folder / "generation_config.json").exists()
    generation = GenerationConfig.from_pretrained(folder) if own else GenerationConfig.from_model_config(config)
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return [{name: getattr(each, name) for name in names} for each in (config, generation)]


@pytest.mark.parametrize(
    ("ids", "generation", "ends", "start"),
    [
        ({"bos_token_id": 1, "eos_token_id": 2}, None, (2,), 1),
        ({"bos_token_id": 0, "eos_token_id": [1, 3]}, None, (1, 3), 0),
        ({"bos_token_id": 1, "eos_token_id": 2}, {"eos_token_id": [2, 3, 0]}, (2, 3, 0), 1),
        ({"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 4}, {"bos_token_id": 4}, (2,), 4),
        ({"bos_token_id": 0, "eos_token_id": [3], "pad_token_id": -1}, None, (3,), 0),
        ({"bos_token_id": 0, "eos_token_id": 99_999}, None, (0,), 0),  # not in the vocabulary: the usual name
    ],
)
def test_ends_and_beginnings_survive(ids, generation, ends, start, peer, tmp_path):
    folder = peer(ids, generation)
    run = import_run(str(folder), tmp_path / "run")
    assert run.recipe.data.space().ends == ends
    assert run.codec.tokenizer.start == start
    export_folder(run, tmp_path / "out")
    for before, after in zip(ids_of(folder), ids_of(tmp_path / "out"), strict=True):
        assert before == after


def test_without_any_id_the_usual_name_counts(peer, tmp_path):
    run = import_run(str(peer({})), tmp_path / "run")
    assert run.recipe.data.space().ends == (0,)
    export_folder(run, tmp_path / "out")
    assert ids_of(tmp_path / "out") == [{"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}] * 2


def test_names_in_the_tokenizer_config_count_where_no_id_is_given(peer, tmp_path):
    tokens = {"eos_token": {"content": "<|eot_id|>"}, "bos_token": "<|im_start|>", "pad_token": "<|fill|>"}
    run = import_run(str(peer({}, None, tokens)), tmp_path / "run")
    tokenizer = run.recipe.data.tokenizer
    assert (tokenizer.end_id, tokenizer.start_id, tokenizer.pad_id) == (3, 1, 4)


def test_an_imported_tokenizer_comes_back_as_it_was(peer, tmp_path):
    about = {"eos_token": "<|im_end|>", "bos_token": None, "pad_token": "<|fill|>", "model_max_length": 77}
    folder = peer({"eos_token_id": [2, 0]}, None, about, CHATML)
    export_folder(import_run(str(folder), tmp_path / "run"), tmp_path / "out")
    before, after = (AutoTokenizer.from_pretrained(place) for place in (folder, tmp_path / "out"))
    for name in ("eos_token", "bos_token", "pad_token", "model_max_length", "chat_template"):
        assert getattr(before, name) == getattr(after, name), name
    assert after.pad_token == "<|fill|>"
    assert after.bos_token is None
    written = [each.apply_chat_template(TALK, add_generation_prompt=True)["input_ids"] for each in (before, after)]
    assert written[0] == written[1]


def test_a_template_inside_the_tokenizer_config_survives(peer, tmp_path):
    folder = peer({"eos_token_id": 2}, None, {"eos_token": "<|im_end|>", "chat_template": CHATML})
    export_folder(import_run(str(folder), tmp_path / "run"), tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == CHATML


@pytest.mark.parametrize("sampled", [2, 3])
def test_sampling_stops_at_every_end(sampled, peer, tmp_path):
    """With one end or the other as the only likely token."""
    run = import_run(str(peer({"eos_token_id": [2, 3]})), tmp_path / "run")
    run.model.head.weight.zero_()
    run.model.norm.weight.zero_()
    run.model.head = WithBias(run.model.head, sampled)
    assert run.generate("abc", max_tokens=20) == ""


class WithBias(transformers.models.llama.modeling_llama.nn.Module):
    """A head that prefers one token."""

    def __init__(self, head, token):
        super().__init__()
        self.head, self.token = head, token

    def forward(self, x):
        logits = self.head(x)
        logits[..., self.token] += 100
        return logits


# -- generation_config.json ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("generation", "strategy"),
    [
        ({}, {}),
        ({"do_sample": False, "temperature": 0.7}, {"temperature": 0.0}),
        ({"do_sample": True}, {"top_k": 50}),
        (
            {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05},
            {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05},
        ),
        ({"do_sample": True, "top_k": 0, "min_p": 0.1}, {"min_p": 0.1}),
        ({"max_new_tokens": 9, "stop_strings": ["\n"], "num_beams": 1}, {"max_tokens": 9, "stop": ("\n",)}),
    ],
)
def test_sampling_settings_are_read(generation, strategy, peer, tmp_path):
    run = import_run(str(peer({"eos_token_id": 2}, generation)), tmp_path / "run")
    plain = type(run.recipe.strategy)()
    assert run.recipe.strategy == plain.model_copy(update=strategy)


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"num_beams": 4}, "generation_config.json: num_beams is 4, allowed: 1, None"),
        ({"no_repeat_ngram_size": 3}, "no_repeat_ngram_size is 3, allowed: 0"),
        ({"suppress_tokens": [5]}, r"suppress_tokens is \[5\]"),
        ({"temprature": 0.5}, "temprature is 0.5, an unknown field; did you mean 'temperature'"),
        ({"top_p": 1.5}, "top_p: given 1.5"),
    ],
)
def test_sampling_settings_that_we_lack_are_refused(generation, message, peer, tmp_path):
    with pytest.raises(InteropError, match=message):
        import_run(str(peer({"eos_token_id": 2}, generation)), tmp_path / "run")


def test_sampling_settings_of_an_old_config_are_read(peer, tmp_path):
    """Before generation_config.json there were fields of config.json."""
    run = import_run(str(peer({"eos_token_id": 2, "do_sample": True, "top_k": 7})), tmp_path / "run")
    assert run.recipe.strategy.top_k == 7


# -- templates of our own runs ---------------------------------------------------------------------------------------


def trained(folder, tokenizer, template, save, **strategy):
    """A chat run with initial weights."""
    data = Chat(tokenizer=tokenizer, template=template, context=48)
    values = {"name": "sft", "data": dump(data), "model": dump(Llama(layers=1, heads=2, width=16, context=48))}
    values |= {"objective": {"kind": "next-token"}, "optimizer": {"kind": "adamw"}}
    recipe = load(Recipe, values | {"strategy": {"kind": "autoregressive", **strategy}})
    made = Writer.create(folder, recipe, save)
    made.save_model(recipe.model.build(recipe.data.space()))
    return Run.open(folder)


@pytest.mark.parametrize("kind", ["chat-bpe", "byte"])
def test_the_built_in_template_writes_the_same_ids(kind, tmp_path):
    """With a token for each role, and with role names in words."""
    tokenizer = train_chat(["hi ho you? me!"] * 9, 270) if kind == "chat-bpe" else byte_file_tokenizer()
    tokenizer.save(tmp_path)
    config = TokenizerFile(path=str(tmp_path / "tokenizer.json")).resolve()
    run = trained(tmp_path / "run", Byte() if kind == "byte" else config, Turns(), tokenizer.save)
    export_folder(run, tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = theirs.apply_chat_template(TALK, add_generation_prompt=True)["input_ids"]
    assert ids == run.codec.begin(TALK)
    assert theirs.pad_token == ("<|pad|>" if kind == "chat-bpe" else None)
    with pytest.raises(Exception, match="unknown role tool"):
        theirs.apply_chat_template([{"role": "tool", "content": "x"}])


def test_a_chat_run_ends_where_its_template_ends(tmp_path):
    tokenizer, folder = byte_bpe(), tmp_path / "tokenizer"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = TokenizerFile(path=str(folder), end_id=0, start_id=1, other_end_ids=(3,), pad_id=4).resolve()
    template = Jinja(source=CHATML).resolve(config)
    save = lambda made: shutil.copy(folder / "tokenizer.json", made)
    run = trained(tmp_path / "run", config, template, save, temperature=0.5)
    export_folder(run, tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (theirs.eos_token, theirs.pad_token, theirs.bos_token) == ("<|im_end|>", "<|fill|>", "<|im_start|>")
    generation = GenerationConfig.from_pretrained(tmp_path / "out")
    assert generation.eos_token_id == [2, 3]
    assert (generation.do_sample, generation.temperature, generation.top_k) == (True, 0.5, 0)
    assert theirs.apply_chat_template(TALK, add_generation_prompt=True)["input_ids"] == run.codec.begin(TALK)
    again = import_run(str(tmp_path / "out"), tmp_path / "again")
    assert again.recipe.strategy == run.recipe.strategy
    assert again.recipe.data.space().ends == (2, 3)


def test_a_run_that_begins_from_an_imported_one_keeps_its_tokens(peer, tmp_path):
    run = import_run(str(peer({"eos_token_id": [2, 3], "bos_token_id": 1, "pad_token_id": 4})), tmp_path / "run")
    found = tokenizer_of(str(run.folder), "nano")
    assert (found.end_id, found.other_end_ids, found.start_id, found.pad_id) == (2, (3,), 1, 4)
