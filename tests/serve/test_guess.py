"""Speculation changes the speed of an answer and never its content."""

import itertools
import random
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sanbu.config import SanbuError
from sanbu.serve.block_manager import Blocks
from sanbu.serve.engine import Engine
from sanbu.serve.prompt_lookup import NGRAM, Guesser, Lookup
from sanbu.serve.request import Request
from sanbu.serve.speculate import Speculation
from sanbu.strategies.autoregressive import Autoregressive
from tests.serve.test_engine import MODELS, SPACE, Heard, V, alone, asked, built, finish

RULES = [{"temperature": 0.0}, {}, {"temperature": 0.6, "top_k": 5}, {"top_p": 0.8}, {"repetition_penalty": 1.3}]


def told(model, hows, **limits):
    """The outputs of the requests, and the engine; checks invariants after every step."""
    engine = Engine(model, SPACE.end, **limits)
    heard = [Heard(engine, **how) for how in hows]
    for _ in range(10_000):
        if not engine.busy():
            break
        engine.step()
        engine.blocks.check()
        assert all(
            not request.guess and len(request.table) * engine.blocks.size >= request.filled
            for request in engine.running
        )
        assert all(request.missing >= 1 for request in engine.running), "what is kept is what has come"
    assert engine.blocks.available() == engine.blocks.count
    return [(one.tokens, [event.logprob for event in one.events], one.finish) for one in heard], engine


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.kind)
@pytest.mark.parametrize(
    "limits", [{}, {"blocks": 12, "size": 4, "rows": 2}, {"budget": 3, "rows": 2}, {"rows": 1}], ids=str
)
def test_with_guesses_each_request_is_told_what_the_strategy_says_alone(config, limits):
    """Half of the requests predict their output with mistakes, half use prompt lookup."""
    draws, model = random.Random(0), built(config)
    hows = [asked(number, most=24, **RULES[number % len(RULES)]) for number in range(10)]
    for how in hows[::2]:
        how["expected"] = [token if draws.random() < 0.8 else draws.randrange(V) for token in alone(model, how)[0]]
    said, engine = told(model, hows, guesses=8, **limits)
    for (tokens, logprobs, _), how in zip(said, hows, strict=True):
        wanted, likely = alone(model, how)
        assert tokens == wanted and logprobs == pytest.approx(likely, abs=1e-5)
    assert 0 < engine.counts["guesses_right"] <= engine.counts["guesses"]


def test_what_was_expected_comes_in_an_eighth_of_the_steps():
    model = built()
    how = {"prompt": [3, 1, 4, 1, 5], "config": Autoregressive(max_tokens=32), "seed": 3, "bias": {0: -1e4}}
    (said,), plain = told(model, [how], guesses=0)
    for expected in (said[0], [7, *said[0]], [*said[0][:9], 1, 1, *said[0][9:]], [5] * 40, []):
        (again,), engine = told(model, [{**how, "expected": expected}])
        assert again[0] == said[0] and again[1] == pytest.approx(said[1], abs=1e-9) and again[2] == said[2]
        if expected == said[0]:
            assert engine.counts["steps"] <= 7 and plain.counts["steps"] == 32  # the limit starts at three tokens


def test_penalties_grammars_and_ends_are_the_same_with_guesses():
    model = built()

    class Odd:
        """A grammar of ten odd tokens."""

        def __init__(self):
            self.heard = []

        def allowed(self):
            return torch.arange(V) % 2 == 1

        def commit(self, token):
            self.heard.append(token)

        def ended(self):
            return len(self.heard) == 10

    common = {"prompt": [1, 2, 3, 1, 2, 3, 1, 2], "seed": 5}
    hard = Autoregressive(max_tokens=30, temperature=1.5)
    hows = [
        lambda: {"config": hard, "guide": Odd()},
        lambda: {"config": hard, "presence": 1.0, "frequency": 0.5},
        lambda: {"config": hard, "bias": {5: 2.0}, "top": 3},
        lambda: {"config": Autoregressive(max_tokens=30, temperature=0.0), "bias": {3: 6.0, 0: -1e4}},
    ]
    for how in hows:
        (said,), _ = told(model, [{**common, **how()}], guesses=0)
        given = how()
        (again,), engine = told(model, [{**common, **given, "expected": said[0]}])
        assert again[0] == said[0] and again[2] == said[2] and engine.counts["guesses_right"] > 0
        if "guide" in given:
            assert given["guide"].heard == said[0], "a grammar hears what has come, once"


def test_guesses_change_nothing_where_blocks_are_few():
    model = built()
    hows = [asked(number, most=20) for number in range(6)]
    plain, _ = told(model, hows, guesses=0)
    tight, _ = told(model, hows, guesses=64, blocks=3, size=16)
    assert [one[0] for one in tight] == [one[0] for one in plain]


