"""Bounds against exact likelihoods, penalties against autograd, losses at the exact consistency function."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from sanbu.models.denoisers.perceptron import PerceptronDenoiser
from sanbu.models.generators.gan import DCGAN, PerceptronGAN
from sanbu.models.latents.vae import PerceptronVAE
from sanbu.models.pixels.pixelcnn import PixelCNN
from sanbu.noise import Noise
from sanbu.objectives import adversarial, augmentation
from sanbu.objectives.adversarial import Hinge, NonSaturating, Wasserstein
from sanbu.objectives.consistency import Consistency, earlier_time
from sanbu.objectives.denoising import Denoising
from sanbu.objectives.elbo import Elbo, ImportanceWeighted, elbo, importance_weighted
from sanbu.objectives.likelihood import Likelihood
from sanbu.objectives.objective import Round
from sanbu.objectives.times import LogitNormal, LogNormal, Uniform
from sanbu.paths import Exploding, LinearPath
from sanbu.space import Space
from sanbu.testing import check_objective

ROWS = 6
SPACE = Space((1, 4, 4), 5, classes=3)
BATCH = {
    "image": torch.linspace(-1, 1, ROWS * 16).view(ROWS, 1, 4, 4),
    "levels": torch.arange(ROWS * 16).view(ROWS, 1, 4, 4) % 5,
    "label": torch.arange(ROWS) % 4,
}
PAIRS = {
    "likelihood": (Likelihood(), PixelCNN(width=8, layers=1)),
    "elbo": (Elbo(), PerceptronVAE(width=8, latent=2)),
    "importance": (ImportanceWeighted(draws=3), PerceptronVAE(width=8, latent=2)),
    "non-saturating": (
        NonSaturating(every=1, augment=("colour", "shift", "cutout")),
        PerceptronGAN(width=8, latent=3),
    ),
    "hinge": (Hinge(every=1), DCGAN(width=4, latent=3)),
    "wasserstein": (Wasserstein(critic_steps=2), PerceptronGAN(width=8, latent=3)),
    "denoising": (Denoising(weighting="min-snr"), PerceptronDenoiser(width=8, target="clean")),
    "edm": (
        Denoising(weighting="edm", times=LogNormal()),
        PerceptronDenoiser(width=8, path=Exploding(), target="preconditioned"),
    ),
    "flow": (Denoising(times=LogitNormal()), PerceptronDenoiser(width=8, path=LinearPath())),
    "consistency": (Consistency(), PerceptronDenoiser(width=8, path=Exploding(), target="preconditioned")),
}


@pytest.mark.parametrize("name", PAIRS)
def test_conformance(name):
    objective, model = PAIRS[name]
    check_objective(objective, model.build(SPACE), BATCH)


# -- bounds ------------------------------------------------------------------------------------------------------------


class LinearGaussian(nn.Module):
    """x = w z + noise of deviation s, z standard normal: log p(x) = log N(x; 0, w w' + s^2 I) is known.

    The posterior is N(w.x / (w.w + s^2), s^2 / (w.w + s^2)); `slip` shifts the mean of the encoder away from it.
    """

    latent = (1,)

    def __init__(self, slip=0.0):
        super().__init__()
        self.w, self.s, self.slip = torch.tensor([0.8, -0.5, 0.3, 1.1], dtype=torch.float64), 0.6, slip

    def exact(self, x):
        covariance = torch.outer(self.w, self.w) + self.s**2 * torch.eye(4, dtype=torch.float64)
        return torch.distributions.MultivariateNormal(torch.zeros(4, dtype=torch.float64), covariance).log_prob(x)

    def forward(self, x, label, noise):
        precision = self.w @ self.w + self.s**2
        mean, deviation = (x @ self.w / precision + self.slip)[:, None], self.s / precision.sqrt()
        z = mean + deviation * noise[..., 0]
        seen = torch.distributions.Normal(z[..., None] * self.w, self.s).log_prob(x[:, None]).sum(2)
        standard = torch.distributions.Normal(0.0, 1.0)
        ratio = torch.distributions.Normal(mean, deviation).log_prob(z) - standard.log_prob(z)
        kl = (mean**2 + deviation**2 - 1) / 2 - deviation.log()
        return torch.stack((seen, ratio, kl.expand_as(seen)), 2)


def nats(objective, model, rows=4000, seed=0):
    x = torch.randn(1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).expand(rows, 4)
    batch = {"levels": x, "label": torch.zeros(rows, dtype=torch.long)}
    batch = objective.experience(Round({"model": model}, batch, Noise("bound", seed)))
    return float(objective.loss({"model": model}, batch).sums["likelihood"]) / rows, -float(model.exact(x[:1])[0])


def test_the_bound_is_the_likelihood_at_the_true_posterior():
    value, exact = nats(elbo(1.0), LinearGaussian())
    assert abs(value - exact) < 0.02  # the reconstruction term is averaged over 4,000 draws
    for draws in (1, 5):
        value, exact = nats(importance_weighted(draws), LinearGaussian(), rows=10)
        assert abs(value - exact) < 1e-5  # a single draw suffices: the importance weight is constant


def test_the_importance_weighted_bound_tightens_with_every_draw():
    model = LinearGaussian(slip=0.7)
    values = [nats(importance_weighted(draws), model)[0] for draws in (1, 4, 16, 64)]
    exact = nats(importance_weighted(1), model)[1]
    assert values[0] > values[1] > values[2] > values[3] > exact - 0.02
    assert abs(values[0] - nats(elbo(1.0), model)[0]) < 0.05  # with one draw this is the ELBO
    assert values[3] - exact < 0.1 * (values[0] - exact)


def test_the_kl_is_weighted_in_the_loss_and_not_in_the_reading():
    model, batch = PerceptronVAE(width=8, latent=2).build(SPACE).eval(), BATCH
    found = []
    for weight in (1.0, 3.0):
        objective = elbo(weight)
        drawn = objective.experience(Round({"model": model}, batch, Noise("kl")))
        found.append(objective.loss({"model": model}, drawn))
    kl = float(found[0].metrics["kl"][0])
    assert float(found[1].sums["likelihood"] - found[0].sums["likelihood"]) == pytest.approx(2 * kl, rel=1e-4)
    assert float(found[0].metrics["nats"][0]) == float(found[1].metrics["nats"][0])


def test_two_levels_are_a_bernoulli_law():
    from sanbu.layers.pixel_distributions import logistic_mass

    mean, log_scale = torch.linspace(-2, 2, 9), torch.tensor(-0.7)
    for level in (0, 1):
        mass = logistic_mass(torch.full((9,), level), mean, log_scale, 2)
        logit = mean * math.exp(0.7)
        expected = torch.nn.functional.logsigmoid(logit if level else -logit)
        torch.testing.assert_close(mass, expected)


def test_masses_of_all_levels_sum_to_one():
    from sanbu.layers.pixel_distributions import logistic_mass

    for log_scale in (-7.0, -3.0, 0.0, 2.0):
        mass = logistic_mass(torch.arange(256), torch.tensor(0.3), torch.tensor(log_scale), 256)
        assert abs(float(mass.double().exp().sum()) - 1) < 1e-4


# -- games -------------------------------------------------------------------------------------------------------------


class Quadratic(nn.Module):
    """D(x) = sum a x^2 / 2, so its gradient is a x."""

    def forward(self, x, label):
        return (torch.tensor([1.0, 2.0, 3.0]) * x.flatten(1) ** 2 / 2).sum(1)


def test_r1_is_half_the_squared_slope_at_real_pictures():
    x = torch.randn(5, 1, 1, 3)
    batch = {"image": x, "label": torch.zeros(5), "chance": torch.rand(5, 13)}
    found = adversarial.r1_penalty(0.8, (), {"critic": Quadratic()}, batch).sums["rows"]
    by_hand = 0.4 * (torch.tensor([1.0, 2.0, 3.0]) * x.flatten(1)).square().sum()
    torch.testing.assert_close(found, by_hand)


def test_the_wasserstein_penalty_pulls_slopes_to_one():
    class Maker(nn.Module):
        latent = (3,)

        def forward(self, noise, label):
            return noise.view(-1, 1, 1, 3)

    x, z, part = torch.randn(5, 1, 1, 3), torch.randn(5, 3), torch.rand(5, 13)
    batch = {"image": x, "label": torch.zeros(5), "noise": z, "chance": part}
    found = adversarial.gradient_penalty({"critic": Quadratic(), "model": Maker()}, batch, ())
    middle = x.flatten(1) + part[:, -1:] * (z - x.flatten(1))
    slope = (torch.tensor([1.0, 2.0, 3.0]) * middle).norm(dim=1)
    torch.testing.assert_close(found, (slope - 1).square().sum())


def test_losses_of_the_games_by_hand():
    class Scores(nn.Module):
        def forward(self, x, label):
            return x.flatten(1).sum(1)

    class Maker(nn.Module):
        latent = (1,)

        def forward(self, noise, label):
            return noise.view(-1, 1, 1, 1)

    models_ = {"critic": Scores(), "model": Maker()}
    batch = {
        "image": torch.tensor([0.5, -2.0]).view(2, 1, 1, 1),
        "label": torch.zeros(2),
        "noise": torch.tensor([[0.3], [1.5]]),
        "chance": torch.rand(2, 13),
    }
    soft = lambda v: math.log(1 + math.exp(v))
    turns = {name: list(kinds_.build().turns(Round(models_, batch, Noise(0))))
             for name, kinds_ in (("ns", NonSaturating(r1=0.0)), ("hinge", Hinge(r1=0.0)))}  # fmt: skip
    assert [turn.player for turn in turns["ns"]] == ["critic", "model"]
    critic = {name: float(found[0].loss(models_, batch).sums["rows"]) for name, found in turns.items()}
    maker = {name: float(found[1].loss(models_, batch).sums["rows"]) for name, found in turns.items()}
    assert critic["ns"] == pytest.approx(soft(0.3) + soft(1.5) + soft(-0.5) + soft(2.0), rel=1e-5)
    assert critic["hinge"] == pytest.approx(1.3 + 2.5 + 0.5 + 3.0, rel=1e-5)
    assert maker["ns"] == pytest.approx(soft(-0.3) + soft(-1.5), rel=1e-5) and maker["hinge"] == pytest.approx(
        -1.8, rel=1e-5
    )


def test_the_penalty_comes_once_in_so_many_rounds_and_counts_as_often():
    objective = NonSaturating(r1=0.5, every=4).build()
    model = PerceptronGAN(width=8, latent=3).build(SPACE)
    counts = [
        len(list(objective.draw_turns(Round({"model": model}, BATCH, Noise("turns", step))))) for step in range(400)
    ]
    assert set(counts) == {2, 3} and 70 < counts.count(3) < 130


def test_augmentation_moves_colours_and_places_and_lets_gradients_through():
    x = torch.rand(4, 3, 8, 8, requires_grad=True)
    still = torch.full((4, 6), 0.5)
    torch.testing.assert_close(augmentation.colour(x, still), x)
    torch.testing.assert_close(augmentation.shift(x, still), x)
    right = still.clone()
    right[:, 4] = 0.0
    torch.testing.assert_close(augmentation.shift(x, right)[..., 1:], x[..., :-1])
    cut = augmentation.cutout(x, still)
    assert 0.2 < float((cut == 0).float().mean()) < 0.5
    for name in augmentation.AUGMENTATIONS:
        (slope,) = torch.autograd.grad(augmentation.augmented(x, torch.rand(4, 6), (name,)).sum(), x)
        assert slope.abs().sum() > 0


# -- consistency -------------------------------------------------------------------------------------------------------


class ExactConsistency(nn.Module):
    """All data is one point p: the path through x_t ends at p, so D(x_t, t) = p is the exact consistency function."""

    path = Exploding()

    def __init__(self):
        super().__init__()
        self.point = nn.Parameter(torch.tensor(0.3))

    def estimate(self, x, t, label):
        return self.point.expand_as(x), x


def test_the_objective_is_zero_for_the_exact_consistency_function():
    objective = Consistency(stage=2).build()
    model = ExactConsistency()
    batch = {"image": torch.full((5, 1, 2, 2), 0.3), "label": torch.zeros(5)}
    models_ = {"model": model, **objective.attach(model)}
    for rounds in (0, 2, 20):
        models_["target"].rounds.fill_(rounds)
        drawn = objective.experience(Round(models_, batch, Noise("consistency", rounds)))
        assert float(objective.loss(models_, drawn).sums["rows"].detach()) == 0
    model.point.data.fill_(0.5)
    models_["target"].follow()
    drawn = objective.experience(Round(models_, batch, Noise("consistency")))
    first = float(objective.loss(models_, drawn).sums["rows"].detach())
    # in the first stage the path ends at the picture itself: a wrong constant has a loss
    models_["target"].rounds.fill_(0)
    drawn = objective.experience(Round(models_, batch, Noise("consistency")))
    assert float(objective.loss(models_, drawn).sums["rows"].detach()) > first == 0


def test_the_gap_of_times_shrinks_in_stages():
    t = torch.tensor([0.01, 0.5, 5.0])
    gaps = [t - earlier_time(t, stage, 2.0) for stage in range(12)]
    assert gaps[0].equal(t)
    assert all((b <= a).all() for a, b in pairwise(gaps)) and (gaps[-1] > 0).all()
    torch.testing.assert_close(gaps[11], t * (1 + 8 * (-t).sigmoid()) / 2**11)


def test_times_follow_their_laws():
    noise = Noise("times")
    t = LogNormal(mean=-1.2, deviation=1.2).draw(Exploding(), noise, 20000)
    inside = t[(t > 0.0021) & (t < 79)].log()
    assert abs(float(inside.mean()) + 1.2) < 0.05 and abs(float(inside.std()) - 1.2) < 0.05
    t = LogitNormal().draw(LinearPath(), noise, 20000)
    assert abs(float(t.logit().mean())) < 0.05 and abs(float(t.logit().std()) - 1) < 0.05
    t = Uniform().draw(LinearPath(), noise, 20000)
    assert abs(float(t.mean()) - 0.5) < 0.01 and float(t.min()) > 0
