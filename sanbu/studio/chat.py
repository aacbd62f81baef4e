"""Chat: several runs answer the same words, side by side, each keeping its own side of the conversation."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import gradio as gr

from sanbu.serve.chat import Chat
from sanbu.serve.errors import translated
from sanbu.serve.hosted_run import Served
from sanbu.serve.schemas import ChatBody
from sanbu.serve.service import Service
from sanbu.studio.translations import say

COLUMNS, JOINER = 4, "\u2060"
History = list[dict[str, Any]]


def chat_tab(service: Service) -> None:
    """The tab of the first four text runs. Changing one's own words asks again from there.

    Long because the widgets of a tab and their events refer to each other.
    """
    runs = [one for one in service.served.values() if one.writes][:COLUMNS]
    names = [one.name for one in runs]
    who = gr.CheckboxGroup(names, value=names, label=say("who"), elem_id="who", visible=len(names) > 1)
    with gr.Row():
        boxes = [
            gr.Chatbot(
                label=name,
                elem_id=f"said-{name}",
                height=420,
                editable="user",
                buttons=["copy"],
                render_markdown=False,
                sanitize_html=True,
                allow_tags=False,
            )
            for name in names
        ]
    words = gr.Textbox(placeholder=say("ask"), show_label=False, elem_id="words", autofocus=True, max_lines=4)
    with gr.Row():
        send = gr.Button(say("send"), variant="primary", elem_id="send")
        stop = gr.Button(say("stop"), elem_id="stop")
        again = gr.Button(say("again"), elem_id="again")
        clear = gr.Button(say("clear"), elem_id="clear")
    with gr.Row():
        system = gr.Textbox(label=say("system"))
        temperature = gr.Slider(0, 2, 1.0, label=say("temperature"))
        most = gr.Slider(1, 512, 64, step=1, label=say("tokens"), elem_id="most")
        seed = gr.Number(0, precision=0, label=say("seed"))
        remember = gr.Checkbox(True, label=say("remember"), elem_id="remember")
    options = [who, system, temperature, most, seed, remember]

    async def asked(text: str, *rest: Any) -> AsyncIterator[list[Any]]:
        histories, chosen, how = split(rest, len(runs))
        for name, history in zip(names, histories, strict=True):
            if name in chosen and text.strip():
                history.append({"role": "user", "content": text})
        yield ["", *shown(histories)]
        async for said in answers(service, runs, histories, chosen, how):
            yield ["", *said]

    async def repeated(*rest: Any) -> AsyncIterator[list[Any]]:
        histories, chosen, how = split(rest, len(runs))
        for history in histories:
            while history and history[-1]["role"] == "assistant":
                history.pop()
        how["seed"] = int(how["seed"]) + sum(map(len, histories)) + 1  # another answer than before
        async for said in answers(service, runs, histories, chosen, how):
            yield said

    events: list[Any] = [
        trigger(asked, [words, *boxes, *options], [words, *boxes], concurrency_limit=8)
        for trigger in (send.click, words.submit)
    ]
    events.append(again.click(repeated, [*boxes, *options], boxes, concurrency_limit=8))
    for number, box in enumerate(boxes):
        events.append(box.edit(edited(service, runs[number]), [box, *options], box, concurrency_limit=8))
    stop.click(None, cancels=events)
    clear.click(lambda: [[] for _ in boxes], None, boxes, cancels=events)


def split(rest: Sequence[Any], count: int) -> tuple[list[History], Sequence[str], dict[str, Any]]:
    """What the page sends: histories, who answers, and how."""
    chosen, system, temperature, most, seed, remember = rest[count:]
    histories = [plain(history) for history in rest[:count]]
    how = {
        "system": system,
        "temperature": temperature,
        "max_tokens": int(most),
        "seed": int(seed or 0),
        "remember": remember,
    }
    return histories, chosen, how


def plain(history: Any) -> History:
    """Messages as role and text; the page may send parts."""
    made = []
    for message in history or ():
        content = message["content"]
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        made.append({"role": message["role"], "content": text.replace(JOINER, "")})
    return made


def shown(histories: Sequence[History]) -> list[History]:
    """The text with a zero-width joiner wherever the page could read a tag or an entity."""
    return [
        [{**message, "content": re.sub(r"[<&](?=\S)", rf"\g<0>{JOINER}", message["content"])} for message in history]
        for history in histories
    ]


def edited(service: Service, served: Served) -> Any:
    """Ask again from a changed question."""

    async def again(data: gr.EditData, history: Any, *options: Any) -> AsyncIterator[History]:
        place = data.index if isinstance(data.index, int) else data.index[0]
        histories, _, how = split([plain(history)[: place + 1], *options], 1)
        histories[0][place]["content"] = str(data.value).replace(JOINER, "")
        async for said in answers(service, [served], histories, [served.name], how):
            yield said[0]

    return again


async def answers(
    service: Service, runs: Sequence[Served], histories: list[History], chosen: Sequence[str], how: dict[str, Any]
) -> AsyncIterator[list[History]]:
    """The histories as the answers of the chosen runs grow. Closing it stops them all."""
    fresh: asyncio.Queue[int] = asyncio.Queue()

    async def listen(number: int) -> None:
        history = histories[number]
        history.append({"role": "assistant", "content": ""})
        try:
            said = [message for message in history[:-1] if message["content"]][0 if how["remember"] else -1 :]
            told = [{"role": "system", "content": how["system"]}] if how["system"] else []
            body = ChatBody.model_validate({
                "model": runs[number].name, "messages": told + said, "temperature": float(how["temperature"]),
                "max_tokens": how["max_tokens"], "seed": how["seed"],
            })  # fmt: skip
            async for piece in Chat(runs[number], body).asked.pieces(service.metrics):
                history[-1]["content"] += piece.text
                fresh.put_nowait(number)
        except Exception as error:
            history[-1]["content"] += f"\n[{translated(error)}]"
        finally:
            fresh.put_nowait(-1)

    asking = [
        i for i, one in enumerate(runs) if one.name in chosen and histories[i] and histories[i][-1]["role"] == "user"
    ]
    tasks = [asyncio.create_task(listen(number)) for number in asking]
    left = len(tasks)
    try:
        while left:
            left -= await fresh.get() < 0
            while not fresh.empty():
                left -= fresh.get_nowait() < 0
            yield shown(histories)
            await asyncio.sleep(0.03)  # a page draws no faster
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
