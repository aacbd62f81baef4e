"""Assistants measured on held-out questions: right answers, reward, KL, win rate.

Every stage answers the same questions with the same seeds at temperature 1, several times each. The first answer of
each gives exact_match, reward and kl; all of them give pass_at_n (one at least is right) and best_of_n (the one the
reward model likes best is right), the baseline any alignment has to beat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sanbu.codecs.text import batch_of, padded
from sanbu.config import SanbuError, kind_of
from sanbu.data.chat import ConversationConfig
from sanbu.data.conversations import Record
from sanbu.evaluation.options import Measured, Options, readable, table
from sanbu.noise import Noise
from sanbu.objectives.answers import logprobs
from sanbu.objectives.objective import Round
from sanbu.objectives.policy.rewards import answers, exact, learned
from sanbu.objectives.policy.rollout import roll
from sanbu.progress import progress_rows
from sanbu.run import Run
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.strategies.strategy import draw

ROWS = 512  # answers drawn at once


@dataclass(frozen=True)
class Answers:
    """N answers to each of Q questions by one run: [Q, N] each but for the greedy ones, [Q]."""

    texts: list[list[str]]
    exact: Tensor
    reward: Tensor | None
    kl: Tensor
    ended: Tensor
    length: Tensor
    greedy: Tensor


def measure(runs: Sequence[Run], options: Options) -> Measured:
    """Assistants side by side."""
    found = evaluate_assistants(runs, options.questions)
    names = list(dict.fromkeys(name for figures in found.values() for name in figures))
    rows = [
        [name.replace("_", " "), *(readable(figures.get(name, "")) for figures in found.values())] for name in names
    ]
    return {"runs": found}, table(["", *(Path(name).name for name in found)], rows)


def evaluate_assistants(runs: Sequence[Run], count: int = 512, samples: int = 8) -> dict[str, dict[str, Any]]:
    """Figures of each run by its folder's name. Raises SanbuError when a run holds no conversations."""
    first = beginning(runs[0])
    questions = held_out(first, count)
    judge = next((found for run in runs if (found := reward_run(run)) is not None), None)
    different = {run.folder.resolve(): run for run in [*runs, first]}
    compared = {folder: answer(run, first, judge, questions, samples) for folder, run in different.items()}
    against = compared[first.folder.resolve()]
    return {str(run.folder): row(compared[run.folder.resolve()], against, questions) for run in runs}


def row(mine: Answers, other: Answers, questions: Sequence[Record]) -> dict[str, Any]:
    """The figures of one run beside those of the run it began from."""
    one = mine.exact[:, 0]
    error = float((one.mean() * (1 - one.mean()) / len(one)).sqrt())
    best = mine.exact.gather(1, mine.reward.argmax(1, keepdim=True))[:, 0] if mine.reward is not None else None
    samples = mine.exact.shape[1]
    found = {
        "exact_match": float(one.mean()),
        "exact_match_error": error,
        "greedy": float(mine.greedy.mean()),
        f"pass_at_{samples}": float(mine.exact.amax(1).mean()),
        f"best_of_{samples}": None if best is None else float(best.mean()),
        "reward": None if mine.reward is None else float(mine.reward[:, 0].mean()),
        "kl": float(mine.kl[:, 0].mean()),
        **wins(mine, other),
        "end_rate": float(mine.ended.mean()),
        "answer_tokens": float(mine.length.mean()),
    }
    return {name: round(value, 4) for name, value in found.items() if value is not None} | {"questions": len(questions)}


def wins(mine: Answers, other: Answers) -> dict[str, float | None]:
    """Win rate: our answer right and theirs wrong, among pairs of samples where exactly one is right."""
    a, b = mine.exact.mean(1), other.exact.mean(1)
    won, lost = float((a * (1 - b)).sum()), float((b * (1 - a)).sum())
    return {"win_rate_vs_sft": won / (won + lost) if won + lost else 0.5, "ties": 1 - (won + lost) / len(a)}


