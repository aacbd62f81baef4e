"""Common uses of the page, in a real browser."""

import contextlib
import json
import re
import shutil
import threading
import time

import httpx
import pytest

from sanbu.data.conversations import records


def said(page, run):
    """The text that a run has shown."""
    return [
        text.replace("\u2060", "")
        for text in page.locator(f"#said-{run} [data-testid=bot] .message-content").all_inner_texts()
    ]


def wait(what, seconds=150):
    """Wait until a condition holds; a page that is loaded again meanwhile is asked again."""
    from playwright.sync_api import Error

    end = time.monotonic() + seconds
    while True:
        try:
            if found := what():
                return found
        except Error as error:
            if "navigation" not in str(error):
                raise
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def go(page, tab):
    page.get_by_role("tab", name=tab, exact=True).first.click()


def ask(page, text):
    page.wait_for_selector("#send")  # while an answer is written, Stop stands there
    page.fill("#words textarea", text)
    page.keyboard.press("Enter")


def slowly(monkeypatch, studio, name, seconds=0.4):
    """Slow down a run, so that it can be stopped halfway. seconds: per step."""
    engine = studio.service.runs[name].engine
    step = engine.step
    monkeypatch.setattr(engine, "step", lambda: (time.sleep(seconds), step())[1])
    return engine


@contextlib.contextmanager
def halted(monkeypatch, worker, steps):
    """An engine, or the lane of jobs, does so many steps and waits: nothing ends before the block does."""
    allowed, step = threading.Semaphore(steps), worker.step
    monkeypatch.setattr(worker, "step", lambda: (allowed.acquire(), step())[1])
    try:
        yield
    finally:
        allowed.release(1_000_000)


@contextlib.contextmanager
def unheard(page):
    """The server hears of the events of a page when the block ends. Gives those that wait."""
    held = []
    page.route("**/queue/join*", lambda route: held.append(route))
    yield held
    page.unroute("**/queue/join*")  # they go on


def test_two_runs_answer_side_by_side_each_in_its_own_words(opened, client):
    page = opened()
    ask(page, "What is 7?")
    wait(lambda: page.is_enabled("#send") and "".join(said(page, "talk")) and "".join(said(page, "bytes")))
    asked = {"messages": [{"role": "user", "content": "What is 7?"}], "max_tokens": 64, "seed": 0}
    whole = client.chat.completions.create(model="talk", **asked).choices[0].message.content
    wait(lambda: "".join(said(page, "talk")).split() == whole.split())


def test_a_temperature_of_ones_own(opened, client):
    page = opened()
    page.fill("#heat textarea, #heat input", "0")
    ask(page, "What is 7?")
    asked = {"messages": [{"role": "user", "content": "What is 7?"}], "max_tokens": 64, "temperature": 0}
    whole = client.chat.completions.create(model="talk", **asked).choices[0].message.content
    wait(lambda: "".join(said(page, "talk")).split() == whole.split())
    page.fill("#heat textarea, #heat input", "hot")
    ask(page, "What is 8?")
    wait(lambda: "given 'hot', allowed: 0 to 2" in page.inner_text("body"))


def test_what_was_said_before_counts_or_not(opened, studio, client):
    page = opened()
    page.locator("#most input[type=number]").fill("8")
    ask(page, "What is 7?")
    wait(lambda: len("".join(said(page, "bytes"))) and not studio.service.runs["bytes"].engine.busy())
    page.uncheck("#remember input")
    ask(page, "What is 8?")
    asked = {"messages": [{"role": "user", "content": "What is 8?"}], "max_tokens": 8, "seed": 0}
    whole = client.chat.completions.create(model="talk", **asked).choices[0].message.content
    wait(lambda: len(said(page, "talk")) == 2 and said(page, "talk")[1].split() == whole.split())


def test_stop_really_stops(opened, studio, monkeypatch):
    engine = studio.service.runs["bytes"].engine
    page = opened()
    page.locator("#most input[type=number]").fill("100")
    before = engine.counts["finished_cancelled"]
    with halted(monkeypatch, engine, 5):
        ask(page, "a")
        wait(lambda: "".join(said(page, "bytes")))
        page.click("#stop")
        page.wait_for_selector("#send")
    wait(lambda: engine.counts["finished_cancelled"] == before + 1 and not engine.busy())
    assert len("".join(said(page, "bytes"))) < 100


