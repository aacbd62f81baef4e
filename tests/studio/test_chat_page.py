"""Chat in a browser: nothing that a person typed or a run said is lost, and every end and error is told."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from tests.serve.conftest import runs  # noqa: F401 - a fixture
from tests.studio.test_page import ask, said, slowly, unheard, wait

pytestmark = pytest.mark.slow  # in a browser; what stands behind the tab is tested in the default run

PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True}
CHINESE = ("zh", "zh-HK", "zh-Hans", "zh-CN")
BOX = "#words textarea"


@pytest.fixture
def chat(opened):
    """Opens the page and waits until the browser's conversations are in it."""

    def open_chat(**how):
        page = opened(**how)
        page.wait_for_selector("#said-talk .placeholder p", state="attached")
        return page

    return open_chat


def finished(page):
    """Wait until nothing is answered any more."""
    page.wait_for_timeout(100)
    wait(lambda: page.input_value("#asked textarea") == "" and page.locator("#send").is_visible())


def asked(page, text):
    ask(page, text)
    wait(lambda: page.input_value(BOX) == "")
    finished(page)


def tokens(page, number):
    page.locator("#most input[type=number]").fill(str(number))
    page.keyboard.press("Tab")


def note(page, run):
    return page.inner_text(f"#note-{run}")


def test_what_is_typed_while_an_answer_streams_is_kept_and_send_becomes_stop(chat, studio, monkeypatch):
    slowly(monkeypatch, studio, "bytes")
    page = chat()
    tokens(page, 100)
    ask(page, "a")
    wait(lambda: page.input_value(BOX) == "")
    page.keyboard.type("next ")  # before the first word came
    wait(lambda: "".join(said(page, "bytes")))
    assert page.locator("#stop").is_visible() and not page.locator("#send").count()
    page.keyboard.type("question")
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    assert page.input_value(BOX) == "next question"
    page.click("#stop")
    finished(page)
    assert page.input_value(BOX) == "next question" and len(said(page, "bytes")) == 1
    wait(lambda: "stopped by you" in note(page, "bytes"))
    page.click("#send")
    wait(lambda: len(said(page, "bytes")) == 2)
    assert page.input_value(BOX) == ""
    page.click("#clear")


def test_regenerate_keeps_every_version_and_the_answers_of_other_runs(chat):
    page = chat()
    tokens(page, 12)
    asked(page, "What is 3?")
    (other,) = said(page, "bytes")
    page.locator("#who label:has-text('bytes') input").uncheck()
    seen = said(page, "talk")
    for number in (2, 3, 4):
        page.click("#again")
        page.wait_for_function(f"document.querySelector('#note-talk').innerText.startsWith('version {number} of')")
        seen += said(page, "talk")
    assert len(seen) == 4 and len(set(seen)) == 4, "a new answer each time"
    assert said(page, "bytes") == [other]
    assert note(page, "talk").startswith("version 4 of 4")
    assert not page.locator("#next-bytes").is_visible()
    for button, number in (("previous", 3), ("previous", 2), ("previous", 1), ("previous", 4), ("next", 1)):
        page.click(f"#{button}-talk")
        page.wait_for_function(f"document.querySelector('#note-talk').innerText.startsWith('version {number} of')")
        assert said(page, "talk") == [seen[number - 1]]


def test_an_error_stands_outside_the_conversation(chat, client):
    page = chat()
    tokens(page, 8)
    asked(page, "x " * 150)
    assert "the prompt has" in page.inner_text("#note-bytes [role=alert]")
    assert said(page, "bytes") == [] and len(said(page, "talk")) == 1
    asked(page, "hi")
    alone = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "seed": 0}
    whole = client.chat.completions.create(model="bytes", **alone).choices[0].message.content
    wait(lambda: [text.split() for text in said(page, "bytes")] == [whole.split()])
    assert not page.locator("#note-bytes [role=alert]").count()


def test_a_conversation_survives_a_reload_and_is_exported(chat):
    page = chat()
    tokens(page, 9)
    page.locator("#who label:has-text('bytes') input").uncheck()
    asked(page, "What is 5?")
    asked(page, "What is 6?")
    before = said(page, "talk")
    with page.expect_download() as first:
        page.click("#export a")
    page.fill(BOX, "half a sent")
    page.reload()
    wait(lambda: said(page, "talk") == before and page.input_value(BOX) == "half a sent")
    assert page.locator("#most input[type=number]").input_value() == "9"
    assert not page.locator("#who label:has-text('bytes') input").is_checked()
    with page.expect_download() as second:
        page.click("#export a")
    texts = [download.value.path().read_text(encoding="utf-8") for download in (first, second)]
    assert texts[0] == texts[1] and first.value.suggested_filename == "conversation.json"
    (record,) = json.loads(texts[0])
    assert [message["role"] for message in record["messages"]] == ["user", "assistant"] * 2
    assert [record["messages"][place]["content"].split() for place in (1, 3)] == [text.split() for text in before]
    page.click("#clear")
    wait(lambda: not said(page, "talk"))
    page.reload()
    page.wait_for_selector("#example-1")
    assert not said(page, "talk") and not page.locator("#export a").count()


