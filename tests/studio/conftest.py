"""The page over three small runs, in a real browser that can reach only this server."""

import importlib.util
import shutil

import pytest

from tests.serve.conftest import Served, runs, said  # noqa: F401 - fixtures

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

PATIENCE = 150_000  # milliseconds: a busy machine is no fault of the page


@pytest.fixture(scope="session")
def studio(runs):  # noqa: F811
    pytest.importorskip("gradio")
    from sanbu.studio.page import mount

    with Served(runs, before=lambda app, service: mount(app, service, runs[0].parent)) as one:
        one.root = runs[0].parent
        yield one


@pytest.fixture(scope="session")
def browser():
    if importlib.util.find_spec("playwright") is None or CHROMIUM is None:
        pytest.skip("no browser here: playwright and chromium are needed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=CHROMIUM)
        yield window
        window.close()


def is_fault(message):
    """Whether a line of the console is an error; a stream that a reload cuts off is none."""
    return message.type == "error" and "AbortError" not in message.text


@pytest.fixture
def opened(studio, browser):
    """Opens the page, and checks at the end that it made no error and no request to another host."""
    wrong, outside, contexts = [], [], []

    def let(route):
        if route.request.url.startswith((studio.url, "data:", "blob:")):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    def open_page(**how):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "locale": "en-US", **how})
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        context.route("**/*", let)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text) if is_fault(message) else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(studio.url)
        page.wait_for_selector("#words textarea")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong and not outside
    studio.quiet()


@pytest.fixture
def client(studio):
    with studio.client() as one:
        yield one
