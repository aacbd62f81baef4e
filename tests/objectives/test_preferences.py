"""DPO and its variants at values derived by hand; reward models; identities at initialisation."""

import math
from itertools import permutations

import pytest
import torch
from torch import nn

from sanbu.models.scorers.scorer import Scorer
from sanbu.models.tokens.gpt import GPT2
from sanbu.models.tokens.modern import Modern
from sanbu.noise import Noise
from sanbu.objectives import preference, reward_model
from sanbu.objectives.answers import answer_logprobs, logprobs
from sanbu.objectives.objective import Round
from sanbu.objectives.preference import conservative_dpo, dpo, ipo, kto, mismatched
from sanbu.objectives.reward_model import bradley_terry, order_losses, pair_losses, plackett_luce
from sanbu.space import Space

SPACE = Space((24,), 20, 0)


def pairs(rows=3, answers=2, width=10):
    """Questions and answers of different lengths, with an end token last."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 20, (rows, answers, width), generator=generator)
    targets = torch.full_like(tokens, -100)
    last = torch.zeros(rows, answers, dtype=torch.long)
    for b in range(rows):
        start = 2 + b % 3
        tokens[b, :, :start] = tokens[b, :1, :start]
        for k in range(answers):
            end = start + 1 + (b + 2 * k) % 4
            tokens[b, k, end], tokens[b, k, end + 1 :] = 0, 0
            targets[b, k, start - 1 : end] = tokens[b, k, start : end + 1]
            last[b, k] = end
    rank = torch.arange(answers).expand(rows, -1).clone()
    return {
        "tokens": tokens,
        "targets": targets,
        "last": last,
        "rank": rank,
        "margin": torch.zeros(rows),
        "row": torch.arange(rows),
    }


def model(kind=GPT2, seed=0):
    torch.manual_seed(seed)
    made = kind(layers=2, heads=2, width=16, context=24).build(SPACE)
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made.eval()


@pytest.fixture
def stated(monkeypatch):
    """Given log-probabilities of answers, in place of a model's."""

    def set_to(chosen, rejected):
        both = torch.tensor([[chosen, rejected]], dtype=torch.float64, requires_grad=True)
        monkeypatch.setattr(preference, "answer_logprobs", lambda model, batch: both)
        return both

    return set_to


BATCH = {"tokens": torch.zeros(1, 2, 3, dtype=torch.long), "reference": torch.zeros(1, 2, dtype=torch.float64)}
BATCH["targets"] = torch.tensor([[[-100, 5, 0], [-100, -100, 5]]])  # answers of two tokens and one token


@pytest.mark.parametrize(("logit", "expected"), [(0.0, 0.6931), (1.0, 0.3133), (2.0, 0.1269)])
def test_dpo_by_hand(stated, logit, expected):
    stated(10 * logit, 0.0)  # beta = 0.1
    assert float(dpo(0.1).loss({"model": None}, BATCH).sums["preference"]) == pytest.approx(expected, abs=5e-5)


def test_kin_by_hand(stated):
    stated(7.0, -3.0)
    value = lambda objective, **more: float(objective.loss({"model": None}, BATCH | more).sums["preference"])
    sigmoid = lambda x: 1 / (1 + math.exp(-x))
    assert value(conservative_dpo(0.1, 0.2)) == pytest.approx(
        -0.8 * math.log(sigmoid(1.0)) - 0.2 * math.log(sigmoid(-1.0))
    )
    assert value(conservative_dpo(0.1, 0.0)) == pytest.approx(value(dpo(0.1)))
    # means over two tokens and one token; 1 / (2 beta) = 5
    assert value(ipo(0.1)) == pytest.approx((7 / 2 + 3 / 1 - 5.0) ** 2)
    moved = torch.tensor([2.0], dtype=torch.float64)
    assert value(kto(0.1), moved=moved) == pytest.approx(2 - sigmoid(0.1 * (7 - 2)) - sigmoid(0.1 * (2 + 3)))


