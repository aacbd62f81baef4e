"""The speech tab in a real browser: it speaks by two runs side by side, says what is wrong, and listens."""

import numpy as np
import pytest

import sanbu
from sanbu.codecs.audio import write_wave
from tests.serve.conftest import Served
from tests.sound.test_speech_runs import cache, corpus, runs  # noqa: F401


@pytest.fixture
def page(runs, browser):  # noqa: F811
    pytest.importorskip("gradio")
    from sanbu.studio.page import mount

    folders = [runs / name for name in ("voice", "talker", "recogniser")]
    wrong = []
    with Served(folders, before=lambda app, service: mount(app, service, runs)) as one:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US")
        opened = context.new_page()
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.goto(one.url)
        opened.get_by_role("tab", name="Speech").click(timeout=30_000)
        opened.wait_for_selector("#speech-text textarea")
        yield opened
        context.close()
    assert not wrong


def told(page, number):
    return page.locator(f"#speech-told-{number} textarea")


def test_two_runs_speak_side_by_side(page):
    page.locator("#speech-second input").click()
    page.get_by_role("option", name="talker").click()
    page.locator("#speech-text textarea").fill("One step. Two more!")
    page.locator("#speak").click()
    for number in (1, 2):
        page.wait_for_function(f"document.querySelector('#speech-told-{number} textarea').value.includes('s of sound')")
        assert "first piece after" in told(page, number).input_value()
        assert page.locator(f"#speech-picture-{number} img").count() == 1
    page.locator("#speech-text textarea").fill("...")
    page.locator("#speak").click()
    page.wait_for_function("document.querySelector('#speech-told-1 textarea').value.includes('no letter')")


def test_it_listens(page, runs, tmp_path):  # noqa: F811
    path = tmp_path / "x.wav"
    write_wave(path, 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32), 8000)
    true = sanbu.load(runs / "recogniser").generate(str(path))
    page.locator("#speech-heard input[type=file]").set_input_files(str(path))
    page.wait_for_function("text => document.querySelector('#speech-read textarea').value.trim() === text", arg=true)
