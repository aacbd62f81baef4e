"""Losses of numbers and labels: closed forms, what each makes a model learn, conformance."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sanbu.config import SanbuError
from sanbu.models.predictors.mlp import MLP
from sanbu.objectives.supervised import Absolute, Accuracy, CrossEntropy, Gaussian, Quantile, Squared
from sanbu.space import Space
from sanbu.testing import check_objective

NUMBERS = {Squared(): 1, Absolute(): 1, Quantile(): 3, Gaussian(): 2}
X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, -1.0, 2.0, 0.5, -0.2, 1.1])
LABEL = torch.tensor([0, 2, 1, 1, 0, 2])


def given(outputs):
    """A model whose outputs are these, whatever its input."""

    class Fixed(nn.Module):
        def forward(self, x):
            return outputs

    return {"model": Fixed()}


@pytest.mark.parametrize("config", NUMBERS, ids=lambda config: config.kind)
def test_conformance_with_numbers(config):
    model = MLP(width=8, outputs=NUMBERS[config]).build(Space((4,)))
    check_objective(config, model, {"x": X, "y": Y})


@pytest.mark.parametrize("config", [CrossEntropy(), CrossEntropy(weights=(1.0, 0.5, 3.0)), Accuracy()])
def test_conformance_with_labels(config):
    check_objective(config, MLP(width=8, outputs=3).build(Space((4,))), {"x": X, "y": LABEL})


def test_each_loss_is_its_formula():
    outputs = torch.randn(6, 1, generator=torch.Generator().manual_seed(1))
    batch, error = {"x": X, "y": Y}, outputs[:, 0] - Y
    assert Squared().build().loss(given(outputs), batch).sums["rows"] == pytest.approx(float(error.square().sum()))
    assert Absolute().build().loss(given(outputs), batch).sums["rows"] == pytest.approx(float(error.abs().sum()))
    two = torch.stack((outputs[:, 0], 0.3 * outputs[:, 0]), 1)
    peer = -torch.distributions.Normal(two[:, 0], two[:, 1].exp()).log_prob(Y).sum()
    assert Gaussian().build().loss(given(two), batch).sums["rows"] == pytest.approx(float(peer), rel=1e-5)


def test_the_weighted_cross_entropy_is_torchs_mean():
    scores = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    objective, batch = CrossEntropy(weights=(1.0, 0.5, 3.0)).build(), {"x": X, "y": LABEL}
    found = objective.loss(given(scores), batch).sums["rows"] / objective.count(batch)["rows"]
    assert float(found) == pytest.approx(float(F.cross_entropy(scores, LABEL, torch.tensor([1.0, 0.5, 3.0]))), rel=1e-6)
    assert CrossEntropy().build().count(batch) == {"rows": 6.0}


def test_the_pinball_loss_is_lowest_at_the_quantile():
    """Over a grid of constants, the best output is the sample's own quantile."""
    y = torch.arange(101.0)
    objective = Quantile(levels=(0.1, 0.5, 0.9)).build()
    grid = torch.arange(0, 101.0)
    losses = []
    for value in grid:
        outputs = torch.full((101, 3), float(value))
        level = torch.tensor([0.1, 0.5, 0.9])
        error = y[:, None] - outputs
        losses.append(torch.maximum(level * error, (level - 1) * error).sum(0))
        whole = objective.loss(given(outputs), {"x": y, "y": y}).sums["rows"]
        assert float(whole) == pytest.approx(float(losses[-1].sum()), rel=1e-6)
    assert torch.stack(losses).argmin(0).tolist() == [10, 50, 90]


def test_a_gaussian_learns_the_mean_and_the_deviation():
    y = 3 + 2 * torch.randn(4000, generator=torch.Generator().manual_seed(3))
    law = nn.Parameter(torch.zeros(2))
    search = torch.optim.LBFGS([law], max_iter=60)
    objective, batch = Gaussian().build(), {"x": y, "y": y}

    def closure():
        search.zero_grad()
        loss = objective.loss(given(law.expand(4000, 2)), batch).sums["rows"] / 4000
        loss.backward()
        return loss

    search.step(closure)
    assert law[0].item() == pytest.approx(float(y.mean()), abs=1e-3)
    assert math.exp(law[1].item()) == pytest.approx(float(y.std(correction=0)), abs=1e-3)


def test_what_does_not_fit_is_one_line():
    with pytest.raises(SanbuError, match="model.outputs: given 1, but the objective 'gaussian' needs 2"):
        Gaussian().build().loss(given(torch.zeros(6, 1)), {"x": X, "y": Y})
    with pytest.raises(SanbuError, match="objective.weights: given 2, but there are 3 classes"):
        CrossEntropy(weights=(1.0, 2.0)).build().loss(given(torch.zeros(6, 3)), {"x": X, "y": LABEL})


@pytest.mark.parametrize("config", [Squared(), Absolute()])
def test_one_output_for_several_targets_is_refused(config):
    batch = {"x": torch.zeros(4, 2), "y": torch.zeros(4, 3)}
    with pytest.raises(SanbuError, match="given 1, but a row has 3 targets"):
        config.build().loss({"model": torch.nn.Linear(2, 1)}, batch)