@pytest.mark.parametrize("objective", [dpo(0.3), conservative_dpo(0.3, 0.1), ipo(0.3), kto(0.3)])
def test_gradients_against_finite_differences(stated, objective):
    more = {"moved": torch.tensor([0.7], dtype=torch.float64)}

    def at(chosen, rejected):
        both = stated(chosen, rejected)
        return objective.loss({"model": None}, BATCH | more).sums["preference"], both

    total, both = at(1.3, -0.4)
    total.backward()
    step = 1e-6
    for index, direction in enumerate(((step, 0.0), (0.0, step))):
        up, _ = at(1.3 + direction[0], -0.4 + direction[1])
        down, _ = at(1.3 - direction[0], -0.4 - direction[1])
        assert float(both.grad[0, index]) == pytest.approx(float(up - down) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("objective", [dpo(0.1), conservative_dpo(0.1, 0.2), kto(0.1)])
def test_before_anything_is_learnt(objective):
    policy = model()
    models = {"model": policy, "reference": policy}
    batch = objective.experience(Round(models, pairs(), Noise("test")))
    loss = objective.loss(models, batch)
    expected = math.log(2) if objective is not None and "moved" not in batch else 1.0  # KTO: 1/2 per answer
    assert float(loss.sums["preference"]) / 3 == pytest.approx(expected, abs=1e-6)
    assert float(loss.metrics["margin"][0]) == 0


def test_answer_logprobs_count_the_answer_and_nothing_else():
    batch, policy = pairs(), model()
    found = answer_logprobs(policy, batch)
    for b in range(3):
        for k in range(2):
            ids, end = batch["tokens"][b, k], int(batch["last"][b, k])
            alone = policy(ids[None, : end + 1])[0].log_softmax(-1)
            expected = sum(float(alone[t, ids[t + 1]]) for t in range(1 + b % 3, end))
            assert float(found[b, k]) == pytest.approx(expected, abs=1e-5)


def test_padding_is_never_seen():
    batch, policy = pairs(), model()
    other = {name: tensor.clone() for name, tensor in batch.items()}
    for b in range(3):
        for k in range(2):
            other["tokens"][b, k, int(batch["last"][b, k]) + 1 :] = 7
    assert answer_logprobs(policy, batch).equal(answer_logprobs(policy, other))


def test_mismatched_answers():
    batch = pairs()
    tokens, targets = mismatched(batch)
    for b in range(3):
        asked = [t for t in targets[b].tolist() if t >= 0]
        other = [t for t in batch["targets"][b - 1, 0].tolist() if t >= 0]
        start = 2 + b % 3
        assert asked == other and tokens[b, :start].equal(batch["tokens"][b, 0, :start])
        assert tokens[b, start : start + len(other)].tolist() == other


def test_how_far_the_policy_has_moved_in_general():
    """KTO's z is the mean log-ratio on mismatched answers, at least 0; swapping policy and reference flips its sign."""
    batch, one, other = pairs(), model(seed=0), model(seed=1)
    tokens, targets = mismatched(batch)
    gap = float((logprobs(one, tokens, targets) - logprobs(other, tokens, targets)).sum(1).mean())
    assert abs(gap) > 0.05
    for policy, reference, sign in ((one, other, 1), (other, one, -1)):
        moved = preference.add_policy_kl(Round({"model": policy, "reference": reference}, batch, Noise(0)))["moved"]
        assert moved.tolist() == pytest.approx([max(0.0, sign * gap)] * 3, abs=1e-5)


# -- reward models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "expected"), [(bradley_terry(), math.log(2)), (plackett_luce(), math.log(24))])
def test_a_reward_model_begins_at_chance(objective, expected):
    scorer = Scorer(trunk=GPT2(layers=1, heads=1, width=8, context=24)).build(SPACE)
    loss = objective.loss({"model": scorer}, pairs(answers=4, width=12))
    assert float(loss.sums["preference"]) / 3 == pytest.approx(expected, abs=1e-6)


def test_bradley_terry_by_hand():
    score = torch.tensor([[1.0, 0.5, -1.0, 9.0]])
    losses, there = pair_losses(score, torch.tensor([[0, 1, 1, -1]]), torch.tensor([0.2]))
    log_sigmoid = lambda x: -math.log(1 + math.exp(-x))
    expected = [-log_sigmoid(0.5 - 0.2), -log_sigmoid(2.0 - 0.2), -(log_sigmoid(1.5) + log_sigmoid(-1.5)) / 2]
    assert int(there.sum()) == 3 and float(losses.sum()) == pytest.approx(sum(expected), abs=1e-6)
    assert float(losses[0, 1, 2] + losses[0, 2, 1]) == pytest.approx(expected[2], abs=1e-6)  # a tie has no margin


def test_plackett_luce_is_a_law_of_orders():
    score = torch.tensor([[0.3, -1.0, 2.0]])
    total = sum(math.exp(-float(order_losses(score, torch.tensor([list(rank)])))) for rank in permutations(range(3)))
    assert total == pytest.approx(1.0, abs=1e-6)
    order = order_losses(score, torch.tensor([[1, 2, 0]]))  # the third answer is best, then the first
    e = [math.exp(x) for x in (2.0, 0.3, -1.0)]
    expected = -math.log(e[0] / sum(e)) - math.log(e[1] / (e[1] + e[2]))
    assert float(order) == pytest.approx(expected, abs=1e-6)
    two = order_losses(score[:, :2], torch.tensor([[0, 1]]))
    assert float(two) == pytest.approx(math.log(1 + math.exp(-1.3)), abs=1e-6)  # with two answers this is Bradley-Terry
    absent = order_losses(torch.tensor([[0.3, -1.0, 99.0]]), torch.tensor([[0, 1, -1]]))
    assert float(absent) == pytest.approx(float(two), abs=1e-6)


def test_one_question_counts_once_however_many_answers_it_has():
    scorer = Scorer(trunk=GPT2(layers=1, heads=1, width=8, context=24)).build(SPACE)
    nn.init.normal_(scorer.score_head.weight)
    two, four = pairs(answers=2, width=12), pairs(answers=4, width=12)
    for batch in (two, four):
        loss = bradley_terry().loss({"model": scorer}, batch)
        score = reward_model.scores({"model": scorer}, batch)
        every = [
            torch.stack(
                [-nn.functional.logsigmoid(row[i] - row[j]) for i in range(len(row)) for j in range(i + 1, len(row))]
            ).mean()
            for row in score
        ]
        assert float(loss.sums["preference"]) == pytest.approx(float(sum(every)), abs=1e-5)


def test_readings_of_a_reward_model():
    score, rank = torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([[0, 1], [0, 1]])
    targets = torch.tensor([[[1, 1, -100], [1, -100, -100]], [[1, -100, -100], [1, 1, 1]]])
    found = reward_model.pair_metrics(score, rank, torch.zeros(2, 2, 2), targets)
    ratio = {name: float(top / bottom) for name, (top, bottom) in found.items()}
    assert ratio["accuracy"] == 0.5 and ratio["longer"] == 1.0 and ratio["longer_is_better"] == 0.5
    assert ratio["confidence"] == pytest.approx((1 / (1 + math.exp(-1)) + 1 / (1 + math.exp(-3))) / 2)


def test_only_what_is_asked_goes_through_the_head():
    policy = model(Modern)
    tokens, targets = torch.randint(0, 20, (2, 9)), torch.full((2, 9), -100)
    targets[0, 3:5], targets[1, 8] = torch.tensor([4, 5]), 6
    each = logprobs(policy, tokens, targets)
    whole = policy(tokens).log_softmax(-1)
    assert float(each[0, 3]) == pytest.approx(float(whole[0, 3, 4]), abs=1e-6)
    assert float(each[1, 8]) == pytest.approx(float(whole[1, 8, 6]), abs=1e-6)
    assert int((each != 0).sum()) == 3
