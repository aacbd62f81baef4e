"""Language models compared with their usual alternatives.

python -m bench.text [--part shakespeare|train|generate|chunked|shards] [--json]

Every ratio is Sanbu's rate divided by that of the peer in its best setting, in alternating measurements of one run.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import shutil
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.together import best, side_by_side

SHAPE = {"layers": 6, "heads": 4, "width": 256, "context": 256}
VOCABULARY, ROWS, TIME = 4096, 8, 256
Figures = dict[str, Any]


# -- training ----------------------------------------------------------------------------------------------------------


def our_training(compiled: bool, chunked: bool) -> Callable[[], float]:
    """Tokens per second of Sanbu's training step: objective, problem, fused AdamW."""
    import torch

    from sanbu.machine import MachineConfig, decide
    from sanbu.models.tokens.gpt import GPT2
    from sanbu.noise import Noise
    from sanbu.objectives.next_token import next_token, next_token_chunked
    from sanbu.objectives.objective import Turn
    from sanbu.optimizers.gradient import AdamW
    from sanbu.optimizers.search import Problem
    from sanbu.space import Space

    machine = decide(MachineConfig(compile="on" if compiled else "off"))
    models = {"model": machine.prepare(GPT2(**SHAPE).build(Space((TIME,), VOCABULARY)))}
    search = AdamW(learning_rate=1e-3, clip=None).build(models, 1000)
    objective = next_token_chunked(512) if chunked else next_token()
    tokens = torch.randint(0, VOCABULARY, (ROWS, TIME))
    turn = Turn("model", {"tokens": tokens, "targets": tokens.roll(-1, 1)}, objective.loss, objective.count)
    step = lambda: search.step(Problem(models, turn, models, Noise(0), None, machine.scope))
    return timed(step, 3, ROWS * TIME)


