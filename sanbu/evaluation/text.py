"""Bits per byte: the number of bits that a model needs per byte of held-out text, independent of its tokenizer.

bits per byte = sum_t -log2 p(x_t | x_<t) / bytes of the text. An end token has no bytes, but its bits count. So the
number is the length of a code that gives back the documents exactly.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sanbu.codecs.text import TextCodec
from sanbu.config import SanbuError, kind_of
from sanbu.data.shards import Shards, write
from sanbu.data.sources import documents
from sanbu.data.text_rows import Text, TextRows, build
from sanbu.evaluation.held_out import nothing_held_out
from sanbu.evaluation.options import Measurement, Options, figure_lines, single_run
from sanbu.objectives.next_token import chunked_cross_entropy
from sanbu.parallel.sharing import over_ranks, sharers
from sanbu.progress import progress_rows
from sanbu.run import Run

Report = dict[str, Any]


def bits_per_byte(run: Run, data: TextRows, batch: int = 16) -> Report:
    """A run's model on every held-out row: loss in nats per token, perplexity, bits per byte, tokens and bytes."""
    model, size = run.model, data.held_out_bytes
    with torch.no_grad(), progress_rows("evaluating", data.held_out_rows) as progress:

        def measure(start: int) -> tuple[float, int]:
            rows = data.held_out(start, batch)
            targets = rows["targets"].flatten()

            def readout(head: Any, hidden: torch.Tensor) -> torch.Tensor:
                return chunked_cross_entropy(head, hidden.flatten(0, 1), targets, 1024)

            nats = float(model(rows["tokens"], rows.get("positions"), readout=readout))
            progress(len(rows["tokens"]) * sharers())
            return nats, int((targets >= 0).sum())

        found = over_ranks(range(0, data.held_out_rows, batch), measure)
    nats, tokens = sum(part[0] for part in found), sum(part[1] for part in found)
    if not size:
        raise SanbuError("there is no text to evaluate: the held-out text is empty")
    loss = nats / tokens
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700)),
        "bits_per_byte": nats / math.log(2) / size,
        "tokens": tokens,
        "bytes": size,
    }


def measure(runs: Sequence[Run], options: Options) -> Measurement:
    """Loss, perplexity and bits per byte of one run."""
    run = single_run(runs)
    found = evaluate_run(run, options.data)
    return {"run": str(run.folder), **found}, figure_lines(found)


def evaluate_run(run: Run, path: str | None = None) -> Report:
    """`bits_per_byte` of a run on its own held-out text, or on all text of another path."""
    config, folder = run.recipe.data, run.folder
    if not isinstance(config, Text):
        raise SanbuError(
            f"{folder}: bits per byte are defined for text, but the data of this run is {kind_of(config)!r}"
        )
    if path is None:
        data: TextRows = build(config)
        if not data.held_out_rows:
            raise SanbuError(f"{folder}: {nothing_held_out(config, data)}; give --data PATH")
        return bits_per_byte(run, data)
    return bits_per_byte(run, held_out_text(run, config, path))


def held_out_text(run: Run, config: Text, path: str) -> TextRows:
    """All documents of a path as held-out rows, tokenized with the tokenizer of a run."""
    codec = TextCodec(config.tokenizer.load(run.folder))
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = config.tokenizer.size()
        texts = documents(path, config.field)
        write(Path(folder), texts, codec.tokenizer, vocabulary, 1.0, lambda done: None)
        return TextRows(Shards.open(Path(folder)), codec, config.context, vocabulary)
