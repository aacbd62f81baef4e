"""The page in a browser: how long it takes to open, what it costs while nothing happens, and how soon an answer shows.

python -m bench.studio [--rounds N] [--run DIR] [--json]

load_seconds, load_mb: a second visit, from navigation until one can type; what came over the wire, not from the cache.
server_idle, browser_idle: percent of one core over 30 s with the page open and nothing asked, by tab; from 45 s after
the tab was opened, since V8 once collects what opening left behind, half a minute later and for 0.2 s of a core.
words_ms: from Enter to the first words of the answer on the page, less the time to the first piece over HTTP.
Two tiny runs that chat and draw; figures are medians over rounds. Needs playwright and chromium.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from bench.clients import free_port, running

SETTLING, IDLE = 45.0, 30.0  # seconds
WORDS = """() => new Promise((found) => {
  const before = document.querySelectorAll("#said-talk [data-testid=bot] .message-content").length;
  let begun = 0;
  addEventListener("keydown", (event) => { if (event.key === "Enter") begun ||= performance.now(); }, true);
  const look = () => {
    const answers = [...document.querySelectorAll("#said-talk [data-testid=bot] .message-content")].slice(before);
    if (begun && answers.some((each) => each.innerText.replaceAll("\\u2060", "").trim()))
      found(performance.now() - begun);
    else requestAnimationFrame(look);
  };
  look();
})"""


def prepare(folder: Path) -> None:
    """Train the two runs, unless they are there."""
    from sanbu.config import override
    from sanbu.loop import train
    from sanbu.recipes import make

    small = ["model.layers=1", "model.heads=2", "model.width=16", "schedule.steps=20", "machine.threads=1"]
    asked = [[{"role": "user", "content": f"What is {a}?"}, {"role": "assistant", "content": f"It is {a}."}]
             for a in range(300)]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    said = folder / "said.jsonl"
    said.write_text("\n".join(json.dumps({"messages": each}) for each in asked), encoding="utf-8")
    context = ["data.context=1024", "model.context=1024", "data.tokenizer.vocabulary=300"]
    runs = {
        "talk": ("sft", [f"data.path={said}", *context, *small]),
        "digits": ("flow", ["schedule.steps=50", "machine.threads=1"]),
    }
    for name, (recipe, arguments) in runs.items():
        if not (folder / name / "checkpoints").exists():
            made, changes = make(recipe, arguments)
            train(override(made, changes), folder / name, watchers=())


def processor_seconds(processes: list[int]) -> float:
    """What these processes and all below them have used so far."""
    import psutil

    found = [psutil.Process(each) for each in processes]
    found += [child for one in found for child in one.children(recursive=True)]
    return float(sum(sum(each.cpu_times()[:2]) for each in found))


def load(context: Any, url: str) -> tuple[float, float]:
    """Seconds and megabytes of a visit."""
    page = context.new_page()
    wire = context.new_cdp_session(page)
    sizes: list[float] = []
    wire.on("Network.loadingFinished", lambda each: sizes.append(each["encodedDataLength"]))
    wire.send("Network.enable")
    begun = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_selector("#words textarea:enabled", timeout=120_000)
    spent = time.perf_counter() - begun
    page.wait_for_timeout(2000)
    page.close()
    return spent, sum(sizes) / 1e6


def first_words(page: Any, url: str, seed: int) -> float:
    """Milliseconds between the first piece of an answer over HTTP and on the page."""
    question = f"What is {seed}?"
    body = {"model": "talk", "messages": [{"role": "user", "content": question}], "stream": True, "seed": seed}
    begun = time.perf_counter()
    with httpx.stream("POST", f"{url}/v1/chat/completions", json={**body, "max_tokens": 64}, timeout=120) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content", "").strip():
                break
        engine = 1000 * (time.perf_counter() - begun)
    page.click("#clear")
    page.wait_for_timeout(1000)
    page.fill("#words textarea", question)
    watched = page.evaluate_handle(f"() => ({{promise: ({WORDS})()}})")
    page.focus("#words textarea")
    page.keyboard.press("Enter")
    shown = float(watched.evaluate("each => each.promise"))
    page.wait_for_selector("#send")
    page.wait_for_timeout(500)
    return shown - engine


def idle(page: Any, processes: dict[str, list[int]]) -> dict[str, float]:
    """Percent of one core that each side uses."""
    page.wait_for_timeout(1000 * SETTLING)
    before = {name: processor_seconds(each) for name, each in processes.items()}
    page.wait_for_timeout(1000 * IDLE)
    return {name: 100 * (processor_seconds(each) - before[name]) / IDLE for name, each in processes.items()}


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """All figures."""
    import psutil
    from playwright.sync_api import sync_playwright

    prepare(folder)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "sanbu", "serve", str(folder / "talk"), str(folder / "digits")]
    command += ["--runs", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    figures: dict[str, float] = {}
    with running(command, port, folder / "server.log") as server, sync_playwright() as playwright:
        mine = {each.pid for each in psutil.Process().children(recursive=True)}
        browser = playwright.chromium.launch(executable_path=chromium)
        children = psutil.Process().children(recursive=True)
        windows = [each.pid for each in children if each.pid not in mine and "chrom" in each.name()]
        context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US")
        load(context, url)
        visits = [load(context, url) for _ in range(rounds)]
        figures["load_seconds"], figures["load_mb"] = map(median, zip(*visits, strict=True))
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector("#words textarea")
        first_words(page, url, 0)
        figures["words_ms"] = median([first_words(page, url, 1 + number) for number in range(3 * rounds)])
        for tab in ("Chat", "Runs", "Recipes"):
            page.get_by_role("tab", name=tab, exact=True).first.click()
            found = idle(page, {"server": [server.pid], "browser": windows})
            figures |= {f"{name}_idle.{tab.lower()}": value for name, value in found.items()}
        browser.close()
    return figures


median: Callable[[Any], float] = statistics.median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", type=Path, help="folder that keeps the runs for later; default: a temporary folder")
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        figures = measure(arguments.run or Path(place), arguments.rounds)
    if not arguments.json:
        for name, value in figures.items():
            print(f"{name:24} {value:10.3f}", file=sys.stderr)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