def test_an_update_of_a_text_takes_nothing_back_from_the_one_before(studio):
    """The library changes an update in place by the next one, which may come before the first is shown."""
    import gradio

    from sanbu.studio.chat import ChatTab
    from sanbu.studio.conversation import Turn

    with gradio.Blocks():
        tab = ChatTab(studio.service)
    kept = {name: [Turn(question="a")] for name in tab.names}
    first, then = tab.show(kept, "en", "", busy=True), tab.show_text(kept, tab.names, False)
    pairs = [(one, other) for one, other in zip(first, then, strict=True) if isinstance(one, gradio.blocks.Block)]
    assert sum("visible" in one.constructor_args for one, _ in pairs) >= 3
    for one, other in pairs:
        if isinstance(other, gradio.blocks.Block):
            assert one.constructor_args.keys() <= other.constructor_args.keys()
        else:
            assert isinstance(other, list), "hidden or shown, and then taken back"


def test_who_leaves_is_not_answered_any_more(opened, studio, monkeypatch):
    engine = slowly(monkeypatch, studio, "bytes")  # the library looks for the page after each piece of text
    page = opened()
    page.locator("#most input[type=number]").fill("100")
    ask(page, "a")
    wait(lambda: "".join(said(page, "bytes")))
    before = engine.counts["finished_cancelled"]
    page.close()
    wait(lambda: engine.counts["finished_cancelled"] == before + 1)


def test_another_answer_and_a_changed_question(opened):
    page = opened()
    ask(page, "What is 7?")
    wait(lambda: "".join(said(page, "bytes")))
    page.wait_for_selector("#send")
    first = "".join(said(page, "bytes"))
    page.click("#again")
    second = wait(lambda: text if (text := "".join(said(page, "bytes"))) and text != first else "")
    page.wait_for_selector("#send")
    second = "".join(said(page, "bytes"))
    assert len(said(page, "bytes")) == 1 and second
    page.locator("#said-bytes button[aria-label*=dit], #said-bytes button[title*=dit]").first.click()
    page.locator("#said-bytes textarea").first.fill("Größe")
    page.locator("#said-bytes button[aria-label*=ubmit], #said-bytes button[title*=ubmit]").first.click()
    wait(lambda: "Größe" in page.inner_text("#said-bytes") and "".join(said(page, "bytes")) not in ("", second))
    assert len(said(page, "bytes")) == 1


def test_markup_that_a_person_or_a_run_says_is_only_text(opened, studio, monkeypatch):
    page = opened()
    markup = "<img src=x onerror='window.hurt=1'><script>window.hurt=1</script><b>bold</b>[x](javascript:alert(1))"
    codec = studio.service.runs["talk"].run.codec
    monkeypatch.setattr(codec.tokenizer, "pieces", [markup.encode()] * len(codec.tokenizer.pieces), raising=False)
    ask(page, markup)
    wait(lambda: "".join(said(page, "talk")))
    time.sleep(1)
    assert page.evaluate("window.hurt") is None
    assert not page.locator("#said-talk b, #said-talk img, #said-talk a").count()


def test_pictures_come_to_be_and_every_draft_can_be_seen(opened):
    page = opened()
    go(page, "Image")
    page.click("#draw")
    wait(lambda: page.input_value("#image-state textarea, #image-state input").startswith("4 steps"))
    last = wait(lambda: page.get_attribute("#image-shown img", "src"))
    page.locator("#draft input[type=number]").fill("1")
    page.keyboard.press("Tab")
    wait(lambda: page.get_attribute("#image-shown img", "src") != last)


def test_a_drawing_is_stopped(opened, studio, monkeypatch):
    page = opened()
    lane = studio.service.single_lane
    before = lane.counts["finished_cancelled"]
    go(page, "Image")
    with halted(monkeypatch, lane, 2):
        with unheard(page) as events:
            page.click("#draw")
            wait(lambda: (page.wait_for_timeout(50), events)[1])
            with page.expect_response("**/gradio_api/run/**"):
                page.click("#stop-drawing")  # there is nothing to stop yet
        wait(lambda: page.input_value("#image-state textarea, #image-state input").startswith("2 steps"))
        page.click("#stop-drawing")
        wait(lambda: lane.jobs[0].cancelled)  # in the middle of a step
    wait(lambda: lane.counts["finished_cancelled"] == before + 1)
    assert page.input_value("#image-state textarea, #image-state input").startswith("2 steps")
    wait(lambda: page.locator("#draft input[type=number]").is_visible())  # the drafts so far can be seen


