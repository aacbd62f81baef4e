"""Methods, origins, connections: what a server has to answer before it looks at a request."""

import json
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from sanbu.serve import middleware, protocol
from sanbu.serve.key_file import make
from sanbu.serve.keys import Keys
from sanbu.serve.middleware import printable
from sanbu.serve.protocol import LimitedProtocol
from tests.serve.conftest import Served
from tests.serve.test_limits import HEAD, figure, slowed

PAGE = "https://page.example"


@pytest.fixture(scope="module")
def with_page(runs):
    """A server with another application at /, as the studio is."""

    def mount(app, service):
        page = FastAPI()
        page.add_api_route("/", lambda: "the page")
        app.mount("/", page)

    with Served(runs[:1], before=mount) as one:
        yield one


@pytest.mark.parametrize("served_by", ["served", "with_page"])
def test_head_is_get_without_a_body_and_wrong_methods_are_405(request, served_by):
    url = request.getfixturevalue(served_by).url
    for path in ("/health", "/v1/models", "/models", "/v1/models/talk", "/metrics", "/tokenizer_info?model=talk"):
        got, head = httpx.get(url + path), httpx.head(url + path)
        assert got.status_code == head.status_code == 200 and head.content == b""
        assert head.headers["content-type"] == got.headers["content-type"]
    wrong = [
        ("GET", "/v1/chat/completions", "POST"), ("OPTIONS", "/v1/chat/completions", "POST"),
        ("HEAD", "/v1/completions", "POST"), ("DELETE", "/v1/models/talk", "GET, HEAD"),
        ("PUT", "/health", "GET, HEAD"),
        ("PATCH", "/tokenize", "POST"), ("POST", "/v1/models/", "GET, HEAD"), ("TRACE", "/embeddings", "POST"),
    ]  # fmt: skip
    for method, path, allowed in wrong:
        answer = httpx.request(method, url + path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed), (method, path)
        if method != "HEAD":
            assert answer.json()["error"]["message"].endswith(f"allowed: {allowed}")
    assert httpx.get(url + "/v1/models/").json() == httpx.get(url + "/v1/models").json()


def test_every_answer_to_an_allowed_page_can_be_read_by_it(runs, tmp_path):
    path = tmp_path / "keys.json"
    secret = make(path, "ada", requests_per_minute=4)
    with Served(runs[:1], Keys.load(path), origins=[PAGE], largest=2000) as one:
        good = {"authorization": f"Bearer {secret}"}
        answers = [
            httpx.get(one.url + "/v1/models", headers={"origin": PAGE, **good}),
            httpx.get(one.url + "/v1/models", headers={"origin": PAGE, "authorization": "Bearer x"}),
            httpx.get(one.url + "/v1/models", headers={"origin": PAGE}),
            httpx.get(one.url + "/v1/models", headers={"origin": PAGE, "host": "[::1"}),
            httpx.delete(one.url + "/health", headers={"origin": PAGE}),
            httpx.post(one.url + "/v1/completions", headers={"origin": PAGE, **good}, content=b"x" * 5000),
            httpx.post(one.url + "/v1/completions", headers={"origin": PAGE, **good}, json={"model": "no"}),
            *(httpx.get(one.url + "/v1/models", headers={"origin": PAGE, **good}) for _ in range(4)),
        ]
        codes = [answer.status_code for answer in answers]
        assert codes == [200, 401, 401, 400, 405, 413, 400, 200, 200, 429, 429]
        assert {answer.headers.get("access-control-allow-origin") for answer in answers} == {PAGE}
        shown = {name.strip().lower() for name in answers[-1].headers["access-control-expose-headers"].split(",")}
        assert {"retry-after", "x-request-id"} <= shown
        foreign = httpx.get(one.url + "/v1/models", headers={"origin": "https://other.example", **good})
        assert foreign.status_code == 403 and "access-control-allow-origin" not in foreign.headers


