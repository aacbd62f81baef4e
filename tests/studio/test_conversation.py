"""Conversations of the chat tab without a browser: what is asked, kept, shown and exported."""

import base64
import json

import pytest

from sanbu.config import SanbuError
from sanbu.data.conversations import records
from sanbu.serve.errors import APIError
from sanbu.studio.answering import Sampling, ask, edit, read_temperature
from sanbu.studio.conversation import (
    Turn,
    Version,
    download_link,
    exported,
    prompt_messages,
    read_kept,
    shown_messages,
    turn_of,
    write_kept,
)
from sanbu.studio.error_texts import error_text
from sanbu.studio.notes import last_answer, plain_html, short
from sanbu.studio.translations import CHINESE, ENGLISH, WORDS


def turn(question, *texts, shown=-1, **more):
    versions = [Version(text=text, seed=seed, finish="stop", **more) for seed, text in enumerate(texts)]
    return Turn(question=question, versions=versions, shown=shown % max(1, len(versions)))


def contents(messages):
    return [message["content"] for message in messages]


def test_every_version_has_a_seed_of_its_own():
    one = Turn(question="q")
    assert [one.begin(0).seed for _ in range(3)] == [0, 1, 2]
    assert one.begin(1).seed == 3  # 1 and 2 are used
    assert one.begin(9).seed == 9 and one.shown == 4
    one.drop(one.versions[-1])
    assert [version.seed for version in one.versions] == [0, 1, 2, 3] and one.shown == 3


def test_paging_goes_round_and_the_shown_version_counts():
    one = turn("q", "a", "b", "c")
    one.page(1)
    assert one.answer.text == "a"
    one.page(-1)
    one.page(-1)
    assert one.answer.text == "b"
    assert contents(prompt_messages([one, Turn(question="r")], True)) == ["q", "b", "r"]


def test_a_question_without_an_answer_is_no_part_of_the_next_prompt():
    turns = [turn("first", "one"), turn("x " * 500), turn("again", "two"), Turn(question="hi")]
    assert contents(prompt_messages(turns, True)) == ["first", "one", "again", "two", "hi"]
    assert contents(prompt_messages(turns, False)) == ["hi"]
    assert contents(prompt_messages(turns[:2], True)) == ["first", "one", "x " * 500]  # asked once more


def test_a_message_of_the_page_belongs_to_a_turn():
    turns = [turn("first", "one"), turn("no answer"), turn("last", "two")]
    assert [turn_of(turns, place) for place in range(5)] == [0, 0, 1, 2, 2]
    shown = [message["content"][0]["text"] for message in shown_messages(turns)]
    assert shown == ["first", "one", "no answer", "last", "two"]
    edit(turns, 2, "changed")
    assert [one.question for one in turns] == ["first", "changed"] and turns[1].answer is None


def test_a_question_goes_to_the_chosen_runs_only():
    kept = {"a": [turn("q", "x")], "b": [turn("q", "y")]}
    ask(kept, ["b", "c"], "r")
    assert [len(kept[name]) for name in "abc"] == [1, 2, 1]


def test_markup_is_shown_as_text_and_stays_as_it_was():
    ((message, _),) = [shown_messages([turn("<b>x</b> 1 < 2 &amp;", "y")])]
    assert message["content"][0]["text"] == "<\u2060b>x<\u2060/b> 1 < 2 &\u2060amp;"
    assert plain_html("<b>{x} ${y} `") == "&lt;b&gt;&#123;x} &#36;&#123;y} &#96;"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": [{"versions": []}]}', "null"])
def test_what_the_browser_stored_may_be_damaged(text):
    assert read_kept(text) == {}


def test_what_is_kept_comes_back():
    kept = {"a": [turn("q", "é", "\u2028", tokens=3, seconds=0.5)], "b": []}
    assert read_kept(write_kept(kept)) == {"a": kept["a"]}


def test_an_export_is_what_sft_reads(tmp_path):
    kept = {"a": [turn("q", "x", "y"), turn("unanswered")], "b": [turn("unanswered")], "c": [turn("r", "<z>")]}
    file = tmp_path / "conversation.json"
    file.write_text(exported(kept, "Be brief."), encoding="utf-8")
    assert [one["model"] for one in json.loads(file.read_text())] == ["a", "c"]
    first, second = records(str(file))
    assert contents(first.prompt) == ["Be brief.", "q"] and first.answers == ("y",)
    assert contents(second.prompt) == ["Be brief.", "r"] and second.answers == ("<z>",)
    link = download_link(file.read_text(), "Export")
    address = link.split('"')[5]
    assert base64.b64decode(address.partition(",")[2]).decode() == file.read_text()


@pytest.mark.parametrize(
    ("text", "value"), [("", None), (" ", None), ("0", 0), ("0.7", 0.7), ("０．５", 0.5), ("２", 2)]
)
def test_a_temperature(text, value):
    assert read_temperature(text) == value


@pytest.mark.parametrize("text", ["hot", "2.1", "-1", "nan"])
def test_a_temperature_that_is_none(text):
    with pytest.raises(SanbuError, match="temperature: given .*, allowed: 0 to 2"):
        Sampling.read("", text, 8, None, True)


def test_why_an_answer_ended():
    ends = {"stop": "complete", "length": "cut off at Max tokens", "cancelled": "stopped by you", None: "interrupted"}
    for finish, words in ends.items():
        one = Turn(question="q", versions=[Version(text="a", finish=finish, tokens=30, seconds=0.5)])
        assert last_answer([one], "en") == f"{words} · 30 tokens, 60 tokens per second"
    assert last_answer([turn("q", "a", "b")], "en") == "version 2 of 2 · complete"
    assert last_answer([turn("q", "a", "b")], "zh") == "第 2 版，共 2 版 · 回答完整"
    assert last_answer([turn("q")], "en") == last_answer([], "zh") == ""


def test_errors_in_chinese():
    told = {
        "the prompt has 301 tokens; allowed: 1 to 127": "输入有 301 个 token，允许 1 到 127 个",
        "ppo is not ready: waiting, about 1 min 20 s of training left": "ppo 尚未就绪：等待中, 约需再训练 1 分 20 秒",
        "temperature: given 'hot', allowed: 0 to 2": "温度：输入为 'hot'，允许 0 到 2",
        "label: given zebra, allowed: 0 to 9, or cat, dog": "类别：输入为 zebra，允许 0 到 9 或 cat, dog",
        "something else": "出错：something else",
    }
    for english, chinese in told.items():
        assert error_text(APIError(400, english), "zh") == chinese
        assert error_text(APIError(400, english), "en") == english


def test_every_text_is_there_in_both_languages():
    assert ENGLISH.keys() == CHINESE.keys()
    assert not [name for name, (english, chinese) in WORDS.items() if not english or not chinese]
    fields = {name: [{part.split("}")[0] for part in text.split("{")[1:]} for text in WORDS[name]] for name in WORDS}
    assert not [name for name, (english, chinese) in fields.items() if english != chinese]


def test_numbers_of_parameters():
    assert [short(number) for number in (950, 12_700, 124_439_808)] == ["950", "12.7k", "124M"]
