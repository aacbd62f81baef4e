"""The tab Recipes in a real browser, in two sizes and two languages."""

import shlex
import shutil
import time

import pytest

from tests.serve.conftest import Served
from tests.studio.pages import (
    ALL,
    BOTH,
    address,
    choose,
    filled,
    named,
    toasts,
    type_into,
    value,
    visit,
    visiting,  # noqa: F401 - a fixture
)
from tests.studio.test_page import wait

pytest.importorskip("gradio")
pytestmark = pytest.mark.slow  # in a browser; what stands behind the tab is tested in the default run


@pytest.fixture(scope="module")
def studio(runs, tmp_path_factory):
    from sanbu.studio.page import mount

    root = tmp_path_factory.mktemp("trained")
    with Served(runs, before=lambda app, service: mount(app, service, root)) as one:
        one.root = root
        yield one


@pytest.fixture
def seen(visiting):  # noqa: F811
    """Opens the tab Recipes."""

    def open_tab(address="", **how):
        page = visiting(f"/?tab=recipes{address}", **how)
        wait(lambda: value(page, "#recipe-command") or page.is_visible("#recipe-problem"))
        return page

    return open_tab


@pytest.fixture
def begun(monkeypatch):
    """What would have been trained: the words after `sanbu`."""
    from sanbu.studio.training_process import TrainingProcess

    made = []
    monkeypatch.setattr(TrainingProcess, "begin", lambda self, training: made.append(list(training.arguments)))
    return made


def command(page):
    return shlex.split(value(page, "#recipe-command"))


def cell(page, path):
    """The cell of the table with the value of a field, which the filter brings into sight."""
    search = page.locator("#fields input[type=text]").first
    if search.input_value() != path:
        search.fill(path)
    row = page.locator("#fields [role=row]", has=page.get_by_text(path, exact=True))
    return row.locator("[data-col='1']").first


@pytest.mark.parametrize("how", BOTH, ids=named)
def test_what_is_typed_counts_without_enter_and_what_is_deleted_does_not(how, seen, begun, studio):
    page = seen("&recipe=gpt2&folder=mine", **how)
    type_into(page, "#recipe-arguments", "schedule.steps=７")
    page.click("#start")
    wait(lambda: begun)
    assert begun.pop() == ["train", "gpt2", "schedule.steps=7", "--run", str(studio.root.resolve() / "mine")]
    wait(lambda: command(page)[1:4] == ["train", "gpt2", "schedule.steps=7"])
    wait(lambda: cell(page, "schedule.steps").inner_text().strip() == "7")
    type_into(page, "#recipe-arguments", "")
    page.click("#start")
    wait(lambda: begun)
    assert begun.pop()[:3] == ["train", "gpt2", "--run"]
    assert page.evaluate("document.documentElement.scrollWidth") <= how["viewport"]["width"] and not toasts(page)


@pytest.mark.parametrize("how", BOTH, ids=named)
def test_an_edited_cell_is_an_argument_and_start_runs_the_line_that_is_shown(how, seen, begun):
    page = seen("&recipe=gpt2&folder=mine&arguments=size%3D355m", **how)
    wait(lambda: cell(page, "schedule.seed").count())
    cell(page, "schedule.seed").scroll_into_view_if_needed()
    cell(page, "schedule.seed").dblclick()
    page.keyboard.press("Control+A")
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    wait(lambda: value(page, "#recipe-arguments") == "size=355m schedule.seed=4")
    wait(lambda: "schedule.seed=4" in command(page))
    line = command(page)
    page.click("#start")
    wait(lambda: begun)
    assert ["sanbu", *begun.pop()] == line


@pytest.mark.parametrize("how", BOTH, ids=named)
def test_size_and_memory_are_there_before_the_start_and_an_error_is_said_at_once(how, seen):
    from sanbu.studio.recipe_form import counted

    small = ("model.layers=1", "model.width=12", "schedule.batch=2")
    parameters = f"{counted('gpt2', small)[0]:,}"
    page = seen("&recipe=gpt2&folder=mine&arguments=" + "+".join(small).replace("=", "%3D"), **how)
    memory = {
        "en-US": f"{parameters} parameters; training needs about",
        "zh-HK": f"{parameters} 个参数；训练约需",
    }
    wait(lambda: memory[how["locale"]] in value(page, "#recipe-size"), 60)
    type_into(page, "#recipe-arguments", "model.layrs=1")
    problem = {"en-US": "did you mean 'layers'", "zh-HK": "是否指 'layers'？"}[how["locale"]]
    wait(lambda: page.is_visible("#recipe-problem") and problem in value(page, "#recipe-problem"))
    assert value(page, "#recipe-command") == ""
    type_into(page, "#recipe-arguments", "")
    wait(lambda: not page.is_visible("#recipe-problem") and command(page)[:3] == ["sanbu", "train", "gpt2"])


