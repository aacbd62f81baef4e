"""Label: people rank answers without knowing which run wrote them; rankings are data for reward models and DPO."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from sanbu.config import SanbuError
from sanbu.serve.chat import ChatCompletion
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.schemas import ChatBody
from sanbu.serve.service import Service
from sanbu.studio.error_texts import error_text
from sanbu.studio.rankings import (
    Row,
    agreement,
    append,
    authors,
    places,
    read,
    read_order,
    scan,
    take_back,
    win_counts,
    with_next,
    with_tie,
    without_last,
)
from sanbu.studio.translations import Language, language_of, say, translate

MOST = 9
HIDDEN: dict[str, Any] = {"show_progress": "hidden"}


def label_tab(blocks: gr.Blocks, service: Service, file: Path) -> None:
    """The label tab; every saved ranking is a line of `file`."""
    tab = LabelTab(service, file)
    tab.connect()
    blocks.load(tab.describe, None, tab.saved, **HIDDEN)


class LabelTab:
    """The widgets of the tab and their events.

    The order is a text, which a person types or clicks together. held: the answers and their authors, and last: the
    row that was saved last; both stay on the server, so that the page does not reveal the authors.
    """

    def __init__(self, service: Service, file: Path) -> None:
        self.service, self.file = service, file
        known = service.names(writes=True)
        gr.Markdown(say("written"))
        self.who = gr.CheckboxGroup(known, value=known[:4], label=say("who"), elem_id="label-who")
        with gr.Row():
            self.question = gr.Textbox(label=say("question"), elem_id="question", scale=4)
            self.each = gr.Slider(1, MOST, 1, step=1, label=say("answers"), elem_id="each")
        with gr.Row():
            self.fetch = gr.Button(say("fetch"), variant="primary", elem_id="fetch")
            self.review = gr.Button(say("review"), elem_id="review")
        self.ranked = gr.Markdown(say("pick"), elem_id="ranked", visible=False)
        self.boxes = [gr.Button(visible=False, elem_id=f"answer-{i + 1}", elem_classes=["answer"]) for i in range(MOST)]
        with gr.Row():
            self.order = gr.Textbox(label=say("order"), elem_id="order", scale=4)
            self.tie = gr.Button(say("tie"), elem_id="tie")
            self.undo = gr.Button(say("undo"), elem_id="undo")
        self.save = gr.Button(say("save"), variant="primary", elem_id="save-order")
        self.saved = gr.Textbox(label=say("saved"), interactive=False, elem_id="saved", lines=3)
        self.held, self.last = gr.State(None), gr.State(None)

    def connect(self) -> None:
        """All events; what is shown of the answers follows from the order."""
        answers = [self.ranked, *self.boxes]
        fresh = [self.held, *answers, self.order, self.saved]
        for trigger in (self.fetch.click, self.question.submit):
            trigger(self.fetch_answers, [self.who, self.question, self.each], fresh)
        self.review.click(self.load_saved, None, [*fresh, self.question])
        inputs = [self.held, self.order]
        for number, box in enumerate(self.boxes, 1):
            box.click(self.pick, [gr.State(number), *inputs], [self.order, *answers], **HIDDEN)
        self.tie.click(with_tie, self.order, self.order, **HIDDEN)
        self.order.input(self.show_order, inputs, answers, **HIDDEN)
        saving, everything = [*inputs, self.last], [self.held, self.last, *answers, self.order, self.saved]
        self.undo.click(self.undo_last, saving, everything, **HIDDEN)
        for trigger in (self.save.click, self.order.submit):
            trigger(self.save_order, saving, everything, **HIDDEN)

    # -- handlers -----------------------------------------------------------------------------------------------------

    async def fetch_answers(self, request: gr.Request, names: Sequence[str], text: str, each: float) -> list[Any]:
        """New answers to a question, in random order."""
        language = language_of(request)
        try:
            row = await answers(self.service, [self.service.find(name) for name in names], text, int(each))
        except Exception as error:
            return [None, *self.shown(None, "", language), "", error_text(error, language)]
        return [row, *self.shown(row, "", language), "", ""]

    def load_saved(self, request: gr.Request) -> list[Any]:
        """The answers of a ranking of the file, in another order."""
        language, kept = language_of(request), read(self.file)
        if not kept:
            return [None, *self.shown(None, "", language), "", translate("no_rankings", language), gr.skip()]
        row = shuffled(random.choice(kept))
        return [row, *self.shown(row, "", language), "", "", row["messages"][-1]["content"]]

    def pick(self, request: gr.Request, number: int, row: Row | None, order: str) -> list[Any]:
        """One more answer at the end of the order."""
        text = with_next(order, number)
        return [text, *self.shown(row, text, language_of(request))]

    def show_order(self, request: gr.Request, row: Row | None, order: str) -> list[Any]:
        """The answers, marked as a typed order says."""
        return self.shown(row, order, language_of(request))

    def undo_last(self, request: gr.Request, row: Row | None, order: str, last: Row | None) -> list[Any]:
        """Take back the last click, or the last saved ranking if there is no order."""
        language = language_of(request)
        if order.strip() or last is None:
            text = without_last(order)
            line = gr.skip() if order.strip() else translate("nothing_undone", language)
            return [row, last, *self.shown(row, text, language), text, line]
        found = take_back(self.file, last)
        line = f"{translate('undone' if found else 'nothing_undone', language)}\n{self.describe(request)}"
        back = shuffled(last) if found else row
        return [back, None, *self.shown(back, "", language), "", line]

    def save_order(self, request: gr.Request, row: Row | None, order: str, last: Row | None) -> list[Any]:
        """A line of the file; or what is wrong with the order."""
        language = language_of(request)
        try:
            if row is None:
                raise SanbuError("no answers to rank; press Get answers first")
            ranks = read_order(order, len(row["answers"]))
            made = {**row, "ranks": ranks, "time": int(time.time())}
            append(self.file, made)
        except (SanbuError, OSError) as error:
            return [row, last, *self.shown(row, order, language), order, error_text(error, language)]
        return [None, made, *self.shown(None, "", language), "", f"{authors(made)}\n{self.describe(request)}"]

    # -- what is shown ------------------------------------------------------------------------------------------------

    def describe(self, request: gr.Request) -> str:
        """The number of rankings, the wins per run, the agreement, and the lines of the file that are damaged."""
        language, (rows, torn) = language_of(request), scan(self.file)
        counts = win_counts(rows).items()
        wins = ", ".join(f"{name} {won}/{pairs}" for name, (won, pairs) in counts)
        counted = translate("rankings", language).format(file=self.file.name, count=len(rows))
        share, twos = agreement(rows)
        agreed = translate("agreement", language).format(share=share, pairs=twos)
        damaged = translate("torn", language).format(lines=", ".join(map(str, torn)))
        lines = [wins, f"{counted}, {agreed}" if twos else counted]
        lines += [f"{self.file.name}: {damaged}"] if torn else []
        return "\n".join(filter(None, lines)) if rows or torn else translate("no_rankings", language)

    def shown(self, row: Row | None, order: str, language: Language) -> list[Any]:
        """How many answers are ranked, and a button per answer with its place; the other buttons are hidden."""
        texts, found = (row["answers"] if row else [])[:MOST], places(order)
        counted = translate("ranked", language).format(ranked=len(found), count=len(texts))
        told = gr.Markdown(f"{translate('pick', language)} {counted}", visible=bool(texts))
        buttons = [answer_button(number, text, found.get(number), language) for number, text in enumerate(texts, 1)]
        return [told, *buttons, *(gr.Button("", visible=False) for _ in range(MOST - len(buttons)))]


def answer_button(number: int, text: str, place: int | None, language: Language) -> gr.Button:
    """An answer to click on, with its number and the place that it has so far."""
    ranked = "" if place is None else " · " + translate("place", language).format(place=place)
    classes = ["answer"] if place is None else ["answer", "ranked"]
    return gr.Button(f"{number}{ranked}\n{text}", visible=True, elem_classes=classes)


async def answers(service: Service, runs: Sequence[HostedRun], question: str, each: int) -> Row:
    """Distinct answers in random order, with their authors. Raises SanbuError if there are fewer than two."""
    if not question.strip():
        raise SanbuError("the question is empty; enter a question")
    if not runs:
        raise SanbuError("no run is selected; select at least one")
    messages = [{"role": "user", "content": question}]

    async def one(served: HostedRun, n: int) -> list[str]:
        asked = {"model": served.name, "messages": messages, "max_tokens": 128, "n": n, "temperature": 1}
        body = ChatBody.model_validate(asked)
        chat = ChatCompletion(served, body)
        made = await chat.result(chat.generation.pieces(service.metrics))
        return [choice["message"]["content"] or "" for choice in made["choices"]]

    each = min(each, MOST // max(1, len(runs)))
    said = await asyncio.gather(*(one(served, each) for served in runs))
    writers: dict[str, list[str]] = {}
    for served, texts in zip(runs, said, strict=True):
        for text in texts:
            writers.setdefault(text.strip(), []).append(served.name)
    if len(writers) < 2:
        raise SanbuError("all answers are equal; increase the answers per run or select more runs")
    return shuffled({"messages": messages, "answers": list(writers), "runs": list(writers.values())})


def shuffled(row: Row) -> Row:
    """The same answers in another order, without ranks."""
    count = len(row["answers"])
    order = random.sample(range(count), count)
    return {"messages": row["messages"], **{key: [row[key][i] for i in order] for key in ("answers", "runs")}}