def test_two_tabs_keep_their_own_conversations(chat):
    first = chat()
    tokens(first, 6)
    asked(first, "in the first")
    second = first.context.new_page()
    second.goto(first.url)
    wait(lambda: "in the first" in second.inner_text("#said-talk"))  # a new tab begins with the newest
    second.click("#clear")
    wait(lambda: not said(second, "talk"))
    asked(second, "in the second")
    first.reload()
    second.reload()
    wait(lambda: "in the first" in first.inner_text("#said-talk"))
    wait(lambda: "in the second" in second.inner_text("#said-talk"))
    assert len(said(first, "talk")) == len(said(second, "talk")) == 1


def test_nothing_to_do_is_said(chat):
    page = chat()
    page.click("#again")
    wait(lambda: "no message to answer again" in page.inner_text("#told"))
    page.click("#send")
    wait(lambda: "Type a message first" in page.inner_text("#told"))
    for name in ("talk", "bytes"):
        page.locator(f"#who label:has-text('{name}') input").uncheck()
    ask(page, "to nobody")
    wait(lambda: "Choose at least one run" in page.inner_text("#told [role=alert]"))
    assert page.input_value(BOX) == "to nobody"
    page.locator("#who label:has-text('talk') input").check()
    page.fill("#heat textarea, #heat input", "hot")
    ask(page, "too hot")
    wait(lambda: "given 'hot', allowed: 0 to 2" in page.inner_text("#told"))
    wait(lambda: page.input_value(BOX) == "too hot")
    page.fill("#heat textarea, #heat input", "０．５")
    page.click("#send")
    wait(lambda: "Temperature 0.5" in note(page, "talk"))
    assert page.inner_text("#told").strip() == ""


def test_an_empty_page_has_examples_and_a_line_about_each_run(chat):
    page = chat()
    wait(lambda: "context of 512 tokens; trained on conversations" in page.inner_text("#said-talk"))
    assert "context of 128 tokens; continues a text" in page.inner_text("#said-bytes")
    assert page.locator("#examples button").count() == 3
    tokens(page, 5)
    text = page.inner_text("#example-2")
    page.click("#example-2")
    finished(page)
    assert text in page.inner_text("#said-talk") and len(said(page, "bytes")) == 1
    assert not page.locator("#examples").is_visible()


def test_why_an_answer_ended_and_its_speed(chat):
    page = chat()
    tokens(page, 7)
    asked(page, "What is 3?")
    wait(lambda: re.fullmatch(r"cut off at Max tokens · 7 tokens, \d+ tokens per second", note(page, "bytes").strip()))


def test_clear_ends_the_answers_and_what_is_asked_after_it_is_answered(chat, studio, monkeypatch):
    page = chat()
    tokens(page, 5)
    asked(page, "zeroth")
    slowly(monkeypatch, studio, "bytes")
    tokens(page, 400)
    with unheard(page) as events:
        ask(page, "first")
        wait(lambda: (page.wait_for_timeout(50), events)[1])
        page.click("#clear")
    wait(lambda: page.input_value("#kept textarea") == "{}" and page.locator("#send").is_visible())
    wait(lambda: not said(page, "bytes") and not said(page, "talk"))
    ask(page, "second")
    wait(lambda: "".join(said(page, "bytes")))
    page.click("#clear")
    wait(lambda: not said(page, "bytes") and page.locator("#send").is_visible())
    monkeypatch.undo()
    tokens(page, 5)
    asked(page, "third")
    page.click("#clear")
    ask(page, "fourth")
    wait(lambda: "fourth" in page.inner_text("#said-bytes") and "".join(said(page, "bytes")))
    finished(page)
    assert len(said(page, "bytes")) == 1 and "third" not in page.inner_text("#said-bytes")


def test_the_librarys_own_button_clears_one_run(chat):
    page = chat()
    tokens(page, 5)
    asked(page, "hello")
    page.locator("#said-bytes button[aria-label=Clear], #said-bytes button[title=Clear]").first.click()
    wait(lambda: not said(page, "bytes"))
    asked(page, "more")
    assert len(said(page, "bytes")) == 1 and len(said(page, "talk")) == 2