@pytest.mark.parametrize("how", BOTH, ids=named)
def test_reasons_stay(how, seen, studio):
    shutil.copytree(studio.service.runs["bytes"].run.folder, studio.root / "taken")
    page = seen("&recipe=gpt2&folder=taken", **how)
    idle = {"en-US": "No training was started here", "zh-HK": "尚未在此开始训练"}[how["locale"]]
    assert value(page, "#training") == idle
    assert float(page.locator("progress").last.get_attribute("value")) == 0
    page.click("#start")
    says = {"en-US": "taken is already a run; choose another folder", "zh-HK": "taken 已经是一个运行"}
    wait(lambda: value(page, "#training").startswith(says[how["locale"]]))
    told = value(page, "#training")
    page.wait_for_timeout(5000)
    assert value(page, "#training") == told
    page.click("#stop-training")
    none = {"en-US": "No training is running", "zh-HK": "当前没有正在进行的训练"}[how["locale"]]
    wait(lambda: value(page, "#training").startswith(none))
    page.click("#resume")
    nothing = {"en-US": "Choose a stopped run", "zh-HK": "请先选择要继续的"}[how["locale"]]
    wait(lambda: value(page, "#training").startswith(nothing))
    shutil.rmtree(studio.root / "taken")


def test_a_reload_and_two_pages_keep_what_was_typed(seen, studio):
    one = seen("&recipe=gpt2")
    type_into(one, "#recipe-arguments", "schedule.steps=7")
    type_into(one, "#recipe-folder", "mine")
    wait(lambda: "schedule.steps" in address(one) and "folder=mine" in address(one))
    other = one.context.new_page()
    visit(other, f"{studio.url}/?tab=recipes&recipe=flow")
    wait(lambda: command(other)[:3] == ["sanbu", "train", "flow"])
    other.click("#stop-training")
    wait(lambda: value(other, "#training").startswith("No training is running"))
    one.reload()
    wait(lambda: filled(one) and command(one)[1:4] == ["train", "gpt2", "schedule.steps=7"])
    assert value(one, "#recipe-arguments") == "schedule.steps=7" and value(one, "#recipe-folder") == "mine"
    assert not value(one, "#training").startswith("No training is running")
    assert value(one, "#recipe-name") == "gpt2" and value(other, "#recipe-name") == "flow"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", BOTH, ids=named)
def test_a_training_is_stopped_said_to_be_stopped_and_resumed(how, seen, studio, runs):
    name = f"mine-{named(how)}"
    typed = (
        f"data.path={runs[0].parent / 'text.txt'} data.tokenizer=byte data.context=64 model.layers=1 model.width=16"
        " model.heads=2 schedule.steps=100000"
    )
    page = seen("&recipe=gpt2", **how)
    type_into(page, "#recipe-arguments", typed)
    type_into(page, "#recipe-folder", name)
    page.click("#start")
    left = {"en-US": "s left", "zh-HK": "约剩"}[how["locale"]]
    wait(lambda: left in value(page, "#training"), 120)
    page.click("#stop-training")
    says = {"en-US": f"{name}: stopped at ", "zh-HK": f"{name}：已停止：第 "}[how["locale"]]
    wait(lambda: value(page, "#training").startswith(says), 60)
    told, part = value(page, "#training"), page.locator("progress").last.get_attribute("value")
    assert "done" not in told and "--resume" in told and 0 < float(part) < 0.9
    page.click("#start")
    taken = {"en-US": f"{name} is already a run", "zh-HK": f"{name} 已经是一个运行"}[how["locale"]]
    wait(lambda: value(page, "#training").startswith(taken))
    page.wait_for_timeout(5000)
    assert value(page, "#training").splitlines()[1:] == [told]
    page.reload()
    wait(lambda: value(page, "#training") == told)
    wait(lambda: value(page, "#stopped-runs") == name)
    page.click("#resume")
    wait(lambda: left in value(page, "#training") and not value(page, "#training").startswith(says), 120)
    page.click("#stop-training")
    wait(lambda: value(page, "#training").startswith(says), 60)
    assert value(page, "#training") != told


@pytest.mark.parametrize("how", ALL, ids=named)
def test_every_recipe_can_be_looked_at_in_every_size_and_language(how, seen):
    page = seen("&recipe=gpt2", **how)
    for name in ("gan", "sft", "table"):
        choose(page, "#recipe-name", name)
        wait(lambda name=name: f"recipe={name}" in address(page))
        wait(lambda name=name: page.is_visible("#recipe-problem") or command(page)[2] == name)
        wait(lambda: value(page, "#recipe-size") or page.is_visible("#recipe-problem"), 60)
    assert page.evaluate("document.documentElement.scrollWidth") <= how["viewport"]["width"] and not toasts(page)
    assert time.monotonic()
