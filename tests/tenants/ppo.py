"""PPO (Schulman and others, 2017) on a bandit of four arms in two contexts, with a value head as baseline."""

from typing import Literal

import torch
from torch import nn

from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Turn
from sanbu.optimizers.gradient import Adam
from sanbu.recipe import Recipe, Schedule
from tests.tenants.common import CPU, Made, Net, OneShotConfig, rows

REWARD = torch.tensor([[1.0, 0.0, 0.2, 0.1], [0.0, 0.1, 0.2, 1.0]])  # per context and arm


def play(round):
    """Sample actions from the current policy and whiten their advantages."""
    models, noise = round.models, round.noise
    context = (round.batch["x"][:, :1] > 1).float()
    logprobs = models["model"](context).log_softmax(1)
    action = (logprobs.exp().cumsum(1) < noise.uniform(len(context), 1)).sum(1, keepdim=True).clamp(max=3)
    reward = REWARD[context.long().squeeze(1)].gather(1, action)
    advantage = reward - models["value"](context)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
    sampled = {"context": context, "action": action, "old": logprobs.gather(1, action)}
    return sampled | {"reward": reward, "advantage": advantage}


def loss(models, batch):
    """-min(r A, clip(r) A) + (V - R)^2 / 2."""
    now = models["model"](batch["context"]).log_softmax(1).gather(1, batch["action"])
    ratio = (now - batch["old"]).exp()
    gain = torch.minimum(ratio * batch["advantage"], ratio.clamp(0.8, 1.2) * batch["advantage"])
    error = models["value"](batch["context"]) - batch["reward"]
    return Loss(
        {"policy": -gain.sum(), "value": error.square().sum() / 2},
        {"reward": (batch["reward"].sum(), torch.tensor(float(len(error))))},
    )


def turns(round):
    batch = round.batch
    for _ in range(4):
        order = round.noise.together().permutation(len(batch["action"]))
        for part in order.chunk(2):
            chosen = {name: t[part] for name, t in batch.items()}
            yield Turn("model", chosen, loss, lambda b: dict.fromkeys(("policy", "value"), rows(b)["rows"]))


class Ppo(ObjectiveConfig):
    kind: Literal["tenant-ppo"] = "tenant-ppo"

    def build(self):
        value = lambda model: {"value": nn.Linear(1, 1)}
        return Objective(loss, rows, {"model": ("model", "value")}, attach=value, experience=play, turns=turns)


def recipe():
    return Recipe(
        name="ppo", data=Made(maker="pair"), model=Net(inputs=1, outputs=4), objective=Ppo(),
        strategy=OneShotConfig(noise=1),
        optimizer=Adam(learning_rate=5e-3), machine=CPU, schedule=Schedule(steps=40, batch=128),
    )  # fmt: skip
