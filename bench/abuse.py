"""A server under expensive requests, malformed ones and idle connections: a part of bench.service.

heavy: each body of `bodies` alone, then eight at once, while the health check is asked every 10 ms. The figures are the
slowest health check in seconds and the growth of the server's memory in MiB. idle: the slowest health check beside
2,000 open connections. fuzz: 10,000 bodies with random changes; answers with a status of 500 or more are counted.
"""

from __future__ import annotations

import contextlib
import json
import random
import resource
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from bench.clients import free_port, running
from bench.load import resident, small_run

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
AT_ONCE, CONNECTIONS, FUZZED = 8, 2000, 10_000
Asked = tuple[str, bytes]


def bodies(model: str) -> dict[str, Asked]:
    """Requests by name, each with the path and the body."""

    def chat(**fields: Any) -> Asked:
        messages = [{"role": "user", "content": "hello"}]
        return CHAT, json.dumps({"model": model, "messages": messages, "max_tokens": 4, **fields}).encode()

    def completion(**fields: Any) -> Asked:
        return COMPLETIONS, json.dumps({"model": model, "prompt": "hello", "max_tokens": 4, **fields}).encode()

    def schema(content: dict[str, Any]) -> Asked:
        return chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": content}})

    def properties(count: int, **about: Any) -> dict[str, Any]:
        return {"type": "object", "properties": {f"p{i}": {"type": "string", **about} for i in range(count)}}

    text = {"type": "string"}
    tool = {"type": "function", "function": {"name": "a", "parameters": properties(50)}}
    nested = '{"model":"x","messages":' + "[" * 100_000 + "]" * 100_000 + "}"
    return {
        "4 MB prompt": completion(prompt="three steps " * 340_000),
        "4 MB of escapes": (COMPLETIONS, b'{"prompt":"' + rb"\u0041" * 680_000 + b'"}'),
        "4 MB of blanks": (COMPLETIONS, b" " * 4_000_000 + b"{}"),
        "no JSON": (CHAT, b'{"model":' + b"a" * 4_000_000),
        "nested brackets": (CHAT, nested.encode()),
        "250,000 token ids": completion(prompt=[7] * 250_000),
        "scores of a long prompt": completion(prompt="a" * 200_000, echo=True, logprobs=5, max_tokens=0),
        "2,000 prompts": completion(prompt=["hello"] * 2_000),
        "128 answers": completion(n=128, max_tokens=400),
        "20,000 messages": chat(messages=[{"role": "user", "content": "a"}] * 20_000),
        "90,000 biases": completion(logit_bias={str(i): 1 for i in range(90_000)}),
        "300,000 biases": completion(logit_bias={str(i): 1 for i in range(300_000)}),
        "long stop texts": completion(stop=["a" * 500_000] * 4),
        "1,000 tools": chat(tools=[tool] * 1_000),
        "4,000 properties": schema(properties(4_000)),
        "patterns of all": schema({"allOf": [{**text, "pattern": f"(a|aa)*b{i}"} for i in range(60)]}),
        "a repeated pattern": schema({**text, "pattern": "((a{1,99}){1,99}){1,99}"}),
        "a long enumeration": schema({"enum": [f"value {i}" for i in range(20_000)]}),
        "a deep schema": schema(json.loads('{"items":' * 400 + "{}" + "}" * 400)),
        "a recursive schema": schema({"anyOf": [{"$ref": "#"}] * 200 + [{"type": "array", "items": {"$ref": "#"}}]}),
    }  # fmt: skip


def abuse(folder: Path, rounds: int) -> dict[str, float]:
    """The figures of the three parts. rounds: not used."""
    allow_connections(3 * CONNECTIONS)
    run, port = small_run(folder), free_port()
    command = [sys.executable, "-m", "sanbu", "serve", str(run), "--port", str(port), "--no-studio"]
    with running(command, port, folder / "abuse.log") as server:
        url = f"http://127.0.0.1:{port}"
        return {**heavy(url, run.name, server.pid), **idle(url, port), **fuzz(url, run.name)}