def brute(text, ending, most):
    """What followed the last earlier occurrence of the suffix, by brute force."""
    places = [at for at in range(NGRAM, len(text)) if text[at - NGRAM : at] == ending[-NGRAM:] and len(ending) >= NGRAM]
    if not places:
        return []
    return list(itertools.islice(itertools.cycle(text[places[-1] :]), most))


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=5), st.integers(0, 9))
def test_a_lookup_finds_what_followed_the_last_time(text, ending, most):
    assert Lookup(text).guess(ending, most) == brute(text, ending, most)
    grown = Lookup()
    for token in text:
        grown.add([token])
    assert grown.guess(text, most) == brute(text, text, most)


def test_the_limit_grows_and_falls():
    guesser = Guesser([1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11, 12, 13])
    assert guesser.guess([1, 2, 3], 7) == [4, 5, 6]
    guesser.learn(3)
    # at its end the expected text starts again
    assert guesser.guess([1, 2, 3, 4, 5, 6, 7], 7) == [8, 9, 10, 11, 12, 13, 8]
    guesser.learn(0)
    assert guesser.guess([1, 2, 3, 4], 7) == [5] and guesser.guess([1, 2, 3, 4, 9], 7) == []


def test_what_is_expected_must_be_tokens():
    with pytest.raises(SanbuError, match="no token 99; allowed: 0 to 12"):
        Heard(Engine(built(), None), **asked(1), expected=[1, 99])


def test_guesses_are_counted_right_and_wrong():
    draws, model = random.Random(0), built()
    hows = [asked(number, most=20) for number in range(6)]
    for how in hows:
        how["expected"] = [token if draws.random() < 0.8 else draws.randrange(V) for token in alone(model, how)[0]]
    engine = Engine(model, SPACE.end)
    heard = [Heard(engine, **how) for how in hows]
    finish(engine)
    right, wrong = (sum(getattr(one.request, name) for one in heard) for name in ("accepted", "rejected"))
    assert right == engine.counts["guesses_right"] > 0 and wrong > 0
    # an end token leaves later guesses undecided
    assert engine.counts["guesses"] - 7 * len(heard) <= right + wrong <= engine.counts["guesses"]


def small(tokens=6, most=100, size=2, count=40, expected=range(1, 13)):
    """A request about to decode, with its blocks and its guesser."""
    blocks = Blocks(count, size)
    request = Request([1] * tokens, Autoregressive(max_tokens=most), 0, print, expected=[*expected])
    request.table = [blocks.take() for _ in range(-(-tokens // size))]
    request.filled = tokens - 1
    request.guesser.limit = 100
    return request, blocks


@pytest.mark.parametrize(
    ("limits", "running", "rows", "made"),
    [
        ({}, 1, 8, 7),  # one row is the token itself
        ({}, 1, 1, 0),
        ({"most": 4}, 1, 8, 3),  # no guess after the last token
        ({"tokens": 14}, 1, 8, 2),  # the context is 16
        ({"count": 3}, 1, 8, 0),  # six tokens fill three blocks, and no block is free
        ({"count": 6}, 2, 8, 2),  # of three free blocks two are reserved for running requests
        ({"count": 6}, 3, 8, 0),
    ],
    ids=str,
)
def test_how_many_guesses_there_is_room_for(limits, running, rows, made):
    request, blocks = small(**limits)
    work = Speculation(rows, blocks, 16, Counter()).guess([(request, 1)], running)
    assert len(request.guess) == made and work == [(request, 1 + made)]
    blocks.check()
    assert len(request.table) * blocks.size >= len(request.tokens) + made


def test_no_guesses_beside_a_prompt_that_is_read():
    one, blocks = small()
    other = Request([1] * 9, Autoregressive(), 1, print)
    assert Speculation(100, blocks, 40, Counter()).guess([(one, 1), (other, 4)], 2) == [(one, 1), (other, 4)]


def test_guesses_end_where_the_context_does():
    model = built()
    how = {
        "prompt": [1 + number % 12 for number in range(40)],
        "config": Autoregressive(max_tokens=100),
        "seed": 1,
        "bias": {0: -1e4},
    }
    (plain,), _ = told(model, [how], guesses=0)
    (said,), engine = told(model, [{**how, "expected": plain[0] * 2}])
    assert said[0] == plain[0] and len(said[0]) == 8 and said[2] == "length" and engine.counts["guesses_right"] > 0


@given(st.lists(st.integers(0, 2), max_size=30), st.integers(0, 6))
def test_a_guesser_follows_what_comes(tokens, most):
    guesser = Guesser(tokens[:2])
    guesser.limit = 100
    for size in range(2, len(tokens) + 1):
        assert guesser.guess(tokens[:size], most) == brute(tokens[:size], tokens[:size], most)