def peer_training(compiled: bool, half: bool) -> Callable[[], float]:
    """Tokens per second of transformers' GPT-2 with fused AdamW."""
    import torch

    model: Any = peer_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    forward = torch.compile(model) if compiled else model
    tokens = torch.randint(0, VOCABULARY, (ROWS, TIME))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = forward(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return timed(step, 3, ROWS * TIME)


def timed(step: Callable[[], Any], times: int, amount: float) -> Callable[[], float]:
    """Work per second of a step that does `amount` of work, after warm-up."""
    for _ in range(4):
        step()

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(times):
            step()
        return times * amount / (time.perf_counter() - start)

    return measure


def peer_model() -> Any:
    """transformers' GPT-2 of the same shape, with warnings off."""
    import transformers

    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=SHAPE["context"], n_embd=SHAPE["width"], n_layer=SHAPE["layers"],
        n_head=SHAPE["heads"],
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def train() -> Figures:
    """Training tokens per second: GPT-2 shape (6 layers, width 256, vocabulary 4096, context 256), 8 rows per step."""
    figures = side_by_side(
        {
            "sanbu eager": (our_training, (False, False)),
            "sanbu eager chunked": (our_training, (False, True)),
            "sanbu compiled": (our_training, (True, False)),
            "peer eager float32": (peer_training, (False, False)),
            "peer compiled float32": (peer_training, (True, False)),
            "peer eager bfloat16": (peer_training, (False, True)),
            "peer compiled bfloat16": (peer_training, (True, True)),
        },
        rounds=9,
    )
    return compared("train", figures)


def compared(key: str, figures: dict[str, float]) -> Figures:
    """Sanbu's best setting against the peer's best setting."""
    (our_name, ours), (peer_name, peers) = best(figures, "sanbu"), best(figures, "peer")
    return {
        f"{key}.ratio": ours / peers,
        f"{key}.sanbu_tokens_per_second": ours,
        f"{key}.peer_tokens_per_second": peers,
        f"{key}.sanbu_setting": our_name.removeprefix("sanbu "),
        f"{key}.peer_setting": peer_name.removeprefix("peer "),
        f"{key}.all": figures,
    }


# -- generation --------------------------------------------------------------------------------------------------------

PROMPT, NEW = 16, 200


def our_generation(rows: int, compiled: bool, half: bool = False) -> Callable[[], float]:
    """Tokens per second of greedy generation by the strategy, including its drafts."""
    import torch

    from sanbu.machine import column_major
    from sanbu.models.tokens.gpt import GPT2
    from sanbu.serve.weights.packed import pack_bfloat16
    from sanbu.space import Space
    from sanbu.strategies.autoregressive import Autoregressive
    from sanbu.strategies.strategy import generate, last

    space = Space((TIME,), VOCABULARY)
    model: Any = column_major(GPT2(**SHAPE).build(space).eval().requires_grad_(False))
    if half:
        model = model.bfloat16() if compiled else pack_bfloat16(model)  # packed products cannot be compiled
    strategy: Any = Autoregressive(temperature=0, max_tokens=NEW).build(space)
    if compiled:
        strategy.compile()
    condition = {"tokens": torch.randint(0, VOCABULARY, (rows, PROMPT)), "length": torch.full((rows,), PROMPT)}
    step = lambda: last(generate(strategy, {"model": model}, condition, torch.arange(rows)))
    return timed(step, 1, rows * NEW)


def peer_generation(rows: int, cache: str, compiled: bool, half: bool = False) -> Callable[[], float]:
    """Tokens per second of greedy transformers.generate."""
    import torch

    model = peer_model().eval()
    if half:
        model = model.bfloat16()
    if compiled:
        model.forward = torch.compile(model.forward)
    tokens = torch.randint(0, VOCABULARY, (rows, PROMPT))
    options: dict[str, Any] = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
    if cache == "static":
        options["cache_implementation"] = "static"

    def step() -> None:
        with torch.no_grad():
            model.generate(tokens, **options)

    return timed(step, 1, rows * NEW)


def generate() -> Figures:
    """Generated tokens per second: 200 tokens after a prompt of 16, greedy, same shape; bfloat16 against any type."""
    found: Figures = {}
    for rows in (1, 16):
        figures = side_by_side(
            {
                "sanbu eager": (our_generation, (rows, False)),
                "sanbu compiled": (our_generation, (rows, True)),
                "peer dynamic": (peer_generation, (rows, "dynamic", False)),
                "peer static compiled": (peer_generation, (rows, "static", True)),
                "sanbu.bfloat16 eager": (our_generation, (rows, False, True)),
                "sanbu.bfloat16 compiled": (our_generation, (rows, True, True)),
                "peer.bfloat16 static compiled": (peer_generation, (rows, "static", True, True)),
            },
            rounds=5,
        )
        plain = {name: value for name, value in figures.items() if "." not in name}
        found |= compared(f"generate.batch{rows}", plain)
        peers = {name: value for name, value in figures.items() if name.startswith("peer")}
        halves = {name: value for name, value in figures.items() if name.startswith("sanbu.")}
        found |= compared(f"generate.bfloat16.batch{rows}", halves | peers)
    return found


# -- memory of the loss ------------------------------------------------------------------------------------------------


def loss_memory(chunk: int) -> Callable[[], float]:
    """Peak bytes added by the loss and its gradients: 4,096 tokens, vocabulary 32k, width 256."""
    import torch
    from torch import nn

    from sanbu.objectives.next_token import chunked_cross_entropy, cross_entropy

    head, hidden = nn.Linear(256, 32768, bias=False), torch.randn(4096, 256, requires_grad=True)
    targets = torch.randint(0, 32768, (4096,))
    head.weight.grad = torch.zeros_like(head.weight)
    hidden.grad = torch.zeros_like(hidden)
    cross_entropy(head(hidden[:8]), targets[:8]).backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loss = chunked_cross_entropy(head, hidden, targets, chunk) if chunk else cross_entropy(head(hidden), targets)
    loss.backward()
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024.0
    return lambda: used


def chunked() -> Figures:
    """Peak memory of chunked cross-entropy divided by that of plain cross-entropy, at a vocabulary of 32k."""
    figures = side_by_side({"whole": (loss_memory, (0,)), "chunked": (loss_memory, (512,))}, rounds=1)
    return {
        "chunked.memory_ratio": figures["chunked"] / figures["whole"],
        "chunked.sanbu_mb": figures["chunked"] / 1e6,
        "chunked.peer_mb": figures["whole"] / 1e6,
    }


# -- tokenizing --------------------------------------------------------------------------------------------------------


def corpus() -> list[str]:
    """30 MB of documents available everywhere: the source of the standard library, repeated as needed."""
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    texts = [file.read_text(encoding="utf-8", errors="ignore") for file in files if "site-packages" not in file.parts]
    size, found = 0, []
    while size < 30_000_000:
        for text in texts:
            found.append(text)
            size += len(text.encode())
            if size >= 30_000_000:
                break
    return found


def trained() -> Any:
    """A BPE tokenizer of 8,192 tokens, trained on a part of the corpus."""
    from sanbu.codecs.bpe import train as train_tokenizer

    return train_tokenizer(corpus()[:400], 8192)


def our_shards() -> Callable[[], float]:
    """MB per second from documents to shards on disk."""
    from sanbu.data.shards import write

    texts, tokenizer = corpus(), trained()

    def measure() -> float:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            write(Path(folder), texts, tokenizer, 8192, 0.05, lambda done: None)
            return 30 / (time.perf_counter() - start)

    return measure


def peer_shards(processes: int) -> Callable[[], float]:
    """MB per second of datasets.map with the same tokenizer, batched, to Arrow files."""
    import datasets

    datasets.disable_progress_bars()
    texts, tokenizer = corpus(), trained().tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if processes == 1 else "false"

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"ids": [encoding.ids for encoding in tokenizer.encode_batch(batch["text"])]}

    def measure() -> float:
        data = datasets.Dataset.from_dict({"text": texts})
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            data.map(
                encode, batched=True, remove_columns=["text"], num_proc=processes if processes > 1 else None,
                cache_file_name=f"{folder}/ids.arrow", new_fingerprint=f"run{start}",
            )  # fmt: skip
            return 30 / (time.perf_counter() - start)

    return measure


