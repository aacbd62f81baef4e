"""What a table of a comparison says, in sentences that are computed from its figures and their noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sanbu.evaluation.picture_metrics import Row

COPIES = 0.1  # runs with a higher copy rate are not recommended
GOOD = 0.85  # of coverage: runs above it may be the fastest good one


def advice(rows: Sequence[Row]) -> list[str]:
    """Sentences that say which run is best for what. A run that copies, or is near no unseen picture, is none."""
    models = [row for row in rows if not row.floor]
    floors = {row.name: row for row in rows if row.floor}
    copying = [row for row in models if row.copy_rate > COPIES]
    missing = [row for row in models if row not in copying and row.coverage <= nothing(floors)]
    others = [row for row in models if row not in copying and row not in missing]
    sentences = []
    if models and len(copying) == len(models):
        sentences.append("Every run copies its training pictures: train shorter, on more pictures, or regularise more.")
    elif copying:
        sentences.append(f"Set aside, as more than a tenth of the samples are copies: {names(copying)}.")
    if missing:
        cure = "train longer, or choose a model that fits the pictures"
        sentences.append(f"Set aside, as the samples are near no unseen picture: {names(missing)}; {cure}.")
    if others:
        scope = "of the other runs, " if len(others) < len(models) else ""
        sentences += [quality(others, floors, scope), diversity(others, scope), *speed(others)]
    sentences += [*likelihood(models), *against_mixture(models, floors)]
    if any(row.frechet is None for row in rows):
        sentences.append("The Frechet distance is left out: it needs as many samples as a picture has numbers.")
    return sentences


def nothing(floors: dict[str, Row]) -> float:
    """The coverage that noise reaches, and so a run that has learnt nothing."""
    return floors["noise"].coverage if "noise" in floors else 0.0


def quality(rows: Sequence[Row], floors: dict[str, Row], scope: str) -> str:
    """The run of the lowest KID, and those that tie with it; that KID says nothing where noise ties with it too."""
    best = min(rows, key=lambda row: row.kid)
    noise = floors.get("noise")
    if noise is not None and not below(best, noise):
        found = f"KID {thousandths(best.kid)} of {best.name} against {thousandths(noise.kid)} of noise"
        return f"Quality: {scope}none can be told from noise by KID on pixels ({found}); see precision and coverage."
    tied = [row for row in rows if row is not best and not below(best, row)]
    text = f"Quality: {scope}{best.name} is closest to unseen pictures (KID {thousandths(best.kid)})"
    return text + (f"; within the noise of KID it ties with {names(tied)}." if tied else ".")


def diversity(rows: Sequence[Row], scope: str) -> str:
    """The run of the highest coverage, and those that tie with it."""
    varied = max(rows, key=lambda row: row.coverage)
    tied = [row for row in rows if row is not varied and same_coverage(varied, row)]
    figures = f"coverage {varied.coverage:.2f}, recall {varied.recall:.2f}"
    text = f"Diversity: {scope}{varied.name} covers the most of them ({figures})"
    return text + (f"; within the noise of coverage it ties with {names(tied)}." if tied else ".")


def speed(rows: Sequence[Row]) -> list[str]:
    """The fastest run of good coverage, if there is one."""
    good = [row for row in rows if row.coverage >= GOOD and row.ms_per_image is not None]
    if not good:
        return []
    fast = min(good, key=lambda row: row.ms_per_image or 0.0)
    return [f"Speed: {fast.name} draws a picture in {fast.ms_per_image:.3f} ms, with coverage {fast.coverage:.2f}."]


def likelihood(rows: Sequence[Row]) -> list[str]:
    """The best likelihood of each strategy; exact values and bounds are not compared with each other."""
    sentences = []
    for strategy, kind in (("pixel-by-pixel", "exact"), ("one-shot", "an upper bound")):
        likely = [row for row in rows if row.strategy == strategy and row.bits_per_dimension is not None]
        if likely:
            best = min(likely, key=lambda row: row.bits_per_dimension or 0.0)
            bits = f"{best.bits_per_dimension:.2f} bits per dimension ({kind})"
            sentences.append(f"Likelihood: {best.name} needs {bits} for unseen pictures.")
    return sentences


def against_mixture(models: Sequence[Row], floors: dict[str, Row]) -> list[str]:
    """The runs of a lower KID than a mixture of Gaussians, and those that tie with it."""
    mixture = floors.get("GMM-60")
    if mixture is None or not models:
        return []
    better = [row for row in models if below(row, mixture)]
    tied = [row for row in models if row not in better and not below(mixture, row)]
    text = f"Better than a mixture of 60 Gaussians by KID: {names(better) or 'none'}"
    return [text + (f"; within the noise: {names(tied)}." if tied else ".")]


# -- noise ------------------------------------------------------------------------------------------------------------


def below(first: Row, second: Row) -> bool:
    """Whether the KID of the first is lower by more than twice the error of the difference."""
    return second.kid - first.kid > 2 * math.hypot(first.kid_error or 0.0, second.kid_error or 0.0)


def same_coverage(first: Row, second: Row) -> bool:
    """Whether two coverages differ by at most twice the error of the difference: two fractions of so many pictures."""
    counts = [row.pictures * row.seeds for row in (first, second)]
    if not all(counts):
        return first.coverage == second.coverage
    variance = sum(row.coverage * (1 - row.coverage) / n for row, n in zip((first, second), counts, strict=True))
    return abs(first.coverage - second.coverage) <= 2 * math.sqrt(variance)


def how_to_tell(rows: Sequence[Row], value: Callable[[float], str]) -> str:
    """From which difference on two runs of this table do not tie, as a sentence; empty without measured errors."""
    errors = sorted(row.kid_error for row in rows if row.kid_error is not None and not row.floor)
    if not errors:
        return ""
    typical = 2 * math.sqrt(2) * errors[len(errors) // 2]
    return f"With the errors measured here, two runs whose KIDs differ by less than about {value(typical)} tie."


# -- text -------------------------------------------------------------------------------------------------------------


def names(rows: Sequence[Row]) -> str:
    """The names of rows, with commas."""
    return ", ".join(row.name for row in rows)


def thousandths(value: float) -> str:
    """A KID as text; no minus before a zero."""
    return f"{round(1000 * value, 2) + 0.0:.2f}e-3"
