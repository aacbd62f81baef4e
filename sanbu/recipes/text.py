"""The GPT line. size="nano" trains in minutes on two CPU cores; other sizes are published, "paper" the largest."""

from __future__ import annotations

from typing import Any

from sanbu.codecs.bpe import BPE
from sanbu.codecs.tokenizer import Byte, Characters
from sanbu.config import ConfigError, nearest
from sanbu.data.text_rows import Text
from sanbu.models.tokens.canon import Canon
from sanbu.models.tokens.gpt import GPT1, GPT2, GPT3
from sanbu.models.tokens.llama import Llama
from sanbu.models.tokens.mixture import Mixture
from sanbu.models.tokens.modern import Modern
from sanbu.models.tokens.ngram import NGram
from sanbu.models.tokens.recurrent import LSTM
from sanbu.objectives.next_token import ChunkedNextToken, NextToken
from sanbu.optimizers.closed_form import ClosedForm
from sanbu.optimizers.gradient import AdamW
from sanbu.optimizers.muon import Muon
from sanbu.optimizers.rate import CosineRate, LinearRate
from sanbu.recipe import Recipe, Schedule
from sanbu.run import Run
from sanbu.strategies.autoregressive import Autoregressive

TALK = Autoregressive(temperature=0.7, top_p=0.9)


class UnknownSize(ConfigError):
    """A size that a recipe does not have. sizes: those it has, smallest first."""

    def __init__(self, line: str, sizes: list[str]) -> None:
        super().__init__(line)
        self.sizes = sizes


def pick(sizes: dict[str, Any], size: str) -> Any:
    """The entry of a size; `paper` is the last. Raises UnknownSize with the nearest match."""
    names = ["nano", *sizes, "paper"] if "nano" not in sizes else [*sizes, "paper"]
    if size not in names:
        line = f"size: given {size!r}, allowed: {', '.join(names)}{nearest(size, names)}"
        raise UnknownSize(line, names)
    return list(sizes.values())[-1] if size == "paper" else sizes[size]


def nano(name: str, model: Any, steps: int = 900) -> Recipe:
    """A small model on the installed Python's documentation: Muon with a linear cool-down, evaluations, samples."""
    return Recipe(
        name=name,
        data=Text(tokenizer=BPE(vocabulary=2048), context=128),
        model=model,
        objective=NextToken(),
        optimizer=Muon(
            rest=AdamW(learning_rate=4e-3, weight_decay=0.0, clip=None, rate=LinearRate(hold=0.3)),
            rate=LinearRate(hold=0.3),
        ),
        strategy=TALK,
        schedule=Schedule(
            steps=steps,
            batch=16,
            evaluate_every=steps // 3,
            evaluate_rows=128,
            sample_every=steps // 3,
            checkpoint_every=steps // 3,
        ),
    )


def published_recipe(
    name: str, model: Any, data: Text, learning_rate: float, batch: int, steps: int, warmup: float
) -> Recipe:
    """A published shape with its paper's batch (rows), steps and learning rate."""
    return Recipe(
        name=name,
        data=data,
        model=model,
        objective=ChunkedNextToken(),
        optimizer=AdamW(learning_rate=learning_rate, rate=CosineRate(warmup=warmup)),
        strategy=TALK,
        schedule=Schedule(
            steps=steps, batch=batch, micro_batch="auto", evaluate_every=1000, sample_every=1000, checkpoint_every=1000
        ),
    )


def gpt1(size: str = "nano") -> Recipe:
    """GPT-1: pretrain a post-norm decoder (Radford and others, 2018)."""
    if size == "nano":
        return nano("gpt1", GPT1(layers=4, heads=3, width=192, context=128, dropout=0.0))
    model = pick({"117m": GPT1(layers=12, heads=12, width=768, context=512)}, size)
    return published_recipe(
        "gpt1", model, Text(tokenizer=BPE(vocabulary=40478), context=512), 2.5e-4, 64, 1_000_000, 0.002
    )


def gpt2(size: str = "nano") -> Recipe:
    """GPT-2: one larger decoder that does tasks from the prompt alone (Radford and others, 2019)."""
    if size == "nano":
        return nano("gpt2", GPT2(layers=4, heads=3, width=192, context=128))
    shapes = {"124m": (12, 12, 768), "355m": (24, 16, 1024), "774m": (36, 20, 1280), "1.5b": (48, 25, 1600)}
    layers, heads, width = pick(shapes, size)
    model = GPT2(layers=layers, heads=heads, width=width, context=1024)
    return published_recipe(
        "gpt2", model, Text(tokenizer=BPE(vocabulary=50257), context=1024), 2.5e-4, 512, 300_000, 0.01
    )


GPT3_SIZES = {  # layers, width, heads, learning rate, rows a batch of 2048 tokens: Table 2.1 of the paper
    "125m": (12, 768, 12, 6.0e-4, 256),
    "350m": (24, 1024, 16, 3.0e-4, 256),
    "760m": (24, 1536, 16, 2.5e-4, 256),
    "1.3b": (24, 2048, 16, 2.0e-4, 512),  # the table says 24 heads of 128, which would make 1.5b parameters
    "2.7b": (32, 2560, 32, 1.6e-4, 512),
    "6.7b": (32, 4096, 32, 1.2e-4, 1024),
    "13b": (40, 5120, 40, 1.0e-4, 1024),  # the table says width 5140, which 40 heads of 128 do not make
    "175b": (96, 12288, 96, 0.6e-4, 1600),
}


