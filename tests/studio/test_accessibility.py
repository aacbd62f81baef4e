"""axe-core finds no serious violation on any tab, at both sizes, in both languages, light and dark.

It is looked for at AXE_CORE, the path of axe.min.js (`npm install axe-core`), and in axe-playwright-python.
"""

import importlib.util
import os
from pathlib import Path

import pytest

from tests.studio.test_chat_page import PHONE, asked, finished, tokens
from tests.studio.test_label_page import answered, tab
from tests.studio.test_page import ask, slowly, wait

TABS = ("Chat", "Image", "Compare", "Runs", "Label", "Recipes")
CHINESE = ("对话", "图像", "对比", "运行记录", "标注", "配方")
HELD = "async () => (await axe.run(document, {resultTypes: ['violations'], preload: false})).violations"


@pytest.fixture(scope="module")
def axe():
    spec = importlib.util.find_spec("axe_playwright_python")
    beside = [*Path(spec.origin).parent.rglob("axe.min.js")] if spec and spec.origin else []
    found = [Path(os.environ["AXE_CORE"])] if os.environ.get("AXE_CORE") else beside
    if not found:
        pytest.skip("no axe-core here: set AXE_CORE to axe.min.js, or install axe-playwright-python")
    return found[0].read_text(encoding="utf-8")


def serious(page):
    """The violations that keep people from using the page: rule, place, reason."""
    page.wait_for_timeout(300)  # names are given shortly after a change
    found = [one for one in page.evaluate(HELD) if one["impact"] in ("serious", "critical")]
    return [(one["id"], node["target"], node["failureSummary"]) for one in found for node in one["nodes"]]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("locale", "size", "scheme"),
    [("en-US", {}, "light"), ("zh-CN", {}, "dark"), ("en-US", PHONE, "dark"), ("zh-CN", PHONE, "light")],
    ids=["en-1280-light", "zh-1280-dark", "en-390-dark", "zh-390-light"],
)
def test_no_serious_violation(opened, studio, axe, monkeypatch, locale, size, scheme):
    page = opened(locale=locale, color_scheme=scheme, **size)
    page.evaluate(axe)
    page.wait_for_selector("#said-talk .placeholder p", state="attached")
    assert serious(page) == []
    tokens(page, 5)
    asked(page, "What is 3?")
    asked(page, "x " * 150)  # an error under one run
    slowly(monkeypatch, studio, "talk", 3.0)
    tokens(page, 400)
    page.click("#clear")
    ask(page, "hi")
    page.wait_for_selector("#stop")
    assert serious(page) == []
    page.click("#stop")
    finished(page)
    monkeypatch.undo()
    for word, english in zip(CHINESE if locale == "zh-CN" else TABS, TABS, strict=True):
        tab(page, word)
        if english == "Image":
            page.click("#draw")
            wait(lambda: page.locator("#image-shown img").count())
        if english == "Compare":
            page.click("#draw-every")
            wait(lambda: page.locator("#compare-digits img").count())
        if english == "Label":
            answered(page, word)
            page.click("#answer-1")
        page.wait_for_timeout(700)
        assert serious(page) == [], english
    page.context.close()


@pytest.mark.slow
def test_no_button_shares_anything_with_others(opened):
    page = opened()
    for word in TABS:
        tab(page, word)
        if word == "Image":
            page.click("#draw")
            wait(lambda: page.locator("#image-shown img").count())
        assert not page.locator("button[aria-label*=hare], button[title*=hare]").count(), word


def contrast(page, place, pseudo=""):
    """The contrast of a text with what is behind it, by the formula of WCAG 2."""
    return page.locator(place).first.evaluate(
        """(one, pseudo) => {
          const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
          const rgb = (color) => { paint.fillStyle = color; paint.fillRect(0, 0, 1, 1);
            return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3); };
          const light = (color) => rgb(color).map((v) => v / 255)
            .map((v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
          let behind = one;
          const clear = (each) => getComputedStyle(each).backgroundColor.match(/, 0\\)$|transparent/);
          while (clear(behind) && behind.parentElement) behind = behind.parentElement;
          const pair = [light(getComputedStyle(one, pseudo).color), light(getComputedStyle(behind).backgroundColor)];
          return (Math.max(...pair) + .05) / (Math.min(...pair) + .05);
        }""",
        pseudo,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_on_its_background(opened, studio, monkeypatch, scheme):
    """White on orange, what stands in an empty box, the chosen tab, Stop: at least 4.5 : 1."""
    page = opened(color_scheme=scheme)
    places = [("#send", ""), ("[role=tab][aria-selected=true]", ""), ("#most .max_value", ""), ("#clear", "")]
    for place, pseudo in [
        *places,
        ("#words textarea", "::placeholder"),
        ("#heat input, #heat textarea", "::placeholder"),
    ]:
        assert contrast(page, place, pseudo) >= 4.5, place
    page.click("#again")
    wait(lambda: page.locator("#told .wrong").count())
    assert contrast(page, "#told .wrong") >= 4.5
    slowly(monkeypatch, studio, "talk")
    asked_slowly = page.locator("#words textarea")
    asked_slowly.fill("a")
    page.keyboard.press("Enter")
    page.wait_for_selector("#stop")
    assert contrast(page, "#stop") >= 4.5
    page.click("#stop")
    finished(page)
