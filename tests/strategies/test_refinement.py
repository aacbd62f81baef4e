"""Samplers on data with an exactly known denoiser: Gaussians and their mixtures."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from sanbu import paths
from sanbu.config import ConfigError, override
from sanbu.noise import normal_at
from sanbu.recipes import images
from sanbu.space import Space
from sanbu.strategies.one_shot import OneShot
from sanbu.strategies.refinement import Refinement
from sanbu.strategies.samplers import SAMPLERS, Memory
from sanbu.strategies.strategy import generate, last

PATHS = {
    "linear": paths.LinearPath(),
    "cosine": paths.CosinePath(),
    "betas": paths.Betas(),
    "exploding": paths.Exploding(sigma_max=20.0, sigma_min=0.02),
}
MEANS, DEVIATION = (-0.8, 0.4), 0.25


def exact(path, weights=(0.3, 0.7), means=MEANS, deviation=DEVIATION):
    """E[x | x_t] and E[e | x_t] for a mixture of Gaussians, elementwise."""

    def denoise(x, t):
        a, s = (float(f(torch.tensor(t, dtype=torch.float64))) for f in (path.alpha, path.sigma))
        variance = a**2 * deviation**2 + s**2
        centre = torch.tensor(means, dtype=x.dtype)
        gap = x[..., None] - a * centre
        share = (torch.tensor(weights, dtype=x.dtype).log() - gap.square() / (2 * variance)).softmax(-1)
        clean = (share * (centre + a * deviation**2 / variance * gap)).sum(-1)
        return clean, (x - a * clean) / s

    return denoise


def walk(sampler, path, denoise, steps, x, stop=None):
    """Sample along the path's grid, or its first `stop` steps."""
    memory, draws = Memory(torch.zeros_like(x)), torch.Generator().manual_seed(1)
    fresh = lambda: torch.randn(memory.clean.shape, generator=draws, dtype=memory.clean.dtype)
    times = path.grid(steps).tolist()
    x = x * float(path.sigma(torch.tensor(times[0], dtype=torch.float64)))
    for t, s in list(pairwise(times))[:stop]:
        x = SAMPLERS[sampler](denoise, path, x, t, s, memory, fresh)
    return x


def start(count=40000):
    # evenly spaced quantiles
    return torch.erfinv(2 * (torch.arange(count, dtype=torch.float64) + 0.5) / count - 1) * math.sqrt(2)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("sampler", ["ddim", "euler", "heun", "dpm-solver", "ancestral"])
def test_samplers_reach_the_law(name, sampler):
    """Weights, means and deviations of both modes after many steps."""
    path = PATHS[name]
    steps = 1000 if sampler == "ancestral" else 200
    x = walk(
        sampler,
        path,
        exact(path),
        steps,
        torch.randn(40000, dtype=torch.float64) if sampler == "ancestral" else start(),
    )
    tolerance = 0.012 if sampler == "ancestral" else 0.006
    upper = x > -0.2
    # a small part of each mode lies beyond the midpoint
    assert abs(float(upper.double().mean()) - 0.7) < tolerance + 0.008
    assert abs(float(x.mean()) - (0.3 * -0.8 + 0.7 * 0.4)) < tolerance
    variance = DEVIATION**2 + 0.3 * 0.7 * 1.2**2
    assert abs(float(x.var()) - variance) < 0.02


ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "dpm-solver": 2}