def gpt3(size: str = "nano") -> Recipe:
    """GPT-3: alternating dense and banded attention, learning from examples in the prompt (Brown and others, 2020)."""
    if size == "nano":
        return nano("gpt3", GPT3(layers=4, heads=3, width=192, context=128, band=32))
    layers, width, heads, rate, batch = pick(GPT3_SIZES, size)
    model = GPT3(layers=layers, heads=heads, width=width, context=2048, band=256)
    steps = 300_000_000_000 // (batch * 2048)
    return published_recipe(
        "gpt3", model, Text(tokenizer=BPE(vocabulary=50257), context=2048), rate, batch, steps, 0.00125
    )


LLAMA_SIZES = {"7b": (32, 32, 4096), "13b": (40, 40, 5120), "33b": (60, 52, 6656), "65b": (80, 64, 8192)}


def llama(size: str = "nano") -> Recipe:
    """LLaMA: rotary positions, RMSNorm, SwiGLU (Touvron and others, 2023)."""
    if size == "nano":
        return nano("llama", Llama(layers=4, heads=6, key_heads=2, width=192, context=128))
    layers, heads, width = pick(LLAMA_SIZES, size)
    model = Llama(layers=layers, heads=heads, width=width, context=2048)
    rate = 3e-4 if width < 6000 else 1.5e-4
    steps = (1_000_000_000_000 if width < 6000 else 1_400_000_000_000) // 4_000_000
    return published_recipe(
        "llama", model, Text(tokenizer=BPE(vocabulary=32000), context=2048), rate, 1953, steps, 0.008
    )


def modern(size: str = "nano") -> Recipe:
    """A small GPT as of 2026; the sizes are its depth, and one dial gives width, heads, rate and batch."""
    depths = {"nano": 4, **{f"d{depth}": depth for depth in (6, 8, 12, 16, 20, 24)}}
    depth = pick(depths, size)
    if size == "nano":
        return nano("modern", Modern(layers=4, heads=3, width=192, context=128))
    model = Modern(layers=depth, heads=depth // 2, width=64 * depth, context=1024)
    return Recipe(
        name="modern",
        data=Text(tokenizer=BPE(vocabulary=32768), context=1024),
        model=model,
        objective=ChunkedNextToken(),
        optimizer=Muon(),
        strategy=TALK,
        schedule=Schedule(steps=20_000, evaluate_every=500, sample_every=1000, checkpoint_every=1000),
    )


def shakespeare(size: str = "nano", path: str = "builtin:python", alphabet: str = "") -> Recipe:
    """Character level, 0.8M parameters, the smallest known benchmark; path=FILE, alphabet= (its characters)."""
    sizes = {"nano": (4, 4, 128, 64, 12), "10.6m": (6, 6, 384, 256, 64)}  # nanoGPT's presets for a CPU and for a GPU
    layers, heads, width, context, batch = pick(sizes, size)
    return Recipe(
        name="shakespeare",
        data=Text(
            path=path, tokenizer=Characters(alphabet=alphabet) if alphabet else Byte(), context=context, validation=0.1
        ),
        model=Canon(layers=layers, heads=heads, width=width, context=context),
        objective=NextToken(),
        optimizer=Muon(
            learning_rate=0.02,
            momentum=0.85,
            rate=LinearRate(hold=0.4),
            rest=AdamW(learning_rate=5e-3, weight_decay=0.0, clip=None, rate=LinearRate(hold=0.4)),
        ),
        strategy=Autoregressive(temperature=0.8, max_tokens=256),
        schedule=Schedule(steps=2000, batch=batch, evaluate_every=500, evaluate_rows=256, sample_every=1000),
    )


def ngram(size: str = "nano", path: str = "builtin:python", alphabet: str = "") -> Recipe:
    """Kneser-Ney n-grams of characters, counted in seconds: the baseline for any network; path=FILE, alphabet=."""
    order = pick({"nano": 7}, size)
    tokenizer = Characters(alphabet=alphabet) if alphabet else Byte()
    return Recipe(
        name="ngram",
        data=Text(path=path, tokenizer=tokenizer, context=1024, validation=0.1),
        model=NGram(order=order),
        objective=NextToken(),
        optimizer=ClosedForm(),
        strategy=Autoregressive(temperature=0.8, max_tokens=256),
        schedule=Schedule(steps=1, batch="all", micro_batch=16, evaluate_every=1, sample_every=1),
    )


def mixture(size: str = "nano", ngram: str = "") -> Recipe:
    """n-grams and an LSTM in one model, mixed by a learned gate; ngram=RUN (of the recipe `ngram`)."""
    width, plain = pick({"nano": 208}, size), shakespeare("nano")
    model = Mixture(network=LSTM(layers=2, width=width))
    if not ngram:
        return plain.change(name="mixture", model=model)
    counted = Run.open(ngram).recipe
    order = getattr(counted.model, "order", model.order)
    return plain.change(
        name="mixture",
        data=counted.data.model_copy(update={"context": plain.data.space().shape[0]}),
        model=model.model_copy(update={"order": order}),
        parents={"model": ngram},
    )