def allow_connections(count: int) -> None:
    """Let this process, and the server that it starts, open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))


def heavy(url: str, model: str, process: int) -> dict[str, float]:
    """Every body alone and eight times at once."""
    found = {"abuse.health_s": 0.0, "abuse.health_eight_s": 0.0, "abuse.mib": 0.0, "abuse.errors": 0}
    for name, asked in bodies(model).items():
        said = [f"  {name}:"]
        for key, count in (("abuse.health_s", 1), ("abuse.health_eight_s", AT_ONCE)):
            before = resident(process)
            with watched(url, process) as seen, ThreadPoolExecutor(count) as clients:
                statuses = Counter(clients.map(lambda _, asked=asked: post(url, asked), range(count)))
            found[key] = max(found[key], seen["health"])
            found["abuse.mib"] = max(found["abuse.mib"], (seen["memory"] - before) if count == 1 else 0)
            found["abuse.errors"] += sum(statuses[status] for status in statuses if status >= 500)
            said.append(f"{count} at once {dict(statuses)}, health {seen['health']:.3f} s")
        print(" ".join(said), file=sys.stderr, flush=True)
    return found


@contextlib.contextmanager
def watched(url: str, process: int) -> Iterator[dict[str, float]]:
    """Ask the health check until the block ends. Gives its slowest answer and the most memory of the server."""
    seen, going = {"health": 0.0, "memory": 0.0}, threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            while not going.wait(0.01):
                begun = time.perf_counter()
                client.get(url + "/health").raise_for_status()
                seen["health"] = max(seen["health"], time.perf_counter() - begun)
                seen["memory"] = max(seen["memory"], resident(process))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        time.sleep(0.1)
        going.set()
        thread.join()


def post(url: str, asked: Asked) -> int:
    """The status of an answer, or 0 if there was none within a minute."""
    path, body = asked
    try:
        return httpx.post(
            url + path, content=body, headers={"content-type": "application/json"}, timeout=60
        ).status_code
    except httpx.HTTPError:
        return 0


def idle(url: str, port: int) -> dict[str, float]:
    """The health check beside open connections, half of which have begun a request."""
    with contextlib.ExitStack() as stack:
        for number in range(CONNECTIONS):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            if number % 2:
                one.sendall(b"GET /health HTTP/1.1\r\nhost: a")
        slowest = 0.0
        for _ in range(50):
            begun = time.perf_counter()
            with httpx.Client(timeout=60) as client:
                client.get(url + "/health").raise_for_status()
            slowest = max(slowest, time.perf_counter() - begun)
    print(f"  {CONNECTIONS:,} open connections: health {slowest:.3f} s", file=sys.stderr, flush=True)
    return {"abuse.idle_s": slowest}


def fuzz(url: str, model: str) -> dict[str, float]:
    """Bodies with random changes, by eight clients."""
    draws, counts = random.Random(0), Counter[int]()
    asked = [changed(model, draws) for _ in range(FUZZED)]
    begun = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as clients:
        for number, status in enumerate(clients.map(lambda each: post(url, each), asked), 1):
            counts[status] += 1
            if number % 1000 == 0:
                print(f"  {number:,} of {FUZZED:,}, {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    print(f"  {dict(sorted(counts.items()))}", file=sys.stderr, flush=True)
    return {
        "abuse.fuzzed": FUZZED,
        "abuse.fuzzed_errors": sum(counts[each] for each in counts if each >= 500 or not each),
    }


WRONG: list[Callable[[random.Random], Any]] = [
    lambda draws: None,
    lambda draws: draws.choice([True, -1, 0, 1.5, 1e308, 2**70, "", "a", "\ud800", "\u2028", [], {}, [[]], [None]]),
    lambda draws: "x" * draws.randrange(2000),
    lambda draws: [draws.choice(["a", 1, None, {}])] * draws.randrange(20),
    lambda draws: {draws.choice(["type", "role", "$ref", "a"]): draws.choice(["object", "#", 7, None, []])},
]


def changed(model: str, draws: random.Random) -> Asked:
    """A valid request with up to three fields, at any depth, replaced by something else; or its bytes cut off."""
    path = draws.choice([CHAT, COMPLETIONS, "/v1/responses", "/v1/embeddings"])
    body: Any = {
        "model": model, "max_tokens": 2, "temperature": 1, "top_p": 0.9, "stream": False, "stop": ["a"], "seed": 3,
        "logit_bias": {"5": 1}, "n": 1, "user": "a", "prompt": "hello", "input": "hello", "logprobs": None,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        "tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "object", "properties": {}}}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "integer"}}},
    }  # fmt: skip
    known = {
        CHAT: set(body) - {"prompt", "input"},
        COMPLETIONS: set(body) - {"messages", "input", "tools", "response_format"},
        "/v1/responses": {"model", "input", "temperature", "top_p", "stream", "user"},
        "/v1/embeddings": {"model", "input", "user"},
    }[path]
    body = {name: value for name, value in body.items() if name in known and draws.random() < 0.7}
    for _ in range(draws.randrange(4)):
        place = body
        while isinstance(place, (dict, list)) and place:
            key = draws.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], (dict, list)) or draws.random() < 0.4:
                place[key] = draws.choice(WRONG)(draws)
                break
            place = place[key]
    content = json.dumps(body).encode()
    return path, content[: draws.randrange(len(content))] if draws.random() < 0.05 else content
