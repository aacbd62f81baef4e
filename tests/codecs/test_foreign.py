"""A foreign tokenizer.json is read, or refused in one line: it never ends the process, fills the memory or hangs."""

import copy
import json
import time
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from sanbu.codecs import foreign
from sanbu.codecs.bpe import FileTokenizer, TokenizerFile, byte_file_tokenizer, train
from sanbu.codecs.tokenizer import TokenizerError, encode
from sanbu.config import SanbuError
from sanbu.interop.special import Origin, tokenizer_in
from tests.command_line import sanbu

HONEST = json.loads(byte_file_tokenizer().tokenizer.to_str())
PADDING = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SANBU_CACHE", str(tmp_path / "cache"))


def split(pattern):
    return {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}}


def replace(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


def nested(depth):
    found = {"type": "Sequence", "pretokenizers": []}
    for _ in range(depth):
        found = {"type": "Sequence", "pretokenizers": [found]}
    return {"pre_tokenizer": found}


def charsmap(text):
    return {"normalizer": {"type": "Precompiled", "precompiled_charsmap": text}}


LONGER = replace({"Regex": "."}, "ab" * 50)
BAD = {
    "endless": (split(r"(a+)+$"), "retry-limit"),
    "endless for its own characters": (split(r"(Q+Q+)+y"), "retry-limit"),
    "endless words": (split(r"^(?:\w+\s?)+$"), "retry-limit"),
    "no expression": (split("("), "unmatched parenthesis"),
    "doubling": ({"normalizer": {"type": "Sequence", "normalizers": [LONGER] * 6}}, "encoding text with it takes more"),
    "long prefix": ({"normalizer": {"type": "Prepend", "prepend": "x" * 10**7}}, "encoding text with it takes more"),
    "empty replaced": ({"normalizer": replace({"String": ""}, "x" * 1000)}, "index out of bounds"),
    "pieces of length 0": ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, ""),
    "damaged table": (charsmap("AAAAAAAAAAAA"), ""),
    "table that aborts": (charsmap("/////wAAAAAA"), ""),
    "empty table": (charsmap(""), ""),
    "deep": (nested(200), "recursion limit"),
    "huge id": ({"model": HONEST["model"] | {"vocab": {"a": 2**32 - 1}}}, "the id 4,294,967,295, allowed: 0 to"),
    "negative id": ({"model": HONEST["model"] | {"vocab": {"a": -1}}}, "the id -1, allowed: 0 to"),
    "no token": ({"model": HONEST["model"] | {"vocab": {}}, "added_tokens": []}, "it is empty"),
    "huge added id": ({"added_tokens": [HONEST["added_tokens"][0] | {"id": 4 * 10**9}]}, "the id 4,000,000,000"),
    "unknown merge": ({"model": HONEST["model"] | {"merges": [["q", "zzz"]]}}, "out of vocabulary"),
    "other model": ({"model": {"type": "Magic", "vocab": {"a": 0}}}, ""),
}  # fmt: skip


def write(folder, **fields):
    (folder / "tokenizer.json").write_text(json.dumps(copy.deepcopy(HONEST) | fields), encoding="utf-8")
    return TokenizerFile(path=str(folder))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_line(tmp_path, name):
    fields, line = BAD[name]
    config = write(tmp_path, **fields)
    begun = time.monotonic()
    for read in (lambda: config.resolve().build(()), lambda: config.resolve().load(tmp_path)):
        with pytest.raises(SanbuError) as error:
            read()
        text = str(error.value)
        assert str(tmp_path / "tokenizer.json") in text and "tokenizer.json: " in text
        assert line in text and "\n" not in text
    assert time.monotonic() - begun < 60 and not (tmp_path / "cache" / "tokenizers").exists()


def test_an_import_refuses_it(tmp_path):
    write(tmp_path, **BAD["endless"][0])
    with pytest.raises(TokenizerError, match="is not a usable tokenizer.json"):
        tokenizer_in(Origin(tmp_path, {"vocab_size": 257}, {}, {}))


def test_limits_on_time_and_memory(tmp_path, monkeypatch):
    """The limits hold for reading, too, and the message names them."""
    write(tmp_path)
    program = tmp_path / "child.py"
    source = Path(foreign.__file__).read_text(encoding="utf-8")
    monkeypatch.setattr(foreign, "__file__", str(program))
    hang = "    while True: pass\n    loaded = "
    program.write_text(
        source.replace("    loaded = ", hang).replace("LOADING, ENCODING = 30.0", "LOADING, ENCODING = 0.3")
    )
    assert foreign.try_apart(tmp_path / "tokenizer.json") == "reading it takes more than 30 s"
    program.write_text(source.replace("    loaded = ", "    bytearray(4 << 30)\n    loaded = "))
    assert foreign.try_apart(tmp_path / "tokenizer.json").startswith("MemoryError")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5}},
        {"padding": {"strategy": {"Fixed": 10**12}, **PADDING}},
        split(r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+(?!\S)|\s+"),
    ],
    ids=["bytes", "truncation", "padding", "cl100k"],
)
def test_an_honest_file_is_tried_once(tmp_path, monkeypatch, fields):
    """Truncation and padding are switched off, so they do no harm."""
    config = write(tmp_path, **fields)
    assert encode(config.build(()), "ab") == [97, 98]
    monkeypatch.setattr(foreign, "try_apart", lambda path: "tried again")
    config.build(())
    config.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(HONEST | {"version": "1.0", "x": 1}), encoding="utf-8")
    with pytest.raises(TokenizerError, match="tried again"):
        config.build(())


def test_a_model_without_unknown_token_is_honest(tmp_path):
    """It refuses a text that it does not know, and not before."""
    Tokenizer(models.WordLevel({"a": 0, "b": 1}, "?")).save(str(tmp_path / "tokenizer.json"))
    tokenizer = TokenizerFile(path=str(tmp_path)).build(())
    assert encode(tokenizer, "a") == [0]
    with pytest.raises(TokenizerError, match="the tokenizer cannot encode a text: WordLevel error"):
        encode(tokenizer, "c")


def test_a_fault_of_the_library_while_encoding_is_one_line():
    made = byte_file_tokenizer().tokenizer
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"(x+x+)+y"), "isolated")
    with pytest.raises(TokenizerError, match="cannot encode a text: .*retry-limit"):
        encode(FileTokenizer(made, 256, 256), "x" * 64)


def test_our_own_tokenizers_are_not_tried(tmp_path, monkeypatch):
    from sanbu.codecs.bpe import BPE

    monkeypatch.setattr(foreign, "try_apart", lambda path: "tried")
    train(["some text"], 300).save(tmp_path)
    assert encode(BPE(vocabulary=300).load(tmp_path), "so")


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SANBU_CACHE", str(tmp_path / "file"))
    write(tmp_path).build(())


@pytest.mark.parametrize("name", ["table that aborts", "endless words"])
def test_the_command_line_refuses_it(tmp_path, name):
    write(tmp_path, **BAD[name][0])
    (tmp_path / "t.txt").write_text("some text\n" * 999)
    changes = ["data.tokenizer=file", f"data.tokenizer.path={tmp_path}", f"data.path={tmp_path / 't.txt'}"]
    done = sanbu("train", "gpt2", *changes, "--run", tmp_path / "run", SANBU_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "is not a usable tokenizer.json" in done.stderr
    assert not (tmp_path / "run").exists() and not any((tmp_path / "cache").glob(".text-*.tmp"))
