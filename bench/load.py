"""The server's overhead outside the engine, and its behaviour under many clients: parts of bench.service."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from bench.clients import ask, free_port, prompts, running


def overhead(folder: Path, rounds: int) -> dict[str, float]:
    """Milliseconds per token outside the engine's steps, with one client: HTTP, events, text, thread switches."""
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
            f"  {1000 * stepping / tokens:.3f} ms per token in the engine, {found[-1]:.3f} outside it;"
            f" {figures['rate']:.0f} tokens/s",
            file=sys.stderr,
        )
        server.kill()
    return {"overhead_ms": statistics.median(found)}


def timed_server(pipe: Any, run: str, port: int) -> None:
    """Child process: serve a run and report how long the engine's steps took."""
    import torch
    import uvicorn

    from sanbu.serve.app import application
    from sanbu.serve.service import Service

    torch.set_num_threads(1)
    service = Service.open([Path(run)])
    engine = next(iter(service.runs.values())).engine
    assert engine is not None
    step, spent = engine.step, [0.0]

    def timed() -> None:
        begun = time.perf_counter()
        step()
        spent[0] += time.perf_counter() - begun

    engine.step = timed  # type: ignore[method-assign]

    def told() -> None:
        pipe.send("ready")
        while pipe.recv():
            spent[0], before = 0.0, engine.counts["generated_tokens"]
            pipe.send("begun")
            pipe.recv()
            pipe.send((spent[0], engine.counts["generated_tokens"] - before))

    server = uvicorn.Server(uvicorn.Config(application(service), port=port, log_level="critical"))
    threading.Thread(target=lambda: (wait_for(lambda: server.started), told()), daemon=True).start()
    server.run()


def wait_for(what: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    while not what():
        time.sleep(0.01)


def small_run(folder: Path) -> Path:
    """A nano run trained for 20 steps."""
    run = folder / "small"
    if not (run / "model.safetensors").exists():
        command = [sys.executable, "-m", "sanbu", "train", "gpt2", "schedule.steps=20", "data.tokenizer=byte"]
        command += ["model.context=512", "data.context=512"]
        command += ["schedule.evaluate_every=0", "schedule.sample_every=0", "machine.threads=1", "--run", str(run)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return run


def load(folder: Path, clients: int = 200, seconds: float = 120) -> dict[str, float]:
    """Many clients, each sending its next request once the last is answered; answers must equal those without load."""
    run, port = small_run(folder), free_port()
    command = [sys.executable, "-m", "sanbu", "serve", str(run), "--port", str(port), "--no-studio"]
    command += ["--queue", "128", "--rows", "48"]
    with running(command, port, folder / "load.log") as server:
        url = f"http://127.0.0.1:{port}/v1/completions"
        return asyncio.run(many(url, run.name, clients, seconds, server.pid))


async def many(url: str, model: str, clients: int, seconds: float, process: int) -> dict[str, float]:
    """Run the clients of `load` and return its counts."""
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
                right = status == 200 and text == wanted[which]
                counts["answers" if right else "busy" if status == 429 else f"wrong_{status}"] += 1
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
    """Status and text of one answer, streamed or not."""
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
    """Resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
