"""Recipes: browse them, change fields, and train in a separate process, which continues when the page is closed."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gradio as gr

from sanbu import recipes
from sanbu.config import SanbuError, plain
from sanbu.recipe import Recipe, walk
from sanbu.studio.runs import progress_text, rows_of
from sanbu.studio.translations import say


class TrainingProcess:
    """The training process started from this page; one at a time."""

    def __init__(self, root: Path) -> None:
        self.root, self.steps = root, 1
        self.process: subprocess.Popen[bytes] | None = None
        self.folder: Path | None = None

    def start(self, name: str, changes: list[str], folder: str, steps: int) -> str:
        """Start training. Raises SanbuError while another one runs, or if the folder is a run or outside the root."""
        if self.running():
            raise SanbuError(f"{self.folder} is still training; stop it first")
        place = (self.root / folder).resolve()
        if not place.is_relative_to(self.root.resolve()) or place == self.root.resolve():
            raise SanbuError(f"{folder!r} lies outside {self.root}; give a folder name inside it")
        if (place / "recipe.json").exists():
            raise SanbuError(f"{place.name} is already a run; choose another folder")
        self.root.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "sanbu", "train", name, *changes, "--run", str(place)]
        with (self.root / "studio.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.folder, self.steps = place, steps
        return f"{folder}: started"

    def running(self) -> bool:
        """Whether the process is still running."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> str:
        """Save a checkpoint and stop, as Ctrl-C does."""
        if self.process is None or not self.running():
            return "no training is running"
        self.process.send_signal(signal.SIGINT)
        return "stopping after saving a checkpoint"

    def status(self) -> tuple[str, float]:
        """A status line, and the fraction of steps done."""
        if self.process is None or self.folder is None:
            return "", 0.0
        name = self.folder.relative_to(self.root.resolve()).as_posix()
        rows = rows_of(self.root, name)
        done = rows[-1].get("step", 0) if rows else 0
        spent = sum(row.get("time/seconds", 0.0) for row in rows)
        left = spent / done * (self.steps - done) if done else 0.0
        code = self.process.poll()
        if code is None:
            return f"{name}: {progress_text(self.root, name) or 'starting'}" + (
                f", about {left:.0f} s left" if done else ""
            ), done / self.steps
        if code == 0:
            return f"{name}: done. {progress_text(self.root, name)}", 1.0
        lines = (self.root / "studio.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"{name}: stopped with exit code {code}. {lines[-1] if lines else ''}", done / self.steps


def recipes_tab(root: Path) -> None:
    """The recipes tab. Training runs appear in the Runs tab.

    Long because the widgets of a tab and their events refer to each other.
    """
    training = TrainingProcess(root)
    names = list(recipes.RECIPES)
    with gr.Row():
        name = gr.Dropdown(names, value=names[0], label=say("name"), elem_id="recipe-name")
        arguments = gr.Textbox(label=say("arguments"), elem_id="recipe-arguments")
        folder = gr.Textbox(label=say("folder"), elem_id="recipe-folder")
    about = gr.Textbox(label=say("about"), interactive=False, elem_id="recipe-about")
    with gr.Row():
        start = gr.Button(say("start"), variant="primary", elem_id="start")
        stop = gr.Button(say("stop"), elem_id="stop-training")
    state = gr.Textbox(label=say("progress"), interactive=False, elem_id="training")
    bar = gr.HTML(progress_bar(0.0))
    headers = ["field", "value", "type", "description"]
    fields = gr.Dataframe(
        headers=headers,
        interactive=True,
        static_columns=[0, 2, 3],
        wrap=True,
        max_height=480,
        label=say("fields"),
        elem_id="fields",
        show_search="filter",
        column_widths=["25%", "20%", "20%", "35%"],
    )

    def browse(name: str | None, arguments: str | None) -> list[Any]:
        try:
            recipe = make_recipe(name or names[0], words(arguments or ""))
        except SanbuError as error:
            return [gr.skip(), str(error), gr.skip()]
        return [
            rows(recipe),
            (recipes.find(recipe.name).__doc__ or "").split("\n")[0],
            f"{recipe.name}-{time.strftime('%H%M%S')}",
        ]

    def start_training(name: str, arguments: str, folder: str, table: Any) -> str:
        try:
            given = [(str(path), str(value)) for path, value, *_ in table.values.tolist()]
            known = {path: value for path, value, *_ in rows(make_recipe(name, words(arguments)))}
            changed = [f"{path}={value}" for path, value in given if known.get(path) != value]
            changes = [*words(arguments), *changed]
            return training.start(name, changes, folder.strip(), make_recipe(name, changes).resolve().schedule.steps)
        except SanbuError as error:
            return str(error)

    def poll() -> list[Any]:
        text, part = training.status()
        return [text if text else gr.skip(), progress_bar(part)]

    for trigger in (name.change, arguments.submit):
        trigger(browse, [name, arguments], [fields, about, folder])
    gr.on(None, lambda: browse(None, None), None, [fields, about, folder])
    start.click(start_training, [name, arguments, folder, fields], state)
    stop.click(training.stop, None, state)
    gr.Timer(2).tick(poll, None, [state, bar], show_progress="hidden")


def words(text: str) -> list[str]:
    """Arguments split as in a shell. Raises SanbuError for an unclosed quotation."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise SanbuError(f"{text!r}: {error}") from None


def make_recipe(name: str, assignments: list[str]) -> Recipe:
    """A recipe with arguments and changes applied. Raises SanbuError for unknown names."""
    recipe, changes = recipes.make(name, assignments)
    return recipe.change(*changes)


def rows(recipe: Recipe) -> list[list[str]]:
    """Table rows of all fields: path, value, type and description."""
    return [[path, plain(value), kind, text] for path, value, kind, text in walk(recipe)]


def progress_bar(part: float) -> str:
    """HTML of a progress bar; part: 0 to 1."""
    return f'<progress max="1" value="{part:.4f}" style="width:100%"></progress>'
