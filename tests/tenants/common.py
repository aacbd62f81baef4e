"""What the tenants share: data made by a function, and samples as plain numbers."""

import json
from typing import Literal

import torch
from torch import nn

from sanbu.data.data import DataConfig
from sanbu.machine import MachineConfig
from sanbu.models.model import ModelConfig
from sanbu.noise import Noise, uniform_at
from sanbu.space import Draft, Space
from sanbu.strategies.strategy import StrategyConfig

CPU = MachineConfig(device="cpu", precision="float32", compile="off", threads=1)


def pair(noise, size):
    """Two correlated numbers: x1 = 1 + n1, x2 = -1 + n1 / 2 + n2 / 2."""
    n = noise.normal(size, 2)
    return {"x": torch.stack((1 + n[:, 0], -1 + (n[:, 0] + n[:, 1]) / 2), 1)}


def curve(noise, size):
    """y = sin 3x on [-1, 1]."""
    x = 2 * noise.uniform(size, 1) - 1
    return {"x": x, "y": torch.sin(3 * x)}


def progression(noise, size):
    """Six numbers below 5, each the one before plus a step of 1 or 2, modulo 5."""
    start, step = noise.integers(5, size, 1), 1 + noise.integers(2, size, 1)
    return {"x": (start + step * torch.arange(6)) % 5}


class Made(DataConfig):
    """Endless rows made by one of the functions above."""

    kind: Literal["made"] = "made"
    maker: str
    shape: tuple[int, ...] = (2,)
    vocabulary: int = 0

    def space(self):
        return Space(self.shape, self.vocabulary)

    def build(self):
        return MadeRows(globals()[self.maker])

    def codec(self, folder):
        return Numbers()


class MadeRows:
    rows, held_out_rows = 2**62, 64

    def __init__(self, maker):
        self.maker, self.codec, self.fingerprint = maker, Numbers(), maker.__name__

    def describe(self):
        return "endless made rows"

    def batch(self, start, size):
        return self.maker(Noise("train", first_row=start), size)

    def held_out(self, start, size):
        return self.maker(Noise("held out", first_row=start), size)


class Numbers:
    """A codec for samples that are numbers already."""

    medium, unit = "numbers", "rows"

    def vocabulary(self):
        return None

    def request(self, prompt, label):
        return prompt

    def amount(self, batch):
        return len(next(iter(batch.values())))

    def read(self, sample):
        return sample.tolist()

    def show(self, sample):
        return str(sample)

    def export(self, samples, folder, frames=()):
        return {"samples": len(samples), "folder": str(self.render(samples, folder / "samples"))}

    def save(self, folder):
        pass

    def condition(self, prompt, rows):
        return {"rows": torch.zeros(rows)}

    def follow(self, stop=()):
        return Last()

    def render(self, samples, path):
        path.with_suffix(".json").write_text(json.dumps([sample.tolist() for sample in samples]))
        return path.with_suffix(".json")


class Last:
    """Keeps the last draft."""

    def update(self, draft):
        self.draft = draft
        return draft.done

    def results(self):
        return list(self.draft.sample.clone())


class State:
    def __init__(self, x, step=0, steps=1):
        self.x, self.step = x, step
        self.done = torch.full((len(x),), step >= steps)


class OneShotConfig(StrategyConfig):
    """All at once: the model maps noise to a sample."""

    kind: Literal["tenant-one-shot"] = "tenant-one-shot"
    noise: int = 2

    def build(self, space):
        return OneShot(self.noise)


class OneShot:
    def __init__(self, width):
        self.width = width

    def begin(self, condition, seeds):
        return State(normal(seeds, self.width))

    def advance(self, models, state):
        return State(models["model"](state.x), 1)

    def draft(self, state):
        return Draft(state.x, state.done[:, None].expand_as(state.x), state.done, torch.ones(len(state.x)))


def normal(seeds, width):
    """Standard normals, one row a seed."""
    u = uniform_at(seeds[:, None], torch.arange(2 * width)[None])
    return ((-2 * u[:, :width].log()).sqrt() * torch.cos(2 * torch.pi * u[:, width:])).float()


class Net(ModelConfig):
    """A small perceptron."""

    kind: Literal["tenant-net"] = "tenant-net"
    width: int = 32
    inputs: int = 2
    outputs: int = 2

    def build(self, space):
        return net(self.inputs, self.width, self.outputs)


def net(inputs, width, outputs):
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
    )


def rows(batch):
    """The usual denominator: how many rows."""
    return {"rows": float(next(iter(batch.values())).shape[0])}
