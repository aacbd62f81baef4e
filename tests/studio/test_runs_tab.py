"""The tab Runs in a real browser, in two sizes and two languages."""

import os
import shutil

import pytest

from tests.serve.conftest import Served
from tests.studio.pages import (
    ALL,
    BOTH,
    CHINESE_PHONE,
    ENGLISH,
    address,
    choose,
    filled,
    legend,
    lines_drawn,
    metrics,
    named,
    toasts,
    value,
    visit,
    visiting,  # noqa: F401 - a fixture
)
from tests.studio.test_page import wait

pytest.importorskip("gradio")
pytestmark = pytest.mark.slow  # in a browser; what stands behind the tab is tested in the default run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("shown")


@pytest.fixture(scope="module")
def studio(runs, root):
    from sanbu.studio.page import mount

    with Served(runs, before=lambda app, service: mount(app, service, root)) as one:
        one.root = root
        yield one


@pytest.fixture
def folder(root, runs):
    """Makes runs of the page, later ones newer; all are removed after the test."""
    made = []

    def make(name, *rows, of=1, finished=True):
        shutil.copytree(runs[of], root / name)
        made.append(root / name)
        os.utime(root / name / "recipe.json", (len(made), len(made)))
        (root / name / "metrics.jsonl").unlink()
        if rows:
            (root / name / "metrics.jsonl").write_text(metrics(*rows))
        if not finished:
            (root / name / "finished.json").unlink()
        return root / name

    yield make
    for place in made:
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def seen(visiting):  # noqa: F811
    """Opens the tab Runs."""
    return lambda address="", **how: visiting(f"/?tab=runs{address}", **how)


@pytest.mark.parametrize("how", BOTH, ids=named)
def test_the_data_of_one_run_while_a_newer_one_appears(how, seen, folder):
    folder("older", (1, 5.0), (2, 4.0), of=0)
    page = seen(**how)
    folder("newer", (1, 7.0))
    page.click("#run input")
    wait(lambda: page.get_by_role("option", name="newer", exact=True).count())
    page.keyboard.press("Escape")
    page.wait_for_timeout(2500)
    assert value(page, "#run") == "older" and "loss 4" in value(page, "#run-progress")
    page.locator(".label-wrap:visible").last.click()
    wait(lambda: value(page, "#run-recipe").startswith("name=sft"))
    choose(page, "#run", "newer")
    wait(lambda: "loss 7" in value(page, "#run-progress") and value(page, "#run-recipe").startswith("name=gpt2"))
    assert page.evaluate("document.documentElement.scrollWidth") <= how["viewport"]["width"] and not toasts(page)


@pytest.mark.parametrize("how", BOTH, ids=named)
def test_a_run_without_figures_gets_its_line_once_there_are_some(how, seen, folder):
    whole = folder("whole", (1, 5.0), (2, 4.0))
    fresh = folder("fresh", finished=False)
    page = seen(**how)
    assert value(page, "#run") == "fresh" and not lines_drawn(page)
    nothing = {"en-US": "No steps recorded", "zh-HK": "尚无训练记录"}[how["locale"]]
    assert value(page, "#run-progress") == nothing
    with (fresh / "metrics.jsonl").open("a") as file:
        for step in range(1, 11):
            file.write(metrics((step, 5 / step)))
            file.flush()
            page.wait_for_timeout(200)
    wait(lambda: len(lines_drawn(page)) == 1 and legend(page) == ["loss"])
    ticks = page.locator("#curve .role-axis-label text").all_text_contents()
    assert "0" in ticks or "2" in ticks, f"the axes are of numbers: {ticks}"
    choose(page, "#run", whole.name)
    wait(lambda: "loss 4" in value(page, "#run-progress") and len(lines_drawn(page)) == 1)


def test_runs_lie_over_one_another_smoothed_over_steps_or_time(seen, folder):
    folder("one", *((step, 5 + step % 2) for step in range(1, 30)))
    folder("two", *((step, 2 + step % 2) for step in range(1, 50)))
    page = seen()
    wait(lambda: legend(page) == ["loss"])
    choose(page, "#overlay", "one")
    wait(lambda: legend(page) == ["one: loss", "two: loss"] and len(lines_drawn(page)) == 2)
    rough = lines_drawn(page)
    page.locator("#smoothing input[type=number]").fill("0.9")
    page.keyboard.press("Tab")
    wait(lambda: len(lines_drawn(page)) == 2 and lines_drawn(page) != rough)
    page.locator("#axis label").last.click()
    title = page.locator("#curve .role-axis-title text")
    wait(lambda: "seconds of training" in title.all_text_contents())
    wait(lambda: all(each in address(page) for each in ("axis=time", "smoothing=0.9", "overlay=one")))
    page.reload()
    wait(lambda: filled(page) and legend(page) == ["one: loss", "two: loss"])
    assert value(page, "#run") == "two" and page.locator("#smoothing input[type=number]").input_value() == "0.9"
    wait(lambda: "seconds of training" in title.all_text_contents())