def answer(run: Run, first: Run, judge: Run | None, questions: Sequence[Record], samples: int) -> Answers:
    """Every question answered `samples` times, and once greedily."""
    models: dict[str, Any] = {"model": run.model, "reference": first.model}
    models |= {"reward": judge.model} if judge is not None else {}
    parts: list[tuple[Tensor, ...]] = []
    texts: list[list[str]] = []
    greedy: list[Tensor] = []
    size = max(1, ROWS // samples)
    with torch.no_grad(), progress_rows(f"answers of {run.folder.name}", len(questions)) as progress:
        for start in range(0, len(questions), size):
            asked = round_of(run, questions[start : start + size], Noise("evaluate", start), models=models)
            drawn = roll(asked, samples)
            moved = (drawn["old"] - logprobs(first.model, drawn["tokens"], drawn["targets"])).sum(1)
            reward = learned(1.0)(asked, drawn) if judge is not None else torch.full_like(moved, torch.nan)
            ended, length = drawn["ending"] >= 0, drawn["length"] - drawn["start"]
            parts.append((exact(asked, drawn), reward, moved, ended, length))
            said = answers(asked, drawn)
            texts += [said[i : i + samples] for i in range(0, len(said), samples)]
            alone = round_of(run, questions[start : start + size], Noise("evaluate"), 0.0, models)
            greedy.append(exact(alone, roll(alone, 1)))
            progress(len(asked.batch["tokens"]))
    right, reward, moved, ended, length = (
        torch.cat(part).float().view(-1, samples) for part in zip(*parts, strict=True)
    )
    return Answers(texts, right, reward if judge is not None else None, moved, ended, length, torch.cat(greedy))


def round_of(
    run: Run,
    questions: Sequence[Record],
    noise: Noise,
    temperature: float = 1.0,
    models: Mapping[str, Any] | None = None,
) -> Round:
    """A round in which a run answers questions; the batch holds what is known to be right, as tokens."""
    codec: Any = run.codec
    known = [ids.tolist() for ids in codec.tokenizer.encode_batch([record.answer for record in questions])]
    batch = batch_of([codec.template.ask(record.prompt) for record in questions]) | {"answer": padded(known, -1)}
    strategy = run.recipe.strategy
    most = strategy.max_tokens if isinstance(strategy, Autoregressive) else 32
    drawn_by = Autoregressive(max_tokens=most, temperature=temperature).build(run.recipe.data.space())
    models = models or {"model": run.model}
    return Round(models, batch, noise, partial(draw, drawn_by, models), run.codec.read, learning=False)


def beginning(run: Run) -> Run:
    """The run whose policy this one began from and is compared with; the run itself where there is none."""
    config = run.recipe.data
    if not isinstance(config, ConversationConfig) or not run.recipe.strategy.draws:
        kind = kind_of(config)
        raise SanbuError(
            f"{run.folder} does not answer questions: its data is {kind!r} and its model {kind_of(run.recipe.model)!r}"
        )
    return run.parent("reference") if "reference" in run.recipe.parents else run


def reward_run(run: Run) -> Run | None:
    """The reward model of a run, or the one beside it."""
    if "reward" in run.recipe.parents:
        return run.parent("reward")
    beside = run.folder.parent / "reward"
    return Run.open(beside) if (beside / "model.safetensors").exists() else None


def held_out(run: Run, count: int) -> list[Record]:
    """Questions with a known answer that no stage has learnt from, the kinds in turn."""
    return questions(run, count, held=True)


def questions(run: Run, count: int, held: bool) -> list[Record]:
    """Questions with a known answer, held out or not, in the order of the data."""
    config = run.recipe.data
    assert isinstance(config, ConversationConfig)
    from sanbu.data.conversations import records

    found = [
        record for record in records(config.path)
        if record.answer and (record.held_out_chance < config.validation) == held
    ]  # fmt: skip
    if not found:
        raise SanbuError(f"{run.folder}: data.path={config.path!r} holds no question with a known answer to check")
    return found[:count]
