"""Chat: several runs answer the same message side by side, each with its own conversation history.

The conversations are a JSON text in the hidden box `kept`, which the browser also stores. All else that the tab shows
follows from it. No handler writes to the box in which a person types.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Any

import gradio as gr

from sanbu.config import SanbuError
from sanbu.serve.service import Service
from sanbu.studio import chat_scripts as scripts
from sanbu.studio.address import keep_widgets
from sanbu.studio.answering import Answering, Sampling, ask, edit
from sanbu.studio.conversation import (
    JOINER,
    Kept,
    Turns,
    download_link,
    exported,
    read_kept,
    shown_messages,
    write_kept,
)
from sanbu.studio.error_texts import error_text
from sanbu.studio.notes import about_run, alert, last_answer, plain_html, status
from sanbu.studio.translations import Language, language_of, say, translate

COLUMNS, EXAMPLES = 4, 3
STORED = 16  # every so many updates of a text that is being written, the browser stores it
NOTHING: Mapping[str, Exception] = MappingProxyType({})
HIDDEN: dict[str, Any] = {"show_progress": "hidden"}


def chat_tab(blocks: gr.Blocks, service: Service) -> None:
    """The chat tab, with the first four text runs. Editing a user message regenerates the answers from there."""
    tab = ChatTab(service)
    tab.connect_sending()
    tab.connect_rest()
    tab.connect_storage(blocks)


class ChatTab:
    """The widgets of the tab and their events. running: what is being answered, by session of a page."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.names = service.names(writes=True)[:COLUMNS]
        self.running: dict[str, Answering] = {}
        self.kept = gr.Textbox(visible="hidden", elem_id="kept")
        self.asked = gr.Textbox(visible="hidden", elem_id="asked")  # a message on its way from the box to the runs
        several = len(self.names) > 1
        self.who = gr.CheckboxGroup(self.names, value=self.names, label=say("who"), elem_id="who", visible=several)
        self.switch = gr.Radio(  # on a phone, where CSS shows the chosen run only
            self.names, value=self.names[0], label=say("switch"), elem_id="switch", visible=several, interactive=True
        )
        with gr.Row(elem_id="columns"):
            self.columns = [self._column(number, name) for number, name in enumerate(self.names)]
        self.told = gr.HTML(elem_id="told")
        with gr.Row(elem_id="examples", visible=True) as self.examples:
            numbers = range(1, EXAMPLES + 1)
            self.questions = [gr.Button(say(f"example_{i}"), size="sm", elem_id=f"example-{i}") for i in numbers]
        self._input()
        self.options = self._options()
        boxes, notes, pagers = zip(*self.columns, strict=True)
        self.boxes = boxes
        single = [self.asked, self.kept, self.told, self.send, self.stop, self.examples, self.export]
        self.everything = [*single, *boxes, *notes, *pagers]

    def _column(self, number: int, name: str) -> tuple[gr.Chatbot, gr.HTML, gr.Row]:
        """What one run said, the line about its last answer, and the buttons to page through versions."""
        with gr.Column(min_width=200, elem_classes=["run", f"run-{number + 1}"]):
            box = gr.Chatbot(
                label=name,
                elem_id=f"said-{name}",
                height=420,
                editable="user",
                buttons=["copy"],
                render_markdown=False,
                sanitize_html=True,
                allow_tags=False,
            )
            note = gr.HTML(elem_id=f"note-{name}")
            with gr.Row(visible=False, elem_id=f"versions-{name}") as pager:
                for word, step in (("previous", -1), ("next", 1)):
                    button = gr.Button(say(word), size="sm", elem_id=f"{word}-{name}")
                    button.click(
                        self.page, [gr.State(name), gr.State(step), self.kept], [self.kept, box, note], **HIDDEN
                    )
        return box, note, pager

    def _input(self) -> None:
        """The box to type in, with Send, which becomes Stop while an answer is written; and what else can be done."""
        with gr.Row(elem_id="ask"):
            self.words = gr.Textbox(
                label=say("ask"),
                placeholder=say("ask"),
                show_label=False,
                elem_id="words",
                container=False,
                autofocus=True,
                max_lines=4,
                scale=8,
            )
            self.send = gr.Button(say("send"), variant="primary", elem_id="send", scale=1, min_width=90)
            self.stop = gr.Button(say("stop"), variant="stop", elem_id="stop", scale=1, min_width=90, visible=False)
        with gr.Row(elem_id="more"):
            self.again = gr.Button(say("again"), elem_id="again", min_width=90)
            self.clear = gr.Button(say("clear"), elem_id="clear", min_width=90)
            self.export = gr.HTML(elem_id="export")

    def _options(self) -> list[Any]:
        """Who answers, and how answers are sampled."""
        with gr.Row():
            system = gr.Textbox(label=say("system"), elem_id="system")
            temperature = gr.Textbox(label=say("temperature"), placeholder=say("own"), elem_id="heat")
            most = gr.Slider(1, 512, 64, step=1, label=say("tokens"), elem_id="most")
            seed = gr.Number(0, precision=0, label=say("seed"), elem_id="seed")
            remember = gr.Checkbox(True, label=say("remember"), elem_id="remember")
        return [self.who, system, temperature, most, seed, remember]

    # -- events -------------------------------------------------------------------------------------------------------

    def connect_sending(self) -> None:
        """Sending and stopping. A message leaves the box in the browser, at once, and comes back if refused."""
        asking = []
        taken = [self.words, self.asked, self.who]
        for trigger in (self.send.click, self.words.submit):
            asking.append(trigger(None, taken, [self.words, self.asked], js=scripts.TAKE, **HIDDEN))
        for number, button in enumerate(self.questions, 1):
            script = scripts.example(f"example-{number}")
            asking.append(button.click(None, [self.asked, self.who], self.asked, js=script, **HIDDEN))
        inputs = [self.asked, self.kept, *self.options]
        for each in asking:
            self._answer_event(each.then, self.send_message, inputs)
        self._answer_event(self.again.click, self.regenerate, inputs[1:])
        for name, box in zip(self.names, self.boxes, strict=True):
            self._answer_event(box.edit, self.edit_handler(name), inputs[1:])
        self.stop.click(self.stop_answers, None, None, queue=False, js=scripts.FOCUS, trigger_mode="multiple", **HIDDEN)

    def _answer_event(self, trigger: Any, handler: Any, inputs: Sequence[Any]) -> None:
        """An event in which runs answer. Send comes back after its end: until then the library drops a second one.

        No limit: requests wait in the engine's queue instead, where Stop can cancel them.
        """
        event = trigger(handler, inputs, self.everything, concurrency_limit=None, **HIDDEN)
        event.then(None, [self.words, self.asked], [self.words, self.asked], js=scripts.GIVE_BACK, **HIDDEN)
        event.then(self.give_send, None, [self.send, self.stop], queue=False, **HIDDEN)

    def connect_rest(self) -> None:
        """Clearing, all runs or by the library's own button one. The system prompt is part of what is exported."""
        system = self.options[1]
        system.change(self.export_link, [self.kept, system], self.export, **HIDDEN)
        emptied = self.clear.click(None, None, [self.kept, self.told], js=scripts.CLEAR, **HIDDEN)
        emptied.then(self.restore, [self.kept, system], self.everything, **HIDDEN)
        for name, box in zip(self.names, self.boxes, strict=True):
            cleared = box.clear(None, self.kept, self.kept, js=scripts.forget(name), **HIDDEN)
            cleared.then(self.clear_one, [gr.State(name), self.kept, system], self.everything, **HIDDEN)

    def connect_storage(self, blocks: gr.Blocks) -> None:
        """The browser stores conversations and options, and gives them back after a reload."""
        stored = [self.kept, *self.options]
        gr.on([each.change for each in stored], None, stored, None, js=scripts.SAVE, **HIDDEN)
        blocks.load(None, self.words, self.words, js=scripts.DRAFT, **HIDDEN)
        loaded = blocks.load(None, stored, stored, js=scripts.LOAD, **HIDDEN)
        restored = loaded.then(self.restore, [self.kept, self.options[1]], self.everything, **HIDDEN)
        names = ("who", "system", "temperature", "tokens", "seed", "remember")
        keep_widgets(restored, {**dict(zip(names, self.options, strict=True)), "column": self.switch})

    # -- handlers -----------------------------------------------------------------------------------------------------

    async def send_message(
        self, request: gr.Request, text: str, kept: str, who: list[str], *options: Any
    ) -> AsyncIterator[list[Any]]:
        """Ask the chosen runs. A message that is refused stays in `asked`, from where it goes back into the box."""
        names = [name for name in self.names if name in who and text.strip()]
        asking = self.answer(request, kept, names, options, lambda found: ask(found, names, text))
        async with aclosing(asking) as updates:
            async for update in updates:
                yield update or self.refuse(request, "no_text" if who else "no_run")

    async def regenerate(
        self, request: gr.Request, kept: str, who: list[str], *options: Any
    ) -> AsyncIterator[list[Any]]:
        """Another version of the last answer of each chosen run."""
        found = read_kept(kept)
        names = [name for name in self.names if name in who and found.get(name)]
        async with aclosing(self.answer(request, kept, names, options)) as updates:
            async for update in updates:
                yield update or self.refuse(request, "no_turn" if who else "no_run")

    def edit_handler(self, name: str) -> Any:
        """The event handler that answers an edited message again."""

        async def answer_again(
            data: gr.EditData, request: gr.Request, kept: str, who: list[str], *options: Any
        ) -> AsyncIterator[list[Any]]:
            place = data.index if isinstance(data.index, int) else data.index[0]
            text = str(data.value).replace(JOINER, "")
            asking = self.answer(request, kept, [name], options, lambda found: edit(found[name], place, text))
            async with aclosing(asking) as updates:
                async for update in updates:
                    yield update

        return answer_again

    async def answer(
        self,
        request: gr.Request,
        kept: str,
        names: Sequence[str],
        options: Sequence[Any],
        change: Callable[[Kept], None] = lambda found: None,
    ) -> AsyncGenerator[list[Any]]:
        """What the page shows while runs answer the last question, after a change of the conversations.

        An empty list if there is no run to answer.
        """
        session, language, found = str(request.session_hash), language_of(request), read_kept(kept)
        if session in self.running or not names:
            yield self.refuse(request, "busy") if session in self.running else []
            return
        try:
            how = Sampling.read(*options)
        except SanbuError as error:
            yield self.say(alert(error_text(error, language)))
            return
        change(found)
        self.running[session] = answering = Answering(self.service, found, names, how)
        try:
            yield self.show(found, language, how.system, busy=True)
            async with aclosing(answering.stream()) as updates:
                async for number in updates:
                    yield self.show_text(found, names, number % STORED == 0)
        finally:
            del self.running[session]
        yield self.show(found, language, how.system, answering.errors)

    async def stop_answers(self, request: gr.Request) -> None:
        """End the answers of this page. In the event loop: a queue of asyncio must not be filled by another thread."""
        if str(request.session_hash) in self.running:
            self.running[str(request.session_hash)].stop()

    def give_send(self, request: gr.Request) -> list[Any]:
        """Send in place of Stop, unless another event's answers are being written."""
        done = str(request.session_hash) not in self.running
        return self.buttons(busy=False) if done else [gr.skip()] * 2

    def clear_one(self, request: gr.Request, name: str, kept: str, system: str) -> list[Any]:
        """The page without the conversation of one run, unless something is being answered."""
        running, found = self.running.get(str(request.session_hash)), read_kept(kept)
        if running is None:
            found.pop(name, None)
        updates = self.show(found if running is None else running.kept, language_of(request), system)
        updates[:3] = [gr.skip()] * 3  # a question may be on its way already
        return updates

    def restore(self, request: gr.Request, kept: str, system: str) -> list[Any]:
        """The page with the conversations that the browser has, unless a person has asked something meanwhile."""
        if str(request.session_hash) in self.running:
            return [gr.skip()] * len(self.everything)
        updates = self.show(read_kept(kept), language_of(request), system)
        updates[0] = updates[2] = gr.skip()  # as above
        return updates

    def page(self, request: gr.Request, name: str, step: int, kept: str) -> list[Any]:
        """Another version of the last answer of a run."""
        found = read_kept(kept)
        if found.get(name) and str(request.session_hash) not in self.running:
            found[name][-1].page(step)
        turns = found.get(name, [])
        return [write_kept(found), shown_messages(turns), status(last_answer(turns, language_of(request)))]

    def export_link(self, request: gr.Request, kept: str, system: str) -> str:
        """The link that saves the conversations as a file."""
        return self.link(read_kept(kept), system, language_of(request))

    # -- what is shown ------------------------------------------------------------------------------------------------

    def say(self, line: str) -> list[Any]:
        """Only a line above the box."""
        updates: list[Any] = [gr.skip()] * len(self.everything)
        updates[2] = line
        return updates

    def refuse(self, request: gr.Request, word: str) -> list[Any]:
        """A line that says why nothing is done."""
        return self.say(alert(translate(word, language_of(request))))

    def show_text(self, kept: Kept, names: Sequence[str], store: bool) -> list[Any]:
        """Only the conversations that are being written. store: the browser keeps them too.

        What `show` hides and shows is repeated: the library changes an update in place by the next one, so that of two
        that arrive together the first would lose what the second does not have.
        """
        texts = [shown_messages(kept[name]) if name in names else gr.skip() for name in self.names]
        stored = write_kept(kept) if store else gr.skip()
        single = [gr.skip(), stored, gr.skip(), *self.buttons(busy=True), gr.Row(visible=False), gr.skip()]
        return [*single, *texts, *[gr.skip() for _ in texts], *[gr.Row(visible=False) for _ in texts]]

    def buttons(self, busy: bool) -> list[Any]:
        """Send and Stop."""
        return [gr.Button(visible=not busy), gr.Button(visible=busy)]

    def show(
        self,
        kept: Kept,
        language: Language,
        system: str,
        errors: Mapping[str, Exception] = NOTHING,
        busy: bool = False,
    ) -> list[Any]:
        """Everything that follows from the conversations."""
        found = {name: kept.get(name, []) for name in self.names}
        boxes = [self.box(name, turns, language) for name, turns in found.items()]
        notes = [self.note(turns, language, errors.get(name)) for name, turns in found.items()]
        paged = [not busy and several_versions(turns) for turns in found.values()]
        buttons = self.buttons(busy) if busy else [gr.skip()] * 2  # Send comes back later, by `give_send`
        examples = gr.Row(visible=not any(found.values()))
        single = ["", write_kept(kept), "", *buttons, examples, self.link(kept, system, language)]
        pagers = [gr.Row(visible=several) for several in paged]
        return [*single, *boxes, *notes, *pagers]

    def box(self, name: str, turns: Turns, language: Language) -> gr.Chatbot:
        """The conversation with a run; before it, a line about the run."""
        messages: Any = shown_messages(turns)
        return gr.Chatbot(messages, placeholder=plain_html(about_run(self.service, name, language)))

    def note(self, turns: Turns, language: Language, error: Exception | None) -> str:
        """The line under a conversation: an error, or how the last answer ended."""
        return alert(error_text(error, language)) if error else status(last_answer(turns, language))

    def link(self, kept: Kept, system: str, language: Language) -> str:
        """The link that saves the conversations; none before there is an answer."""
        shown = {name: kept[name] for name in self.names if name in kept}
        content = exported(shown, system)
        return download_link(content, translate("export", language)) if content.strip() != "[]" else ""


def several_versions(turns: Turns) -> bool:
    """Whether the last question was answered more than once."""
    return bool(turns) and len(turns[-1].versions) > 1