@pytest.mark.parametrize("how", BOTH, ids=named)
def test_a_torn_line_is_named_and_the_rest_is_shown(how, seen, folder):
    torn = folder("torn", (1, 3.0), (2, 2.0), (3, 1.0))
    folder("whole", (1, 9.0))
    lines = (torn / "metrics.jsonl").read_text().splitlines()
    (torn / "metrics.jsonl").write_text("\n".join([lines[0], lines[1][:20], lines[2]]) + "\n")
    page = seen(**how)
    assert "loss 9" in value(page, "#run-progress")
    choose(page, "#run", "torn")
    wait(lambda: "loss 1" in value(page, "#run-progress"))
    told = value(page, "#run-progress").splitlines()
    says = {"en-US": "line 2 cannot be read", "zh-HK": "第 2 行无法读取"}[how["locale"]]
    assert str(torn / "metrics.jsonl") in told[1] and says in told[1] and not toasts(page)


@pytest.mark.parametrize("how", BOTH, ids=named)
def test_a_damaged_run_is_one_line_and_the_others_work(how, seen, folder):
    folder("whole", (1, 9.0))
    (folder("damaged", (1, 3.0)) / "recipe.json").write_text('{"format": 2, "recipe": {"name": 3}}')
    page = seen(**how)
    assert value(page, "#run") == "damaged"
    says = {"en-US": "damaged cannot be read: ", "zh-HK": "无法读取 damaged："}[how["locale"]]
    told = value(page, "#run-progress")
    assert told.startswith(says) and len(told.splitlines()) == 1
    choose(page, "#run", "whole")
    wait(lambda: "loss 9" in value(page, "#run-progress") and not toasts(page))


@pytest.mark.parametrize("how", BOTH, ids=named)
def test_a_stopped_run_says_where(how, seen, folder):
    folder("stopped", (1, 3.0), (2, 2.0), finished=False)
    page = seen(**how)
    says = {"en-US": "stopped at 2 of 8", "zh-HK": "已停止：第 2 步，共 8 步"}[how["locale"]]
    assert value(page, "#run-progress").startswith(says)


@pytest.mark.parametrize("how", BOTH, ids=named)
def test_no_runs_at_all_is_one_line_until_one_appears(how, seen, folder):
    page = seen(**how)
    says = {"en-US": "There are no runs in", "zh-HK": "还没有运行"}[how["locale"]]
    assert says in value(page, "#run-progress")
    folder("first", (1, 3.0))
    wait(lambda: value(page, "#run") == "first" and "loss 3" in value(page, "#run-progress"))


def test_a_reload_and_two_pages_keep_their_own_choices(seen, folder):
    folder("older", (1, 5.0))
    folder("newer", (1, 7.0))
    one = seen()
    choose(one, "#run", "older")
    wait(lambda: "run=older" in address(one) and "loss 5" in value(one, "#run-progress"))
    other = one.context.new_page()
    visit(other, address(one).partition("?")[0] + "?tab=runs")
    assert value(other, "#run") == "newer"
    folder("newest", (1, 9.0))
    one.reload()
    wait(lambda: filled(one) and value(one, "#run") == "older" and "loss 5" in value(one, "#run-progress"))
    other.wait_for_timeout(2500)
    assert value(other, "#run") == "newer" and "loss 7" in value(other, "#run-progress")


@pytest.mark.parametrize("query", ["&run=gone", "&run=../../etc", "&run=older&figure=none&smoothing=x&axis=y"])
def test_an_address_by_hand_that_is_wrong_is_one_line(query, seen, folder):
    folder("older", (1, 5.0))
    page = seen(query)
    told = value(page, "#run-progress")
    assert told.startswith(("There is no run ", "1 / 8: loss 5")) and len(told.splitlines()) == 1
    choose(page, "#run", "older")
    wait(lambda: "loss 5" in value(page, "#run-progress") and not toasts(page))


@pytest.mark.parametrize("how", ALL, ids=named)
def test_every_size_and_language_has_no_sideways_scrolling_and_its_own_words(how, seen, folder):
    folder("a-run-with-a-very-long-name-" + "x" * 60, (1, 5.0), (2, 4.0))
    page = seen(**how)
    wait(lambda: legend(page) == ["loss"])
    assert page.evaluate("document.documentElement.scrollWidth") <= how["viewport"]["width"]
    words = page.inner_text("body")
    expected = {"en": ("Smoothing", "Overlay other runs"), "zh": ("平滑", "叠加其他运行")}[how["locale"][:2]]
    assert all(word in words for word in expected)


@pytest.mark.parametrize("how", [ENGLISH, CHINESE_PHONE], ids=named)
def test_a_server_that_is_killed_is_a_line_and_its_return_brings_the_choices_back(how, runs, browser, root, folder):
    from sanbu.studio.page import mount

    folder("older", (1, 5.0))
    folder("newer", (1, 7.0))
    context = browser.new_context(**how)
    page = context.new_page()
    with Served(runs[:1], before=lambda app, service: mount(app, service, root)) as one:
        port = one.server.servers[0].sockets[0].getsockname()[1]
        visit(page, f"{one.url}/?tab=runs&run=older")
        one.server.force_exit = True
    wait(lambda: len(toasts(page)) == 1, 30)
    says = {"en-US": "The server cannot be reached", "zh-HK": "无法连接服务器"}[how["locale"]]
    wait(lambda: says in toasts(page)[0])
    page.wait_for_timeout(3000)
    assert len(toasts(page)) == 1 and value(page, "#run") == "older"
    again = Served(runs[:1], before=lambda app, service: mount(app, service, root))
    again.server.config.port = port
    with again:
        wait(lambda: not toasts(page) and filled(page), 30)
        assert value(page, "#run") == "older" and "loss 5" in value(page, "#run-progress")
    context.close()
