"""HTTP servers compared under the same client: a part of bench.service.

Alone, python -m bench.clients --ask URL MODEL CLIENTS TOKENS measures a server that is already running.

`sanbu serve`, `transformers serve` and the server of llama-cpp-python run the same GPT-2 shape (12 layers, width 768,
8,192 tokens: 92M parameters, trained for 60 short steps) with one thread each; all in float32, the first two also in
bfloat16 where the processor supports it. Each client streams completions of prompts of different lengths without a
common prefix, sampled at temperature 1, where speculation finds little to copy; the case `greedy` is one client at
temperature 0, where it finds much. A token is counted as one streamed piece of text.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

TOKENS, VOCABULARY, END = 32, 8192, 0
# concurrent clients, requests, temperature
CASES = {"1": (1, 6, 1.0), "8": (8, 16, 1.0), "32": (32, 32, 1.0), "greedy": (1, 6, 0.0)}
SHAPE = ["model.layers=12", "model.heads=12", "model.width=768", "model.context=1024", "data.context=128"]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


# -- the model, for every server ---------------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """Train a run of this shape, and export its weights for transformers and as a GGUF file."""
    sanbu = [sys.executable, "-m", "sanbu"]
    changes = [*SHAPE, f"data.tokenizer.vocabulary={VOCABULARY}"]
    changes += ["schedule.steps=60", "schedule.batch=4", "schedule.micro_batch=4"]
    changes += ["schedule.evaluate_every=0", "schedule.sample_every=0", "machine.precision=float32"]
    changes += ["optimizer=adamw", "optimizer.learning_rate=6e-4"]
    if not (folder / "run" / "model.safetensors").exists():
        subprocess.run(
            [*sanbu, "train", "gpt2", *changes, "--run", str(folder / "run")], check=True, stdout=subprocess.DEVNULL
        )
    if not (folder / "hf").exists():
        subprocess.run(
            [*sanbu, "export", str(folder / "run"), "--out", str(folder / "hf")], check=True, stdout=subprocess.DEVNULL
        )
    try:
        import gguf  # noqa: F401
    except ImportError:
        return
    if not (folder / "model.gguf").exists():
        from bench.gguf_file import as_gguf

        as_gguf(folder / "hf", folder / "model.gguf")


# -- servers -----------------------------------------------------------------------------------------------------------


WEIGHTS = {"float32": "full", "bfloat16": "bfloat16", "int8": "int8"}  # the values of sanbu serve --weights


def types() -> list[str]:
    """Data types that sanbu and transformers both support on this processor, the fastest last."""
    import torch

    return ["float32", "bfloat16"] if torch.ops.mkldnn._is_mkldnn_bf16_supported() else ["float32"]


def commands(folder: Path, port: int) -> dict[str, tuple[list[str], str]]:
    """{server: (command line, name of the model in requests)}; transformers with and without continuous batching."""
    python, at = sys.executable, ["--host", "127.0.0.1", "--port", str(port)]
    hf = str(folder / "hf")
    sanbu = [python, "-m", "sanbu", "serve", str(folder / "run"), *at, "--no-studio"]
    serve = [str(Path(python).with_name("transformers")), "serve", hf, *at, "--device", "cpu", "--dtype"]
    found = {f"sanbu-{kind}": ([*sanbu, "--weights", WEIGHTS[kind]], "run") for kind in (*types(), "int8")}
    for kind in types():
        found[f"transformers-{kind}"] = ([*serve, kind], hf)
        found[f"transformers_cb-{kind}"] = ([*serve, kind, "--continuous-batching"], hf)
    gguf = str(folder / "model.gguf")
    if Path(gguf).exists():
        llama = [python, "-m", "llama_cpp.server", "--model", gguf, *at, "--n_ctx", "1024"]
        llama += ["--n_threads", "1", "--n_threads_batch", "1", "--interrupt_requests", "false"]
        found["llamacpp"] = (llama, gguf)
    return found


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server, wait until it answers, and stop it at the end."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, **ONE_THREAD, "HF_HUB_OFFLINE": "1"}
        )
        try:
            for _ in range(600):
                try:
                    httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=5)
                    break
                except httpx.HTTPError:
                    if process.poll() is not None:
                        raise RuntimeError(f"{command[:4]} ended: {log.read_text()[-500:]}") from None
                    time.sleep(0.2)
            yield process
        finally:
            process.terminate()
            process.wait(60)


def free_port() -> int:
    """A free TCP port."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


# -- the client --------------------------------------------------------------------------------------------------------


