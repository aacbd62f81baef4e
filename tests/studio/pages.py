"""What tests of the tabs Runs and Recipes share: sizes and languages, and what a person does on the page."""

import json

import pytest

from tests.studio.test_page import wait

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
ENGLISH = {"locale": "en-US", "viewport": WIDE}
CHINESE_PHONE = {"locale": "zh-HK", "viewport": PHONE}
BOTH = [ENGLISH, CHINESE_PHONE]
ALL = [*BOTH, {"locale": "en-US", "viewport": PHONE}, {"locale": "zh-Hans", "viewport": WIDE}]


LEFT = ("AbortError", "Connection errored out", "Failed to fetch")  # what a page says when it is left or reloaded


@pytest.fixture
def visiting(studio, browser):
    """Opens addresses of the server, and checks at the end that no page made another error, also on the server."""
    wrong, contexts = [], []

    def open_page(address, **how):
        context = browser.new_context(**{**ENGLISH, **how})
        contexts.append(context)
        context.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        context.on("weberror", lambda error: wrong.append(str(error.error)))
        page = context.new_page()
        visit(page, studio.url + address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not [text for text in wrong if not any(sign in text for sign in LEFT)]
    studio.quiet()


def named(how):
    """The name of a size and a language in the list of tests."""
    return f"{how['locale']}-{how['viewport']['width']}"


def visit(page, address):
    """Open an address of the same server, and wait until its tab has been filled."""
    page.goto(address)
    wait(lambda: filled(page))


def filled(page):
    """Whether the tab that is open shows what the server has sent."""
    if page.locator("#run").is_visible():
        return value(page, "#run-progress") and (value(page, "#run") or "run=" not in address(page))
    if "tab=image" in address(page) or "tab=chat" in address(page):
        return page.locator("#draw" if "tab=image" in address(page) else "#words").is_visible()
    return page.locator("#recipe-name").is_visible() and value(page, "#training")


def address(page):
    """The address that the browser shows; `page.url` is the one of the last event that was read."""
    return page.evaluate("window.location.href")


def value(page, where):
    """The text of a box."""
    return page.input_value(f"{where} textarea, {where} input")


def type_into(page, where, text):
    """Type over what a box holds, without Enter."""
    page.fill(f"{where} textarea, {where} input", text)


def choose(page, where, name):
    """Choose from a list with the keyboard."""
    page.click(f"{where} input")
    page.get_by_role("option", name=name, exact=True).click()


def legend(page):
    """The names of the lines of the curve."""
    return sorted(page.locator("#curve .role-legend-label text").all_text_contents())


def lines_drawn(page):
    """The shapes of the lines of the curve that lead somewhere."""
    shapes = page.locator("#curve .mark-line path").evaluate_all("all => all.map(one => one.getAttribute('d') || '')")
    return [shape for shape in shapes if "L" in shape]


def toasts(page):
    """What the page has complained about."""
    return page.locator(".toast-body").all_text_contents()


def metrics(*rows):
    """Lines of metrics.jsonl from (step, loss)."""
    return "".join(json.dumps({"step": step, "loss": loss, "time/seconds": 0.5}) + "\n" for step, loss in rows)
