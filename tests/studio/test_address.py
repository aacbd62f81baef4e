"""Choices in the address of the page: a link, a bookmark or a reload brings them back."""

import pytest

gr = pytest.importorskip("gradio")

from sanbu.studio.address import value_in  # noqa: E402
from tests.studio.pages import CHINESE_PHONE, ENGLISH, address, named, value, visiting  # noqa: E402, F401
from tests.studio.test_page import go, wait  # noqa: E402

SKIP = gr.skip()


@pytest.mark.parametrize(
    ("part", "given", "expected"),
    [
        (gr.Slider(1, 64, 16, step=1), ["4"], 4),
        (gr.Slider(1, 64, 16, step=1), ["65"], SKIP),
        (gr.Slider(1, 64, 16, step=1), ["nan"], SKIP),
        (gr.Slider(0.5, 2.0, 1.0), ["1.25"], 1.25),
        (gr.Number(0, precision=0), ["-3"], -3),
        (gr.Number(0, precision=0), ["three"], SKIP),
        (gr.Dropdown(["a", "b"], value="a"), ["b"], "b"),
        (gr.Dropdown(["a", "b"], value="a"), ["c"], SKIP),
        (gr.CheckboxGroup(["a", "b"]), ["b", "c"], ["b"]),
        (gr.CheckboxGroup(["a", "b"]), ["c"], SKIP),
        (gr.Checkbox(True), ["false"], False),
        (gr.Textbox(), ["x" * 5000], "x" * 2000),
        (gr.Textbox(), [], SKIP),
    ],
    ids=lambda each: type(each).__name__,
)
def test_values_that_are_not_allowed_change_nothing(part, given, expected):
    assert value_in(part, given) == expected


@pytest.mark.slow
@pytest.mark.parametrize("how", [ENGLISH, CHINESE_PHONE], ids=named)
def test_choices_of_chat_and_image_survive_in_a_link(visiting, how):  # noqa: F811
    english = how is ENGLISH
    page = visiting("/?tab=image", **how)
    page.locator("#image-label textarea, #image-label input").fill("3")
    page.locator("#image-seed input").fill("5")
    page.keyboard.press("Tab")
    wait(lambda: "image_seed=5" in address(page) and "label=3" in address(page))
    assert "count" not in address(page), "what was not chosen stays out of the address"
    link = address(page).partition("?")[2]
    again = visiting("/?" + link, **how)
    wait(lambda: value(again, "#image-seed") == "5" and value(again, "#image-label") == "3")
    go(again, "Chat" if english else "对话")
    again.fill("#heat textarea, #heat input", "0.25")
    again.keyboard.press("Tab")
    wait(lambda: "temperature=0.25" in address(again) and "tab=chat" in address(again))
    third = visiting("/?tab=chat&temperature=0.25&tokens=9&who=bytes&seed=ten", **how)
    wait(lambda: value(third, "#heat") == "0.25" and third.locator("#most input[type=number]").input_value() == "9")
    assert third.locator("#who input:checked").count() == 1 and third.locator("#seed input").input_value() == "0"


@pytest.mark.slow
def test_a_link_wins_over_what_the_browser_remembers(visiting):  # noqa: F811
    page = visiting("/?tab=chat")
    page.fill("#heat textarea, #heat input", "0.9")
    page.keyboard.press("Tab")
    wait(lambda: "temperature=0.9" in address(page))
    page.goto(address(page).partition("?")[0] + "?tab=chat&temperature=0.25")
    wait(lambda: value(page, "#heat") == "0.25" and "temperature=0.25" in address(page))
    page.fill("#heat textarea, #heat input", "")
    page.keyboard.press("Tab")
    wait(lambda: "temperature" not in address(page))