async def stream(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> list[float]:
    """Seconds from the request to each piece of one streamed answer."""
    begun, times = time.perf_counter(), []
    async with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.status_code}: {(await answer.aread())[:300]!r}")
        async for line in answer.aiter_lines():
            if line.startswith("data: {") and any(
                choice.get("text") for choice in json.loads(line[6:]).get("choices", ())
            ):
                times.append(time.perf_counter() - begun)
    return times


def prompts(count: int, draws: random.Random) -> list[str]:
    """Prompts of 16 to 64 random words, without a common prefix."""
    words = ("return", "list", "number", "string", "object", "file", "the", "of", "with", "value", "name", "key")
    return [" ".join(draws.choice(words) for _ in range(draws.randrange(16, 65))) for _ in range(count)]


async def ask(
    url: str,
    model: str,
    clients: int,
    requests: int,
    tokens: int,
    seed: int,
    temperature: float = 0.0,
    end: int | None = None,
) -> dict[str, float]:
    """Total tokens per second, time to first token, and time between tokens; `end` is a token id to suppress."""
    waiting = prompts(requests, random.Random(seed))
    how = {"model": model, "max_tokens": tokens, "temperature": temperature, "stream": True}
    if end is not None:
        how["logit_bias"] = {str(end): -100}
    found: list[list[float]] = []

    async def one() -> None:
        while waiting:
            prompt = waiting.pop()
            found.append(await stream(client, url, {**how, "prompt": prompt, "seed": 1000 * seed + len(waiting)}))

    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=None)) as client:
        begun = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(clients)))
        spent = time.perf_counter() - begun
    firsts = [times[0] for times in found if times]
    between = [b - a for times in found for a, b in itertools.pairwise(times)] or [0.0]
    return {
        "rate": sum(map(len, found)) / spent,
        **{f"first_{name}": quantile(firsts, part) for name, part in (("p50", 0.5), ("p95", 0.95))},
        **{f"between_{name}": quantile(between, part) for name, part in (("p50", 0.5), ("p95", 0.95))},
    }


def quantile(values: list[float], part: float) -> float:
    """The value below which the fraction `part` of the values lies."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else 0.0


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Medians over rounds; in each round the servers run one after another, each alone."""
    prepare(folder)
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        for name in commands(folder, 0):
            port = free_port()
            command, model = commands(folder, port)[name]
            # transformers serve ignores the temperature and always decodes greedily; its answers do not end early here
            end = None if name.startswith("transformers") else END
            with running(command, port, folder / f"{name}.log"):
                url = f"http://127.0.0.1:{port}"
                asyncio.run(ask(url, model, 1, 1, 4, 999))  # warm-up
                for case, (clients, requests, temperature) in CASES.items():
                    figures = asyncio.run(
                        ask(url, model, clients, requests, TOKENS, 100 * number + clients, temperature, end)
                    )
                    told = ", ".join(f"{key} {value:.3g}" for key, value in figures.items())
                    print(f"  {name}, {case}: {told}", file=sys.stderr, flush=True)
                    for key, value in figures.items():
                        found.setdefault(f"clients.{case}.{name}.{key}", []).append(value)
    figures = {key: statistics.median(values) for key, values in found.items()}
    labels: dict[str, str] = {}
    for case in CASES:
        rate = {name: figures[f"clients.{case}.{name}.rate"] for name in commands(folder, 0)}
        figures |= {f"clients.{case}.{name}": ratio for name, ratio in ratios(rate).items()}
        peer = max((name for name in rate if name.startswith("transformers")), key=lambda name: rate[name])
        name, _, kind = peer.partition("-")
        named = {"transformers": "transformers", "transformers_cb": "transformers, continuous batching"}[name]
        labels[f"clients.{case}.peer"] = f"{named}, {kind}"
        figures[f"clients.{case}.peer.rate"] = rate[peer]
    return figures | labels


def ratios(rate: dict[str, float]) -> dict[str, float]:
    """Sanbu's rate divided by that of each peer in the same data type.

    `ratio_transformers` is the ratio in the fastest type of this processor; the others name their type.
    """
    found = {
        f"ratio_{peer}_{kind}": rate[f"sanbu-{kind}"] / rate[f"{peer}-{kind}"]
        for kind in types()
        for peer in ("transformers", "transformers_cb")
    }
    found["ratio_transformers"] = found[f"ratio_transformers_{types()[-1]}"]
    if "llamacpp" in rate:
        found["ratio_llamacpp"] = rate["sanbu-float32"] / rate["llamacpp"]
    return found


def main() -> None:
    """Measure a server that is already running."""
    arguments: Any = sys.argv[sys.argv.index("--ask") + 1 :]
    url, model, clients, tokens = arguments[0], arguments[1], int(arguments[2]), int(arguments[3])
    print(json.dumps(asyncio.run(ask(url, model, clients, 2 * clients, tokens, 0))))


if __name__ == "__main__":
    main()
