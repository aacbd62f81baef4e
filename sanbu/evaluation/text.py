"""Bits per byte: how many bits a model needs for a byte of held-out text, whatever its tokenizer.

bits per byte = sum_t -log2 p(x_t | x_<t) / bytes of the text. Every token counts its own bytes; the end of a document
counts none and still costs its bits, so that the number is the length of a code from which the documents come back
whole.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sanbu.codecs.text import TextCodec
from sanbu.config import SanbuError
from sanbu.data.data import Data
from sanbu.data.shards import Shards, write
from sanbu.data.sources import documents
from sanbu.data.text_rows import Text, TextRows
from sanbu.evaluation.options import Measured, Options, lines_of, only
from sanbu.objectives.next_token import chunked_cross_entropy
from sanbu.progress import progress_rows
from sanbu.run import Run

Report = dict[str, Any]


def bits_per_byte(run: Run, data: Data, batch: int = 16) -> Report:
    """A run's model on every held-out row: loss in nats a token, perplexity, bits per byte, tokens and bytes."""
    model = run.model
    nats, tokens, size = 0.0, 0, 0
    with torch.no_grad(), progress_rows("evaluating", data.held_out_rows) as progress:
        for start in range(0, data.held_out_rows, batch):
            rows = data.held_out(start, batch)
            targets = rows["targets"].flatten()

            def readout(head: Any, hidden: torch.Tensor, targets: torch.Tensor = targets) -> torch.Tensor:
                return chunked_cross_entropy(head, hidden.flatten(0, 1), targets, 1024)

            nats += float(model(rows["tokens"], rows.get("positions"), readout=readout))
            tokens += int((targets >= 0).sum())
            size += int(rows["bytes"].sum())
            progress(len(rows["tokens"]))
    loss = nats / tokens
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700)),
        "bits_per_byte": nats / math.log(2) / size,
        "tokens": tokens,
        "bytes": size,
    }


def measure(runs: Sequence[Run], options: Options) -> Measured:
    """Loss, perplexity and bits per byte of one run."""
    run = only(runs)
    found = evaluate_run(run, options.data)
    return {"run": str(run.folder), **found}, lines_of(found)


def evaluate_run(run: Run, path: str | None = None) -> Report:
    """`bits_per_byte` of a run, on its own held-out text or on all the text of another path."""
    config, folder = run.recipe.data, run.folder
    if not isinstance(config, Text):
        raise SanbuError(
            f"{folder}: bits per byte are of text, and this run learnt from {type(config).__name__.lower()}"
        )
    if path is None:
        data = config.build()
        if not data.held_out_rows:
            raise SanbuError(f"{folder}: data.validation is 0, so nothing is held out; give --data PATH")
        return bits_per_byte(run, data)
    return bits_per_byte(run, all_held_out(run, config, path))


def all_held_out(run: Run, config: Text, path: str) -> Data:
    """Every document of a path, held out, in the tokens of a run."""
    codec = TextCodec(config.tokenizer.load(run.folder))
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = config.tokenizer.size()
        texts = documents(path, config.field)
        write(Path(folder), texts, codec.tokenizer, vocabulary, 1.0, lambda done: None)
        return TextRows(Shards.open(Path(folder)), codec, config.context, vocabulary)
