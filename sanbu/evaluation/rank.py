"""Rankings of a run's own answers, to train reward models and DPO (step 2 of InstructGPT, Ouyang and others, 2022).

Where the right answer is known, the order follows from it: right and short, right and long, wrong and short, wrong
and long.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sanbu.config import SanbuError
from sanbu.data.builtin.skills import PREAMBLES
from sanbu.data.conversations import Record
from sanbu.evaluation.assistant import ROWS, questions, round_of
from sanbu.files import write_text
from sanbu.noise import Noise
from sanbu.objectives.policy.rewards import answers
from sanbu.objectives.policy.rollout import roll
from sanbu.progress import progress_rows
from sanbu.run import Run

LAST = 3  # the rank of wrong answers after many words


def rank(run: Run, out: Path, count: int, samples: int) -> dict[str, Any]:
    """Draw answers to so many questions, learnt from or held out alike, and write their rankings as JSONL."""
    if count < 1 or samples < 1:
        raise SanbuError("--questions and --n count from 1")
    asking = [*questions(run, count, held=False), *questions(run, max(1, count // 16), held=True)]
    lines: list[str] = []
    right = 0
    with torch.no_grad(), progress_rows("answers to rank", len(asking)) as progress:
        for start in range(0, len(asking), ROWS // samples):
            part = asking[start : start + ROWS // samples]
            asked = round_of(run, part, Noise("rank", start))
            said = answers(asked, roll(asked, samples))
            for number, record in enumerate(part):
                own = [text.strip() for text in said[number * samples : (number + 1) * samples]]
                right += sum(text == record.answer for text in own)
                lines.append(json.dumps(ordered(record, own), ensure_ascii=False))
            progress(len(part))
    write_text(out, "\n".join(lines) + "\n")
    return {"file": str(out), "questions": len(asking), "right": right / (len(asking) * samples)}


def ordered(record: Record, own: list[str]) -> dict[str, Any]:
    """A ranking of the right answer, two of the run's own that are not it, and the answers that came with the question.

    Right after many words is second, then come the wrong ones, and wrong after many words is last. Of the latter only
    the run's own are here: DPO that learns to push away what is never said goes far and learns little.
    """
    others = [text for text in dict.fromkeys(own) if text and text != record.answer][:2]
    given = zip(record.answers, record.ranks, strict=True)
    others += [text for text, rank in given if rank < LAST and text not in (record.answer, *others)]
    ranks = [0, *(1 if text.endswith(record.answer) else LAST if text.startswith(PREAMBLES) else 2 for text in others)]
    return {
        "messages": list(record.prompt),
        "answers": [record.answer, *others],
        "ranks": ranks,
        "answer": record.answer,
    }
