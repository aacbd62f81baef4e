"""Human rankings of answers, and the agreement between them."""

import pytest

from sanbu.config import SanbuError
from sanbu.data.conversations import records
from sanbu.studio.label import agreement, append, read, read_order, win_counts


def row(answers, ranks, runs=None, question="q"):
    messages = [{"role": "user", "content": question}]
    return {"messages": messages, "answers": answers, "ranks": ranks, "runs": runs or [[one] for one in answers]}


@pytest.mark.parametrize(
    ("text", "ranks"), [("2 1 3", [1, 0, 2]), ("2 1=3", [1, 0, 1]), ("3>2>1", [2, 1, 0]), ("1 = 2, 3", [0, 0, 1])]
)
def test_an_order_is_a_rank_for_each(text, ranks):
    assert read_order(text, 3) == ranks


@pytest.mark.parametrize("text", ["", "1 2", "1 2 2", "1 2 4", "a b c", "1 2 3 4", "1=2==3"])
def test_an_order_without_each_number_once_is_refused(text):
    with pytest.raises(SanbuError, match="each number from 1 to 3"):
        read_order(text, 3)


def test_what_is_saved_is_what_rewards_are_trained_on(tmp_path):
    file = tmp_path / "new" / "rankings.jsonl"
    rows = [row(["a", "b\u2028c", "d"], [1, 0, 1]), row(["x", "y"], [0, 1])]
    for one in rows:
        append(file, one)
    assert read(file) == rows
    assert [(one.answers, one.ranks) for one in records(str(file))] == [
        (tuple(r["answers"]), tuple(r["ranks"])) for r in rows
    ]


def test_agreement_counts_pairs_that_were_judged_twice():
    """Of three judgements of one pair two are equal, so one of three comparisons agrees. Ties do not count."""
    rows = [row(["a", "b"], [0, 1]), row(["b", "a"], [1, 0]), row(["a", "b"], [1, 0])]
    assert agreement(rows) == (pytest.approx(1 / 3), 3)
    assert agreement([*rows, row(["a", "b"], [0, 0]), row(["a", "b"], [0, 1], question="other")]) == (
        pytest.approx(1 / 3),
        3,
    )
    assert agreement(rows[:1]) == (0.0, 0)
    assert agreement(rows[:2]) == (1.0, 1)


def test_runs_win_pairs_against_other_runs():
    rows = [row(["1", "2", "3"], [0, 1, 2], [["sft"], ["ppo"], ["ppo"]]), row(["4", "5"], [0, 1], [["ppo"], ["sft"]])]
    assert win_counts(rows) == {"ppo": (1, 3), "sft": (2, 3)}
    assert win_counts([row(["1", "2"], [0, 1], [["sft", "ppo"], ["dpo"]])]) == {
        "dpo": (0, 1),
        "ppo": (1, 1),
        "sft": (1, 1),
    }
    assert win_counts([row(["1", "2"], [0, 1], [["sft", "ppo"], ["ppo"]])]) == {"sft": (1, 1)}
