"""GAE, clipping and advantages at exact values; identities at initialisation; a bandit with a known optimal policy."""

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sanbu.config import SanbuError
from sanbu.models.tokens.gpt import GPT2
from sanbu.noise import Noise
from sanbu.objectives.answers import by_length, logprobs
from sanbu.objectives.objective import Round
from sanbu.objectives.policy.group import GRPO, RLOO
from sanbu.objectives.policy.policy import (
    Coefficient,
    advantages,
    clipped_loss,
    clipped_value_loss,
    group_advantages,
    leave_one_out_advantages,
    whitened,
)
from sanbu.objectives.policy.ppo import PPO, token_rewards
from sanbu.objectives.policy.reinforce import Reinforce, against_the_others
from sanbu.objectives.policy.rewards import Checked, Function, RewardConfig
from sanbu.objectives.policy.rollout import draw_answers
from sanbu.objectives.preference import DPO
from sanbu.space import Space
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.strategies.strategy import generate, last

SPACE = Space((16,), 12, 0)


# -- exact values ------------------------------------------------------------------------------------------------------


def by_definition(rewards, values, discount, trace):
    """A_t = sum_k (g l)^k d_(t+k), computed as a double sum."""
    n = len(rewards)
    after = [*values[1:], 0.0]
    d = [rewards[t] + discount * after[t] - values[t] for t in range(n)]
    return [sum((discount * trace) ** (k - t) * d[k] for k in range(t, n)) for t in range(n)]


NORMAL = st.floats(0, 1, allow_subnormal=False)  # training sets the processor to flush subnormal numbers


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), NORMAL, st.floats(0.1, 1), st.integers(0, 99), st.integers(0, 2), st.integers(0, 2))
def test_gae_is_its_definition_and_blind_to_what_is_not_there(n, trace, discount, seed, before, behind):
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, 1, before + n + behind, generator=generator, dtype=torch.float64)
    there = torch.zeros(1, before + n + behind, dtype=torch.bool)
    there[:, before : before + n] = True
    found = advantages(rewards, values, there, discount, trace)
    expected = by_definition(rewards[there].tolist(), values[there].tolist(), discount, trace)
    torch.testing.assert_close(found[there], torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)
    garbage = torch.where(there, 0.0, 1e9)
    assert found.equal(advantages(rewards + garbage, values - garbage, there, discount, trace))
    assert not found[~there].any()


def test_gae_at_its_ends():
    rewards, values = torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([[0.3, -0.2, 0.4]])
    there = torch.ones(1, 3, dtype=torch.bool)
    torch.testing.assert_close(advantages(rewards, values, there, 1.0, 1.0), torch.tensor([[1.5, 1.5, 1.0]]) - values)
    differences = rewards + torch.tensor([[-0.2, 0.4, 0.0]]) - values
    torch.testing.assert_close(advantages(rewards, values, there, 1.0, 0.0), differences)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "held"),
    [
        (1.0, 2.0, -2.0, False),
        (1.1, 1.0, -1.1, False),
        (1.5, 1.0, -1.2, True),
        (0.5, 1.0, -0.5, False),
        (1.5, -1.0, 1.5, False),
        (0.5, -1.0, 0.8, True),
    ],
)
def test_clipping_at_exact_values(ratio, advantage, expected, held):
    now = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    loss, found, where = clipped_loss(now, torch.zeros(1, 1, dtype=torch.float64), torch.tensor([[advantage]]), 0.2)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-12) and float(found.detach()) == pytest.approx(ratio)
    assert bool(where) is held
    loss.sum().backward()
    assert float(now.grad) == pytest.approx(0.0 if held else -ratio * advantage, abs=1e-12)


def test_value_clipping_at_exact_values():
    now, old, target = torch.tensor([1.0, 0.1, 2.0]), torch.zeros(3), torch.tensor([1.0, 1.0, 0.0])
    # clipped at 0.2: (0.2 - 1)^2 / 2; within the clip range: (0.1 - 1)^2 / 2; unclipped error larger: 2^2 / 2
    torch.testing.assert_close(clipped_value_loss(now, old, target, 0.2), torch.tensor([0.32, 0.405, 2.0]))