@pytest.mark.parametrize("locale", CHINESE)
def test_states_and_errors_in_chinese(chat, locale):
    page = chat(locale=locale)
    assert page.get_attribute("html", "lang") == "zh-CN" and page.inner_text("#send") == "发送"
    page.click("#again")
    wait(lambda: "还没有可以重新回答的消息" in page.inner_text("#told"))
    tokens(page, 5)
    asked(page, "x " * 150)
    assert re.search(r"输入有 \d+ 个 token，允许 1 到 127 个", note(page, "bytes"))
    assert "达到最大 token 数，被截断" in note(page, "talk")
    assert page.inner_text("#export a") == "导出"


def focused(page):
    """The id of the widget that has the focus, and whether its outline is visible."""
    return page.evaluate(
        """() => { const one = document.activeElement, style = getComputedStyle(one);
             const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
             return [one.closest("[id]")?.id ?? "", seen]; }"""
    )


def go_by_keyboard(page, place, most=60):
    """Press Tab until a widget has the focus, which must be visible everywhere on the way."""
    for _ in range(most):
        page.keyboard.press("Tab")
        found, visible = focused(page)
        assert visible or not found, f"no visible focus on {found}"
        if found == place:
            return
    raise AssertionError(f"{place} is not reached by Tab")


@pytest.mark.parametrize("size", [{}, PHONE], ids=["1280", "390"])
def test_by_keyboard_only(chat, studio, monkeypatch, size):
    slowly(monkeypatch, studio, "bytes")
    page = chat(**size)
    page.focus(BOX)
    page.keyboard.type("hello")
    go_by_keyboard(page, "send", 1)
    page.keyboard.press("Enter")
    wait(lambda: "".join(said(page, "bytes")) or "".join(said(page, "talk")))
    assert focused(page)[0] == "words" or page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    go_by_keyboard(page, "stop", 1)
    page.keyboard.press("Space")
    finished(page)
    go_by_keyboard(page, "again")
    page.keyboard.press("Enter")
    wait(lambda: page.locator("#stop").is_visible())
    page.focus(BOX)
    go_by_keyboard(page, "stop", 1)
    page.keyboard.press("Enter")
    finished(page)
    page.focus(BOX)
    go_by_keyboard(page, "clear")
    page.keyboard.press("Enter")
    wait(lambda: not said(page, "talk"))


def test_a_phone_has_the_box_at_the_bottom_and_one_run_at_a_time(chat):
    page = chat(**PHONE)
    tokens(page, 5)
    asked(page, "hello")
    for place in (0, 10_000):
        page.evaluate(f"scrollTo(0, {place})")
        box = page.locator("#ask").bounding_box()
        assert abs(box["y"] + box["height"] - 800) <= 1 and box["width"] == 390
    shown = {name: page.locator(f"#said-{name}").is_visible() for name in ("talk", "bytes")}
    assert shown == {"talk": True, "bytes": False}
    page.locator("#switch label:has-text('bytes')").click()
    wait(lambda: page.locator("#said-bytes").is_visible() and not page.locator("#said-talk").is_visible())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.evaluate("scrollTo(0, 10_000)")
    last = page.locator("#remember").bounding_box()
    assert last["y"] + last["height"] <= page.locator("#ask").bounding_box()["y"], "the box hides the end of the page"


def test_a_wide_page_shows_all_runs(chat):
    page = chat()
    assert all(page.locator(f"#said-{name}").is_visible() for name in ("talk", "bytes"))
    assert not page.locator("#switch").is_visible()


def start(folders, port):
    """`sanbu serve` in a process of its own, once it answers."""
    command = [sys.executable, "-m", "sanbu", "serve", *map(str, folders), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers():
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{port}/health").is_success

    wait(answers, 200)
    return process


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("locale", "words"), [("en-US", "cannot be reached"), ("zh-HK", "无法连接服务器")])
def test_a_server_that_is_killed_while_the_page_is_open(runs, browser, locale, words):  # noqa: F811
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = start(runs[:2], port)
    context = browser.new_context(locale=locale)
    try:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}")
        page.wait_for_selector(BOX)
        page.wait_for_selector("#said-talk .placeholder p", state="attached")
        tokens(page, 5)
        asked(page, "hello")
        os.kill(server.pid, signal.SIGSTOP)
        ask(page, "are you there?")
        page.wait_for_timeout(300)
        server.kill()
        wait(lambda: words in "".join(page.locator("[data-testid=toast-text]").all_inner_texts()))
        assert page.input_value(BOX) == "are you there?"
        page.fill(BOX, "are you there again?")
        server.wait(20)
        page.evaluate("window.before = true")
        server = start(runs[:2], port)
        wait(lambda: page.evaluate("window.before") is None)  # the library loads the page again
        page.wait_for_selector("#said-talk [data-testid=bot]")
        wait(lambda: page.input_value(BOX) == "are you there again?")
        assert len(said(page, "talk")) == 1
        page.click("#send")
        wait(lambda: len(said(page, "talk")) == 2)
    finally:
        context.close()
        server.kill()
        server.wait(20)
