"""The verb that shows everything: an assistant and six ways of drawing digits, trained while the studio shows it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sanbu.cli.app import app
from sanbu.config import SanbuError

if TYPE_CHECKING:
    from sanbu.evaluation.jobs import Jobs
    from sanbu.serve.service import Expected

QUESTIONS = (
    "What is 12 + 7?",
    "How often is b in a c b a b?",
    "What is the largest of 31 7 90 55?",
    "Is lambda a keyword of Python?",
)
NICE = 5  # of the training processes, so that the page answers while they work
BETWEEN = 30.0  # seconds between two lines about what is running


@app.command()
def demo(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[STAGE.PATH=VALUE]...", help="changes of the assistant's stages")
    ] = None,
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="run folder")] = Path("runs/demo"),
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="CPU seconds for each way to draw digits")] = 20,
    page: Annotated[
        bool | None, typer.Option("--page/--no-page", help="open the studio [default: if there is a browser]")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="port of the studio; 0 takes a free one")] = 0,
) -> None:
    """Train an assistant and six ways to draw digits, and watch.

    The studio opens at once, shows how far everything is, and lets you try
    what is ready. Without a browser the progress is printed, and the results
    are the same. A second call continues where the first one stopped.
    """
    from sanbu.evaluation.jobs import Jobs, cores
    from sanbu.recipes.demo import jobs

    everything = Jobs(jobs(run, seconds, overrides or ()), cores(), run / "jobs.log", NICE)
    browser = has_browser()
    if page or (page is None and browser):
        show(everything, run, port, browser)
        return
    for line in work(everything):
        typer.echo(line)
    typer.echo(results(run))
    ask(run)
    folders = " ".join(str(one.folder) for one in served(everything))
    typer.echo(f"to continue in the browser: sanbu serve {folders} --runs {run.parent} --open")


def has_browser() -> bool:
    """Whether a person sits at a terminal of a machine with a browser that has windows."""
    import webbrowser

    windows = sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return windows and sys.stdin.isatty() and find_spec("gradio") is not None


def work(everything: Jobs, ended: threading.Event | None = None) -> Iterator[str]:
    """Do the jobs until they are done or `ended` is set; yields a line for each part that is done, and now and then."""
    from sanbu.progress import duration
    from sanbu.recipes.demo import parts

    done = {each.job.name for each in parts(everything) if each.status == "done"}
    said = 0.0
    with closing(everything.work()) as working:
        for _ in working:
            if ended is not None and ended.is_set():
                return
            found = parts(everything)
            fresh = [each.job.name for each in found if each.status == "done" and each.job.name not in done]
            running = [
                f"{each.job.name} ({', '.join(filter(None, (each.text, duration(each.left) + ' left')))})"
                for each in found
                if each.status == "running"
            ]
            if fresh or time.monotonic() > said + BETWEEN:
                done.update(fresh)
                said = time.monotonic()
                about = "".join(f"{name} is done; " for name in fresh) + "; ".join(running)
                yield f"{about}; about {duration(everything.left())} in all" if running else about.removesuffix("; ")


def results(run: Path) -> str:
    """Where the results of the jobs are, and how the assistants answered."""
    from sanbu.files import read_json
    from sanbu.recipes.demo import digits_folder

    table = read_json(run / "measured.json")["table"]
    return (
        f"six ways to draw digits, side by side: {digits_folder(run) / 'compare.html'}\n"
        f"right answers and reward over the KL: {run / 'ppo' / 'policy.png'}\n\n{table}\n"
    )


def ask(run: Path) -> None:
    """Four questions to every stage of the assistant, side by side."""
    from sanbu.cli.talk import Speaker, answer_all
    from sanbu.recipes.demo import SHOWN

    speakers = [Speaker.open(run / name) for name in SHOWN]
    for question in QUESTIONS:
        typer.echo(f"> {question}")
        answer_all(speakers, question, 0)


def served(everything: Jobs) -> list[Expected]:
    """The runs that the page shows: the stages that write, and every way to draw digits."""
    from sanbu.recipes.demo import SHOWN
    from sanbu.serve.service import Expected

    runs = {job.name: job.run for job in everything.jobs if job.run is not None}
    names = [*SHOWN, *(name for name in runs if "-" in name)]
    return [Expected(name, runs[name], name in SHOWN, partial(state_of, everything, name)) for name in names]


def state_of(everything: Jobs, name: str) -> str:
    """How far the training of a run is, in words."""
    from sanbu.progress import duration

    each = next(each for each in everything.progress() if each.job.name == name)
    return ", ".join(filter(None, (each.status, each.text, f"about {duration(each.left)} of training left")))


def show(everything: Jobs, run: Path, port: int, browser: bool) -> None:
    """Serve the page while the jobs are done, until told to stop."""
    import torch

    from sanbu.cli.serve import check_options
    from sanbu.recipes.demo import parts
    from sanbu.serve.app import application
    from sanbu.serve.server import listen
    from sanbu.serve.service import Service
    from sanbu.serve.single_lane import SingleLane
    from sanbu.studio.page import mount
    from sanbu.studio.tour import tour_tab

    check_options("127.0.0.1", None, (), "full")
    torch.set_num_threads(1)  # the models are small, and the other cores are busy
    service = Service([], SingleLane(), expected=served(everything))
    api = application(service)
    mount(api, service, run.parent, tour=partial(tour_tab, everything, partial(parts, everything), run.parent))
    logging.getLogger("sanbu.serve.requests").setLevel(logging.WARNING)  # lines of progress are enough
    ended = threading.Event()

    def work_and_say() -> None:
        try:
            for line in work(everything, ended):
                typer.echo(line)
            if not ended.is_set():
                typer.echo(results(run))
        except SanbuError as error:
            typer.echo(f"sanbu: {error}", err=True)

    thread = threading.Thread(target=work_and_say)
    thread.start()
    try:
        listen(api, "127.0.0.1", port, ["the studio"], browser, path="")
    finally:
        ended.set()
        thread.join()