def test_group_advantages():
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5, 0.5, 0.5, 0.5])
    assert not group_advantages(rewards, 4)[4:].any() and not leave_one_out_advantages(rewards, 4)[4:].any()
    torch.testing.assert_close(
        group_advantages(rewards, 4)[:4], torch.tensor([1.0, -1.0, -1.0, 1.0]), atol=1e-3, rtol=0
    )
    others = [1.0 - 1 / 3, -2 / 3, -2 / 3, 1.0 - 1 / 3]
    torch.testing.assert_close(leave_one_out_advantages(rewards, 4)[:4], torch.tensor(others))


def test_whitening_reads_only_what_is_there():
    there = torch.tensor([[True, True, False], [True, False, False]])
    values = torch.tensor([[1.0, 2.0, 1e9], [6.0, -1e9, 3.0]])
    found = whitened(values, there)
    assert float(found[there].mean()) == pytest.approx(0, abs=1e-6) and float(
        found[there].std(correction=0)
    ) == pytest.approx(1)
    assert not found[~there].any()
    assert float(whitened(values, there, shift=False)[there].mean()) == pytest.approx(3.0, abs=1e-5)


def test_the_weight_of_the_kl_moves_toward_its_target():
    coefficient = Coefficient(0.1, 2.0)
    coefficient.observe(torch.tensor(100.0))
    assert float(coefficient.value) == pytest.approx(0.1 * 1.02)
    coefficient.observe(torch.tensor(0.0))
    assert float(coefficient.value) == pytest.approx(0.1 * 1.02 * 0.98)
    coefficient.observe(torch.tensor(2.2))
    assert float(coefficient.value) == pytest.approx(0.1 * 1.02 * 0.98 * 1.01)
    fixed = Coefficient(0.1, None)
    fixed.observe(torch.tensor(100.0))
    assert float(fixed.value) == pytest.approx(0.1)


def test_token_rewards():
    batch = {
        "targets": torch.tensor([[-100, 4, 5, 0, -100]]),
        "old": torch.tensor([[0.0, -1.0, -2.0, -0.5, 0.0]]),
        "reference": torch.tensor([[0.0, -1.5, -1.0, -0.5, 0.0]]),
        "beta": torch.tensor([0.1]),
        "reward": torch.tensor([3.0]),
    }
    torch.testing.assert_close(token_rewards(batch, False), torch.tensor([[0.0, -0.05, 0.1, 3.0, 0.0]]))


# -- rollouts ----------------------------------------------------------------------------------------------------------


def policy(seed=0):
    torch.manual_seed(seed)
    made = GPT2(layers=2, heads=2, width=16, context=16).build(SPACE)
    for parameter in made.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return made


def words(ids):
    return " ".join(map(str, ids.tolist()))


def asking(model, noise, more=(), batch=None, space=SPACE, **strategy):
    """A rollout round as in training: the model itself answers the questions below."""
    config = Autoregressive(max_tokens=6, **strategy)
    draw = lambda condition, seeds: last(generate(config.build(space), {"model": model}, condition, seeds))
    models = {"model": model, "reference": model, **dict(more)}
    return Round(models, QUESTIONS if batch is None else batch, noise, draw, words)


QUESTIONS = {
    "tokens": torch.tensor([[3, 4, 5, 0, 0], [1, 2, 3, 4, 5], [7, 0, 0, 0, 0]]),
    "length": torch.tensor([3, 5, 1]),
    "answer": torch.tensor([[4, -1], [5, 6], [1, -1]]),
}


