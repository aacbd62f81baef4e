"""Label in a browser: ranking by clicks or keys, undo, the counter, and a file that people have edited."""

import json

import pytest

from sanbu.studio.rankings import read
from tests.studio.test_chat_page import PHONE, go_by_keyboard
from tests.studio.test_page import wait

ORDER, RESULT = "#order textarea, #order input", "#saved textarea"


@pytest.fixture
def file(studio):
    path = studio.root / "rankings.jsonl"
    path.unlink(missing_ok=True)
    yield path
    path.unlink(missing_ok=True)


def tab(page, word):
    """Open a tab; a phone shows the last tabs in a menu."""
    shown = page.get_by_role("tab", name=word, exact=True).first
    if not shown.is_visible():
        page.locator(".overflow-menu > button").click()
        shown = page.locator(".overflow-dropdown").get_by_text(word, exact=True)
    shown.click()


def answered(page, word="Label"):
    tab(page, word)
    page.locator("#question textarea, #question input").fill("What is 5?")
    page.keyboard.press("Enter")
    wait(lambda: page.locator("#answer-2").is_visible())


def order(page):
    return page.input_value(ORDER)


@pytest.mark.parametrize("size", [{}, pytest.param(PHONE, marks=pytest.mark.slow)], ids=["1280", "390"])
def test_ranking_by_clicks_with_undo_and_counter(opened, file, size):
    page = opened(**size)
    answered(page)
    wait(lambda: "0 of 2 ranked" in page.inner_text("#ranked"))
    page.click("#answer-2")
    wait(lambda: order(page) == "2" and "1 of 2 ranked" in page.inner_text("#ranked"))
    assert "place 1" in page.inner_text("#answer-2")
    page.click("#undo")
    wait(lambda: order(page) == "" and "place" not in page.inner_text("#answer-2"))
    page.click("#answer-1")
    wait(lambda: order(page) == "1")
    page.click("#tie")
    wait(lambda: order(page) == "1=")
    page.click("#answer-2")
    wait(lambda: order(page) == "1=2")
    page.click("#undo")
    wait(lambda: order(page) == "1")
    page.click("#answer-2")
    wait(lambda: order(page) == "1 2" and "2 of 2 ranked" in page.inner_text("#ranked"))
    page.click("#save-order")
    wait(lambda: "rankings.jsonl: 1 rankings" in page.input_value(RESULT))
    assert [one["ranks"] for one in read(file)] == [[0, 1]]
    page.click("#undo")  # of the saved order
    wait(lambda: "taken back" in page.input_value(RESULT) and page.locator("#answer-2").is_visible())
    assert read(file) == []
    page.click("#undo")
    wait(lambda: "nothing to undo" in page.input_value(RESULT))
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_a_file_that_was_edited_by_hand(opened, file):
    good = json.dumps({"messages": [{"role": "user", "content": "q"}], "answers": ["a", "b"], "ranks": [0, 1]})
    file.write_text(f"{good}\n{good[:50]}\n{good}", encoding="utf-8")
    page = opened()
    tab(page, "Label")
    wait(lambda: "left out, line 2; please repair" in page.input_value(RESULT))
    answered(page)
    page.locator(ORDER).fill("2 1")
    page.keyboard.press("Enter")
    wait(lambda: "rankings.jsonl: 3 rankings" in page.input_value(RESULT))
    assert len(file.read_text().splitlines()) == 4 and len(read(file)) == 3
    page.click("#review")
    wait(lambda: page.locator("#answer-1").is_visible())


def test_an_empty_file_and_errors_in_chinese(opened, file):
    page = opened(locale="zh-Hans")
    tab(page, "标注")
    wait(lambda: "还没有保存的排序" in page.input_value(RESULT))
    page.click("#fetch")
    wait(lambda: "问题为空" in page.input_value(RESULT))
    answered(page, "标注")
    page.locator(ORDER).fill("２ ３")
    page.keyboard.press("Enter")
    wait(lambda: "请从好到差填写 1 到 2" in page.input_value(RESULT))
    page.locator(ORDER).fill("２＞１")
    wait(lambda: "第 1 名" in page.inner_text("#answer-2"))
    page.keyboard.press("Enter")
    wait(lambda: "共 1 条排序" in page.input_value(RESULT))
    assert read(file)[0]["ranks"] == [1, 0]


def test_no_run_is_selected(opened, file):
    page = opened()
    tab(page, "Label")
    for name in ("talk", "bytes"):
        page.locator(f"#label-who label:has-text('{name}') input").uncheck()
    page.locator("#question textarea, #question input").fill("What?")
    page.keyboard.press("Enter")
    wait(lambda: "no run is selected" in page.input_value(RESULT))


def test_ranking_by_keyboard_only(opened, file):
    page = opened()
    answered(page)
    page.focus("#question textarea, #question input")
    for place in ("answer-2", "answer-1", "save-order"):
        page.focus("#review")
        go_by_keyboard(page, place)
        page.keyboard.press("Enter")
        page.wait_for_timeout(400)
    wait(lambda: [one["ranks"] for one in read(file)] == [[1, 0]])