def shards() -> Figures:
    """Tokenization of 30 MB of text into shards, MB per second."""
    figures = side_by_side(
        {"sanbu": (our_shards, ()), "peer 1 process": (peer_shards, (1,)), "peer 2 processes": (peer_shards, (2,))},
        rounds=3,
    )
    _, ours = best(figures, "sanbu")
    name, peers = best(figures, "peer")
    return {
        "shards.ratio": ours / peers,
        "shards.sanbu_mb_per_second": ours,
        "shards.peer_mb_per_second": peers,
        "shards.peer_setting": name,
    }


# -- character-level Shakespeare ---------------------------------------------------------------------------------------


def play(path: Path, name: str, changes: list[str], seed: int, threads: int = 2) -> tuple[float, float]:
    """Loss on the full validation split, and seconds of training."""
    from sanbu import recipes
    from sanbu.config import override
    from sanbu.evaluation.text import bits_per_byte
    from sanbu.loop import train as train_recipe

    alphabet = "".join(sorted(set(path.read_text(encoding="utf-8"))))
    quiet = [
        "schedule.evaluate_every=0",
        "schedule.sample_every=0",
        "schedule.checkpoint_every=0",
        f"machine.threads={threads}",
    ]
    recipe = override(
        recipes.shakespeare(path=str(path), alphabet=alphabet), [*quiet, f"schedule.seed={seed}", *changes]
    )
    with tempfile.TemporaryDirectory() as folder:
        run = train_recipe(recipe, Path(folder) / "run")
        seconds = sum(row["time/seconds"] for row in run.metrics())
        loss = bits_per_byte(run, recipe.data.build(), 128)["loss"]
    print(f"  {name}, seed {seed}: {loss:.4f} in {seconds:.0f} s", file=sys.stderr, flush=True)
    return loss, seconds


NANOGPT = [
    "model=gpt2", "model.layers=4", "model.heads=4", "model.width=128", "model.context=64", "optimizer=adamw",
    "optimizer.learning_rate=0.001", "optimizer.betas=[0.9,0.99]", "optimizer.rate.warmup=0.05",
    "optimizer.rate.final=0.1",
]  # fmt: skip


def shakespeare(source: Path) -> Figures:
    """nanoGPT's CPU preset (4 layers, 4 heads, width 128, context 64, batch 12, 2000 steps), full validation split."""
    if not source.exists():
        return {"shakespeare.skipped": f"{source} is not there; give --shakespeare PATH"}
    text = (
        gzip.open(source, "rt", encoding="utf-8").read()
        if source.suffix == ".gz"
        else source.read_text(encoding="utf-8")
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shakespeare.txt"
        path.write_text(text, encoding="utf-8")
        ours = [play(path, "canon + Muon", [], seed) for seed in (0, 1)]
        preset = play(path, "nanoGPT's preset, here", NANOGPT, 0)
        tuned = play(path, "nanoGPT's preset, rate 3e-3", [*NANOGPT, "optimizer.learning_rate=0.003"], 0)
        steps = round(2000 * preset[1] / min(seconds for _, seconds in ours))
        equal_time = play(path, f"canon + Muon, {steps} steps (equal time)", [f"schedule.steps={steps}"], 0)
    return {
        "shakespeare.val_loss": sum(loss for loss, _ in ours) / 2,
        "shakespeare.seeds": [loss for loss, _ in ours],
        "shakespeare.seconds": min(seconds for _, seconds in ours),
        "shakespeare.peer_published": 1.88,
        "shakespeare.peer_val_loss": preset[0],
        "shakespeare.peer_seconds": preset[1],
        "shakespeare.peer_tuned_val_loss": tuned[0],
        "shakespeare.equal_time_val_loss": equal_time[0],
        "shakespeare.equal_time_steps": steps,
    }


def main() -> None:
    """Run the requested parts and print one JSON object last."""
    parts = {"train": train, "generate": generate, "chunked": chunked, "shards": shards, "shakespeare": None}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=parts, action="append", help="only this part; may be repeated")
    parser.add_argument(
        "--shakespeare", type=Path, default=Path("../shared/data/tinyshakespeare/input.txt.gz"), metavar="PATH"
    )
    parser.add_argument("--json", action="store_true", help="print only the JSON line on standard output")
    chosen = parser.parse_args()
    os.environ.setdefault("SANBU_CACHE", tempfile.mkdtemp(prefix="sanbu-bench-"))
    result: Figures = {}
    for name in chosen.part or parts:
        print(f"{name}:", file=sys.stderr, flush=True)
        result |= shakespeare(chosen.shakespeare) if name == "shakespeare" else parts[name]()  # type: ignore[misc]
    if not chosen.json:
        for key, value in result.items():
            print(f"{key}: {value}")
    shutil.rmtree(os.environ["SANBU_CACHE"], ignore_errors=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
