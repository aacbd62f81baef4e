"""Rankings of a run's own answers, to train reward models and DPO (step 2 of InstructGPT, Ouyang and others, 2022).

The right answers are known, and they give the order: right and short, right and long, wrong and short, wrong and long.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sanbu.config import SanbuError
from sanbu.data.builtin.skills import PREAMBLES
from sanbu.data.conversation_formats import Record
from sanbu.evaluation.assistant import ROWS, make_round, read_questions
from sanbu.files import write_text
from sanbu.noise import Noise
from sanbu.objectives.policy.rewards import answers
from sanbu.objectives.policy.rollout import draw_answers
from sanbu.progress import progress_rows
from sanbu.run import Run

LAST = 3  # rank of wrong answers with a preamble


def rank(run: Run, out: Path, count: int, samples: int) -> dict[str, Any]:
    """Draw `samples` answers to each question and write the rankings as JSONL. Returns the file and its figures.

    `count` questions are of the training part; count / 16 more are held out. Raises SanbuError for impossible numbers.
    """
    if not run.recipe.strategy.draws:
        raise SanbuError(f"{run.folder} gives scores, not text; rank the answers of a run that draws text")
    if count < 1 or samples < 1:
        raise SanbuError(f"--questions and -n: given {count} and {samples}, but both must be at least 1")
    questions = read_questions(run, count, held_out=False)
    questions += read_questions(run, max(1, count // 16), held_out=True)
    lines: list[str] = []
    right = 0
    with torch.no_grad(), progress_rows("answers to rank", len(questions)) as progress:
        for start in range(0, len(questions), ROWS // samples):
            part = questions[start : start + ROWS // samples]
            round = make_round(run, part, Noise("rank", start))
            texts = answers(round, draw_answers(round, samples))
            for number, record in enumerate(part):
                own = [text.strip() for text in texts[number * samples : (number + 1) * samples]]
                right += own.count(record.answer)
                lines.append(json.dumps(make_ranking(record, own), ensure_ascii=False))
            progress(len(part))
    write_text(out, "\n".join(lines) + "\n")
    share = right / (len(questions) * samples)
    return {"file": str(out), "questions": len(questions), "right": share}


def make_ranking(record: Record, own: list[str]) -> dict[str, Any]:
    """A ranking of the right answer, two other answers of the run (`own`), and the answers given in the record.

    Ranks: 0 right, 1 right with a preamble, 2 wrong, 3 wrong with a preamble. Given answers of rank 3 are left out: DPO
    would lower the probability of texts that the model never writes, which moves the policy far and teaches little.
    """
    others = [text for text in dict.fromkeys(own) if text and text != record.answer][:2]
    given = zip(record.answers, record.ranks, strict=True)
    excluded = {record.answer, *others}
    others += [text for text, rank in given if rank < LAST and text not in excluded]
    return {
        "messages": list(record.prompt),
        "answers": [record.answer, *others],
        "ranks": [0, *(rank_of(text, record.answer) for text in others)],
        "answer": record.answer,
    }


def rank_of(text: str, answer: str) -> int:
    """The rank of a text that is not exactly the right answer."""
    if text.endswith(answer):
        return 1
    return LAST if text.startswith(PREAMBLES) else 2
