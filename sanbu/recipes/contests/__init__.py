"""Contests: what `sanbu compare NAME` trains and measures. Each file has the function `compete(entry) -> Report`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sanbu.config import ConfigError, nearest

if TYPE_CHECKING:
    from sanbu.evaluation.figures import Entry, Report

CONTESTS = {
    "digits": "pictures",  # every strategy on the same pictures
    "few-labels": "few_labels",  # learning from few labels, with and without the other pictures
    "functions": "functions",  # every set of functions on the same text
    "tables": "tables",  # generators of rows of a table
    "searches": "searches",  # every search on one model and the same pictures
    "speech": "speech",  # acoustic models and vocoders on the same sentences
}


def compete(name: str, entry: Entry) -> Report:
    """Hold the contest of that name. Raises ConfigError with the nearest match."""
    if name not in CONTESTS:
        raise ConfigError(
            f"{name!r} is neither a run folder nor a contest; contests: {', '.join(CONTESTS)}{nearest(name, CONTESTS)}"
        )
    return import_module(f"sanbu.recipes.contests.{CONTESTS[name]}").compete(entry)
