"""Every request, valid or not, gets a clear answer, and abandoned requests free their resources."""

import http.client
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from sanbu.config import SanbuError
from sanbu.serve.key_file import make
from sanbu.serve.keys import Keys
from tests.command_line import sanbu
from tests.serve.conftest import Served

ASKED = [{"role": "user", "content": "What is 3?"}]
CHAT = {"model": "talk", "messages": ASKED, "max_tokens": 4}


def figure(url, name):
    """The value of one metric of /metrics."""
    lines = [line for line in httpx.get(url + "/metrics").text.splitlines() if line.startswith(name)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
)
WRONG = [
    ("/v1/chat/completions", {}, 400, "messages", "Field required"),
    ("/v1/chat/completions", {**CHAT, "messages": []}, 400, "messages", "at least 1"),
    ("/v1/chat/completions", {**CHAT, "messages": [{"role": "king", "content": "x"}]}, 400, "messages.0.role",
     "'developer', 'system', 'user'"),
    ("/v1/chat/completions", {**CHAT, "temperature": 3}, 400, "temperature", "less than or equal to 2"),
    ("/v1/chat/completions", {**CHAT, "temperature": "1"}, 400, "temperature", "valid number"),
    ("/v1/chat/completions", {**CHAT, "n": 0}, 400, "n", "greater than or equal to 1"),
    ("/v1/chat/completions", {**CHAT, "max_tokens": -1}, 400, "max_tokens", "greater"),
    ("/v1/chat/completions", {**CHAT, "logit_bias": {"x": 1}}, 400, "logit_bias", "no token 'x'; allowed: 0 to 299"),
    ("/v1/chat/completions", {**CHAT, "logit_bias": {"300": 1}}, 400, "logit_bias", "no token '300'"),
    ("/v1/chat/completions", {**CHAT, "top_logprobs": 2}, 400, "top_logprobs", "needs logprobs"),
    ("/v1/chat/completions", {**CHAT, "strategy": {"kind": "bem-search"}}, 400, "strategy", "beam-search"),
    ("/v1/chat/completions", {**CHAT, "strategy": {"beams": 4}}, 400, "strategy", "beams"),
    ("/v1/chat/completions", {**CHAT, "audio": {"voice": "x"}}, 400, "audio", "not supported"),
    ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_schema"}}, 400, "response_format",
     "needs a schema"),
    ("/v1/chat/completions",
     {**CHAT, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}}, 400,
     "response_format", "schema is not supported"),
    ("/v1/chat/completions", {**CHAT, "prediction": {"type": "text", "content": "x"}}, 400, "prediction.type",
     "'content'"),
    ("/v1/chat/completions",
     {**CHAT, "model": "digits", "prediction": {"type": "content", "content": "x"},
         "tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "model", "does not write text"),
    ("/v1/chat/completions", {**CHAT, "prediction": {"type": "content"}}, 400, "prediction.content", "required"),
    ("/v1/chat/completions", {**CHAT, "tool_choice": "required"}, 400, "tool_choice", "no tools"),
    ("/v1/chat/completions", {**CHAT, "model": "digits"}, 400, "model", "does not write text"),
    ("/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": "x " * 900}]}, 400, "messages",
     "allowed: 1 to 511"),
    ("/v1/completions", {"model": "bytes", "prompt": [999]}, 400, None, "no token 999"),
    ("/v1/completions", {"model": "bytes", "prompt": []}, 400, "prompt", "prompt is empty"),
    ("/v1/completions", {"model": "bytes", "prompt": "x", "suffix": "y"}, 400, "suffix", "from left to right"),
    ("/v1/completions", {"model": "bytes", "prompt": "x", "best_of": 4}, 400, "best_of", "not supported"),
    ("/v1/embeddings", {"model": "bytes", "input": [999]}, 400, "input", "no token 999"),
    ("/v1/embeddings", {"model": "digits", "input": "x"}, 400, "model", "does not read text"),
    ("/v1/images/generations", {"model": "talk", "prompt": "x"}, 400, "model", "does not generate images"),
    ("/v1/images/generations", {"model": "digits", "prompt": "1", "size": "9x9"}, 400, "size", "8x8"),
    ("/v1/images/generations", {"model": "digits", "prompt": "1", "strategy": {"steps": 0}}, 400, "strategy", "steps"),
    ("/v1/responses", {"model": "talk", "input": "x", "previous_response_id": "r"}, 400, "previous_response_id",
     "not supported"),
    ("/tokenize", {"model": "bytes"}, 400, "prompt", "either"),
    ("/v1/nothing", {}, 404, None, "no endpoint at /v1/nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "param", "says"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_body_is_one_clear_line_with_the_fields_name(served, path, body, status, param, says):
    body = {"model": "talk", **body}
    answer = httpx.post(served.url + path, json=body)
    error = answer.json()["error"]
    assert answer.status_code == status and error["param"] == param and says in error["message"], error
    assert set(error) == {"message", "type", "param", "code"} and "\n" not in error["message"]
    assert answer.headers["x-request-id"].startswith("req_")


def test_no_json_no_method_no_name_no_path(served):
    assert (
        httpx.post(
            served.url + "/v1/chat/completions", content="{", headers={"content-type": "application/json"}
        ).json()["error"]["message"]
        == "the request body is not valid JSON"
    )
    assert httpx.get(served.url + "/v1/chat/completions").status_code == 405
    for path in ("/v1/models/../../etc/passwd", "/v1/models/..%2f..%2fetc%2fpasswd", "/..%2f..%2fetc/passwd"):
        parts = urlsplit(served.url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 404 and b"root:" not in answer.read()
    given = httpx.get(served.url + "/v1/models", headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    assert (
        httpx.get(served.url + "/v1/models", headers={"x-request-id": "bad id"})
        .headers["x-request-id"]
        .startswith("req_")
    )


def test_a_foreign_page_or_name_gets_nothing(served, runs):
    url = served.url + "/v1/models"
    assert httpx.get(url, headers={"origin": "https://evil.example"}).status_code == 403
    assert httpx.get(url, headers={"host": "evil.example"}).status_code == 403
    assert httpx.get(url, headers={"origin": served.url}).status_code == 200
    assert "access-control-allow-origin" not in httpx.get(url).headers
    page = "https://page.example"
    with Served(runs[:1], origins=[page]) as open_to:
        asked = {
            "origin": page,
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type",
        }
        allowed = httpx.options(open_to.url + "/v1/chat/completions", headers=asked)
        assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == page
        assert (
            httpx.get(open_to.url + "/v1/models", headers={"origin": page}).headers["access-control-allow-origin"]
            == page
        )


@pytest.mark.parametrize("declared", [True, False])
def test_a_huge_body_is_refused(runs, declared):
    with Served(runs[:1], largest=2000) as small:
        content = b"x" * 5000 if declared else (b"x" * 500 for _ in range(10))
        answer = httpx.post(
            small.url + "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 413 and "larger than 2,000 bytes" in answer.json()["error"]["message"]


def test_keys_are_needed_counted_and_never_kept(runs, tmp_path):
    path = tmp_path / "keys.json"
    one, two = make(path, "one"), make(path, "two", requests_per_minute=2)
    with pytest.raises(SanbuError, match="already has a key named 'one'"):
        make(path, "one")
    assert one not in path.read_text() and path.stat().st_mode & 0o77 == 0
    with Served(runs[:1], Keys.load(path)) as closed:
        for wrong in ("none", one[:-1], ""):
            with pytest.raises((openai.AuthenticationError, openai.OpenAIError)):
                closed.client(wrong or " ").models.list()
        assert (
            httpx.get(closed.url + "/metrics").status_code == 401
            and httpx.get(closed.url + "/health").status_code == 200
        )
        assert httpx.get(closed.url + "/v1/models", headers={"authorization": f"Basic {one}"}).status_code == 401
        good = closed.client(one)
        used = sum(good.chat.completions.create(**CHAT).usage.total_tokens for _ in range(3))
        for _ in range(500):  # a request is counted after its answer is sent
            text = httpx.get(closed.url + "/metrics", headers={"authorization": f"Bearer {one}"}).text
            if f'sanbu:key_tokens_total{{key="one"}} {float(used)}' in text:
                break
            time.sleep(0.01)
        assert f'sanbu:key_tokens_total{{key="one"}} {float(used)}' in text
        for _ in range(2):
            closed.client(two).models.list()
        with pytest.raises(openai.RateLimitError, match="rate limit reached: 2 requests per minute") as caught:
            closed.client(two).models.list()
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60


def slowed(service, name, seconds):
    """Slow down every step of an engine."""
    engine = service.find(name).engine
    step = engine.step

    def slow():
        time.sleep(seconds)
        step()

    engine.step = slow
    return engine


def test_queue_full_is_429_and_the_clients_own_retry_succeeds(runs):
    with Served(runs[:1], limits={"queue": 1, "rows": 1}) as busy:
        slowed(busy.service, "talk", 0.05)
        refused, answered = [], []

        def ask(retries):
            try:
                answered.append(
                    busy.client(max_retries=retries).chat.completions.create(**CHAT).usage.completion_tokens
                )
            except openai.RateLimitError as error:
                refused.append(error.response.headers["retry-after"])

        for retries, lost in ((0, True), (5, False)):
            refused.clear()
            threads = [threading.Thread(target=ask, args=(retries,)) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert bool(refused) == lost and set(refused) <= {"1"}
        assert len(answered) >= 5
        busy.quiet()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_frees_its_blocks_within_a_step(runs, stream):
    with Served(runs[:1]) as one:
        engine = slowed(one.service, "talk", 0.02)
        body = json.dumps({**CHAT, "max_tokens": 400, "stream": stream, "logit_bias": {"0": -100}}).encode()
        parts = urlsplit(one.url)
        place = socket.create_connection((parts.hostname, parts.port))
        place.sendall(HEAD % len(body) + body)
        while figure(one.url, "sanbu:num_requests_running") < 1:
            time.sleep(0.01)
        assert figure(one.url, "sanbu:kv_cache_usage_perc") > 0
        place.close()
        begun = engine.counts["steps"]
        while figure(one.url, "sanbu:num_requests_running"):
            time.sleep(0.005)
        assert engine.counts["steps"] - begun < 15, "it went on for nobody"  # the closed socket must be noticed first
        assert engine.counts["finished_cancelled"] == 1
        one.quiet()


def test_a_reader_that_does_not_read_stops_nobody(runs):
    with Served(runs[:1]) as one:
        body = json.dumps(
            {**CHAT, "max_tokens": 400, "n": 20, "stream": True, "logprobs": True, "top_logprobs": 20}
        ).encode()
        parts = urlsplit(one.url)
        with socket.socket() as place:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            place.connect((parts.hostname, parts.port))
            place.sendall(HEAD % len(body) + body)
            for _ in range(3):
                assert one.client().chat.completions.create(**CHAT).usage.completion_tokens
        one.quiet()


def test_too_long_a_time_is_an_end(runs):
    with Served(runs[:1], seconds=0.3) as one:
        slowed(one.service, "talk", 0.1)
        long = {**CHAT, "max_tokens": 300, "logit_bias": {"100": 100}}  # always token 100, so never an end
        with pytest.raises(openai.InternalServerError, match="timed out") as caught:
            one.client(max_retries=3).chat.completions.create(**long)
        assert caught.value.response.headers["x-should-retry"] == "false"
        with pytest.raises(openai.APIError, match="timed out"):
            list(one.client().chat.completions.create(**long, stream=True))
        one.quiet()


def test_what_is_asked_is_not_in_the_log_unless_wanted(runs, caplog):
    for prompts in (False, True):
        with Served(runs[:1], prompts=prompts) as one, caplog.at_level(logging.INFO, logger="sanbu.serve.requests"):
            caplog.clear()
            one.client().chat.completions.create(**CHAT)
            lines = []
            for _ in range(500):  # the line is written after the answer is sent
                lines = [
                    json.loads(record.message) for record in caplog.records if record.name == "sanbu.serve.requests"
                ]
                if lines:
                    break
                time.sleep(0.01)
            assert lines[-1]["status"] == 200 and lines[-1]["model"] == "talk" and lines[-1]["tokens"] > 0
            assert ("What is 3?" in json.dumps(lines)) == prompts


def test_bodies_of_chance_are_answered_with_4xx_and_a_field(served):
    draws = random.Random(0)
    values = [
        None,
        True,
        -1,
        0,
        1e308,
        "",
        "x",
        "\ud800",
        [],
        [[]],
        {},
        {"type": "json_schema"},
        [{"role": "user"}],
        [{"role": "user", "content": [{"type": "image_url"}]}],
        2**70,
    ]
    fields = ["model", "messages", "prompt", "input", "n", "seed", "stop", "temperature", "top_p", "logit_bias",
        "stream", "stream_options", "response_format", "tools", "tool_choice", "strategy", "max_tokens", "logprobs",
        "size", "dimensions", "text"]  # fmt: skip
    bases = {
        "/v1/chat/completions": CHAT, "/v1/completions": {"model": "bytes", "prompt": "x", "max_tokens": 2},
        "/v1/responses": {"model": "talk", "input": "x", "max_output_tokens": 2},
        "/v1/embeddings": {"model": "bytes", "input": "x"},
        "/v1/images/generations": {"model": "digits", "prompt": "1"}, "/tokenize": {"model": "bytes", "prompt": "x"},
    }  # fmt: skip
    with httpx.Client(base_url=served.url, timeout=30) as client:
        for _ in range(400):
            path = draws.choice(list(bases))
            body = bases[path] | {draws.choice(fields): draws.choice(values) for _ in range(draws.randrange(1, 3))}
            answer = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
            assert answer.status_code in (200, 400, 404), (path, body, answer.text)
            if answer.status_code != 200:
                assert answer.json()["error"]["message"]
    served.quiet()


def test_term_drains_what_is_begun(runs, tmp_path):
    code = (
        "import sys, time; from sanbu.serve.engine import Engine; step = Engine.step\n"
        "def slow(self):\n    time.sleep(0.03); step(self)\n"
        "Engine.step = slow; from sanbu.cli.main import main; main()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, "serve", str(runs[0]), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = child.stdout.readline().split()[-1]
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    stream = client.chat.completions.create(**{**CHAT, "max_tokens": 60, "logit_bias": {"0": -100}}, stream=True)
    chunks = [next(stream) for _ in range(5)]
    os.kill(child.pid, signal.SIGTERM)
    chunks += list(stream)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert child.wait(30) in (0, -signal.SIGTERM)
    log = child.stderr.read()
    assert '"status": 200' in log and "Traceback" not in log


def test_what_cannot_be_served_is_one_line_and_exit_code_2(runs, tmp_path):
    def said(*words):
        done = sanbu("serve", *words)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    assert "is not a run" in said(tmp_path)
    (tmp_path / "k.json").write_text("{}")
    assert "is not a key file" in said(runs[0], "--keys", tmp_path / "k.json")
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        place.listen()
        assert "in use" in said(runs[0], "--port", place.getsockname()[1])
    assert "two runs have the same name" in said(runs[0], runs[0])
    assert "given 'int4', allowed: full, bfloat16, int8; did you mean 'int8'?" in said(runs[0], "--weights", "int4")
