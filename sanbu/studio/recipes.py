"""Recipes: browse them, change fields, and train in a separate process, which continues when the page is closed."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from sanbu import recipes
from sanbu.config import SanbuError
from sanbu.studio.address import chosen, keep
from sanbu.studio.messages import Message, told
from sanbu.studio.pulses import Pulses
from sanbu.studio.recipe_form import Table, edits, make_recipe, rows, size_text, with_edits, words
from sanbu.studio.run_folders import stopped_runs
from sanbu.studio.training_process import TrainingProcess, command_line, new_place, train_words
from sanbu.studio.translations import Language, language_of, say

HEADERS = ["field", "value", "type", "description"]
BAR = """
progress {width: 100%; height: .8em; appearance: none; border: 1px solid var(--body-text-color); border-radius: .4em}
progress::-webkit-progress-bar {background: transparent}
progress::-webkit-progress-value {background: var(--body-text-color)}
progress {background: transparent}
progress::-moz-progress-bar {background: var(--body-text-color)}
"""
Widgets = Mapping[str, Any]
Answer = tuple[int, str]  # the number of an answer to a button, and why nothing was done


def recipes_tab(root: Path, blocks: gr.Blocks, pulses: Pulses) -> None:
    """The recipes tab. Training runs appear in the Runs tab."""
    form = form_widgets()
    training = training_widgets()
    table = gr.Dataframe(
        headers=HEADERS,
        type="array",
        interactive=True,
        static_columns=[0, 2, 3],
        wrap=True,
        max_height=480,
        label=say("fields"),
        elem_id="fields",
        show_search="filter",
        column_widths=["25%", "20%", "20%", "35%"],
    )
    # the rows as the page has filled the table, in the browser, so that they arrive there with the table's
    shown = gr.Textbox(visible="hidden", elem_id="fields-shown")
    described = connect_form(root, blocks, {**form, "table": table, "shown": shown})
    connect_training(TrainingProcess(root), blocks, pulses, {**form, **training, "table": table, "shown": shown})
    keep(described, {"recipe": form["name"], "arguments": form["arguments"], "folder": form["folder"]})
    connect_size(described, form)  # after the address, since it takes longer


def form_widgets() -> dict[str, Any]:
    """The choice of a recipe, its arguments, and what they would train."""
    names = list(recipes.RECIPES)
    with gr.Row():
        name = gr.Dropdown(names, value=names[0], label=say("name"), elem_id="recipe-name")
        arguments = gr.Textbox(label=say("arguments"), info=say("fields_hint"), elem_id="recipe-arguments", scale=2)
        folder = gr.Textbox(label=say("folder"), elem_id="recipe-folder")
    about = gr.Textbox(label=say("about"), interactive=False, elem_id="recipe-about")
    problem = gr.Textbox(show_label=False, container=False, visible=False, interactive=False, elem_id="recipe-problem")
    with gr.Row():
        command = gr.Textbox(
            label=say("command"), lines=2, interactive=False, buttons=["copy"], elem_id="recipe-command", scale=2
        )
        size = gr.Textbox(label=say("size"), lines=2, interactive=False, elem_id="recipe-size")
    return {
        "name": name, "arguments": arguments, "folder": folder, "about": about, "problem": problem,
        "command": command, "size": size, "suggested": gr.State(""),
    }  # fmt: skip


def training_widgets() -> dict[str, Any]:
    """The buttons, and how far the training is."""
    with gr.Row():
        start = gr.Button(say("start"), variant="primary", elem_id="start")
        stop = gr.Button(say("stop"), elem_id="stop-training")
    with gr.Row():
        stopped = gr.Dropdown([], label=say("stopped_runs"), elem_id="stopped-runs", scale=2)
        resume = gr.Button(say("resume"), elem_id="resume")
    state = gr.Textbox(label=say("progress"), lines=1, max_lines=8, interactive=False, elem_id="training")
    bar = gr.HTML(progress_bar(0.0), css_template=BAR, elem_id="training-bar")
    return {"start": start, "stop": stop, "stopped": stopped, "resume": resume, "state": state, "bar": bar}


# -- the form ---------------------------------------------------------------------------------------------------------


def connect_form(root: Path, blocks: gr.Blocks, form: Widgets) -> Any:
    """Let table, command line and size follow the arguments, and the arguments follow edits of the table."""

    def describe(
        name: str, arguments: str, folder: str, suggested: str, table: Any, shown: str, request: gr.Request
    ) -> list[Any]:
        given = {"name": name, "arguments": arguments or "", "folder": folder or ""}
        now = {**given, "suggested": suggested, "shown": json.loads(shown) if shown else None}
        update = form_updates(root, {**now, "table": cells(table)}, request)
        update["shown"] = json.dumps(update["shown"], ensure_ascii=False)
        return [update.get(each, gr.skip()) for each in form]

    def edit(name: str, arguments: str, table: Any, shown: str) -> Any:
        try:
            return shlex.join(with_edits(name, words(arguments or ""), edits(cells(table), json.loads(shown or "[]"))))
        except SanbuError:
            return gr.skip()

    opening = [blocks.load, *(form[each].change for each in ("name", "arguments", "folder"))]
    asked = [form[each] for each in ("name", "arguments", "folder", "suggested", "table", "shown")]
    how: Any = {"show_progress": "hidden", "trigger_mode": "always_last"}
    described = gr.on(opening, describe, asked, list(form.values()), **how)
    edited = [form[each] for each in ("name", "arguments", "table", "shown")]
    form["table"].input(edit, edited, form["arguments"], show_progress="hidden")
    return described


def connect_size(described: Any, form: Widgets) -> None:
    """Count parameters and memory after the form has changed; of many changes at once, after the last."""

    def count(name: str, arguments: str, request: gr.Request) -> str:
        try:
            return size_text(name, words(arguments or ""), language_of(request))
        except SanbuError:
            return ""

    how: Any = {"show_progress": "hidden", "trigger_mode": "always_last"}
    described.success(count, [form["name"], form["arguments"]], form["size"], **how)


def form_updates(root: Path, now: dict[str, Any], request: gr.Request | None) -> dict[str, Any]:
    """The parts of the form that change. now: its values; `shown` is None when the page opens."""
    language = language_of(request)
    changed: dict[str, Any] = {}
    if now["shown"] is None:
        changed = from_address(request)
    now = {**now, **changed}
    name = now["name"]
    if now["folder"] == now["suggested"] and now["suggested"].rpartition("-")[0] != name:
        suggested = f"{name}-{time.strftime('%H%M%S')}"
        changed |= {"folder": suggested, "suggested": suggested}
    changed["about"] = (recipes.find(name).__doc__ or "").split("\n")[0]
    try:
        given = words(now["arguments"])
        found = rows(make_recipe(name, given))
    except SanbuError as error:
        problem = gr.Textbox(told(error, language), visible=True)
        return {**changed, "problem": problem, "command": "", "shown": now["shown"] or []}
    if found != now["table"]:
        changed["table"] = found
    return {
        **changed,
        "shown": found,
        **command_updates(root, name, given, changed.get("folder", now["folder"]), language),
    }


def command_updates(root: Path, name: str, given: list[str], folder: str, language: Language) -> dict[str, Any]:
    """The command line that Start would run, and why it would not."""
    try:
        place = new_place(root, folder)
    except Message as error:
        return {"command": "", "problem": gr.Textbox(told(error, language), visible=True)}
    return {"command": command_line(train_words(name, given, place)), "problem": gr.Textbox(visible=False)}


def from_address(request: gr.Request | None) -> dict[str, Any]:
    """The choices in the address of the page; a recipe that does not exist is left out."""
    name, arguments, folder = (chosen(request, each) for each in ("recipe", "arguments", "folder"))
    found = {"name": name if name in recipes.RECIPES else next(iter(recipes.RECIPES)), "arguments": arguments}
    return {**found, "folder": folder} if folder else found


def cells(table: Any) -> Table:
    """The rows of the table as texts."""
    return [["" if cell is None else str(cell) for cell in row] for row in table or []]


# -- training ---------------------------------------------------------------------------------------------------------


def connect_training(process: TrainingProcess, blocks: gr.Blocks, pulses: Pulses, widgets: Widgets) -> None:
    """Let the buttons start, stop and resume; show how far the training is, and why a button did nothing."""
    answer = gr.State((0, ""))  # of the last button

    def start(
        name: str, arguments: str, folder: str, table: Any, shown: str, answer: Answer, request: gr.Request
    ) -> Answer:
        def begin() -> None:
            given = with_edits(name, words(arguments or ""), edits(cells(table), json.loads(shown or "[]")))
            steps = make_recipe(name, given).schedule.steps
            process.start(name, given, (folder or "").strip(), steps)

        return answered(begin, answer, request)

    def stop(answer: Answer, request: gr.Request) -> Answer:
        return answered(process.stop, answer, request)

    def resume(name: str | None, answer: Answer, request: gr.Request) -> Answer:
        return answered(lambda: process.resume(name), answer, request)

    def look(language: Language = "en") -> tuple[tuple[str, float], list[str]]:
        return process.status(language), stopped_runs(process.root)

    def poll(answer: Answer, chosen: str | None, listed: list[str] | None, request: gr.Request) -> list[Any]:
        (text, part), found = look(language_of(request))
        runs = gr.skip() if found == listed else stopped_menu(found, chosen)
        return ["\n".join(filter(None, (answer[1], text))), progress_bar(part), runs, found]

    asked = [widgets[each] for each in ("name", "arguments", "folder", "table", "shown")]
    widgets["start"].click(start, [*asked, answer], answer)
    widgets["stop"].click(stop, answer, answer)
    widgets["resume"].click(resume, [widgets["stopped"], answer], answer)
    listed: gr.State = gr.State(None)
    gr.on(
        [blocks.load, pulses.changed(2, look), answer.change],
        poll,
        [answer, widgets["stopped"], listed],
        [widgets["state"], widgets["bar"], widgets["stopped"], listed],
        show_progress="hidden",
        trigger_mode="always_last",
    )


def answered(act: Callable[[], None], before: Answer, request: gr.Request | None) -> Answer:
    """Do what a button asks; the reason where it cannot be done, which stays until the next button."""
    try:
        act()
    except SanbuError as error:
        return before[0] + 1, told(error, language_of(request))
    return before[0] + 1, ""


def stopped_menu(found: list[str], chosen: str | None) -> Any:
    """The list of stopped runs; the one that was chosen stays, else the newest."""
    value = chosen if chosen in found else next(iter(found), None)
    return gr.Dropdown(found, value=value, info=None if found else say("none_stopped"))


def progress_bar(part: float) -> str:
    """HTML of a progress bar; part: 0 to 1."""
    return f'<progress max="1" value="{part:.6f}"></progress>'
