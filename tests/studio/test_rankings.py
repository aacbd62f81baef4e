"""The file of rankings when people edit it by hand, and an order that is clicked together."""

import json

import pytest

from sanbu.data.conversations import records
from sanbu.studio.rankings import append, places, read, read_order, scan, take_back, with_next, with_tie, without_last


def row(question, *answers, ranks=None):
    messages = [{"role": "user", "content": question}]
    ranks = list(range(len(answers))) if ranks is None else ranks
    return {"messages": messages, "answers": list(answers), "runs": [["a"] for _ in answers], "ranks": ranks}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "rankings.jsonl"


def test_a_last_line_without_an_end_stays_whole(file):
    file.write_text(json.dumps(row("q", "a", "b")), encoding="utf-8")  # as an editor leaves it
    append(file, row("r", "c", "d"))
    append(file, row("s", "e", "f"))
    assert [one["messages"][0]["content"] for one in read(file)] == ["q", "r", "s"]
    assert len(file.read_text().splitlines()) == 3 and len(list(records(str(file)))) == 3


def test_torn_lines_are_named_and_left_as_they_are(file):
    good = json.dumps(row("q", "a", "b"))
    content = b"\xef\xbb\xbf" + good.encode() + b"\r\n\r\n" + good[:40].encode() + b"\n\xff\xfe\n[1]\n" + good.encode()
    file.write_bytes(content)
    rows, torn = scan(file)
    assert len(rows) == 2 and torn == [3, 4, 5]
    append(file, row("r", "c", "d"))
    assert file.read_bytes().startswith(content + b"\n")
    assert len(read(file)) == 3 and scan(file)[1] == [3, 4, 5]


@pytest.mark.parametrize(
    "change",
    [
        {"answers": ["a"]},
        {"ranks": None},
        {"messages": []},
        {"messages": [{"role": "user"}]},
        {"runs": [["a"]]},
        {"answers": [1, 2]},
        {"ranks": ["first", "second"]},
    ],
)
def test_lines_of_another_shape_are_torn_too(file, change):
    file.write_text(json.dumps({**row("q", "a", "b"), **change}) + "\n")
    assert scan(file) == ([], [1])


def test_authors_may_be_left_out_by_hand(file):
    written = row("q", "a", "b")
    del written["runs"]
    file.write_text(json.dumps(written))
    assert read(file)[0]["runs"] == [[], []]


def test_a_ranking_is_taken_back(file):
    first, second = row("q", "a", "b"), row("r", "c", "d")
    for one in (first, second, first):
        append(file, one)
    assert take_back(file, first) and read(file) == [first, second]
    assert take_back(file, first) and read(file) == [second]
    assert not take_back(file, first) and take_back(file, second) and read(file) == []


def test_an_order_is_clicked_together_and_taken_back():
    text, seen = "", []
    for number in (2, 1, 1, "tie", 3):
        text = with_tie(text) if number == "tie" else with_next(text, number)
        seen.append(text)
    assert seen == ["2", "2 1", "2 1", "2 1=", "2 1=3"]
    assert places(text) == {2: 1, 1: 2, 3: 2} and read_order(text, 3) == [1, 0, 1]
    back = []
    while text:
        text = without_last(text)
        back.append(text)
    assert back == ["2 1", "2", ""]
    assert without_last("2 1=") == "2 1" and with_tie("") == "" and with_tie("2=") == "2="


def test_full_width_digits_and_signs():
    assert read_order("２ １＝３", 3) == [1, 0, 1]
    assert read_order("３、２，１", 3) == [2, 1, 0]
    assert read_order("2＞1", 2) == [1, 0]