@pytest.mark.parametrize("strategy", [{}, {"temperature": 0.7}, {"temperature": 1.3, "top_p": 0.8}, {"top_k": 3}])
def test_recorded_logprobs_are_those_of_a_teacher_forced_forward(strategy):
    model = policy().eval()
    rollout = draw_answers(asking(model, Noise("roll"), **strategy), 40)
    forced = logprobs(model, rollout["tokens"], rollout["targets"])
    torch.testing.assert_close(rollout["old"], forced, rtol=1e-4, atol=1e-5)
    ended = rollout["ending"] >= 0
    assert (strategy == {"top_k": 3} or int(ended.sum()) > 0) and (rollout["ending"][ended] == 0).all()
    for row in range(0, 120, 7):
        asked = rollout["targets"][row][rollout["targets"][row] >= 0].tolist()
        start, length = int(rollout["start"][row]), int(rollout["length"][row])
        assert asked == rollout["tokens"][row, start:length].tolist() + [0] * bool(ended[row])
        assert rollout["tokens"][row, :start].equal(QUESTIONS["tokens"][row // 40, :start])


@pytest.mark.parametrize("config", [PPO(rewards=(Checked(),), samples=4), GRPO(samples=4), RLOO(samples=4)])
def test_before_anything_is_learnt_the_ratio_is_one(config):
    model, objective = policy(), config.build()
    round = asking(model, Noise("roll"), objective.attach(model))
    models = round.models
    model.train()
    batch = objective.experience(round)
    turn = next(objective.draw_turns(Round(models, batch, Noise("turns"))))
    loss = turn.loss(models, turn.batch)
    found = {name: float(top / bottom) for name, (top, bottom) in loss.metrics.items()}
    assert found["ratio"] == pytest.approx(1, abs=1e-5) and found["clip_fraction"] == 0
    assert found["kl"] == pytest.approx(0, abs=1e-4) and found["update_kl"] == pytest.approx(0, abs=1e-6)
    if "divergence" in loss.sums:
        assert float(loss.sums["divergence"]) == pytest.approx(0, abs=1e-6)
        same = {**batch, "advantage": group_advantages(torch.ones(len(batch["tokens"])), 4)}
        assert float(objective.loss(models, same).sums["policy"]) == 0  # equal rewards give zero gradient


def test_pieces_of_similar_length_give_what_all_rows_give():
    """Values by token and by row, in the order of the rows, with columns that count computed once."""
    lengths = torch.tensor([3, 9, 1, 4, 4, 7, 2])
    values, seen = torch.arange(70.0).view(7, 10), []

    def tokens(rows, width):
        seen.append((len(rows), width))
        return values[rows, :width]

    found = by_length(tokens, lengths, size=3)
    counted = torch.arange(9) < lengths[:, None]
    assert found.shape == (7, 9) and found[counted].equal(values[:, :9][counted])
    assert seen == [(4, 4), (3, 9)]  # lengths 1, 2, 3, 4 and 4, 7, 9
    assert by_length(lambda rows, width: values[rows, 0], lengths, size=2).equal(values[:, 0])
    assert by_length(lambda rows, width: values[rows, 0], lengths, size=50).equal(values[:, 0])


def test_garbage_behind_an_answer_changes_nothing():
    model, objective = policy(), PPO(rewards=(Checked(),), samples=4).build()
    round = asking(model, Noise("roll"), objective.attach(model))
    models, batch = round.models, objective.experience(round)
    other = {name: tensor.clone() for name, tensor in batch.items()}
    behind = torch.arange(batch["tokens"].shape[1]) >= batch["length"][:, None]
    other["tokens"][behind] = 5
    a, b = (objective.loss(models, each).sums for each in (batch, other))
    assert behind.any() and all(a[name].equal(b[name]) for name in a)


def test_unfinished_answers_are_not_right_and_cost():
    from sanbu.objectives.policy.rewards import checked_reward
    from sanbu.objectives.policy.rollout import add_rewards

    rollout = {
        "tokens": torch.tensor([[7, 4, 0], [7, 4, 0]]),
        "start": torch.tensor([1, 1]),
        "length": torch.tensor([2, 2]),
        "ending": torch.tensor([0, -1]),
        "answer": torch.tensor([[4], [4]]),
    }
    found = add_rewards(Round({}, rollout, Noise("test"), read=words), rollout, [checked_reward(2.0)], -0.5)
    assert found["reward"].tolist() == [2.0, -0.5] and found["part_0"].tolist() == [2.0, 0.0]


# -- a bandit: one question, four answers of one token, pi* ~ ref exp(r / beta) ----------------------------------------

REWARDS = torch.tensor([0.0, 1.0, 0.3, 0.6])


class Arms(RewardConfig):
    """The reward of each answer."""

    kind: Literal["test-arms"] = "test-arms"

    def build(self):
        return lambda round, rollout: REWARDS[rollout["tokens"][:, 1] - 1]


class Table(nn.Module):
    """A language model without context: one table of logits for the first token, then the end."""

    def __init__(self, logits):
        super().__init__()
        self.context = 4
        self.logits = nn.Parameter(logits.clone())
        self.embedding = nn.Module()
        self.embedding.tokens = nn.Embedding(6, 1)

    def forward(self, tokens_NT, positions_BT=None, cache=None, readout=lambda head, hidden: head(hidden)):
        first = tokens_NT == 5  # the question is answered from the table; any other token is followed by the end
        ends = torch.full((6,), -30.0).index_fill(0, torch.tensor([0]), 30.0)
        answers = torch.cat((torch.tensor([-30.0]), self.logits, torch.tensor([-30.0])))
        hidden = torch.where(first[..., None], answers, ends)
        return readout(lambda x: x, hidden)


def optimum(reference, beta):
    return (reference.log_softmax(0) + REWARDS / beta).softmax(0)


def distance(policy, best):
    return float((policy.logits.softmax(0) - best).abs().sum() / 2)


def rounds(objective, policy, models, steps, rate, batch):
    """Adam steps on an objective, in the order of the training loop."""
    learners = [policy, *(models[name] for name in models if name == "value")]
    parameters = [p for module in learners for p in module.parameters() if p.requires_grad]
    search = torch.optim.Adam(parameters, lr=rate)
    decay = torch.optim.lr_scheduler.LambdaLR(search, lambda step: max(0.02, 1 - step / steps))
    for step in range(steps):
        with torch.no_grad():
            experience = objective.experience(Round(models, batch, Noise("bandit", step), drawn(policy), str))
        for turn in objective.draw_turns(Round(models, experience, Noise("turns", step))):
            search.zero_grad()
            counts = turn.count(turn.batch)
            sum(total / counts[name] for name, total in turn.loss(models, turn.batch).sums.items()).backward()
            search.step()
        decay.step()


@pytest.mark.parametrize("kind", ["ppo", "grpo", "reinforce"])
def test_a_bandit_is_solved(kind):
    """To 1% in total variation; the KL term is part of the reward in PPO and of the loss in GRPO."""
    reference = Table(torch.tensor([0.5, 0.0, -0.5, 0.2]))
    policy_table, beta = Table(reference.logits.detach()), 0.5
    best = optimum(reference.logits.detach(), beta)
    models = {"model": policy_table, "reference": reference.requires_grad_(False)}
    if kind == "ppo":
        # returns are whitened, which scales the gradient and does not move the optimum
        objective = PPO(rewards=(Arms(),), kl=beta, value_clip=1e9, trace=1.0, unfinished=0.0).build()
        models |= objective.attach(policy_table)
        models["value"] = Value()
    else:
        group = RLOO if kind == "grpo" else Reinforce
        objective = group(rewards=(Arms(),), samples=2048, kl=beta, unfinished=0.0).build()
        models |= objective.attach(policy_table)
    questions = {
        "tokens": torch.full((2048 if kind == "ppo" else 1, 1), 5),
        "length": torch.ones(2048 if kind == "ppo" else 1).long(),
    }
    questions["answer"] = torch.full_like(questions["tokens"], -1)
    assert distance(policy_table, best) > 0.2
    rounds(objective, policy_table, models, 150, 0.1, questions)
    assert distance(policy_table, best) < 0.01


@pytest.mark.slow
def test_dpo_solves_the_bandit_from_preferences():
    """Pairs sampled from the reference, labelled by Bradley-Terry with rewards r, give the same optimum to 5%."""
    reference = Table(torch.tensor([0.5, 0.0, -0.5, 0.2]))
    policy_table, beta = Table(reference.logits.detach()), 0.5
    noise = Noise("pairs").uniform(20_000, 3)
    both = torch.multinomial(
        reference.logits.softmax(0).detach(), 40_000, True, generator=torch.Generator().manual_seed(0)
    ).view(-1, 2)
    wins = noise[:, 0] < (REWARDS[both[:, 0]] - REWARDS[both[:, 1]]).sigmoid()
    better = torch.where(wins[:, None], both, both.flip(1))[both[:, 0] != both[:, 1]]
    tokens = torch.stack((torch.full_like(better, 5), better + 1), 2)
    targets = torch.stack((better + 1, torch.zeros_like(better)), 2)
    batch = {"tokens": tokens, "targets": targets}
    models = {"model": policy_table, "reference": reference.requires_grad_(False)}
    rounds(DPO(beta=beta).build(), policy_table, models, 150, 0.05, batch)
    assert distance(policy_table, optimum(reference.logits, beta)) < 0.05


class Value(nn.Module):
    """A value model with two parameters: the value of the question, and the value of every other token."""

    def __init__(self):
        super().__init__()
        self.number = nn.Parameter(torch.zeros(2))

    def forward(self, tokens_NT):
        return torch.where(tokens_NT == 5, self.number[0], self.number[1])[..., None]


def drawn(table):
    """Answers of one token and an end, with log-probabilities, as a draft."""
    from sanbu.space import Draft

    def draw(condition, seeds):
        rows = len(seeds)
        odds = table.logits.detach().log_softmax(0)
        from sanbu.noise import uniform_at

        choice = (
            (odds.exp().double().cumsum(0) <= uniform_at(seeds, torch.zeros_like(seeds))[:, None]).sum(1).clamp(max=3)
        )
        tokens = torch.stack((torch.full((rows,), 5), choice + 1, torch.zeros(rows, dtype=torch.long)), 1)
        logprob = torch.stack((torch.zeros(rows), odds[choice], torch.zeros(rows)), 1)
        record = {
            "start": torch.ones(rows),
            "logprobs": logprob,
            "ending": torch.zeros(rows).long(),
            "end_logprob": torch.zeros(rows),
        }
        committed = torch.tensor([True, True, False]).expand(rows, 3)
        return Draft(tokens, committed, torch.ones(rows).bool(), torch.ones(rows), record=record)

    return draw


def test_the_baseline_of_reinforce_is_the_mean_of_the_others():
    assert against_the_others(torch.tensor([1.0, 2.0, 6.0])).tolist() == [1 - 4, 2 - 3.5, 6 - 1.5]
    assert against_the_others(torch.tensor([5.0])).tolist() == [0.0]


def shorter_is_better(questions, answers, known):
    """A reward that a user might write."""
    return [-float(len(answer)) for answer in answers]


def test_any_function_of_texts_is_a_reward():
    rollout = {
        "tokens": torch.tensor([[5, 1, 2, 3], [5, 1, 0, 0]]), "start": torch.tensor([1, 1]),
        "length": torch.tensor([4, 2]), "answer": torch.full((2, 1), -1),
    }  # fmt: skip
    round = Round({}, rollout, Noise("reward"), read=lambda ids: "".join(map(str, ids.tolist())))
    config = Function(target=f"{__name__}:shorter_is_better", weight=0.5)
    assert config.build()(round, rollout).tolist() == [-1.5, -0.5]
    with pytest.raises(SanbuError, match=r"given 'nowhere:f', which cannot be imported; write module:function"):
        Function(target="nowhere:f").build()