@pytest.mark.parametrize(
    "heads",
    [
        {"host": "[::1"},
        {"host": "localhost:x]["},
        {"origin": "http://["},
        {"origin": "http://[::1", "host": "localhost"},
    ],
    ids=str,
)
def test_malformed_addresses_are_400(served, heads):
    answer = httpx.get(served.url + "/v1/models", headers=heads)
    assert answer.status_code in (400, 403) and answer.json()["error"]["message"]


def test_answers_whose_client_left_are_counted_as_such(runs):
    with Served(runs[:1]) as one:
        parts = urlsplit(one.url)
        for stream in (False, True, False):
            body = json.dumps({
                "model": "talk", "messages": [{"role": "user", "content": "x"}], "max_tokens": 400, "stream": stream,
                "logit_bias": {"0": -100}, "n": 2,
            }).encode()  # fmt: skip
            with socket.create_connection((parts.hostname, parts.port)) as place:
                place.sendall(HEAD % len(body) + body)
                while figure(one.url, "sanbu:num_requests_running") < 1:
                    time.sleep(0.005)
        while figure(one.url, 'sanbu:request_success_total{finished_reason="abort"}') < 6:
            time.sleep(0.01)
        one.quiet()
        assert figure(one.url, 'sanbu:request_success_total{finished_reason="abort"}') == 6
        assert figure(one.url, 'sanbu:http_responses_total{path="/chat/completions",status="499"}') == 2
        assert figure(one.url, 'sanbu:http_responses_total{path="/chat/completions",status="400"}') == 0


@pytest.fixture
def limited(monkeypatch):
    """A server with the protocol of `sanbu serve`, few connections and short times."""
    monkeypatch.setattr(protocol, "SECONDS", 0.4)
    monkeypatch.setattr(protocol, "LARGEST", 4000)
    monkeypatch.setattr(LimitedProtocol, "most", 8)
    monkeypatch.setattr(LimitedProtocol, "idle", {})
    app = FastAPI()

    async def count(body: dict):
        return len(body["text"])

    app.add_api_route("/health", lambda: "ok")
    app.add_api_route("/count", count, methods=["POST"])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", http=LimitedProtocol))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = True
    thread.join(10)


def received(place):
    """Everything until the server closes the connection."""
    place.settimeout(10)
    found = b""
    while part := place.recv(65536):
        found += part
    return found


@pytest.mark.parametrize("head", [
    b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"x-a: " + b"y" * 6000 + b"\r\n\r\n",
    b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"x-a: " + b"y" * 300_000,
    b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(2000)) + b"\r\n",
    b"GET /" + b"h" * 6000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
], ids=["one long", "without end", "many", "path"])  # fmt: skip
def test_headers_have_a_limit(limited, head):
    with socket.create_connection(limited) as place:
        place.sendall(head)
        answer = received(place)
    assert answer.startswith(b"HTTP/1.1 431 ") and b'"error":{"message":"the headers are larger than' in answer


def test_a_body_may_be_larger_than_headers_and_come_in_any_parts(limited):
    url = f"http://{limited[0]}:{limited[1]}"
    with httpx.Client() as client:
        for size in (10, 5000, 500_000):
            assert client.post(url + "/count", json={"text": "x" * size}).json() == size
    whole = b"POST /count HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
    whole += b'content-length: 6012\r\n\r\n{"text": "' + b"y" * 6000 + b'"}'
    for cut in (whole.index(b"\r\n\r\n") + step for step in (0, 1, 2, 3, 4)):
        with socket.create_connection(limited) as place:
            place.sendall(whole[:cut])
            time.sleep(0.02)
            place.sendall(whole[cut:])
            assert received(place).endswith(b"6000")


