"""Label: people rank answers without knowing which run wrote them; rankings are data for reward models and DPO."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import gradio as gr
from filelock import FileLock

from sanbu.config import SanbuError
from sanbu.files import write_text
from sanbu.serve.chat import ChatCompletion
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.schemas import ChatBody
from sanbu.serve.service import Service
from sanbu.studio.translations import say

MOST = 9
Row = dict[str, Any]


def label_tab(service: Service, file: Path) -> None:
    """The label tab; every saved ranking is a line of `file`.

    Long because the widgets of a tab and their events refer to each other.
    """
    known = service.names(writes=True)
    gr.Markdown(say("written"))
    who = gr.CheckboxGroup(known, value=known[:4], label=say("who"))
    with gr.Row():
        question = gr.Textbox(label=say("question"), elem_id="question", scale=4)
        each = gr.Slider(1, MOST, 1, step=1, label=say("answers"))
    with gr.Row():
        fetch = gr.Button(say("fetch"), variant="primary", elem_id="fetch")
        review = gr.Button(say("review"), elem_id="review")
    boxes = [
        gr.Textbox(label=str(i + 1), interactive=False, visible=False, elem_id=f"answer-{i + 1}") for i in range(MOST)
    ]
    order = gr.Textbox(label=say("order"), elem_id="order")
    save = gr.Button(say("save"), variant="primary", elem_id="save-order")
    saved = gr.Textbox(label=say("saved"), interactive=False, elem_id="saved", lines=3)
    held = gr.State(None)  # kept on the server, so that the page does not reveal the authors

    async def fetch_answers(names: Sequence[str], text: str, each: float) -> list[Any]:
        try:
            row = await answers(service, [service.find(name) for name in names if name in known], text, int(each))
        except Exception as error:
            return [None, *answer_boxes(None), "", str(error)]
        return [row, *answer_boxes(row), "", ""]

    def load_saved() -> list[Any]:
        kept = read(file)
        row = shuffled(random.choice(kept)) if kept else None
        return [row, *answer_boxes(row), row["messages"][-1]["content"] if row else "", ""]

    def save_order(row: Row | None, text: str) -> list[Any]:
        try:
            if row is None:
                raise SanbuError("no answers to rank; press Get answers first")
            ranks = read_order(text, len(row["answers"]))
        except SanbuError as error:
            return [row, text, str(error)]
        append(file, {**row, "ranks": ranks, "time": int(time.time())})
        return [None, "", summary({**row, "ranks": ranks}, read(file), file)]

    for trigger in (fetch.click, question.submit):
        trigger(fetch_answers, [who, question, each], [held, *boxes, order, saved])
    review.click(load_saved, None, [held, *boxes, question, saved])
    for trigger in (save.click, order.submit):
        trigger(save_order, [held, order], [held, order, saved])


async def answers(service: Service, runs: Sequence[HostedRun], question: str, each: int) -> Row:
    """Distinct answers in random order, with their authors. Raises SanbuError if there are fewer than two."""
    if not question.strip():
        raise SanbuError("the question is empty; enter a question")
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
    places = random.sample(range(len(row["answers"])), len(row["answers"]))
    return {"messages": row["messages"], **{key: [row[key][i] for i in places] for key in ("answers", "runs")}}


def read_order(text: str, count: int) -> list[int]:
    """Parse `2 1=3` into the rank of each answer, 0 = best. Raises SanbuError unless every number occurs once."""
    groups = [
        re.split(r"\s*=\s*", part) for part in re.sub(r"\s*=\s*", "=", text.replace(",", " ").replace(">", " ")).split()
    ]
    given = [number for group in groups for number in group]
    if sorted(given) != sorted(str(i + 1) for i in range(count)):
        raise SanbuError(
            f"given {text!r}; enter each number from 1 to {count} once, best first, for example {example(count)!r}"
        )
    ranks = {number: rank for rank, group in enumerate(groups) for number in group}
    return [ranks[str(i + 1)] for i in range(count)]


def example(count: int) -> str:
    """An example ranking of `count` answers."""
    return " ".join(map(str, range(count, 0, -1)))


def append(file: Path, row: Row) -> None:
    """Append a row atomically; safe when several people save at the same time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(file) + ".lock"):
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        write_text(file, before + json.dumps(row, ensure_ascii=False) + "\n")


def read(file: Path) -> list[Row]:
    """All saved rows."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line] if file.exists() else []


def preferences(rows: Iterable[Row]) -> Counter[tuple[str, str, str]]:
    """How often each (question, better, worse) was judged, without ties."""
    return Counter(
        (json.dumps(row["messages"]), *((one, other) if i < j else (other, one)))
        for row in rows
        for (one, i), (other, j) in combinations(zip(row["answers"], row["ranks"], strict=True), 2)
        if i != j
    )


def agreement(rows: Iterable[Row]) -> tuple[float, int]:
    """The fraction of agreeing judgements among all two judgements of the same pair, and their number."""
    judged = preferences(rows)
    alike = sum(count * (count - 1) // 2 for count in judged.values())
    unlike = sum(count * judged[question, worse, better] for (question, better, worse), count in judged.items()) // 2
    return alike / max(1, alike + unlike), alike + unlike


def win_counts(rows: Iterable[Row]) -> dict[str, tuple[int, int]]:
    """Per run: comparisons won against other runs, and comparisons."""
    wins, pairs = Counter[str](), Counter[str]()
    for row in rows:
        for (one, i), (other, j) in combinations(zip(row["runs"], row["ranks"], strict=True), 2):
            if i != j:
                for name in {*one} ^ {*other}:
                    pairs[name] += 1
                    wins[name] += (name in one) == (i < j)
    return {name: (wins[name], pairs[name]) for name in sorted(pairs)}


def summary(row: Row, rows: Sequence[Row], file: Path) -> str:
    """The authors of the answers, the wins per run, and the agreement of all judgements."""
    best = sorted(zip(row["ranks"], row["runs"], strict=True), key=lambda pair: pair[0])
    share, twos = agreement(rows)
    lines = [
        " > ".join("+".join(names) for _, names in best),
        ", ".join(f"{name} {wins}/{pairs}" for name, (wins, pairs) in win_counts(rows).items()),
        f"rankings in {file.name}: {len(rows)}" + (f", agreement: {share:.0%} of {twos} comparisons" if twos else ""),
    ]
    return "\n".join(lines)


def answer_boxes(row: Row | None) -> list[Any]:
    """Text boxes with the answers of a row; the others are hidden."""
    texts = row["answers"] if row else []
    shown = [gr.Textbox(text, visible=True) for text in texts[:MOST]]
    return [*shown, *(gr.Textbox("", visible=False) for _ in range(MOST - len(shown)))]
