"""Clients that ask servers over HTTP: python -m bench.clients --ask URL MODEL CLIENTS TOKENS, or as parts of bench.service.

The same random GPT-2 shape (12 layers, width 768, 8,192 tokens: 92M parameters) for `sanbu serve`, `transformers serve` and llama-cpp-python's server,
float32, one thread each, the same client. Every client streams completions of unequal prompts that share nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

TOKENS, VOCABULARY = 32, 8192
COUNTS = {1: 3, 8: 8, 32: 32}  # requests by clients at once
SHAPE = ["model.layers=12", "model.heads=12", "model.width=768", "model.context=1024", "data.context=1024"]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


# -- the model, for every server -------------------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """A run of the shape after one step of training, and the same weights as a folder for transformers and a GGUF file."""
    sanbu = [sys.executable, "-m", "sanbu"]
    changes = [
        *SHAPE,
        f"data.tokenizer.vocabulary={VOCABULARY}",
        "schedule.steps=1",
        "schedule.batch=1",
        "schedule.micro_batch=1",
    ]
    changes += ["schedule.evaluate_every=0", "schedule.sample_every=0", "machine.threads=1"]
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
        as_gguf(folder / "hf", folder / "model.gguf")


def as_gguf(source: Path, target: Path) -> None:
    """GPT-2 of transformers as llama.cpp reads it."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((source / "config.json").read_text())
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(source / "model.safetensors").items()}
    writer = gguf.GGUFWriter(str(target), "gpt2")
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    names = {number: text for text, number in tokenizer["model"]["vocab"].items()}
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    rows = tensors["wte.weight"].shape[0]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([special.get(i, names.get(i, f"[unused{i}]")) for i in range(rows)])
    writer.add_token_types([3 if i in special else 1 if i in names else 5 for i in range(rows)])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["eos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
    for name, tensor in tensors.items():
        if (found := gguf_name(name)) is not None:
            turned = name.endswith(("attn.c_attn.weight", "c_proj.weight", "c_fc.weight"))
            writer.add_tensor(found, (tensor.T if turned else tensor).copy())
    writer.add_tensor("output.weight", tensors["wte.weight"].copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


PARTS = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}  # fmt: skip
WHOLE = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}


def gguf_name(name: str) -> str | None:
    """llama.cpp's name of a tensor of transformers' GPT-2."""
    path, _, kind = name.rpartition(".")
    if path in WHOLE:
        return f"{WHOLE[path]}.{kind}"
    _, number, part = path.split(".", 2)
    return f"blk.{number}.{PARTS[part]}.{kind}" if part in PARTS else None


# -- servers ---------------------------------------------------------------------------------------------------------------


def commands(folder: Path, port: int) -> dict[str, tuple[list[str], str]]:
    """How each server is started, and what it calls the model. transformers is run at its better setting (continuous batching)."""
    python, at = sys.executable, ["--host", "127.0.0.1", "--port", str(port)]
    hf = str(folder / "hf")
    found = {"sanbu": ([python, "-m", "sanbu", "serve", str(folder / "run"), *at, "--no-studio"], "run")}
    serve = [str(Path(python).with_name("transformers")), "serve", hf, *at, "--device", "cpu", "--dtype", "float32"]
    found["transformers"] = (serve, hf)
    found["transformers-cb"] = ([*serve, "--continuous-batching"], hf)
    gguf = str(folder / "model.gguf")
    if Path(gguf).exists():
        llama = [
            python,
            "-m",
            "llama_cpp.server",
            "--model",
            gguf,
            *at,
            "--n_ctx",
            "1024",
            "--n_threads",
            "1",
            "--n_threads_batch",
            "1",
        ]
        found["llamacpp"] = (llama, gguf)
    return found


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server, ready."""
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
    """A port nobody uses."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


# -- the client ------------------------------------------------------------------------------------------------------------


async def stream(client: httpx.AsyncClient, url: str, model: str, prompt: str, tokens: int) -> tuple[int, list[float]]:
    """Tokens of one streamed answer, and when each piece of it came, from the asking."""
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
    begun, times = time.perf_counter(), []
    async with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.status_code}: {(await answer.aread())[:300]!r}")
        async for line in answer.aiter_lines():
            if line.startswith("data: {") and any(choice.get("text") for choice in json.loads(line[6:]).get("choices", ())):
                times.append(time.perf_counter() - begun)
    return tokens, times


