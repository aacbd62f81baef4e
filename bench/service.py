"""The service compared with other ways to answer the same requests.

python -m bench.service [--part NAME] [--rounds N] [--run DIR] [--json]

clients: tokens per second over HTTP with 1, 8 and 32 clients, compared with transformers serve and the server of
llama-cpp-python (see bench.clients). load: 200 clients for two minutes. overhead: milliseconds per token outside the
engine's steps. abuse: expensive and malformed requests, idle connections (see bench.abuse).
continuous, prefix: a GPT-2 shape with random weights (6 layers, width 256, context 1,024), one thread. continuous: 64
requests of different lengths, 16 at a time; the baseline is static batches of 16, each as long as its longest request.
prefix: seconds to the first token after 512 shared tokens, with and without a prefix cache hit.
The last line is one JSON object: continuous.ratio, prefix.ratio, clients.N.ratio_transformers (both sides in the
fastest type that this processor has), clients.N.ratio_llamacpp (float32), load.errors, overhead_ms.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import abuse, clients, load
from bench.together import side_by_side

VOCABULARY, CONTEXT, ROWS = 4096, 1024, 16
SERVED: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "clients": clients.measure,
    "overhead": load.overhead,
    "load": lambda folder, rounds: load.load(folder),
    "abuse": abuse.abuse,
}
PARTS = ("continuous", "prefix", *SERVED)


def built() -> Any:
    """The model of both sides."""
    import torch

    from sanbu.models.tokens.gpt import GPT2
    from sanbu.space import Space

    torch.set_num_threads(1)
    torch.manual_seed(0)
    return GPT2(layers=6, heads=8, width=256, context=CONTEXT).build(Space((CONTEXT,), VOCABULARY)).eval()


def asked() -> list[tuple[list[int], int]]:
    """Prompts of 8 to 64 tokens with answer lengths of 1 to 256, most of them short."""
    draws = random.Random(0)
    made = []
    for _ in range(64):
        prompt = [draws.randrange(VOCABULARY) for _ in range(draws.randrange(8, 65))]
        made.append((prompt, min(256, 1 + int(draws.expovariate(1 / 48)))))
    return made


def continuous() -> Callable[[], float]:
    """Generated tokens per second of the engine."""
    from sanbu.serve.engine import Engine
    from sanbu.serve.request import Request
    from sanbu.strategies.autoregressive import Autoregressive

    model, requests = built(), asked()

    def measure() -> float:
        engine = Engine(model, None, rows=ROWS)
        for seed, (prompt, most) in enumerate(requests):
            engine.submit(Request(prompt, Autoregressive(max_tokens=most), seed, lambda event: None))
        begun = time.perf_counter()
        while engine.running or engine.waiting:
            engine.step()
        return engine.counts["generated_tokens"] / (time.perf_counter() - begun)

    return measure


def static() -> Callable[[], float]:
    """Requested tokens per second of the strategy in static batches."""
    import torch

    from sanbu.codecs.text import padded
    from sanbu.space import Space
    from sanbu.strategies.autoregressive import Autoregressive
    from sanbu.strategies.strategy import generate, last

    model, requests = built(), asked()

    def measure() -> float:
        begun = time.perf_counter()
        for start in range(0, len(requests), ROWS):
            part = requests[start : start + ROWS]
            strategy = Autoregressive(max_tokens=max(most for _, most in part)).build(Space((CONTEXT,), VOCABULARY))
            length = torch.tensor([len(prompt) for prompt, _ in part])
            condition = {"tokens": padded([prompt for prompt, _ in part], 0), "length": length}
            with torch.inference_mode():
                last(generate(strategy, {"model": model}, condition, torch.arange(len(part))))
        return sum(most for _, most in requests) / (time.perf_counter() - begun)

    return measure


def first_token(kind: str) -> Callable[[], float]:
    """Seconds to the first token, median of 8 requests."""
    from sanbu.serve.engine import Engine
    from sanbu.serve.request import Request
    from sanbu.strategies.autoregressive import Autoregressive

    model, draws = built(), random.Random(0)
    shared = [draws.randrange(VOCABULARY) for _ in range(512)]

    def measure() -> float:
        found = []
        engine = Engine(model, None)
        for number in range(9):
            if kind == "unknown":
                engine = Engine(model, None)
            prompt = shared + [number] * 8
            begun = time.perf_counter()
            engine.submit(Request(prompt, Autoregressive(max_tokens=1), number, lambda event: None))
            while engine.running or engine.waiting:
                engine.step()
            found.append(time.perf_counter() - begun)
        return sorted(found[1:])[4]

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--run", type=Path, help="folder that keeps the models for later runs; default: a temporary folder"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    folder = arguments.run or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    for part in arguments.part or PARTS:
        print(part, file=sys.stderr, flush=True)
        if part in SERVED:
            figures |= SERVED[part](folder, arguments.rounds)
            continue
        if part == "continuous":
            found = side_by_side({"engine": (continuous, ()), "static": (static, ())}, arguments.rounds)
            figures |= {"continuous.ratio": found["engine"] / found["static"]}
        else:
            found = side_by_side({kind: (first_token, (kind,)) for kind in ("unknown", "known")}, arguments.rounds)
            figures |= {"prefix.ratio": found["unknown"] / found["known"]}
            figures |= {f"prefix.{kind}_ms": 1000 * value for kind, value in found.items()}
        figures |= {f"{part}.{name}": value for name, value in found.items()}
    if arguments.run is None:
        shutil.rmtree(folder)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
