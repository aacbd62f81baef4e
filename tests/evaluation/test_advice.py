"""Advice, ties and the chart of a comparison follow from the rows: nothing contradicts the table, every row is seen."""

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image

from sanbu.evaluation.advice import COPIES, GOOD, advice, how_to_tell
from sanbu.evaluation.chart import plot
from sanbu.evaluation.picture_metrics import Row
from sanbu.evaluation.report import page


def row(name, kid=0.001, coverage=0.9, strategy="refinement", **more):
    figures = {"frechet": 2.0, "precision": 0.9, "recall": 0.9, "density": 1.0, "copy_rate": 0.0, "kid_error": 2e-4}
    return Row(name, strategy, kid=kid, coverage=coverage, **{**figures, "nfe": 16, "ms_per_image": 0.1, **more})


def floors(noise=0.1):
    return [
        row("GMM-60", 2e-4, 0.9, "floor", ms_per_image=None),
        row("noise", noise, 0.0, "floor", ms_per_image=None, kid_error=noise / 100),
    ]


def said(rows, start):
    """The sentence that starts with this word; empty if there is none."""
    return next((line for line in advice(rows) if line.startswith(start)), "")


def test_runs_that_cover_nothing_are_set_aside():
    rows = [*floors(), row("a", 0.107, 0.0), row("b", 0.0024, 0.0)]
    assert said(rows, "Set aside").startswith(
        "Set aside, as the samples are near no unseen picture: a, b; train longer"
    )
    assert not any(said(rows, start) for start in ("Quality", "Diversity", "Speed"))


def test_a_kid_that_ties_with_noise_recommends_nobody():
    """On large pictures, KID on pixels does not tell a U-Net from noise."""
    rows = [*floors(noise=0.002), row("unet", 0.0019, kid_error=5e-4)]
    assert said(rows, "Quality") == (
        "Quality: none can be told from noise by KID on pixels (KID 1.90e-3 of unet against 2.00e-3 of noise);"
        " see precision and coverage."
    )


def test_runs_within_the_noise_tie():
    rows = [*floors(), row("a", 5e-4), row("b", 7e-4), row("c", 5e-3)]
    wanted = "a is closest to unseen pictures (KID 0.50e-3); within the noise of KID it ties with b."
    assert said(rows, "Quality") == f"Quality: {wanted}"
    assert said(rows, "Better").endswith("none; within the noise: a, b.")


def test_the_smallest_difference_is_that_of_this_table():
    """2 sqrt(2) times the median error; no sentence without measured errors."""
    for error in (2e-4, 1e-2):
        rows = [*floors(), *(row(name, kid_error=error) for name in "abc")]
        wanted = f"differ by less than about {2000 * math.sqrt(2) * error:.2f} tie."
        assert how_to_tell(rows, lambda value: f"{1000 * value:.2f}").endswith(wanted)
        assert wanted in page(rows, "title", b"")
    assert how_to_tell([row("a", kid_error=None)], str) == ""


def normal(low, high):
    """Floats that are not subnormal: training sets the processor to flush those."""
    return st.floats(low, high, allow_subnormal=False)


FIGURES = st.tuples(
    normal(-1e-3, 0.2), normal(0, 1), normal(0, 0.3), normal(1e-5, 5e-3), normal(1e-3, 1e3), st.booleans()
)


@settings(max_examples=300, deadline=None)
@given(st.lists(FIGURES, min_size=1, max_size=6), st.floats(1e-3, 0.2))
def test_advice_never_contradicts_the_table(figures, noise):
    models = [
        row(f"run{number}", kid, coverage, copy_rate=copies, kid_error=error, ms_per_image=ms if timed else None)
        for number, (kid, coverage, copies, error, ms, timed) in enumerate(figures)
    ]
    rows = [*floors(noise), *models]
    fair = [each for each in models if each.copy_rate <= COPIES and each.coverage > 0]
    lowest, widest = min((each.kid for each in fair), default=0), max((each.coverage for each in fair), default=0)
    named = lambda start, after: [each for each in models if f"{each.name} {after}" in said(rows, start)]
    assert all(each in fair and each.kid == lowest for each in named("Quality", "is closest"))
    assert all(each in fair and each.coverage == widest for each in named("Diversity", "covers"))
    assert bool(named("Diversity", "covers")) is bool(fair)
    fast = [each for each in fair if each.ms_per_image is not None and each.coverage >= GOOD]
    quickest = min((each.ms_per_image for each in fast), default=0)
    assert all(each in fast and each.ms_per_image == quickest for each in named("Speed", "draws"))
    better = said(rows, "Better").split(";")[0]
    assert all(each.kid < rows[0].kid for each in models if each.name in better)


@pytest.mark.parametrize(
    "names", [["a", "b", "c"], ["_hidden", "$x^$", "雪"], ["one"], ["x, 1 step", "x, 16 steps"]], ids=" ".join
)
@pytest.mark.parametrize("coverage", [0.0, 1.0])
def test_every_run_is_seen_in_both_plots(names, coverage):
    """In its colour, whatever its KID, time and coverage are."""
    kids, times = (0.107, -3e-4, 9.0), (0.07, None, 4e3)
    rows = [row(name, kid, coverage, ms_per_image=ms) for name, kid, ms in zip(names, kids, times, strict=False)]
    picture = np.asarray(Image.open(io.BytesIO(plot([*floors(), *rows], "title $x^"))).convert("RGB")).astype(int)
    inside = picture[60:-60, : int(picture.shape[1] * 0.85)]  # without the legend
    for number in range(len(rows)):
        for half in (inside[:, : inside.shape[1] // 2], inside[:, inside.shape[1] // 2 :]):
            colour = np.array(to_rgb(f"C{number}")) * 255
            shades = [np.abs(half - mixed).max(2) < 12 for mixed in (colour, (colour + 255) / 2)]
            assert (shades[0] | shades[1]).sum() > 30, names[number]
