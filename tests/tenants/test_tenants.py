"""Eight different methods on the same training loop: each reaches a stated quality and is short."""

import math
from pathlib import Path

import pytest
import torch

from sanbu.loop import train
from tests.tenants import boosted, cascade, diffusion, gan, genetic, masked, ppo, vae

ALL = (boosted, cascade, diffusion, gan, genetic, masked, ppo, vae)
MEAN, COVARIANCE = torch.tensor([1.0, -1.0]), torch.tensor([[1.0, 0.5], [0.5, 0.5]])


@pytest.mark.parametrize("tenant", ALL, ids=lambda tenant: tenant.__name__.rsplit(".")[-1])
def test_at_most_fifty_lines(tenant):
    lines = Path(tenant.__file__).read_text().splitlines()
    code = [line for line in lines if line.strip() and not line.startswith(("import", "from", '"""', "#"))]
    assert len(code) <= 50, len(code)


def samples(run, n=4000):
    return torch.stack(run.generate(n=n))


def close(x, mean_error, covariance_error):
    assert (x.mean(0) - MEAN).abs().max() < mean_error, x.mean(0)
    assert (x.T.cov() - COVARIANCE).abs().max() < covariance_error, x.T.cov()


def test_gan(tmp_path):
    close(samples(train(gan.recipe(), tmp_path / "run")), 0.2, 0.3)


def test_diffusion(tmp_path):
    close(samples(train(diffusion.recipe(), tmp_path / "run")), 0.1, 0.12)


def test_cascade(tmp_path):
    first = train(cascade.recipe(0), tmp_path / "first")
    run = train(cascade.recipe(1, {"first": str(first.folder)}), tmp_path / "second")
    close(samples(run), 0.1, 0.12)
    assert [draft.stage for draft in run.drafts(n=2)] == ["first", "second"]


def test_vae_reaches_the_entropy(tmp_path):
    run = train(vae.recipe(), tmp_path / "run")
    exact = math.log(2 * math.pi * math.e) + 0.5 * math.log(torch.det(COVARIANCE).item())
    assert exact - 0.25 < run.metrics()[-1]["held_out/loss"] < exact + 0.25
    close(samples(run), 0.15, 1.0)


def test_ppo_finds_the_best_arm_of_each_context(tmp_path):
    policy = train(ppo.recipe(), tmp_path / "run").model(torch.tensor([[0.0], [1.0]])).softmax(1)
    assert policy[0, 0] > 0.9 and policy[1, 3] > 0.9, policy


def test_genetic(tmp_path):
    assert train(genetic.recipe(), tmp_path / "run").metrics()[-1]["loss"] < 0.02


def test_boosted(tmp_path):
    run = train(boosted.recipe(), tmp_path / "run")
    x = torch.linspace(-1, 1, 200)[:, None]
    assert (run.model(x) - torch.sin(3 * x)).square().mean() < 2e-3


def test_masked_draws_progressions(tmp_path):
    x = samples(train(masked.recipe(), tmp_path / "run"), 500)
    steps = (x[:, 1:] - x[:, :-1]) % 5
    valid = (steps == steps[:, :1]).all(1) & ((steps[:, 0] == 1) | (steps[:, 0] == 2))
    assert valid.float().mean() > 0.9, valid.float().mean()
