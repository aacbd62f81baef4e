"""Speech tab: a text spoken by one run or by two side by side, with wave, mel and pitch; and the text of a sound."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from sanbu.codecs.speech.sound_picture import picture_of
from sanbu.serve.errors import api_error
from sanbu.serve.service import Service
from sanbu.serve.speech import SpeechBody, SpeechGeneration, Transcription
from sanbu.studio.address import keep_widgets
from sanbu.studio.error_texts import error_text
from sanbu.studio.translations import Language, language_of, say, translate

SPOKEN = "Three steps make a model."


def speech_tab(blocks: gr.Blocks, service: Service) -> None:
    """The speech tab: a player, a picture and a line of figures per run; a recogniser below them, if one is served."""
    names = service.sounding("voices")
    voices = list(dict.fromkeys(voice for name in names for voice in voices_of(service, name)))
    with gr.Row():
        first = gr.Dropdown(names, value=names[0], label=say("model"), elem_id="speech-first")
        second = gr.Dropdown(["", *names], value="", label=say("beside"), elem_id="speech-second")
        voice = gr.Dropdown(voices, value=voices[0], label=say("voice"), elem_id="speech-voice")
        rate = gr.Slider(0.5, 2.0, 1.0, step=0.05, label=say("speed"), elem_id="speech-rate")
    text = gr.Textbox(SPOKEN, label=say("text"), lines=2, elem_id="speech-text")
    keep_widgets(blocks.load(None), {"speaker": first, "beside": second, "voice": voice, "speed": rate, "text": text})
    speak = gr.Button(say("speak"), variant="primary", elem_id="speak")
    shown: list[Any] = []
    with gr.Row():
        for number in (1, 2):
            with gr.Column(min_width=300, visible=number == 1 or len(names) > 1):
                sound = gr.Audio(
                    label=say("sound"), interactive=False, buttons=["download"], elem_id=f"speech-sound-{number}"
                )
                picture = gr.Image(show_label=False, format="png", elem_id=f"speech-picture-{number}", buttons=[])
                told = gr.Textbox(show_label=False, container=False, interactive=False, elem_id=f"speech-told-{number}")
                shown += [sound, picture, told]

    async def both(
        request: gr.Request, first: str, second: str, voice: str, rate: float, text: str
    ) -> AsyncIterator[list[Any]]:
        made: list[Any] = [None, None, ""] * 2
        for number, name in enumerate((first, second)):
            if name in names:
                made[3 * number : 3 * number + 3] = await spoken(service, name, voice, rate, text, language_of(request))
                yield made

    speak.click(both, [first, second, voice, rate, text], shown, concurrency_limit=2)
    if service.sounding("sound"):
        listen_part(service)


def listen_part(service: Service) -> None:
    """A sound from the microphone or a file, and the text that a recogniser reads in it."""
    heard = gr.Audio(
        sources=["upload", "microphone"], type="filepath", label=say("listen"), buttons=[], elem_id="speech-heard"
    )
    read = gr.Textbox(label=say("heard"), interactive=False, elem_id="speech-read")

    async def recognise(request: gr.Request, path: str | None) -> str:
        return await recognised(service, path, language_of(request)) if path else ""

    heard.change(recognise, heard, read, concurrency_limit=2)


def voices_of(service: Service, name: str) -> tuple[str, ...]:
    """The voices of a run."""
    codec: Any = service.find(name).run.codec
    return tuple(codec.voices)


async def spoken(
    service: Service, name: str, voice: str, rate: float, text: str, language: Language = "en"
) -> list[Any]:
    """Sound as (rate, samples), a picture, and seconds of sound with the time to its first piece and to its end."""
    served = service.find(name)
    own = voice if voice in voices_of(service, name) else None
    begun, first = time.perf_counter(), 0.0
    try:
        fields = {"model": name, "input": text, "voice": own, "response_format": "pcm", "speed": rate}
        made = SpeechGeneration(served, SpeechBody.model_validate(fields))
        parts: list[np.ndarray] = []
        async for piece in made.waves():
            if len(piece):
                first = first or time.perf_counter() - begun
                parts.append(piece)
    except Exception as error:
        return [None, None, error_text(api_error(error), language)]
    took = time.perf_counter() - begun
    wave, mel = np.concatenate(parts), served.run.recipe.data.space().mel
    seconds = len(wave) / mel.rate
    picture = np.asarray(Image.open(io.BytesIO(picture_of(wave, mel))).convert("RGB"))
    told = translate("spoken", language).format(seconds=seconds, first=1000 * first, all=1000 * took)
    return [(mel.rate, np.round(wave * 32767).astype(np.int16)), picture, told]


async def recognised(service: Service, path: str, language: Language = "en") -> str:
    """The text of a sound file, or what is wrong with it."""
    try:
        with open(path, "rb") as file:
            made = Transcription(service.find(service.sounding("sound")[0]), file.read(), "sound", "json")
        found: Any = await made.result(made.texts())
        return str(found["text"])
    except Exception as error:
        return error_text(api_error(error), language)
