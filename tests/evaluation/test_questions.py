"""Task files as people have them: each record is read as it is meant, or refused in one line with its row."""

import json

import pytest

from sanbu.config import SanbuError
from sanbu.evaluation.questions import Question, Task, find, read_questions, right_choice

CHOICE = {"name": "t", "kind": "choice", "file": "t.jsonl", "prompt": "Q: {question}\nA:"}
GOOD = {"question": "What?", "choices": ["a", "b", "c"], "answer": 1}


def read(folder, record, **changes):
    """The questions of a file whose third line, after a good record and an empty line, is this record."""
    (folder / "t.jsonl").write_text(json.dumps(GOOD) + "\n\n" + json.dumps(record) + "\n", encoding="utf-8")
    return read_questions(Task(**CHOICE | changes), "t.jsonl", folder)[1:]


@pytest.mark.parametrize(
    ("answer", "choices", "index"),
    [
        (1, "abc", 1), (2.0, "abc", 2), ("2", "xyz", 2), ("B", "xyz", 1), ("c", "xyz", 2), ("y", "xyz", 1),
        (" z ", "xyz", 2), ("a", "abc", 0), (1, [0, 1, 2], 1), (5, [3, 4, 5], 2), ("yes", ["no", "yes"], 1),
        (3, ["0", "1", "2", "3"], 3), (1, ["1", "2"], 1), (0.5, [0.25, 0.5], 1), ("D", ["A", "B", "C", "D"], 3),
    ],
)  # fmt: skip
def test_an_answer_is_an_index_a_letter_or_a_text(answer, choices, index):
    assert right_choice(answer, list(choices)) == index


@pytest.mark.parametrize(
    "answer",
    [-1, 3, 1.5, "D", "d", "-1", "3", "x", "", None, True, False, [1], {"a": 1}, float("nan"), float("inf"), 10**30],
    ids=repr,
)
def test_an_answer_that_names_no_choice_is_refused(tmp_path, answer):
    with pytest.raises(SanbuError) as error:
        read(tmp_path, GOOD | {"answer": answer})
    assert "t.jsonl, line 3: the answer" in str(error.value) and "\n" not in str(error.value)
    assert "names no choice; allowed: 0 to 2, A to C, or the text of a choice" in str(error.value)


@pytest.mark.parametrize(
    ("answer", "choices"), [("1", ["2", "1", "0", "7"][::-1]), ("b", ["b", "a", "c"]), (1, [1, 2, 3])]
)
def test_an_answer_with_two_meanings_is_refused(answer, choices):
    with pytest.raises(ValueError, match="may be the choice .* give its letter"):
        right_choice(answer, choices)


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"choices": ["a", "b"], "answer": 0}, "there is no field 'question'; fields: choices, answer"),
        ({"question": "x", "choise": ["a", "b"], "answer": 0}, "did you mean 'choise'"),
        (GOOD | {"question": None}, "the field 'question' has the value None, but text or a number is needed"),
        (GOOD | {"question": ["x"]}, "the field 'question' has the value ['x']"),
        (GOOD | {"question": True}, "the field 'question' has the value True"),
        (GOOD | {"choices": []}, "the field 'choices' is [], but a list of two or more choices is needed"),
        (GOOD | {"choices": ["a"], "answer": 0}, "a list of two or more choices is needed"),
        (GOOD | {"choices": "abc"}, "the field 'choices' is 'abc', but a list"),
        (GOOD | {"choices": {"text": ["a", "b"]}}, "but a list of two or more choices is needed"),
        (GOOD | {"choices": ["a", ""]}, "the field 'choices' has the blank text ''"),
        (GOOD | {"choices": ["a", None]}, "the field 'choices' has the value None"),
        ([1], "expected"),
        ("text", "expected"),
    ],
    ids=str,
)
def test_a_bad_record_is_refused_with_its_row(tmp_path, record, line):
    with pytest.raises(SanbuError) as error:
        read(tmp_path, record)
    text = str(error.value)
    assert "t.jsonl" in text and " 3: " in text and "\n" not in text
    assert line in text or line == "expected"


