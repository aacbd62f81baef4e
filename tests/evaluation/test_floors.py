"""The baseline rows of any pictures: training pictures are best and copies, noise is worst, in every shape."""

import itertools

import numpy as np
import pytest

from sanbu.data import memory
from sanbu.evaluation.floors import gaussian
from sanbu.evaluation.picture_metrics import Judge, some

SHAPES = [(8, 8), (12, 6), (5, 9), (8, 8, 3), (12, 6, 3), (5, 9, 3)]


def pictures(count, *shape, seed=0):
    """Pictures of three classes, each with its own tint and a bright square at its own place."""
    draws = np.random.default_rng(seed)
    label = draws.integers(0, 3, count)
    values = 90 + 15 * draws.normal(0, 1, (count, *[1] * len(shape))) + draws.normal(0, 25, (count, *shape))
    if len(shape) == 3:
        values += 60 * np.eye(3)[label][:, None, None]
    for picture, number in zip(values, label, strict=True):
        picture[number : number + 3, 1:4] += 70
    return values.clip(0, 255).astype(np.uint8), label


def judge_of(array, labels=None, **fields):
    return Judge(memory.images(array, labels, **{"test": 0.3, "validation": 0.0, **fields}))


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_training_pictures_are_best_and_noise_is_worst(shape, labelled):
    array, labels = pictures(420, *shape)
    rows = judge_of(array, labels if labelled else None).floors(1)
    by_name = {row.name: row for row in rows}
    real, noise = by_name["real half"], by_name["noise"]
    assert [row.name for row in rows][:1] + [rows[-1].name] == ["real half", "noise"]
    assert abs(real.kid) < 3 * real.kid_error and real.copy_rate == by_name["copycat"].copy_rate == 1.0
    assert real.coverage > 0.85 and noise.coverage == noise.copy_rate == 0.0
    for row in rows:
        assert real.kid - row.kid < 3 * np.hypot(real.kid_error, row.kid_error), row.name
        assert row.kid - noise.kid < 3 * np.hypot(noise.kid_error, row.kid_error), row.name
        assert row is noise or row.coverage > noise.coverage, row.name
    assert (real.class_variation is not None) is labelled
    assert not labelled or real.class_variation < 0.2  # sampling error of about 130 labels of three classes


@pytest.mark.parametrize(("shape", "levels"), itertools.product([(8, 8), (5, 9, 3)], [2, 5, 256]))
def test_a_baseline_is_shaped_and_rounded_like_the_pictures(shape, levels):
    """A floor that returns the training pictures gives them back, whatever the axes and the levels are."""
    judge = judge_of(pictures(420, *shape)[0], levels=levels)
    back = judge.baseline(lambda train, count, seed: train[:count], 0)
    assert back.dtype == np.uint8 and np.array_equal(back, judge.train[: judge.count])
    assert (
        len(np.unique(judge.baseline(lambda train, n, seed: np.random.default_rng(0).random((n, train.shape[1])), 0)))
        <= levels
    )


def test_one_gaussian_has_the_mean_and_the_covariance_of_the_pictures():
    train = np.random.default_rng(0).normal(0.5, 0.1, (50, 4)) @ np.array(
        [[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]
    )
    drawn = gaussian(train, 200_000, 1)
    assert np.allclose(drawn.mean(0), train.mean(0), atol=2e-3) and np.allclose(
        np.cov(drawn.T), np.cov(train.T), atol=1e-3
    )


def test_many_numbers_per_picture_need_no_square_matrix():
    """40 pictures of 100,000 numbers: a covariance would take 80 GB."""
    assert gaussian(np.random.default_rng(0).random((40, 100_000)), 3, 0).shape == (3, 100_000)


def test_equal_pictures_are_copies_of_themselves():
    """Where many unseen pictures equal training ones after rounding, no distance lies below that of the nearest 5 %."""
    draws = np.random.default_rng(0)
    array = np.repeat(draws.integers(0, 2, (500, 1, 1)) * 200, 8, 1).repeat(8, 2) + draws.integers(0, 20, (500, 8, 8))
    row = judge_of(array.astype(np.uint8), levels=3).floors(1)[0]
    assert row.name == "real half" and row.copy_rate == 1.0


def test_a_part_of_sorted_pictures_has_every_class():
    """Sources are often sorted by class: the first pictures of a part are of the first classes alone."""
    places = np.arange(10_000)
    chosen = some(places, 2000)
    assert len(set(chosen)) == 2000 and np.array_equal(chosen, some(places, 2000))
    assert abs((chosen < 5000).mean() - 0.5) < 0.05


def test_pictures_sorted_by_class_are_judged_on_every_class(monkeypatch):
    monkeypatch.setattr("sanbu.evaluation.picture_metrics.MOST", 120)
    array, labels = pictures(900, 8, 8)
    order = np.argsort(labels, kind="stable")
    judge = judge_of(array[order], labels[order])
    assert judge.count == 120 and set(judge.labels["test"][:120]) == {0, 1, 2}
    assert abs(judge.floors(1)[0].kid) < 0.002


def test_a_single_class_is_judged_without_a_classifier():
    array, labels = pictures(420, 8, 8)
    assert judge_of(array, labels * 0 + 1).floors(1)[0].class_variation is None