def test_headers_that_do_not_come_and_idle_connections_are_ended(limited):
    url = f"http://{limited[0]}:{limited[1]}/health"
    with socket.create_connection(limited) as slow, socket.create_connection(limited) as silent:
        slow.sendall(b"GET /health HTTP/1.1\r\nhost: loc")
        assert received(slow).startswith(b"HTTP/1.1 408 ") and received(silent) == b""
    with httpx.Client() as kept:
        assert kept.get(url).status_code == 200
        crowd = [socket.create_connection(limited) for _ in range(60)]
        assert httpx.get(url).status_code == 200
        assert received(crowd[0]) == b""  # the oldest went first
        for one in crowd:
            one.close()
        assert kept.get(url).status_code == 200


def test_names_that_a_server_has(runs, tmp_path):
    def code(one, host):
        return httpx.get(one.url + "/v1/models", headers={"host": host}).status_code

    foreign = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "0x7f.1", ""]
    with Served(runs[:1], names=["api.example"]) as one:
        assert [code(one, host) for host in ("localhost", "LOCALHOST:80", "[::1]:8000", "api.example")] == [200] * 4
        assert [code(one, host) for host in [*foreign, "10.0.0.1"]] == [403] * 6
    with Served(runs[:1], local=False) as one:
        assert [code(one, host) for host in ("10.0.0.1", "[fe80::1]", socket.gethostname())] == [200] * 3
        assert [code(one, host) for host in foreign] == [403] * 5
        answer = httpx.get(one.url + "/v1/models", headers={"host": "evil.example"}).json()["error"]["message"]
        assert answer.startswith("Host: given 'evil.example', allowed: localhost") and "--name" in answer
    secret = make(tmp_path / "keys.json", "ada")
    with Served(runs[:1], Keys.load(tmp_path / "keys.json"), local=False) as one:  # a foreign page has no key
        heads = {"host": "api.example", "authorization": f"Bearer {secret}"}
        assert httpx.get(one.url + "/v1/models", headers=heads).status_code == 200


def test_comments_in_a_stream_can_be_left_out(runs):
    body = {
        "model": "talk",
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 12,
        "stream": True,
        "temperature": 2,
    }
    for ping, said in ((1, True), (0, False)):
        with Served(runs[:1], ping=ping) as one:
            slowed(one.service, "talk", 0.15)
            text = httpx.post(one.url + "/v1/chat/completions", json={**body, "logit_bias": {"0": -100}}).text
            assert (": ping" in text) == said and text.rstrip().endswith("data: [DONE]")


def test_the_fingerprint_changes_with_the_weights(runs):
    def told(weights, folder=runs[0]):
        with Served([folder], weights=weights) as one:
            body = {"model": folder.name, "prompt": "x", "max_tokens": 1}
            return {httpx.post(one.url + "/v1/completions", json=body).json()["system_fingerprint"] for _ in range(2)}

    full, rounded, other = told("full"), told("int8"), told("full", runs[1])
    assert len(full) == len(rounded) == len(other) == 1 and len(full | rounded | other) == 3
    assert told("full") == full


def test_the_log_has_no_characters_that_move_a_cursor():
    content = {"path": "/\x1b[2J\x9b31m\x85\u2028\x7f大\n"}
    line = printable(content)
    assert json.loads(line) == content and "大" in line and len(line.splitlines()) == 1
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in line)


def test_a_body_that_does_not_come_is_given_up(runs, monkeypatch):
    monkeypatch.setattr(middleware, "BODY", 0.3)
    with Served(runs[:1]) as one:
        parts = urlsplit(one.url)
        with socket.create_connection((parts.hostname, parts.port)) as place:
            place.sendall(HEAD % 1000 + b'{"model": "talk"')
            place.settimeout(10)
            answer = place.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"no part of the body arrived within 0.3 s" in answer
        body = {"model": "talk", "messages": [{"role": "user", "content": "x"}], "max_tokens": 8}
        slowed(one.service, "talk", 0.1)  # an answer may take longer
        how = {**body, "logit_bias": {"0": -100}, "temperature": 2}
        assert httpx.post(one.url + "/v1/chat/completions", json=how, timeout=30).status_code == 200
