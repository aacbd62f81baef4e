"""Language models over notes: pieces that they draw beside held-out pieces, a Markov chain and other held-out pieces.

bits_per_note  bits of a held-out piece, per note (tempo, bars, positions and lengths included)
transitions, in_key, regularity, copied: see `note_figures`; all of a run's pieces are drawn without a prompt
unfinished     pieces that were cut at the longest sequence

Floors: a second-order Markov chain over the same tokens, and one over the notes of each voice alone. Ceiling: other
held-out pieces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from sanbu.codecs.music.note_tokens import NOTE, decode
from sanbu.codecs.music.score import Score
from sanbu.config import SanbuError
from sanbu.data.notes import NoteRows
from sanbu.evaluation.held_out import nothing_held_out
from sanbu.evaluation.note_chain import NoteChain
from sanbu.evaluation.note_figures import figures, runs_of
from sanbu.evaluation.options import Measurement, Options, figure_table, measured_alike
from sanbu.models.tokens.ngram import NGram
from sanbu.objectives.next_token import cross_entropy
from sanbu.progress import progress_rows
from sanbu.run import Run
from sanbu.space import Space
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.strategies.strategy import StrategyConfig, consecutive, draw

PIECES, AT_ONCE = 100, 50  # that are drawn, and at once
ORDER = 3  # of the chain: the two tokens before
COLUMNS = {
    "bits_per_note": ".3f", "transitions": ".4f", "in_key": ".3f", "regularity": ".3f", "copied": ".3f",
    "unfinished": ".3f",
}  # fmt: skip


def measure(runs: Sequence[Run], options: Options) -> Measurement:
    """A row per run, two of Markov chains and one of held-out pieces, all against the first run's held-out pieces."""
    measured_alike(runs)
    rows = measure_rows(runs)
    styles = [""] * len(runs) + ["dim"] * 3
    text = f"{figure_table(rows, COLUMNS, styles)}\n"
    text += f"{rows[0]['pieces']} pieces against {rows[0]['reference']} held-out ones"
    return {"rows": rows}, text


def measure_rows(runs: Sequence[Run], most: int = PIECES) -> list[dict[str, Any]]:
    """The figures of each run, of the chains and of held-out pieces. Raises SanbuError for fewer than two of these."""
    data: Any = runs[0].recipe.data
    rows: NoteRows = data.build()
    if len(rows.held_pieces) < 2:
        said = nothing_held_out(data, rows)
        raise SanbuError(f"{runs[0].folder}: {said}" if not rows.held_pieces else f"{said}; two pieces are needed")
    train, held = ([score_of(ids) for ids in each] for each in (rows.train_pieces, rows.held_pieces))
    half = min(most, len(held) // 2)
    reference, others = held[:half], held[half : 2 * half]
    known = {run for score in train for run in runs_of(score)}
    found: list[dict[str, Any]] = []
    row: dict[str, Any]
    for run in runs:
        drawn, cut = pieces_of(run.model, run.recipe.strategy, run.recipe.data.space(), half)
        bits = bits_per_note(run.model, rows)
        row = {"name": str(run.folder), "bits_per_note": bits, "unfinished": cut}
        found.append(row | figures(drawn, reference, known))
    chain = token_chain(rows)
    drawn, cut = pieces_of(chain, Autoregressive(max_tokens=data.context), data.space(), half)
    row = {"name": "Markov chain of tokens", "bits_per_note": bits_per_note(chain, rows), "unfinished": cut}
    found.append(row | figures(drawn, reference, known))
    for name, scores in (("Markov chain of notes", NoteChain(train).draw(half)), ("other held-out pieces", others)):
        found.append({"name": name, **figures(scores, reference, known)})
    return [row | {"pieces": half, "reference": half} for row in found]


def score_of(ids: Any) -> Score:
    """The score of a piece of the data."""
    score = decode(ids.tolist())
    assert score is not None, "data has no piece without notes"
    return score


def token_chain(rows: NoteRows) -> Any:
    """A second-order Markov chain of the tokens of all training rows."""
    model: Any = NGram(order=ORDER).build(rows.config.space())
    model.fit(rows.batch(0, rows.rows))
    return model.eval()


def pieces_of(model: Any, config: StrategyConfig, space: Space, count: int) -> tuple[list[Score], float]:
    """Pieces that a model draws, and the share of them that it did not end."""
    strategy, scores, ended = config.build(space), [], 0
    with progress_rows("composing", count) as progress:
        for start in range(0, count, AT_ONCE):
            size = min(AT_ONCE, count - start)
            condition = {"tokens": torch.full((size, 1), space.end or 0), "length": torch.ones(size, dtype=torch.long)}
            drawn = draw(strategy, {"model": model}, condition, consecutive(start, size))
            kept = zip(drawn.sample, drawn.committed, strict=True)
            found = [decode(row[real].tolist()) for row, real in kept]
            scores += [score for score in found if score is not None]
            ended += int((drawn.record["ending"] >= 0).sum())
            progress(size)
    return scores, 1 - ended / count


def bits_per_note(model: Any, rows: NoteRows, batch: int = 8) -> float:
    """Bits of all held-out rows per note in them."""
    nats, notes = 0.0, 0
    with torch.no_grad(), progress_rows("evaluating", rows.held_out_rows) as progress:
        for start in range(0, rows.held_out_rows, batch):
            part = rows.held_out(start, batch)
            logits = model(part["tokens"], part["positions"])
            nats += float(cross_entropy(logits.flatten(0, 1), part["targets"].flatten()))
            notes += int((part["targets"] >= NOTE).sum())
            progress(len(part["tokens"]))
    return nats / math.log(2) / notes
