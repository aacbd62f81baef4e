"""Distances against closed forms and definitions; the copy rate detects memorisation that the distances miss."""

import math

import numpy as np
import pytest
import torch

from sanbu.data.image_rows import Images
from sanbu.evaluation.distances import TooFew, class_variation, copy_rate, frechet, kid, neighbourhoods
from sanbu.evaluation.picture_metrics import Judge, frechet_or_none, mean_row

DRAWS = torch.Generator()


def normal(count, mean, root, seed):
    DRAWS.manual_seed(seed)
    return torch.randn(count, len(mean), generator=DRAWS, dtype=torch.float64) @ root.T + torch.tensor(
        mean, dtype=torch.float64
    )


def test_frechet_is_that_of_two_gaussians():
    """Whitened samples have exactly the chosen moments, so the closed form holds up to rounding."""

    def exactly(mean, root, seed):
        x = normal(500, [0.0] * 3, torch.eye(3, dtype=torch.float64), seed)
        x = x - x.mean(0)
        x = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
        return x @ root.T + torch.tensor(mean, dtype=torch.float64)

    a = torch.tensor([[1.0, 0, 0], [0.5, 2, 0], [0, 0.3, 0.7]], dtype=torch.float64)
    b = torch.diag(torch.tensor([0.5, 1.5, 1.0], dtype=torch.float64))
    first, second = a @ a.T, b @ b.T
    values = torch.linalg.eigvals(first @ second).real.sqrt().sum()
    expected = 1.0 + 4.0 + float(first.trace() + second.trace() - 2 * values)
    found = frechet(exactly([1.0, 2.0, 0.0], a, 1), exactly([0.0, 0.0, 0.0], b, 2))
    assert found == pytest.approx(expected, rel=1e-9)
    x = exactly([0.0, 0.0, 0.0], a, 1)
    assert abs(frechet(x, x)) < 1e-9


def test_kid_is_the_unbiased_estimate():
    """Equal to the double sum of its definition; on samples of one distribution its mean is 0, with both signs."""
    x, y = (
        normal(60, [0.0, 0.0], torch.eye(2, dtype=torch.float64), 1),
        normal(60, [0.5, 0.0], torch.eye(2, dtype=torch.float64), 2),
    )
    kernel = lambda a, b: (float(a @ b) / 2 + 1) ** 3
    n = len(x)
    same = sum(kernel(s[i], s[j]) for s in (x, y) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    cross = sum(kernel(a, b) for a in x for b in y) / n**2
    assert kid(x, y) == pytest.approx(same - 2 * cross, rel=1e-9)
    eye = torch.eye(2, dtype=torch.float64)
    found = [kid(normal(60, [0.0, 0.0], eye, 2 * i), normal(60, [0.0, 0.0], eye, 2 * i + 1)) for i in range(400)]
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found)) < 3.5 * error and min(found) < 0 < max(found)


def test_neighbourhoods_by_their_definitions():
    found, real = (
        normal(80, [0.0, 0.0], torch.eye(2, dtype=torch.float64), 1),
        normal(80, [1.0, 0.0], torch.eye(2, dtype=torch.float64), 2),
    )
    k = 5
    reach = lambda s: [sorted(float((p - q).norm()) for q in s)[k] for p in s]
    reach_real, reach_found = reach(real), reach(found)
    inside = [[float((r - f).norm()) <= radius for f in found] for r, radius in zip(real, reach_real, strict=True)]
    other = [[float((r - f).norm()) <= radius for f, radius in zip(found, reach_found, strict=True)] for r in real]
    scores = neighbourhoods(found, real)
    assert scores["precision"] == pytest.approx(np.mean(np.any(inside, 0)))
    assert scores["recall"] == pytest.approx(np.mean(np.any(other, 1)))
    assert scores["density"] == pytest.approx(np.sum(inside) / k / 80)
    assert scores["coverage"] == pytest.approx(np.mean(np.any(inside, 1)))


def test_few_or_unequal_samples_are_refused():
    x = torch.randn(300, 4)
    for measure in (frechet, kid, neighbourhoods):
        with pytest.raises(TooFew, match="both must have the same"):
            measure(x, x[:200])
        with pytest.raises(TooFew, match="too few"):
            measure(x[:20], x[20:40])
    with pytest.raises(TooFew, match="too few for a distance; 300 are needed"):
        frechet(torch.randn(200, 300), torch.randn(200, 300))


def test_class_variation():
    assert class_variation(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]), 3) == pytest.approx(0.25)


@pytest.fixture(scope="module")
def judge():
    return Judge(Images(validation=0.0, test=1 / 3, classes=0))


def test_a_copycat_is_caught_and_nothing_else_sees_it(judge):
    rows = {row.name: row for row in judge.floors(1)}
    assert rows["copycat"].copy_rate > 0.95 and rows["KDE"].copy_rate > 0.9
    assert rows["copycat"].kid < 1e-3 and rows["copycat"].coverage > 0.9
    assert rows["one Gaussian"].copy_rate < 0.01 and rows["GMM-60"].copy_rate < 0.01
    assert rows["one Gaussian"].coverage < 0.5 < rows["GMM-60"].coverage < rows["real half"].coverage
    assert rows["real half"].frechet < rows["GMM-60"].frechet < rows["one Gaussian"].frechet


def test_an_unseen_part_is_no_copy(judge):
    from sanbu.evaluation.features import pixels

    half = len(judge.test) // 2
    assert copy_rate(pixels(judge.test[:half]), pixels(judge.train), pixels(judge.test[half:])) < 0.12


def test_collapse_shows_in_recall_and_coverage_and_not_in_precision(judge):
    one = np.repeat(judge.train[:10], judge.count // 10 + 1, 0)[: judge.count]
    scores = judge.score(one)
    assert scores["precision"] > 0.7 and scores["recall"] < 0.05 and scores["coverage"] < 0.15


def test_rows_of_seeds_are_averaged_with_their_deviation(judge):
    rows = [row for row in judge.floors(1) if row.name == "KDE"]
    other = type(rows[0])(**{**rows[0].__dict__, "kid": rows[0].kid + 0.002})
    row = mean_row([rows[0], other])
    assert row.kid == pytest.approx(rows[0].kid + 0.001) and row.spread["kid"] == pytest.approx(0.002 / math.sqrt(2))
    assert row.seeds == 2


def test_a_frechet_distance_from_too_few_samples_is_left_out():
    assert frechet_or_none(torch.randn(60, 64), torch.randn(60, 64)) is None
    assert frechet_or_none(torch.randn(70, 64), torch.randn(70, 64)) > 0


def test_too_few_pictures_are_refused():
    with pytest.raises(TooFew.__mro__[1], match="are needed for distances"):
        Judge(Images(validation=0.0, test=0.05))