def prompts(count: int, draws: random.Random) -> list[str]:
    """Texts of 16 to 64 words that share no beginning."""
    words = ("return", "list", "number", "string", "object", "file", "the", "of", "with", "value", "name", "key")
    return [" ".join(draws.choice(words) for _ in range(draws.randrange(16, 65))) for _ in range(count)]


async def ask(url: str, model: str, clients: int, requests: int, tokens: int, seed: int) -> dict[str, float]:
    """Tokens a second over all, time to the first piece and between pieces."""
    waiting = prompts(requests, random.Random(seed))
    found: list[tuple[int, list[float]]] = []

    async def one() -> None:
        while waiting:
            found.append(await stream(client, url, model, waiting.pop(), tokens))

    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=None)) as client:
        begun = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(clients)))
        spent = time.perf_counter() - begun
    firsts = [times[0] for _, times in found if times]
    between = [b - a for _, times in found for a, b in itertools.pairwise(times)] or [0.0]
    return {
        "rate": sum(count for count, _ in found) / spent,
        **{f"first_{name}": quantile(firsts, part) for name, part in (("p50", 0.5), ("p95", 0.95))},
        **{f"between_{name}": quantile(between, part) for name, part in (("p50", 0.5), ("p95", 0.95))},
    }


def quantile(values: list[float], part: float) -> float:
    """The value below which a part lies."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else 0.0


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """Every server alone, one after the other, in every round; medians."""
    prepare(folder)
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        for name in commands(folder, 0):
            port = free_port()
            command, model = commands(folder, port)[name]
            with running(command, port, folder / f"{name}.log"):
                url = f"http://127.0.0.1:{port}"
                asyncio.run(ask(url, model, 1, 1, 4, 999))  # whatever is done at the first request
                for clients, requests in COUNTS.items():
                    figures = asyncio.run(ask(url, model, clients, requests, TOKENS, 100 * number + clients))
                    told = ", ".join(f"{key} {value:.3g}" for key, value in figures.items())
                    print(f"  {name}, {clients} clients: {told}", file=sys.stderr, flush=True)
                    for key, value in figures.items():
                        found.setdefault(f"clients.{clients}.{name}.{key}", []).append(value)
    figures = {key: statistics.median(values) for key, values in found.items()}
    for clients in COUNTS:
        rate = {name: figures.get(f"clients.{clients}.{name}.rate", 0.0) for name in commands(folder, 0)}
        figures[f"clients.{clients}.ratio_transformers"] = rate["sanbu"] / max(rate["transformers"], rate["transformers-cb"])
        if "llamacpp" in rate:
            figures[f"clients.{clients}.ratio_llamacpp"] = rate["sanbu"] / rate["llamacpp"]
    return figures


def overhead(folder: Path, rounds: int) -> dict[str, float]:
    """Milliseconds a token of one client beyond the engine's own steps: HTTP, events, text, and the way between threads."""
    small = small_run(folder)
    found = []
    for _ in range(rounds):
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        port = free_port()
        server = context.Process(target=timed_server, args=(theirs, str(small), port), daemon=True)
        server.start()
        ours.recv()
        url = f"http://127.0.0.1:{port}"
        asyncio.run(ask(url, small.name, 1, 1, 8, 999))
        ours.send("begin")
        ours.recv()
        begun = time.perf_counter()
        figures = asyncio.run(ask(url, small.name, 1, 8, 192, 0))
        spent = time.perf_counter() - begun
        ours.send("end")
        stepping, tokens = ours.recv()
        found.append(1000 * (spent - stepping) / tokens)
        print(
            f"  {1000 * stepping / tokens:.3f} ms a token in the engine, {found[-1]:.3f} beside it; {figures['rate']:.0f} tokens/s",
            file=sys.stderr,
        )
        server.kill()
    return {"overhead_ms": statistics.median(found)}


def timed_server(pipe: Any, run: str, port: int) -> None:
    """A child: serve a run, and say how long the engine's steps took."""
    import torch
    import uvicorn

    from sanbu.serve.app import application
    from sanbu.serve.service import Service

    torch.set_num_threads(1)
    service = Service.open([Path(run)])
    engine = next(iter(service.served.values())).engine
    assert engine is not None
    step, spent = engine.step, [0.0, 0]

    def timed() -> None:
        begun = time.perf_counter()
        step()
        spent[0] += time.perf_counter() - begun

    engine.step = timed  # type: ignore[method-assign]

    def told() -> None:
        pipe.send("ready")
        while pipe.recv():
            spent[0], spent[1], before = 0.0, 0, engine.counts["generated_tokens"]
            pipe.send("begun")
            pipe.recv()
            pipe.send((spent[0], engine.counts["generated_tokens"] - before))

    server = uvicorn.Server(uvicorn.Config(application(service), port=port, log_level="critical"))
    threading.Thread(target=lambda: (wait_for(lambda: server.started), told()), daemon=True).start()
    server.run()