@pytest.mark.slow
def test_a_drawing_that_waits_for_others_can_be_stopped(opened, studio, monkeypatch):
    lane = studio.service.single_lane
    before = lane.counts["finished_cancelled"]
    pages = [opened() for _ in range(9)]
    with halted(monkeypatch, lane, 0):
        for number, page in enumerate(pages):
            go(page, "Image")
            page.click("#draw")
            wait(lambda number=number: len(lane.jobs) > number)
        pages[-1].click("#stop-drawing")
        wait(lambda: lane.jobs[-1].cancelled)
        assert not any(job.cancelled for job in list(lane.jobs)[:-1])
    wait(lambda: lane.counts["finished_cancelled"] == before + 1)


def test_what_a_pulse_says_changes_with_the_runs(studio):
    def said():
        found = [httpx.get(f"{studio.url}/pulse/{number}").text for number in range(3)]
        assert all(len(text) == 16 for text in found)
        return found

    before = said()
    assert said() == before
    folder = studio.root / "pulsing"
    folder.mkdir()
    (folder / "recipe.json").write_text("{}")
    try:
        wait(lambda: sum(one != other for one, other in zip(before, said(), strict=True)) == 1)  # the tab Runs
    finally:
        shutil.rmtree(folder)
    wait(lambda: said() == before)
    assert httpx.get(f"{studio.url}/pulse/99").status_code == 404


@pytest.mark.slow
def test_only_the_open_tab_asks_the_server(opened):
    asked = []
    page = opened()
    page.on(
        "request", lambda request: asked.append(request.url) if re.search("/queue/join|/pulse/", request.url) else None
    )

    def quiet(seconds=5):
        before = len(asked)
        page.wait_for_timeout(1000 * seconds)
        return len(asked) == before

    wait(quiet)
    go(page, "Runs")
    before = len(asked)
    wait(lambda: (page.wait_for_timeout(200), len(asked) >= before + 3)[1])
    go(page, "Chat")
    wait(quiet)


def test_an_idle_server_polls_its_queue_rarely(studio):
    import gradio

    from sanbu.studio.page import LOOK, page

    own = vars(gradio.Blocks().queue()._queue)
    assert own["sleep_when_free"] < LOOK and own["progress_update_sleep_when_free"] < 1  # the library still has them
    queue = page(studio.service, studio.root)._queue
    assert queue.sleep_when_free == LOOK and queue.progress_update_sleep_when_free == 1


COUNT = """
window.frames_drawn = 0;
const native = window.requestAnimationFrame;
window.requestAnimationFrame = (call) => native((time) => { window.frames_drawn += 1; call(time); });
"""


@pytest.mark.slow
def test_a_page_on_which_nothing_happens_draws_no_frames(studio, browser):
    context = browser.new_context(locale="en-US")
    context.add_init_script(COUNT)
    page = context.new_page()
    page.goto(studio.url)
    page.wait_for_selector("#words textarea", timeout=150_000)

    def rests():
        before = page.evaluate("window.frames_drawn")
        page.wait_for_timeout(3000)
        return page.evaluate("window.frames_drawn") - before < 15  # the library's own page: 180

    wait(rests)
    context.close()


def test_a_label_that_is_not_there_is_said(opened):
    page = opened()
    go(page, "Image")
    page.fill("#image-label textarea, #image-label input", "zebra")
    page.click("#draw")
    wait(lambda: "zebra" in page.input_value("#image-state textarea, #image-state input"))


def test_every_picture_run_draws_the_same(opened):
    page = opened()
    go(page, "Compare")
    page.click("#draw-every")
    wait(lambda: page.locator("#compare-digits img").count())


