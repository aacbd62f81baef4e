"""Figures of generated tables against closed forms, peers and cases whose answer is known."""

import numpy as np
import pytest
import torch

import sanbu
from sanbu.codecs.features import Features
from sanbu.evaluation.tables.copies import copy_rate, nearer_share
from sanbu.evaluation.tables.distances import (
    column_distances,
    correlation,
    kolmogorov,
    pair_distance,
    transport,
    variation,
)
from sanbu.evaluation.tables.judge import Judge
from sanbu.evaluation.tables.two_sample import two_sample
from sanbu.evaluation.tables.utility import utility
from tests.tables.common import names, number


def rows(*columns):
    return torch.from_numpy(np.stack(columns, 1).astype(float))


def two_tables(count=400):
    draw = np.random.default_rng(0)
    made = []
    for shift in (0.0, 0.4):
        x = draw.normal(size=count) + shift
        made.append(rows(x, 2 * x + draw.normal(size=count), draw.integers(0, 3, count), draw.random(count) < 0.5))
    return made


COLUMNS = (number("a", -4.0, 4.0), number("b", -9.0, 9.0), names("c", "x", "y", "z"), names("d", "no", "yes"))


def test_transport_on_a_line_is_the_area_between_distribution_functions():
    from scipy.stats import wasserstein_distance

    first, second = (table[:, :1] for table in two_tables())
    expected = wasserstein_distance(first[:, 0].numpy(), second[:, 0].numpy()) / 8
    assert transport(COLUMNS[:1], first, second) == pytest.approx(expected)
    assert transport(COLUMNS[:1], first, first) == 0
    assert transport(COLUMNS[:1], first.repeat(2, 1), first) == pytest.approx(0)


def test_names_count_half_in_transport():
    first, second = rows(np.zeros(20)), rows(np.repeat((0, 1), 10))
    assert transport((COLUMNS[3],), first, second) == pytest.approx(0.5)


def test_variation_and_ks_by_hand():
    first, second = np.array([0.0, 0, 0, 1]), np.array([0.0, 1, np.nan, np.nan])
    assert variation(first, second) == pytest.approx(0.5)
    assert kolmogorov(np.array([1.0, 2, 3, 4]), np.array([3.0, 4, 5, 6])) == pytest.approx(0.5)
    assert kolmogorov(first, np.array([np.nan, np.nan, 0, 1])) == pytest.approx(0.5)


def test_ks_and_correlation_equal_scipy():
    from scipy.stats import ks_2samp

    first, second = two_tables()
    expected = ks_2samp(first[:, 0].numpy(), second[:, 0].numpy()).statistic
    assert column_distances(COLUMNS, first, second)[0] == pytest.approx(expected)
    assert np.allclose(correlation(first), np.corrcoef(first.numpy().T))


def test_columns_and_pairs_equal_sdmetrics():
    pandas, sdmetrics = pytest.importorskip("pandas"), pytest.importorskip("sdmetrics")
    from sdmetrics.column_pairs import ContingencySimilarity, CorrelationSimilarity
    from sdmetrics.single_column import KSComplement, TVComplement

    assert sdmetrics is not None
    tables = two_tables()
    frames = [pandas.DataFrame(table.numpy(), columns=list("abcd")) for table in tables]
    ours = column_distances(COLUMNS, *tables)
    for place, metric in enumerate((KSComplement, KSComplement, TVComplement, TVComplement)):
        first, second = (frame["abcd"[place]] for frame in frames)
        assert ours[place] == pytest.approx(1 - metric.compute(first, second), abs=1e-9)
    numbers = [frame[["a", "b"]] for frame in frames]
    pair = pair_distance(COLUMNS[:2], *(table[:, :2] for table in tables))
    assert pair == pytest.approx(1 - CorrelationSimilarity.compute(*numbers), abs=1e-9)
    classes = [frame[["c", "d"]].astype(str) for frame in frames]
    pair = pair_distance(COLUMNS[2:], *(table[:, 2:] for table in tables))
    assert pair == pytest.approx(1 - ContingencySimilarity.compute(*classes), abs=1e-9)


def test_two_halves_of_one_table_cannot_be_told_apart():
    """0.5 within three deviations of the AUC of 2 x 400 rows; a shift of 2 deviations is found."""
    first, _ = two_tables(800)
    area, count = two_sample(first[:400], first[400:])
    assert count == 400 and abs(area - 0.5) < 3 * np.sqrt(801 / (12 * 400 * 400))
    moved = first[400:].clone()
    moved[:, 0] += 2
    assert two_sample(first[:400], moved)[0] > 0.95
    assert two_sample(first[:400], first[400:], most=50)[1] == 50


def test_copies():
    draw = np.random.default_rng(0)
    table = rows(draw.random(600), draw.integers(0, 3, 600))
    table[5, 0] = torch.nan
    train, held_out, others = table.split(200)
    columns = (number("a", 0.0, 1.0, missing=True), COLUMNS[2])
    assert copy_rate(train, train) == 1 and copy_rate(others, train) == 0
    assert copy_rate(torch.cat((train[:50], others[:150])), train) == pytest.approx(0.25)
    assert nearer_share(columns, train, train, held_out) > 0.99
    assert nearer_share(columns, others, train, held_out) == pytest.approx(0.5, abs=3 * 0.5 / np.sqrt(200))
    assert nearer_share(columns, train, train, train) == 0.5


def test_utility_of_real_rows_and_of_rows_without_their_labels():
    draw = np.random.default_rng(0)
    x = draw.normal(size=400)
    table = rows(x, draw.normal(size=400), draw.integers(0, 3, 400), x + 0.3 * draw.normal(size=400) > 0)
    features = Features(COLUMNS, "d")
    real = utility(features, table[:200], table[200:])
    assert real["f1"] > 0.8 and real["auc"] > 0.9
    shuffled = table[:200].clone()
    shuffled[:, 3] = shuffled[torch.randperm(200), 3]
    assert utility(features, shuffled, table[200:])["auc"] < 0.7
    one = table[:200].clone()
    one[:, 3] = 1
    assert utility(features, one, table[200:])["auc"] == 0.5
    numbers = utility(Features(COLUMNS, "a"), table[:200], table[200:])
    assert set(numbers) == {"r2"} and numbers["r2"] > 0.3
    assert utility(Features(COLUMNS), table[:200], table[200:]) == {}


def test_the_floors_bound_what_can_be_reached():
    judge = Judge(sanbu.data.tables.Table(path="iris"))
    real, half, noisy = judge.floors()
    assert real["copies"] == 1 and real["w_train"] == 0 and real["tstr_f1"] > 0.9
    assert half["copies"] < 0.1 and 0.35 < half["nearer"] < 0.65
    assert noisy["copies"] < 0.6 and noisy["w_train"] < half["w_train"]
