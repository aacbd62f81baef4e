"""Evaluation of assistants on held-out questions: exact match, reward, KL, win rate.

Every run answers the same questions with the same seeds at temperature 1, several times per question. The first answer
to each question gives exact_match, reward and kl. All answers give pass_at_n (at least one is right) and best_of_n (the
answer with the highest reward is right), which is the baseline for any alignment method.
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
from sanbu.data.conversation_formats import Record
from sanbu.display.tables import Column, FittedTable
from sanbu.evaluation.options import Measurement, Options, format_figure
from sanbu.noise import Noise
from sanbu.objectives.answers import logprobs
from sanbu.objectives.objective import Round
from sanbu.objectives.policy.rewards import answers, exact_match, learned_reward
from sanbu.objectives.policy.rollout import draw_answers
from sanbu.progress import progress_rows
from sanbu.run import Run
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.strategies.strategy import draw

ROWS = 512  # answers per batch


@dataclass(frozen=True)
class Answers:
    """A run's N sampled answers to each of Q questions, and the greedy answer: greedy is [Q], the rest [Q, N]."""

    texts: list[list[str]]
    exact: Tensor
    reward: Tensor | None
    kl: Tensor
    ended: Tensor
    length: Tensor
    greedy: Tensor


def measure(runs: Sequence[Run], options: Options) -> Measurement:
    """The figures of several assistants, one column per run."""
    found = evaluate_assistants(runs, options.questions)
    names = list(dict.fromkeys(name for column in found.values() for name in column))
    rows = []
    for name in names:
        cells = [format_figure(column.get(name, "")) for column in found.values()]
        rows.append([name.replace("_", " "), *cells])
    columns = [Column("", number=False), *(Column(Path(name).name) for name in found)]
    return {"runs": found}, str(FittedTable(columns, rows))


def evaluate_assistants(runs: Sequence[Run], count: int = 512, samples: int = 8) -> dict[str, dict[str, Any]]:
    """Figures by the folder of the run. Raises SanbuError for a run that is not trained on conversations."""
    reference = reference_run(runs[0])
    questions = read_questions(reference, count, held_out=True)
    judge = next(filter(None, map(reward_run, runs)), None)
    distinct = {run.folder.resolve(): run for run in [*runs, reference]}
    answers_of = {}
    for folder, run in distinct.items():
        answers_of[folder] = answer_questions(run, reference, judge, questions, samples)
    baseline = answers_of[reference.folder.resolve()]
    return {str(run.folder): figures(answers_of[run.folder.resolve()], baseline, len(questions)) for run in runs}


def figures(results: Answers, baseline: Answers, questions: int) -> dict[str, Any]:
    """The figures of one run, with its win rate against the baseline run. questions: their number."""
    first = results.exact[:, 0]
    error = float((first.mean() * (1 - first.mean()) / len(first)).sqrt())
    best = None
    if results.reward is not None:
        best = results.exact.gather(1, results.reward.argmax(1, keepdim=True))[:, 0]
    samples = results.exact.shape[1]
    found = {
        "exact_match": float(first.mean()),
        "exact_match_error": error,
        "greedy": float(results.greedy.mean()),
        f"pass_at_{samples}": float(results.exact.amax(1).mean()),
        f"best_of_{samples}": None if best is None else float(best.mean()),
        "reward": None if results.reward is None else float(results.reward[:, 0].mean()),
        "kl": float(results.kl[:, 0].mean()),
        **win_rate(results, baseline),
        "end_rate": float(results.ended.mean()),
        "answer_tokens": float(results.length.mean()),
    }
    rounded = {name: round(value, 4) for name, value in found.items() if value is not None}
    return rounded | {"questions": questions}


def win_rate(results: Answers, baseline: Answers) -> dict[str, float | None]:
    """The share of pairs won, among pairs of answers to one question of which exactly one is right."""
    a, b = results.exact.mean(1), baseline.exact.mean(1)
    won = float((a * (1 - b)).sum())
    lost = float((b * (1 - a)).sum())
    decided = won + lost
    rate = won / decided if decided else 0.5
    return {"win_rate_vs_sft": rate, "ties": 1 - decided / len(a)}


