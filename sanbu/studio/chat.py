"""Chat: several runs answer the same message side by side, each with its own conversation history."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import gradio as gr

from sanbu.codecs.chat import ChatCodec, recent
from sanbu.serve.chat import ChatCompletion
from sanbu.serve.errors import api_error
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.schemas import ChatBody
from sanbu.serve.service import Service
from sanbu.studio.translations import say

COLUMNS, JOINER = 4, "\u2060"
History = list[dict[str, Any]]


def chat_tab(service: Service) -> None:
    """The chat tab, with the first four text runs. Editing a user message regenerates the answers from there.

    Long because the widgets of a tab and their events refer to each other.
    """
    names = service.names(writes=True)[:COLUMNS]
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
        temperature = gr.Textbox(label=say("temperature"), placeholder=say("own"), elem_id="heat")
        most = gr.Slider(1, 512, 64, step=1, label=say("tokens"), elem_id="most")
        seed = gr.Number(0, precision=0, label=say("seed"))
        remember = gr.Checkbox(True, label=say("remember"), elem_id="remember")
    options = [who, system, temperature, most, seed, remember]

    async def ask(text: str, *rest: Any) -> AsyncIterator[list[Any]]:
        histories, chosen, how = split(rest, len(names))
        for name, history in zip(names, histories, strict=True):
            if name in chosen and text.strip():
                history.append({"role": "user", "content": text})
        yield ["", *escape_markup(histories)]
        async for said in answers(service, names, histories, chosen, how):
            yield ["", *said]

    async def regenerate(*rest: Any) -> AsyncIterator[list[Any]]:
        histories, chosen, how = split(rest, len(names))
        for history in histories:
            while history and history[-1]["role"] == "assistant":
                history.pop()
        how["sampling"]["seed"] += sum(map(len, histories)) + 1  # a seed not used before
        async for said in answers(service, names, histories, chosen, how):
            yield said

    events: list[Any] = [
        trigger(ask, [words, *boxes, *options], [words, *boxes], concurrency_limit=8)
        for trigger in (send.click, words.submit)
    ]
    events.append(again.click(regenerate, [*boxes, *options], boxes, concurrency_limit=8))
    for number, box in enumerate(boxes):
        events.append(box.edit(edit_handler(service, names[number]), [box, *options], box, concurrency_limit=8))
    stop.click(None, cancels=events)
    clear.click(lambda: [[] for _ in boxes], None, boxes, cancels=events)


def split(rest: Sequence[Any], count: int) -> tuple[list[History], Sequence[str], dict[str, Any]]:
    """Parse the inputs of an event: histories, selected runs and sampling parameters."""
    chosen, system, temperature, most, seed, remember = rest[count:]
    histories = [plain_messages(history) for history in rest[:count]]
    sampling: dict[str, Any] = {"max_tokens": int(most), "seed": int(seed or 0)}
    if temperature.strip():  # empty: the run's own
        sampling["temperature"] = read_temperature(temperature)
    return histories, chosen, {"system": system, "sampling": sampling, "remember": remember}


def read_temperature(text: str) -> float:
    """A temperature that a person typed. Raises gr.Error."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise gr.Error(f"temperature: given {text!r}, allowed: 0 to 2")
    return value


def plain_messages(history: Any) -> History:
    """Messages with plain text content; the page may send content parts."""
    made = []
    for message in history or ():
        content = message["content"]
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        made.append({"role": message["role"], "content": text.replace(JOINER, "")})
    return made


def escape_markup(histories: Sequence[History]) -> list[History]:
    """Histories with a word joiner inserted wherever the browser could parse a tag or an entity."""
    return [
        [{**message, "content": re.sub(r"[<&](?=\S)", rf"\g<0>{JOINER}", message["content"])} for message in history]
        for history in histories
    ]


def edit_handler(service: Service, name: str) -> Any:
    """The event handler that answers an edited message again."""

    async def again(data: gr.EditData, history: Any, *options: Any) -> AsyncIterator[History]:
        place = data.index if isinstance(data.index, int) else data.index[0]
        histories, _, how = split([plain_messages(history)[: place + 1], *options], 1)
        histories[0][place]["content"] = str(data.value).replace(JOINER, "")
        async for said in answers(service, [name], histories, [name], how):
            yield said[0]

    return again


async def answers(
    service: Service, names: Sequence[str], histories: list[History], chosen: Sequence[str], how: dict[str, Any]
) -> AsyncIterator[list[History]]:
    """The histories while the selected runs stream their answers. Closing it cancels all of them.

    A run that is not trained yet answers with how far it is.
    """
    fresh: asyncio.Queue[int] = asyncio.Queue()

    async def listen(number: int) -> None:
        history = histories[number]
        history.append({"role": "assistant", "content": ""})
        try:
            if names[number] not in service.runs:
                await asyncio.to_thread(service.open_finished)  # it may have ended a moment ago
            hosted = service.find(names[number])
            said = [message for message in history[:-1] if message["content"]][0 if how["remember"] else -1 :]
            told = [{"role": "system", "content": how["system"]}] if how["system"] else []
            asked = {"model": names[number], "messages": fitting(hosted, told + said, how), **how["sampling"]}
            body = ChatBody.model_validate(asked)
            async for piece in ChatCompletion(hosted, body).generation.pieces(service.metrics):
                history[-1]["content"] += piece.text
                fresh.put_nowait(number)
        except Exception as error:
            history[-1]["content"] += f"\n[{api_error(error)}]"
        finally:
            fresh.put_nowait(-1)

    asking = [
        i for i, name in enumerate(names) if name in chosen and histories[i] and histories[i][-1]["role"] == "user"
    ]
    tasks = [asyncio.create_task(listen(number)) for number in asking]
    left = len(tasks)
    try:
        while left:
            left -= await fresh.get() < 0
            while not fresh.empty():
                left -= fresh.get_nowait() < 0
            yield escape_markup(histories)
            await asyncio.sleep(0.03)  # limits the update rate of the page
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def fitting(hosted: HostedRun, messages: History, how: dict[str, Any]) -> History:
    """The messages that fit into the context of a run of chat together with an answer."""
    codec = hosted.run.codec
    if not isinstance(codec, ChatCodec) or not hosted.context:
        return messages
    return recent(codec.template, messages, hosted.context, how["sampling"]["max_tokens"])
