"""`sanbu demo` in short form, in a real browser: open before training, usable bit by bit, and it survives a kill."""

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.studio.test_page import ask, go, said, wait

SHORT = [
    "--page", "--seconds", "1", "questions=16", "base.model.width=16", "base.model.layers=1", "base.schedule.steps=30",
    "base.schedule.sample_every=10", "sft.schedule.steps=30", "reward.schedule.steps=10", "ppo.schedule.steps=2",
    "ppo.schedule.batch=8", "dpo.schedule.steps=5",
]  # fmt: skip


class Demo:
    """The command in a process of its own."""

    def __init__(self, folder):
        environment = {**os.environ, "BROWSER": "true", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sanbu", "demo", "--run", folder, *SHORT],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        line = self.process.stdout.readline()
        self.url = re.search(r"http://\S+", line).group()

    def children(self):
        """Processes of this session that still run."""
        listed = subprocess.run(["ps", "-o", "pid=,stat=", "-s", str(self.process.pid)], capture_output=True, text=True)
        return [line for line in listed.stdout.splitlines() if "Z" not in line]


@pytest.fixture
def demo(tmp_path):
    made = []

    def start():
        made.append(Demo(tmp_path / "runs" / "demo"))
        return made[-1]

    yield start
    for one in made:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)


def rows(page):
    """The table of the tour: part -> how far it is."""
    cells = page.locator("#tour tr").all_inner_texts()
    return {line.split("\t")[0].strip(): line.split("\t")[-1].strip() for line in cells}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_is_open_before_training_and_survives_a_reload_and_a_kill(demo, browser):
    first = demo()
    page = browser.new_context(locale="en-US").new_page()
    page.goto(first.url)
    page.wait_for_selector("#tour td", timeout=30_000)
    told = rows(page)
    assert {"base", "answers", "reward", "sft", "ppo", "dpo", "flow-0", "comparison"} <= told.keys()
    assert told["ppo"] == "waiting" and "everything is ready in about" in page.inner_text("#tour")

    go(page, "Chat")
    ask(page, "What is 1 + 2?")
    wait(lambda: "ppo is not ready: waiting" in page.inner_text("#note-ppo"))
    page.reload()
    page.wait_for_selector("#words", timeout=30_000)  # the tab in the address
    go(page, "Tour")
    page.wait_for_selector("#tour td")
    wait(lambda: rows(page)["base"] == "ready: try it in Chat", 120)
    go(page, "Chat")
    ask(page, "What is 1 + 2?")  # as soon as it is ready, while others are trained
    wait(lambda: "".join(said(page, "base")))
    go(page, "Tour")
    assert first.process.poll() is None and not rows(page)["ppo"].startswith("ready")

    os.kill(first.process.pid, signal.SIGKILL)
    wait(lambda: not first.children(), 60)  # what it started saves its work and ends

    second = demo()
    page.goto(second.url)
    page.wait_for_selector("#tour td", timeout=30_000)
    wait(lambda: rows(page)["base"] == "ready: try it in Chat", 10)
    wait(lambda: "Everything is ready" in page.inner_text("#tour"), 400)
    go(page, "Compare")
    wait(lambda: "consistency" in page.inner_text("#compare-table"))
    go(page, "Chat")
    ask(page, "What is 1 + 2?")
    wait(lambda: all("".join(said(page, name)) for name in ("base", "sft", "ppo", "dpo")))
    os.killpg(second.process.pid, signal.SIGINT)
    assert second.process.wait(40) in (0, 130)
    assert "right answers and reward over the KL" in second.process.stdout.read()
