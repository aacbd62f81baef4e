"""Carried states: rows in lanes, truncated backpropagation, resume."""

import copy

import pytest
import torch

from sanbu import recipes
from sanbu.config import SanbuError
from sanbu.files import weights
from sanbu.loop import train
from sanbu.machine import decide
from sanbu.objectives.carried import empty, fill, flat
from sanbu.training import Training

TEXT = "".join(f"{number} of the cats sat on the mat, " for number in range(200))


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    plain = recipes.shakespeare(path=str(tmp_path / "text.txt"), alphabet="".join(sorted(set(TEXT))))
    small = ["model=lstm", "model.width=16", "model.layers=2", "data.context=16", "data.lanes=4", "schedule.batch=4"]
    quiet = ["schedule.evaluate_every=0", "schedule.sample_every=0", "machine.precision=float32", "machine.threads=1"]
    return plain.change(*small, *quiet, "objective=next-token-carried", "schedule.steps=6")


def test_lanes_follow_one_another(recipe):
    data = recipe.data.build()
    rows = data.rows // 4
    first, second, last = (data.batch(4 * step, 4) for step in (0, 1, rows))
    assert first["targets"][:, -1].equal(second["tokens"][:, 0])
    assert not first["continues"].any() and second["continues"].all() and not last["continues"].any()
    assert last["tokens"].equal(first["tokens"]) and first["lane"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm", "mingru", "causal-cnn"])
def test_the_loss_of_the_second_row_is_that_of_the_second_half_of_both(recipe, kind):
    """With weights that do not move, the carried state is the state after the first row."""
    changed = recipe.change(f"model={kind}", "model.width=16", "optimizer.learning_rate=1e-12")
    changed = changed.change("optimizer.rest.learning_rate=1e-12").resolve()
    training = Training(changed, decide(changed.machine))
    training.advance()
    assert not training._batch
    data = training.data
    training.advance()
    both = torch.cat((data.batch(0, 4)["tokens"], data.batch(4, 4)["tokens"]), 1)
    logits = training.models["model"](both)[:, 16:]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), data.batch(4, 4)["targets"].flatten())
    assert training.metrics["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_a_resumed_run_is_the_same_run(recipe, tmp_path):
    resolved = recipe.resolve()
    whole, part = (Training(resolved, decide(resolved.machine)) for _ in range(2))
    for _ in range(3):
        whole.advance()
    part.restore(copy.deepcopy(whole.state()), tmp_path)
    for training in (whole, part):
        for _ in range(3):
            training.advance()
    ours, theirs = (weights(training.models["model"]) for training in (whole, part))
    assert all(ours[name].equal(theirs[name]) for name in ours)
    assert whole.models["carried"].states.equal(part.models["carried"].states)


def test_states_as_a_matrix_and_back():
    from sanbu.models.tokens.mingru import MinGRU
    from sanbu.space import Space

    model = MinGRU(width=8, layers=2).build(Space((4,), 5))
    states = torch.randn(3, flat(empty(model, 3)).shape[1])
    cache = empty(model, 3)
    fill(cache, states)
    assert flat(cache).equal(states)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["model=gpt2", "model.context=16", "model.width=16"], "needs a recurrent model; allowed: rnn, gru"),
        (["data.lanes=0"], "data.lanes: given 0, but the objective 'next-token-carried' needs 4"),
        (["data.lanes=8"], "schedule.batch: given 4, but it must be data.lanes"),
        (["data.lanes=100000"], "data.lanes: given 100000, but the text has"),
    ],
)
def test_what_cannot_be_carried_is_one_line(recipe, changes, said, tmp_path):
    with pytest.raises(SanbuError, match=said):
        train(recipe.change(*changes), tmp_path / "run", watchers=[])
