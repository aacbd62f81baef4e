"""Random command lines are done, or refused in one line; `python -m tests.e2e.generated_lines 5000` measures more."""

import random
import shlex

import pytest

from tests.e2e.command_lines import answer, furnish, names
from tests.e2e.generated_lines import commands, make_line, well


@pytest.mark.parametrize("count", [pytest.param(40, id="few"), pytest.param(1500, id="many", marks=pytest.mark.slow)])
@pytest.mark.timeout(1800)
def test_every_line_is_answered_well(tmp_path, count):
    place = tmp_path / "place"
    place.mkdir()
    furnish(place)
    known, before = commands(), names(place)
    found = {}
    for seed in range(count):
        words = make_line(random.Random(seed), known)
        answered = answer(place, words, before)
        if not well(answered):
            found[shlex.join(words)] = answered
    assert not found
