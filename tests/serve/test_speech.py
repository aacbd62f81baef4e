"""/v1/audio/speech and /v1/audio/transcriptions with the openai client, and the encoder of streams."""

import base64
import io
import json

import httpx
import numpy as np
import openai
import pytest
import soundfile
import torch

import sanbu
from sanbu.codecs.audio import FORMATS, AudioError, encode
from sanbu.codecs.sound_stream import SoundStream
from sanbu.serve.speech import MEDIA
from tests.serve.conftest import Served
from tests.sound.test_speech_runs import cache, corpus, runs  # noqa: F401


@pytest.fixture(scope="module")
def served(runs):  # noqa: F811
    with Served([runs / "voice", runs / "recogniser"]) as one:
        torch.nn.init.constant_(one.service.find("voice").run.model.durations.out.bias, 1.5)
        yield one


@pytest.fixture
def client(served):
    return openai.OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0)


# -- the encoder ------------------------------------------------------------------------------------------------------


def decoded(content, suffix, rate):
    if suffix == "pcm":
        return np.frombuffer(content, "<i2").astype(np.float32) / 32768, 24000
    return soundfile.read(io.BytesIO(content), dtype="float32")


@pytest.mark.parametrize("suffix", list(FORMATS))
def test_pieces_make_the_file_of_the_whole(suffix):
    """Exactly where the coding is exact; the right length and pitch elsewhere."""
    tone = (0.3 * np.sin(np.arange(44100) * 2 * np.pi * 220 / 22050)).astype(np.float32)
    stream = SoundStream(22050, suffix)
    made = b"".join(stream.encode(tone[start : start + 3000] for start in range(0, 44100, 3000)))
    wave, rate = decoded(made, suffix, 22050)
    whole, _ = decoded(encode(tone, 22050, suffix), suffix, 22050)
    assert abs(len(wave) / rate - 2) < 0.1
    if suffix in ("wav", "flac", "pcm"):
        np.testing.assert_allclose(wave[: len(whole)], whole[: len(wave)], atol=2e-4)
    spectrum = np.abs(np.fft.rfft(wave[4000 : 4000 + rate]))
    assert spectrum.argmax() == 220


def test_the_first_piece_comes_at_once():
    for suffix in ("wav", "pcm", "mp3"):
        assert len(SoundStream(22050, suffix).feed(np.zeros(8192, np.float32))) > 100
    with pytest.raises(AudioError, match="format: given 'aac', allowed: wav"):
        SoundStream(22050, "aac")


# -- speech -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", list(FORMATS))
def test_every_format(client, suffix):
    with client.audio.speech.with_streaming_response.create(
        model="voice", input="One small step.", voice="bob", response_format=suffix
    ) as answer:
        assert answer.headers["content-type"] == MEDIA[suffix]
        content = b"".join(answer.iter_bytes())
    wave, _ = decoded(content, suffix, 8000)
    assert len(wave) > 1000 and np.isfinite(wave).all()


def test_the_sound_is_that_of_the_library(client, runs):  # noqa: F811
    content = client.audio.speech.create(
        model="voice", input="One step. Two more!", voice="ada", response_format="wav", speed=0.8
    ).content
    run = sanbu.load(runs / "voice")
    torch.nn.init.constant_(run.model.durations.out.bias, 1.5)
    wave, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    true = run.generate({"text": "One step. Two more!", "voice": "ada"}, rate=0.8)
    assert rate == 8000
    np.testing.assert_allclose(wave, true, atol=2e-4)


def test_events(served):
    body = {"model": "voice", "input": "One. Two.", "response_format": "pcm", "stream_format": "sse"}
    events = []
    with httpx.stream("POST", served.url + "/v1/audio/speech", json=body, timeout=60) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert events[-1]["type"] == "speech.audio.done" and len(events) > 2
    content = b"".join(base64.b64decode(each["audio"]) for each in events[:-1])
    assert len(content) % 2 == 0 and len(content) > 1000


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"response_format": "aac"}, "response_format", "given 'aac', allowed: wav, flac, mp3, ogg, opus, pcm"),
        ({"voice": "adda"}, "voice", "given 'adda', allowed: ada, bob; did you mean 'ada'"),
        ({"voice": "99"}, "voice", "given '99', allowed: ada, bob"),
        ({"input": "..."}, "input", "no letter or number"),
        ({"input": ""}, "input", "at least 1 character"),
        ({"input": "a" * 4097}, "input", "at most 4096 characters"),
        ({"speed": 9}, "speed", "less than or equal to 4"),
        ({"instructions": "whisper"}, "instructions", "take none"),
        ({"model": "recogniser"}, "model", "does not speak"),
        ({"model": "voyce"}, "model", "did you mean 'voice'"),
        ({"loudness": 2}, "loudness", "loudness"),
    ],
)
def test_bad_requests_name_the_field(served, changes, field, said):
    body = {"model": "voice", "input": "One step.", "voice": "ada", **changes}
    answer = httpx.post(served.url + "/v1/audio/speech", json=body, timeout=60)
    error = answer.json()["error"]
    assert answer.status_code in (400, 404) and said in error["message"] and error["param"] == field, error


# -- transcriptions ---------------------------------------------------------------------------------------------------


def test_a_sound_is_read(client, runs, corpus):  # noqa: F811
    path = corpus / "ada" / "1.wav"
    run = sanbu.load(runs / "recogniser")
    found = client.audio.transcriptions.create(model="recogniser", file=path.open("rb"))
    assert found.text == run.generate(str(path))
    text = client.audio.transcriptions.create(model="recogniser", file=path.open("rb"), response_format="text")
    assert str(text).strip() == run.generate(str(path))


def test_what_is_no_sound_is_refused(served):
    for name, content, said in (("x.wav", b"RIFF", "cannot be read as sound"), ("e.mp3", b"", "is empty")):
        answer = httpx.post(served.url + "/v1/audio/transcriptions", files={"file": (name, content)}, timeout=60)
        assert answer.status_code == 400 and said in answer.json()["error"]["message"]
        assert answer.json()["error"]["param"] == "file"
    answer = httpx.post(served.url + "/v1/audio/transcriptions", data={"model": "recogniser"}, timeout=60)
    assert answer.status_code == 400 and "file" in answer.json()["error"]["message"]


def test_other_endpoints_refuse_runs_of_sound(served):
    body = {"model": "voice", "messages": [{"role": "user", "content": "hi"}]}
    for name in ("voice", "recogniser"):
        answer = httpx.post(served.url + "/v1/chat/completions", json={**body, "model": name}, timeout=60)
        assert answer.status_code == 400, answer.text
    answer = httpx.post(served.url + "/v1/images/generations", json={"prompt": "a"}, timeout=60)
    assert answer.status_code == 404
