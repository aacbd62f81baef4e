"""Preference and policy objectives over several processes: rollouts are divided, and the steps are those of one."""

import json

import pytest

from sanbu.loop import train
from sanbu.recipes import make
from tests.parallel.test_parity import check

COMMON = [
    "schedule.steps=3", "schedule.batch=4", "schedule.micro_batch=2", "schedule.evaluate_rows=4", "machine.threads=1",
    "machine.device=cpu", "machine.precision=float32",
]  # fmt: skip
BASE = ["model.layers=2", "model.heads=2", "model.width=16", "data.tokenizer.vocabulary=300", "strategy.max_tokens=4"]
SGD = ["optimizer=sgd", "optimizer.learning_rate=0.1", "optimizer.clip=1.0"]
CHECKED = 'objective.rewards=[{"kind":"checked"}]'
POLICY = ["objective.epochs=2", "strategy.max_tokens=4", "data.answer=4", CHECKED]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pairs of answers, and a small base run."""
    folder = tmp_path_factory.mktemp("alignment")
    (folder / "text.txt").write_text("It is 3, and what is 4? " * 500)
    recipe, rest = make("base", [f"path={folder / 'text.txt'}", *COMMON, *BASE])
    train(recipe.change(*rest), folder / "base", watchers=[])
    answers = [f"It is {n}." for n in range(80)]
    pairs = [{"prompt": f"{text}?", "chosen": text, "rejected": "No.", "answer": text} for text in answers]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return folder


CASES = {"dpo": [], "ppo": POLICY, "grpo": POLICY}


@pytest.mark.parametrize("layout", [{}, {"zero": 3}], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_alignment_over_two_processes(place, name, layout):
    given = [f"sft={place / 'base'}", f"path={place / 'pairs.jsonl'}"]
    check(layout, 2, name, *given, *COMMON, *SGD, *CASES[name])