@pytest.mark.parametrize(
    ("kind", "record", "line"),
    [
        ("pair", {"good": "a"}, "there is no field 'bad'"),
        ("pair", {"good": "a", "bad": " "}, "the field 'bad' has the blank text"),
        ("pair", {"good": 1, "bad": False}, "the field 'bad' has the value False"),
        ("text", {"text": "one"}, "the field 'text' has one word, but two are needed"),
        ("text", {"text": " \n"}, "the field 'text' has the blank text"),
        ("text", {"text": None}, "the field 'text' has the value None"),
    ],
)
def test_bad_pairs_and_texts(tmp_path, kind, record, line):
    (tmp_path / "t.jsonl").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(SanbuError, match=f"t.jsonl, line 1: {line}"):
        read_questions(Task(name="t", kind=kind, file="t.jsonl"), "t.jsonl", tmp_path)


def test_records_as_questions(tmp_path):
    question = read(tmp_path, GOOD | {"choice": "x", "self": 1, "question": "{choice} {"})[0]
    assert question == Question("Q: {choice} {\nA:", (" a", " b", " c"), 1)
    assert question.answered == "Q: {choice} {\nA: b"
    assert read(tmp_path, GOOD | {"choices": [1, 2.5, "x"], "answer": "C"})[0].options == (" 1", " 2.5", " x")


def test_choices_with_the_same_text_are_one(tmp_path):
    """OpenBookQA, MMLU and BLiMP contain such records; the right answer is right whichever copy is named."""
    for answer in (1, 2):
        assert read(tmp_path, GOOD | {"choices": ["a", "b", "b"], "answer": answer}) == [
            Question("Q: What?\nA:", (" a", " b"), 1)
        ]
    assert read(tmp_path, GOOD | {"choices": ["b", "b"]}) == []  # asks nothing
    (tmp_path / "t.jsonl").write_text('{"good": "same", "bad": "same"}', encoding="utf-8")
    with pytest.raises(SanbuError, match="has no record that asks a question"):
        read_questions(Task(name="t", kind="pair", file="t.jsonl"), "t.jsonl", tmp_path)


@pytest.mark.parametrize(("text", "option"), [("a b", " b"), ("a  b \n", "  b"), ("a b\nc", "\nc"), ("三 步", " 步")])
def test_the_last_word(tmp_path, text, option):
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": text}), encoding="utf-8")
    found = read_questions(Task(name="t", kind="text", file="t.jsonl"), "t.jsonl", tmp_path)
    assert found == [Question(text.rstrip()[: -len(option)], (option,), 0)]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"prompt": "Q: {question"}, "prompt: given 'Q: {question'"),
        ({"prompt": "Q: {}"}, "only names of fields may stand in braces"),
        ({"prompt": "Q: {question!r}"}, "only names of fields may stand in braces"),
        ({"prompt": "Q: {question:>9}"}, "only names of fields may stand in braces"),
        ({"choice": "x"}, "needs {choice}"),
        ({"kind": "choise"}, "should be 'choice', 'text' or 'pair'"),
        ({"name": ""}, "name"),
        ({"propmt": "x"}, "did you mean 'prompt'"),
    ],
)
def test_a_bad_task_file_is_refused(tmp_path, change, line):
    (tmp_path / "t.json").write_text(json.dumps(CHOICE | change), encoding="utf-8")
    with pytest.raises(SanbuError) as error:
        find(str(tmp_path / "t.json"))
    assert line in str(error.value) and "\n" not in str(error.value)


def test_a_field_is_a_name_and_nothing_else(tmp_path):
    with pytest.raises(SanbuError, match="there is no field 'question.__class__'"):
        read(tmp_path, GOOD, prompt="{question.__class__}")
