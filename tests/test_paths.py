"""Paths between data and noise: factors, derivatives, and conversions between all prediction targets."""

import itertools

import pytest
import torch

from sanbu import paths

PATHS = {
    "linear": paths.LinearPath(),
    "cosine": paths.CosinePath(),
    "betas": paths.Betas(),
    "exploding": paths.Exploding(sigma_max=20.0),
}
INSIDE = {name: path.place(torch.linspace(0.05, 0.95, 19, dtype=torch.float64)) for name, path in PATHS.items()}


@pytest.mark.parametrize("name", PATHS)
def test_rates_are_the_derivatives(name):
    path, t = PATHS[name], INSIDE[name]
    step = 1e-6 * (t if name == "exploding" else 1)
    if name == "betas":  # the slope is that of the preceding interval
        t = t - 0.3 / path.steps
    for rate, function in zip(path.rates(t), (path.alpha, path.sigma), strict=True):
        torch.testing.assert_close(rate, (function(t + step) - function(t - step)) / (2 * step), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", PATHS)
def test_times_are_found_from_their_ratio(name):
    path, t = PATHS[name], INSIDE[name]
    torch.testing.assert_close(path.time_at(path.sigma(t) / path.alpha(t)), t, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", PATHS)
def test_a_path_goes_from_noise_to_clean(name):
    path = PATHS[name]
    for steps in (1, 2, 10, 50):
        grid = path.grid(steps)
        assert len(grid) == steps + 1 and (grid[:-1] > grid[1:]).all()
        assert float(path.sigma(grid[-1])) == 0 and float(path.alpha(grid[-1])) == 1
        assert float(path.alpha(grid[0]) / path.sigma(grid[0])) < 0.06


def test_betas_are_the_chain_of_ddpm():
    path = PATHS["betas"]
    products = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(path.alpha(t).square(), products)
    torch.testing.assert_close(path.sigma(t).square(), 1 - products)
    assert path.clock(t).round().equal(torch.arange(1000, dtype=torch.float64))


@pytest.mark.parametrize("name", PATHS)
def test_all_predictions_round_trip(name):
    """Every target converts to the clean picture and the noise, and to every other target."""
    path, t = PATHS[name], INSIDE[name]
    x, e = torch.randn(2, len(t), 1, 3, 3, dtype=torch.float64)
    noisy = paths.mix(path, x, e, t)
    targets = [target for target in paths.TARGETS if not (name == "linear" and target == "noise")]
    for first, second in itertools.product(targets, targets):
        a, b = (paths.TARGETS[target](path, t, 0.6) for target in (first, second))
        output = paths.spread(a[0], x) * x + paths.spread(a[1], x) * e
        clean, noise = paths.solve(path, a, noisy, output, t)
        torch.testing.assert_close(clean, x, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(noise, e, rtol=1e-6, atol=1e-6)
        again = paths.spread(b[0], x) * clean + paths.spread(b[1], x) * noise
        torch.testing.assert_close(again, paths.spread(b[0], x) * x + paths.spread(b[1], x) * e, rtol=1e-6, atol=1e-6)


def test_the_preconditioned_target_is_that_of_edm():
    """Equation 7 of Karras and others (2022): D = c_skip x + c_out F, with F of unit variance."""
    path, deviation = PATHS["exploding"], 0.6
    sigma = INSIDE["exploding"]
    x, e = (
        deviation * torch.randn(len(sigma), 1, 64, 64, dtype=torch.float64),
        torch.randn(len(sigma), 1, 64, 64, dtype=torch.float64),
    )
    c_x, c_e = paths.preconditioned(path, sigma, deviation)
    output = paths.spread(c_x, x) * x + paths.spread(c_e, x) * e
    torch.testing.assert_close(output.flatten(1).var(1), torch.ones_like(sigma), rtol=0.1, atol=0)
    skip = deviation**2 / (sigma**2 + deviation**2)
    out = sigma * deviation / (sigma**2 + deviation**2).sqrt()
    rebuilt = paths.spread(skip, x) * paths.mix(path, x, e, sigma) + paths.spread(out, x) * output
    torch.testing.assert_close(rebuilt, x)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("weighting", ["min-snr", "edm"])
def test_a_weight_is_one_function_of_the_error_of_the_clean_picture(name, weighting):
    """For each target, the weighted error equals the weighted error of the clean picture it implies."""
    path, t = PATHS[name], INSIDE[name]
    a, s = path.alpha(t), path.sigma(t)
    ratio = s / a
    on_clean = ratio.pow(-2).clamp(max=5) if weighting == "min-snr" else (ratio**2 + 0.36) / (ratio * 0.6) ** 2
    for target in paths.TARGETS:
        if name == "linear" and target == "noise":
            continue
        factors = paths.TARGETS[target](path, t, 0.6)
        noisy = torch.randn(len(t), 1, 1, 1, dtype=torch.float64)
        error = torch.full_like(noisy, 1e-3)
        first, second = (paths.solve(path, factors, noisy, output, t)[0] for output in (error * 0, error))
        moved = (second - first).flatten().square()
        weight = paths.weight(weighting, path, factors, t, 0.6)
        torch.testing.assert_close(weight * 1e-6, on_clean * moved, rtol=1e-6, atol=1e-15)


def test_edm_weights_make_the_network_loss_even():
    path, t = PATHS["exploding"], INSIDE["exploding"]
    weight = paths.weight("edm", path, paths.preconditioned(path, t, 0.6), t, 0.6)
    torch.testing.assert_close(weight, torch.ones_like(t))