def answer_questions(run: Run, reference: Run, judge: Run | None, questions: Sequence[Record], samples: int) -> Answers:
    """Draw `samples` answers to each question, and one greedy answer. judge: the run of the reward model, if any."""
    models: dict[str, Any] = {"model": run.model, "reference": reference.model}
    models |= {"reward": judge.model} if judge is not None else {}
    parts: list[tuple[Tensor, ...]] = []
    texts: list[list[str]] = []
    greedy: list[Tensor] = []
    size = max(1, ROWS // samples)
    with torch.no_grad(), progress_rows(f"answers of {run.folder.name}", len(questions)) as progress:
        for start in range(0, len(questions), size):
            part = questions[start : start + size]
            round = make_round(run, part, Noise("evaluate", start), models=models)
            rollout = draw_answers(round, samples)
            kl = (rollout["old"] - logprobs(reference.model, rollout["tokens"], rollout["targets"])).sum(1)
            reward = learned_reward(1.0)(round, rollout) if judge is not None else torch.full_like(kl, torch.nan)
            ended, length = rollout["ending"] >= 0, rollout["length"] - rollout["start"]
            parts.append((exact_match(round, rollout), reward, kl, ended, length))
            written = answers(round, rollout)
            texts += [written[i : i + samples] for i in range(0, len(written), samples)]
            greedy_round = make_round(run, part, Noise("evaluate"), 0.0, models)
            greedy.append(exact_match(greedy_round, draw_answers(greedy_round, 1)))
            progress(len(part))
    columns = [torch.cat(column).float() for column in zip(*parts, strict=True)]
    right, reward, kl, ended, length = (column.view(-1, samples) for column in columns)
    return Answers(texts, right, reward if judge is not None else None, kl, ended, length, torch.cat(greedy))


def make_round(
    run: Run,
    questions: Sequence[Record],
    noise: Noise,
    temperature: float = 1.0,
    models: Mapping[str, Any] | None = None,
) -> Round:
    """A round that answers questions with the run's model; the batch also has the known answers as tokens."""
    codec: Any = run.codec
    known = [ids.tolist() for ids in codec.tokenizer.encode_batch([record.answer for record in questions])]
    batch = batch_of([codec.template.ask(record.prompt) for record in questions]) | {"answer": padded(known, -1)}
    strategy = run.recipe.strategy
    max_tokens = strategy.max_tokens if isinstance(strategy, Autoregressive) else 32
    sampler = Autoregressive(max_tokens=max_tokens, temperature=temperature).build(run.recipe.data.space())
    models = models or {"model": run.model}
    return Round(models, batch, noise, partial(draw, sampler, models), run.codec.read, learning=False)


def reference_run(run: Run) -> Run:
    """The run that this run's policy was initialized from and is compared with, or the run itself.

    Raises SanbuError for a run that does not answer questions.
    """
    config = run.recipe.data
    if not isinstance(config, ConversationConfig) or not run.recipe.strategy.draws:
        data, model = kind_of(config), kind_of(run.recipe.model)
        raise SanbuError(f"{run.folder} does not answer questions: its data is {data!r} and its model {model!r}")
    return run.parent("reference") if "reference" in run.recipe.parents else run


def reward_run(run: Run) -> Run | None:
    """The reward model that a run was trained with, or the run `reward` in the same folder, or None."""
    if "reward" in run.recipe.parents:
        return run.parent("reward")
    neighbour = run.folder.parent / "reward"
    return Run.open(neighbour) if (neighbour / "model.safetensors").exists() else None


def read_questions(run: Run, count: int, held_out: bool) -> list[Record]:
    """At most `count` questions with a known answer, held out from training or not, in the order of the data."""
    config = run.recipe.data
    if not isinstance(config, ConversationConfig):
        raise SanbuError(f"{run.folder} does not answer questions: its data is {kind_of(config)!r}")
    from sanbu.data.conversations import records

    known = [record for record in records(config.path) if record.answer]
    if not known:
        raise SanbuError(f"{run.folder}: data.path={config.path!r} has no question with a known answer")
    found = [record for record in known if (record.held_out_chance < config.validation) == held_out]
    if not found:
        part = "held out" if held_out else "for training"
        raise SanbuError(
            f"{run.folder}: of {len(known):,} questions with a known answer none is {part};"
            f" data.validation={config.validation}"
        )
    return found[:count]
