"""Evaluation without held-out rows says why there are none: none were asked for, or none fell into that part."""

import json
from types import SimpleNamespace

import pytest

from sanbu.codecs.tokenizer import Byte
from sanbu.config import SanbuError
from sanbu.data.chat import Chat, Prompts
from sanbu.data.preferences import Pairs
from sanbu.data.text_rows import Text
from sanbu.evaluation import held_out, text
from sanbu.evaluation.assistant import read_questions


def write(file, *rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def run(data):
    """What evaluation reads of a run before it needs a model."""
    recipe = SimpleNamespace(data=data, objective=SimpleNamespace(build=lambda: None))
    return SimpleNamespace(folder="runs/r", recipe=recipe)


@pytest.mark.parametrize("fraction", [0.0, 1e-9])
def test_no_rows(tmp_path, monkeypatch, fraction):
    monkeypatch.setenv("SANBU_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path / "t.jsonl", *({"text": f"doc {i} " + "alpha " * 20} for i in range(20)))
    config = Text(path=path, tokenizer=Byte(), context=32, validation=fraction)
    talk = write(tmp_path / "c.jsonl", {"prompt": "Q", "completion": "A"}, {"prompt": "R", "answers": ["a", "b"]})
    cases = [(text.evaluate_run, config, "20 documents")]
    cases += [
        (held_out.evaluate_objective, kind(path=talk, tokenizer=Byte(), context=64, validation=fraction), amount)
        for kind, amount in ((Chat, "2 conversations"), (Pairs, "2 questions"))
    ]
    for evaluate, data, amount in cases:
        with pytest.raises(SanbuError) as error:
            evaluate(run(data))
        said = str(error.value)
        assert ("data.validation is 0, so nothing is held out" in said) == (fraction == 0)
        if fraction:
            assert f"nothing fell into the held-out part, data.validation=1e-09 of {amount}" in said
        assert "runs/r: " in said and "\n" not in said


@pytest.mark.parametrize(
    ("answer", "fraction", "part", "said"),
    [
        ("A", 1e-9, True, "of 2 questions with a known answer none is held out; data.validation=1e-09"),
        ("A", 0.0, True, "none is held out; data.validation=0.0"),
        ("A", 0.999999, False, "none is for training; data.validation=0.999999"),
        (None, 0.5, True, "has no question with a known answer"),
    ],
)
def test_no_questions(tmp_path, answer, fraction, part, said):
    path = write(tmp_path / "a.jsonl", {"prompt": "Q", "answer": answer}, {"prompt": "R", "answer": answer})
    with pytest.raises(SanbuError, match=said):
        read_questions(run(Prompts(path=path, validation=fraction)), 9, part)