def wait_for(what: Callable[[], bool]) -> None:
    """Until something holds."""
    while not what():
        time.sleep(0.01)


def small_run(folder: Path) -> Path:
    """A nano run after twenty steps."""
    run = folder / "small"
    if not (run / "model.safetensors").exists():
        command = [
            sys.executable,
            "-m",
            "sanbu",
            "train",
            "gpt2",
            "schedule.steps=20",
            "data.tokenizer=byte",
            "model.context=512",
            "data.context=512",
        ]
        command += ["schedule.evaluate_every=0", "schedule.sample_every=0", "machine.threads=1", "--run", str(run)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return run


def load(folder: Path, clients: int = 200, seconds: float = 120) -> dict[str, float]:
    """So many clients at once, each asking again as soon as it is answered; every answer is compared with what is said alone."""
    run, port = small_run(folder), free_port()
    command = [
        sys.executable,
        "-m",
        "sanbu",
        "serve",
        str(run),
        "--port",
        str(port),
        "--no-studio",
        "--queue",
        "128",
        "--rows",
        "48",
    ]
    with running(command, port, folder / "load.log") as server:
        url = f"http://127.0.0.1:{port}/v1/completions"
        return asyncio.run(many(url, run.name, clients, seconds, server.pid))


async def many(url: str, model: str, clients: int, seconds: float, process: int) -> dict[str, float]:
    """The counts of `load`."""
    bodies = [
        {"model": model, "prompt": text, "max_tokens": 8 + 4 * (i % 7), "seed": i, "stream": i % 2 == 0}
        for i, text in enumerate(prompts(16, random.Random(1)))
    ]
    counts, memory = Counter[str](), []
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=None)) as client:
        wanted = [(await answer(client, url, body))[1] for body in bodies]
        end = time.perf_counter() + seconds

        async def one(number: int) -> None:
            while time.perf_counter() < end:
                which = (number := number + 1) % len(bodies)
                try:
                    status, text = await answer(client, url, bodies[which])
                except httpx.HTTPError as error:
                    counts[type(error).__name__] += 1
                    continue
                counts[
                    "answers" if status == 200 and text == wanted[which] else "busy" if status == 429 else f"wrong_{status}"
                ] += 1
                if status == 429:
                    await asyncio.sleep(0.5)

        async def watch() -> None:
            while time.perf_counter() < end:
                memory.append(resident(process))
                await asyncio.sleep(1)

        await asyncio.gather(watch(), *(one(number) for number in range(clients)))
    errors = sum(counts.values()) - counts["answers"] - counts["busy"]
    print(f"  {dict(counts)}; memory {memory[len(memory) // 4]:.0f} -> {memory[-1]:.0f} MiB", file=sys.stderr)
    return {
        "load.errors": errors, "load.answers": counts["answers"], "load.busy": counts["busy"],
        "load.mib_quarter": memory[len(memory) // 4], "load.mib_end": memory[-1],
    }  # fmt: skip


async def answer(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> tuple[int, str]:
    """The status and the text of one answer, streamed or not."""
    if not body["stream"]:
        got = await client.post(url, json=body)
        return got.status_code, got.json()["choices"][0]["text"] if got.status_code == 200 else ""
    parts = []
    async with client.stream("POST", url, json=body) as got:
        async for line in got.aiter_lines():
            if line.startswith("data: {"):
                parts += [choice["text"] for choice in json.loads(line[6:]).get("choices", ())]
    return got.status_code, "".join(parts)


def resident(process: int) -> float:
    """MiB of memory that a process holds."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Ask one server that runs already."""
    arguments: Any = sys.argv[sys.argv.index("--ask") + 1 :]
    url, model, clients, tokens = arguments[0], arguments[1], int(arguments[2]), int(arguments[3])
    print(json.dumps(asyncio.run(ask(url, model, clients, 2 * clients, tokens, 0))))


if __name__ == "__main__":
    main()
