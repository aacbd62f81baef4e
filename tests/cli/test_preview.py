"""The preview of training rows: padding is known by its place, also where the padding token is the end token."""

import json

import pytest

from sanbu.cli.preview import tokens_of
from sanbu.codecs.bpe import TokenizerFile, byte_file_tokenizer, train_chat
from sanbu.codecs.tokenizer import Byte
from sanbu.data.chat import Chat, Prompts
from sanbu.data.labelled import Labelled
from sanbu.data.preferences import Pairs, Rankings
from sanbu.data.text_rows import Text

QUICK = {"context": 64, "validation": 0.0}
USER, ANSWER = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}


@pytest.fixture(params=["byte", "byte as file", "with a padding token"])
def tokenizer(request, tmp_path):
    if request.param == "byte":
        return Byte()
    made = byte_file_tokenizer() if request.param == "byte as file" else train_chat(["Q A b c"], 264)
    made.save(tmp_path)
    return TokenizerFile(path=str(tmp_path))


def states(data, rows=1):
    """The number of tokens in each state, of each row."""
    names = ("taught", "read", "padding")
    return [tuple(sum(token.state == name for token in row) for name in names) for row in tokens_of(data, rows)]


def write(file, *rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_conversations(tmp_path, tokenizer):
    """Their ends are read or taught, and what follows the last one is padding; a question at the end is read."""
    path = tmp_path / "a.jsonl"
    for messages in ([USER, ANSWER], [USER, ANSWER, USER], [USER, ANSWER, USER, {**ANSWER, "weight": 0}]):
        data = Chat(path=write(path, {"messages": messages}), tokenizer=tokenizer, **QUICK).build()
        ids, taught = data.parts["train"][0][0]
        assert states(data) == [(sum(taught), len(ids) - sum(taught), 64 - len(ids))], messages
        exact = Chat(path=str(path), tokenizer=tokenizer, context=max(8, len(ids)), validation=0.0).build()
        assert states(exact) == [(sum(taught), len(ids) - sum(taught), max(0, 8 - len(ids)))], messages


def test_questions_and_preferences(tmp_path, tokenizer):
    rows = [{"prompt": "Q", "answers": ["A", "bb"]}, {"prompt": "Q " * 9, "answers": ["A", "bb", "c"]}]
    path = write(tmp_path / "a.jsonl", *rows)
    for kind in (Pairs, Rankings):
        data = kind(path=path, tokenizer=tokenizer, **QUICK).build()
        lengths = (data.batch(0, 2)["last"] + 1).flatten().tolist()
        width = data.batch(0, 2)["tokens"].shape[-1]
        found = states(data, 2)
        assert [taught + read for taught, read, _ in found] == lengths
        assert all(sum(counts) == width for counts in found)
    data = Prompts(path=path, tokenizer=tokenizer, answer=8, **QUICK).build()
    assert [read for _, read, _ in states(data, 2)] == data.batch(0, 2)["length"].tolist()


def test_text_and_labels(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv("SANBU_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.txt").write_text("Q A " * 30)
    data = Text(path=str(tmp_path / "a.txt"), tokenizer=tokenizer, **QUICK).build()
    assert sum(taught for taught, _, _ in states(data, data.rows)) == len(data.shards.train) - 1
    shown = states(data, 10**9)  # not more rows than there are
    assert len(shown) == data.rows and sum(padding > 0 for _, _, padding in shown) == 1
    if data.codec.tokenizer.special("<|extract|>") is not None:
        path = write(tmp_path / "l.jsonl", {"text": "Q", "label": "x"}, {"text": "Q A Q", "label": "y"})
        rows = Labelled(path=path, tokenizer=tokenizer, **QUICK).build()
        lengths = (rows.batch(0, 2)["last"] + 1).flatten().tolist()
        assert [taught + read for taught, read, _ in states(rows, 2)] == lengths