def test_the_curve_of_a_run_lives(opened, studio):
    page = opened()
    go(page, "Runs")
    wait(lambda: page.locator("#curve canvas, #curve svg").count())
    page.locator("#run input").click()
    page.get_by_role("option", name="talk").click()
    told = "#run-progress textarea, #run-progress input"
    wait(lambda: page.input_value(told).startswith("20 / 20: loss"))
    with (studio.root / "talk" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 21, "loss": 0.125}) + "\n")
    wait(lambda: page.input_value(told).startswith("21 / 20: loss 0.125"))
    names = page.locator("#curve .role-legend-label text")
    wait(lambda: names.count())
    box, plot = names.first.bounding_box(), page.locator("#curve").bounding_box()
    assert box["y"] + box["height"] < plot["y"] + plot["height"], "which line is which is cut off"
    assert page.locator("#curve svg").first.evaluate("one => getComputedStyle(one).overflow") == "visible"


def test_a_person_ranks_answers_without_knowing_whose_they_are(opened, studio):
    page = opened()
    go(page, "Label")
    page.locator("#question textarea, #question input").fill("What is 5?")
    page.keyboard.press("Enter")
    wait(lambda: page.locator("#answer-2").is_visible())
    assert "talk" not in page.inner_text("#answer-1") + page.inner_text("#answer-2")
    order = page.locator("#order textarea, #order input")
    order.fill("2 3")
    page.keyboard.press("Enter")
    wait(lambda: "each number from 1 to 2" in page.input_value("#saved textarea"))
    order.fill("2 1")
    page.keyboard.press("Enter")
    wait(lambda: "rankings.jsonl: 1" in page.input_value("#saved textarea"))
    assert {"talk", "bytes"} == set(page.input_value("#saved textarea").split("\n")[0].split(" > "))
    (record,) = records(str(studio.root / "rankings.jsonl"))
    assert record.ranks == (1, 0) and record.prompt[-1]["content"] == "What is 5?"


def test_a_recipe_is_changed_trained_and_stopped(opened, studio):
    page = opened()
    go(page, "Recipes")
    wait(lambda: page.input_value("#recipe-folder textarea, #recipe-folder input"))
    arguments = page.locator("#recipe-arguments textarea, #recipe-arguments input")
    state = "#training textarea, #training input"
    arguments.fill("model.layrs=1")
    page.click("#start")
    wait(lambda: "did you mean 'layers'" in page.input_value(state))
    arguments.fill(
        f"data.path={studio.root / 'text.txt'} data.tokenizer=byte"
        " model.layers=1 model.width=16 model.heads=2 schedule.steps=100000"
    )
    page.locator("#recipe-folder textarea, #recipe-folder input").fill("../outside")
    page.click("#start")
    wait(lambda: "lies outside" in page.input_value(state))
    page.locator("#recipe-folder textarea, #recipe-folder input").fill("mine")
    page.click("#start")
    wait(lambda: "s left" in page.input_value(state), 60)
    page.click("#stop-training")
    wait(lambda: "mine: done" in page.input_value(state) or "mine: stopped" in page.input_value(state), 30)
    assert list((studio.root / "mine" / "checkpoints").glob("step-*"))


def test_chinese_on_a_phone(opened):
    page = opened(locale="zh-CN", viewport={"width": 390, "height": 800})
    assert page.get_by_role("tab", name="对话").count() or page.get_by_text("发送", exact=True).count()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_page_gives_away_no_file_and_answers_to_no_other_page(studio):
    for path in (
        "/etc/passwd",
        "../../../etc/passwd",
        str(studio.root / "talk" / "recipe.json"),
        "pyproject.toml",
        "rankings.jsonl",
    ):
        for route in (f"/gradio_api/file={path}", f"/file={path}", f"/static/{path}", f"/assets/{path}"):
            assert httpx.get(studio.url + route).status_code in (400, 403, 404), route
    foreign = {"origin": "https://elsewhere.example"}
    assert httpx.post(studio.url + "/gradio_api/queue/join", json={}, headers=foreign).status_code == 403
    assert httpx.get(studio.url + "/", headers={"host": "elsewhere.example"}).status_code == 403
    assert httpx.get(studio.url + "/gradio_api/startup-events", headers=foreign).status_code == 403


def test_the_api_is_there_beside_the_page(studio, client):
    assert {one.id for one in client.models.list()} == {"talk", "bytes", "digits"}
    lost = httpx.get(studio.url + "/v1/nothing")
    assert lost.status_code == 404 and lost.json()["error"]["code"] == "not_found"
    assert (
        httpx.get(studio.url + "/").text.count("<script")
        and "googleapis" not in httpx.get(studio.url + "/theme.css").text
    )
