"""Evaluation of assistants on held-out questions: exact match, reward, KL, win rate.

Every run answers the same questions with the same seeds at temperature 1, several times per question. The first answer
to each question gives exact_match, reward and kl. All answers give pass_at_n (at least one is right) and best_of_n (the
answer with the highest reward is right), which is the baseline for any alignment method.

chat is the share of right answers with the run's own strategy, as `sanbu chat` and the server answer when nothing else
is asked for; chat_first_turn, chat_second_turn and chat_later_turn are its parts by the number of questions in the
conversation.
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
from sanbu.files import read_json, write_json
from sanbu.noise import Noise
from sanbu.objectives.objective import Round
from sanbu.objectives.policy.rewards import answers, exact_match, learned_reward
from sanbu.objectives.policy.rollout import add_reference, draw_answers
from sanbu.progress import progress_rows
from sanbu.run import Run
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.strategies.strategy import draw

ROWS = 512  # answers per batch
TURNS = {1: "first", 2: "second"}


@dataclass(frozen=True)
class Answers:
    """A run's N sampled answers to each of Q questions, [Q, N]; [Q]: the greedy answer, and that of its own strategy.

    turn_Q: how many questions the conversation has.
    """

    texts: list[list[str]]
    exact: Tensor
    reward: Tensor | None
    kl: Tensor
    ended: Tensor
    length: Tensor
    greedy: Tensor
    chat: Tensor
    turn: Tensor

    def write(self, path: Path) -> None:
        """Write them as JSON."""
        lists = {name: value.tolist() for name, value in vars(self).items() if isinstance(value, Tensor)}
        write_json(path, vars(self) | lists)

    @classmethod
    def read(cls, path: Path) -> Answers:
        """Read what `write` wrote."""
        found: dict[str, Any] = read_json(path)
        lists = {name: value for name, value in found.items() if name != "texts" and value is not None}
        return cls(**found | {name: torch.tensor(value) for name, value in lists.items()})


def measure(runs: Sequence[Run], options: Options) -> Measurement:
    """The figures of several assistants, one column per run."""
    return tabulate(evaluate_assistants(runs, options.questions))


def tabulate(found: dict[str, dict[str, Any]]) -> Measurement:
    """Figures by run, and their table."""
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
    return {str(run.folder): figures(answers_of[run.folder.resolve()], baseline) for run in runs}


def answers_of_run(run: Run, judge: Run, count: int, samples: int = 8) -> Answers:
    """The answers of one run alone, for `figures`. judge: the run of the reward model."""
    reference = reference_run(run)
    questions = read_questions(reference, count, held_out=True)
    return answer_questions(run, reference, judge, questions, samples)


def figures(results: Answers, baseline: Answers) -> dict[str, Any]:
    """The figures of one run, with its win rate against the baseline run."""
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
        "chat": float(results.chat.mean()),
        **{f"chat_{name}_turn": share(results.chat[results.turn == turn]) for turn, name in TURNS.items()},
        "chat_later_turn": share(results.chat[results.turn > len(TURNS)]),
        f"pass_at_{samples}": float(results.exact.amax(1).mean()),
        f"best_of_{samples}": None if best is None else float(best.mean()),
        "reward": None if results.reward is None else float(results.reward[:, 0].mean()),
        "kl": float(results.kl[:, 0].mean()),
        **win_rate(results, baseline),
        "end_rate": float(results.ended.mean()),
        "answer_tokens": float(results.length.mean()),
    }
    rounded = {name: round(value, 4) for name, value in found.items() if value is not None}
    return rounded | {"questions": len(results.exact)}


def share(right: Tensor) -> float | None:
    """The mean, or None where there is nothing."""
    return float(right.mean()) if len(right) else None


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
    chat: list[Tensor] = []
    size = max(1, ROWS // samples)
    with torch.no_grad(), progress_rows(f"answers of {run.folder.name}", len(questions)) as progress:
        for start in range(0, len(questions), size):
            part = questions[start : start + size]
            round = make_round(run, part, Noise("evaluate", start), models=models)
            rollout = draw_answers(round, samples)
            kl = (rollout["old"] - add_reference(round, rollout)["reference"]).sum(1)
            reward = learned_reward(1.0)(round, rollout) if judge is not None else torch.full_like(kl, torch.nan)
            ended, length = rollout["ending"] >= 0, rollout["length"] - rollout["start"]
            parts.append((exact_match(round, rollout), reward, kl, ended, length))
            written = answers(round, rollout)
            texts += [written[i : i + samples] for i in range(0, len(written), samples)]
            greedy.append(answer_once(run, part, Noise("evaluate", start), 0.0, models))
            same = sampler_of(run, None) == sampler_of(run, 0.0)
            chat.append(greedy[-1] if same else answer_once(run, part, Noise("evaluate", start), None, models))
            progress(len(part))
    columns = [torch.cat(column).float() for column in zip(*parts, strict=True)]
    right, reward, kl, ended, length = (column.view(-1, samples) for column in columns)
    turn = torch.tensor([sum(message["role"] == "user" for message in record.prompt) for record in questions])
    reward_or_none = reward if judge is not None else None
    return Answers(texts, right, reward_or_none, kl, ended, length, torch.cat(greedy), torch.cat(chat), turn)


def make_round(
    run: Run,
    questions: Sequence[Record],
    noise: Noise,
    temperature: float | None = 1.0,
    models: Mapping[str, Any] | None = None,
) -> Round:
    """A round that answers questions with the run's model; the batch also has the known answers as tokens.

    temperature: of unfiltered sampling; None answers with the run's own strategy.
    """
    codec: Any = run.codec
    known = [ids.tolist() for ids in codec.tokenizer.encode_batch([record.answer for record in questions])]
    batch = batch_of([codec.template.ask(record.prompt) for record in questions]) | {"answer": padded(known, -1)}
    sampler = sampler_of(run, temperature).build(run.recipe.data.space())
    models = models or {"model": run.model}
    return Round(models, batch, noise, partial(draw, sampler, models), run.codec.read, learning=False)


def sampler_of(run: Run, temperature: float | None) -> Autoregressive:
    """Unfiltered sampling at a temperature, with the length of the run's own strategy; None gives that strategy."""
    own = run.recipe.strategy if isinstance(run.recipe.strategy, Autoregressive) else Autoregressive(max_tokens=32)
    return own if temperature is None else Autoregressive(max_tokens=own.max_tokens, temperature=temperature)


def answer_once(
    run: Run, questions: Sequence[Record], noise: Noise, temperature: float | None, models: Mapping[str, Any]
) -> Tensor:
    """Whether one answer to each question is right, [Q]."""
    round = make_round(run, questions, noise, temperature, models)
    return exact_match(round, draw_answers(round, 1))


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
    """At most `count` different questions with a known answer, held out or not, in the order of the data."""
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
    different = {tuple((message["role"], message["content"]) for message in record.prompt): record for record in found}
    return list(different.values())[:count]