@pytest.mark.parametrize("sampler", ORDERS)
def test_errors_fall_at_the_order_of_the_method(sampler):
    """For one Gaussian, (x_t - a_t m) / sqrt(a_t^2 d^2 + s_t^2) is constant along the exact path.

    Three quarters of the way down, the error falls with steps^-1 or steps^-2. (The last step, to zero noise, is of
    first order for every method.)
    """
    path, mean, deviation = paths.CosinePath(), 0.4, 0.25
    denoise = exact(path, (1.0,), (mean,), deviation)
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)

    def centred(t, x):
        a, s = path.alpha(t), path.sigma(t)
        return (x - a * mean) / (a**2 * deviation**2 + s**2).sqrt()

    first, place = path.grid(4)[0], path.grid(4)[3]
    start = centred(first, x * path.sigma(first))
    steps = (64, 128, 256)
    errors = [
        float((centred(place, walk(sampler, path, denoise, n, x, 3 * n // 4)) - start).abs().max()) for n in steps
    ]
    slope = math.log2(errors[0] / errors[2]) / 2
    assert abs(slope - ORDERS[sampler]) < 0.25, (errors, slope)
    assert errors[2] < {1: 0.02, 2: 0.002}[ORDERS[sampler]]


@pytest.mark.parametrize("name", PATHS)
def test_ddim_is_exact_where_the_data_is_a_point(name):
    """If all data is one picture, D is that picture: any number of steps ends there, and x_t is the linear mixture."""
    path, point = PATHS[name], 0.37

    def denoise(x, t):
        a, s = (float(f(torch.tensor(t, dtype=torch.float64))) for f in (path.alpha, path.sigma))
        return torch.full_like(x, point), (x - a * point) / s

    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    times = path.grid(7).tolist()
    s0 = float(path.sigma(torch.tensor(times[0], dtype=torch.float64)))
    a0 = float(path.alpha(torch.tensor(times[0], dtype=torch.float64)))
    first = (x * s0 - a0 * point) / s0
    state, memory = x * s0, Memory(torch.zeros_like(x))
    for t, s in pairwise(times):
        state = SAMPLERS["ddim"](denoise, path, state, t, s, memory, None)
        a, sigma = (float(f(torch.tensor(s, dtype=torch.float64))) for f in (path.alpha, path.sigma))
        torch.testing.assert_close(state, a * point + sigma * first)


class Exact(nn.Module):
    """A denoiser of a Gaussian with one mean per label."""

    def __init__(self, path=paths.CosinePath()):  # noqa: B008
        super().__init__()
        self.path = path

    def estimate(self, x, t_B, label_B):
        mean = torch.tensor([0.5, -0.5, 0.0])[label_B].view(-1, 1, 1, 1)
        a, s = (paths.spread(f(t_B), x) for f in (self.path.alpha, self.path.sigma))
        variance = a**2 * 0.01 + s**2
        clean = mean + a * 0.01 / variance * (x - a * mean)
        return clean, (x - a * clean) / s


SPACE = Space((1, 4, 4), 17, classes=2)


def drawn(config, rows=4, **condition):
    label = condition.pop("label", torch.arange(rows) % 2)
    return last(generate(config.build(SPACE), {"model": Exact()}, {"label": label, **condition}, torch.arange(rows)))


@pytest.mark.parametrize(
    ("sampler", "evaluations"),
    [("ddim", 8), ("heun", 15), ("euler", 8), ("dpm-solver", 8), ("consistency", 8), ("ancestral", 8)],
)
def test_evaluations_are_counted_and_rows_are_their_own(sampler, evaluations):
    config = Refinement(sampler=sampler, steps=8)
    together = drawn(config, 6)
    assert together.evaluations.tolist() == [evaluations] * 6
    for row in range(6):
        alone = last(
            generate(config.build(SPACE), {"model": Exact()}, {"label": torch.tensor([row % 2])}, torch.tensor([row]))
        )
        torch.testing.assert_close(alone.sample[0], together.sample[row], rtol=0, atol=1e-5)
    assert not torch.allclose(together.sample[0], together.sample[2])


def test_guidance_moves_away_from_no_label():
    """At weight w the clean estimate is D + (w - 1) (D - D without label), at two evaluations per step."""
    plain, guided = drawn(Refinement(steps=30)), drawn(Refinement(steps=30, guidance=2.0))
    assert guided.evaluations.tolist() == [60] * 4
    for row, sign in enumerate((1, -1, 1, -1)):
        assert sign * float((guided.sample - plain.sample)[row].mean()) > 0.2
    one = drawn(Refinement(sampler="consistency", steps=1, guidance=3.0)).sample
    t = Exact().path.grid(2)[0].float().expand(4)
    noisy = normal_at(torch.arange(4), 0, 1, 4, 4) * Exact().path.sigma(t).view(4, 1, 1, 1)
    told, untold = (Exact().estimate(noisy, t, label)[0] for label in (torch.arange(4) % 2, torch.full((4,), 2)))
    torch.testing.assert_close(one, 3 * told - 2 * untold, rtol=1e-5, atol=1e-5)
    weak = Refinement(steps=30, guidance=2.0).build(SPACE)
    same = {"model": Exact(), "guide": Exact()}
    auto = last(generate(weak, same, {"label": torch.arange(4) % 2}, torch.arange(4)))
    torch.testing.assert_close(auto.sample, plain.sample)  # a guide equal to the model changes nothing


def test_known_pixels_are_kept_and_drafts_end_committed():
    known = torch.randint(0, 17, (4, 1, 4, 4))
    mask = torch.zeros(4, 1, 4, 4, dtype=torch.bool)
    mask[..., :2] = True
    for sampler in SAMPLERS:
        draft = drawn(Refinement(sampler=sampler, steps=6), known=known, mask=mask)
        kept = (draft.sample + 1) * 8
        torch.testing.assert_close(kept[mask], known[mask].float(), rtol=0, atol=1e-4)
        assert draft.committed.all() and draft.done.all()


def test_a_picture_at_once_cannot_complete_another():
    with pytest.raises(Exception, match="'one-shot' cannot complete a given picture"):
        OneShot().build(SPACE).begin(
            {"label": torch.zeros(1), "known": torch.zeros(1)}, torch.zeros(1, dtype=torch.long)
        )


def test_guidance_is_refused_where_it_means_nothing():
    with pytest.raises(ConfigError, match="unconditional"):
        override(images.flow(), ["data.classes=0", "strategy.guidance=2"])
    with pytest.raises(ConfigError, match="never sees a row without label"):
        override(images.flow(), ["data.drop_label=0", "strategy.guidance=2"])
    override(images.flow(), ["data.classes=0", "parents.guide=runs/weak", "strategy.guidance=2"])


def test_parts_that_do_not_fit_are_named():
    with pytest.raises(
        ConfigError, match="strategy: given 'refinement', but the model 'pixelcnn' needs one of: pixel-by-pixel"
    ):
        override(images.flow(), ["model=pixelcnn", "objective=likelihood"])
    with pytest.raises(
        ConfigError, match="objective: given 'denoising', but the model 'pixelcnn' needs one of: likelihood"
    ):
        override(images.flow(), ["model=pixelcnn", "strategy=pixel-by-pixel"])
    with pytest.raises(ConfigError, match="use velocity"):
        override(images.flow(), ["model.target=noise"])


@pytest.mark.parametrize(
    ("sampler", "most"), [*((name, 100) for name in SAMPLERS if name != "consistency"), ("consistency", 99)]
)
def test_a_chain_has_no_more_steps_than_it_has(sampler, most):
    """Refused in the recipe, in an override of a run, and where a model is drawn from without a recipe."""
    chain = ["model.path.steps=100", f"strategy.sampler={sampler}"]
    assert override(images.ddpm(), [*chain, f"strategy.steps={most}"]).strategy.steps == most
    with pytest.raises(ConfigError, match=f"strategy.steps: given {most + 1}, allowed.*: 1 to {most}, .* 100 steps"):
        override(images.ddpm(), [*chain, f"strategy.steps={most + 1}"])
    times = paths.Betas(steps=100).grid(100).tolist()
    assert all(s < t for t, s in pairwise(times))
    space = Space((1, 2, 2), 256)
    network = nn.Module()
    network.path = paths.Betas(steps=100)
    strategy = Refinement(sampler=sampler, steps=most + 1).build(space)
    with pytest.raises(ValueError, match=f"1 to {most}"):
        next(generate(strategy, {"model": network}, {"label": torch.zeros(1).long()}, torch.arange(1)))
    assert override(images.flow(), ["strategy.steps=5000"]).strategy.steps == 5000  # continuous time
