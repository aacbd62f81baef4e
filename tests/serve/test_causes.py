"""A step that raises ends the request that caused it; all others are told what they are told alone."""

import itertools

import pytest

from sanbu.serve import engine as engines
from sanbu.serve.engine import Engine
from sanbu.strategies.autoregressive import Autoregressive
from tests.serve.test_engine import SPACE, Heard, alone, asked, built

BAD = 777  # the seed of the request that fails


def run(engine, steps=3000):
    """As the worker does: a step that raises is followed by `fail`."""
    raised = 0
    for _ in range(steps):
        if not engine.busy():
            return raised
        try:
            engine.step()
        except ZeroDivisionError:
            raised += 1
            engine.fail()
        engine.blocks.check()
    raise AssertionError("the engine does not come to an end")


def broken(function, requests_of, after):
    """The function, which raises when the bad request is among its requests for the n-th time."""
    calls = itertools.count(1)

    def whole(*given, **more):
        bad = any(request.seed == BAD for request in requests_of(*given))
        return 1 / 0 if bad and next(calls) >= after else function(*given, **more)

    return whole


@pytest.mark.parametrize("after", [1, 3])
@pytest.mark.parametrize("where", ["choose", "_forward", "guess", "_fill"])
@pytest.mark.parametrize("limits", [{}, {"blocks": 14, "size": 4}, {"budget": 5}], ids=str)
def test_only_the_cause_of_a_failed_step_ends(monkeypatch, where, after, limits):
    model = built()
    engine = Engine(model, SPACE.end, **limits)
    if where == "choose":
        monkeypatch.setattr(engines, "choose", broken(engines.choose, lambda logits, requests: requests, after))
    elif where == "guess":
        speculation = engine.speculation
        speculation.guess = broken(speculation.guess, lambda work, running: [one for one, _ in work], after)
    elif where == "_forward":
        engine._forward = broken(engine._forward, lambda work, ready: [one for one, _ in work], after)
    else:
        engine._fill = broken(engine._fill, lambda request, count: [request], after)
    hows = [asked(number) for number in range(10)]
    hows[4] = {"prompt": [3, 1, 2], "config": Autoregressive(max_tokens=12), "seed": BAD}
    heard = [Heard(engine, **how) for how in hows]
    raised = run(engine)
    tokens, _ = alone(model, hows[4])
    for number, (one, how) in enumerate(zip(heard, hows, strict=True)):
        expected = alone(model, how)[0]
        if number != 4:
            assert one.finish in ("stop", "length") and one.tokens == expected
    assert heard[4].tokens == tokens[: len(heard[4].tokens)]
    assert heard[4].finish == "error" or heard[4].tokens == tokens
    assert engine.counts["finished_error"] <= 1 and (after > 1 or (heard[4].finish == "error" and raised >= 1))
    assert engine.blocks.available() == engine.blocks.count and not engine.alone


def test_a_request_that_cannot_be_admitted_ends_alone():
    model = built()
    engine = Engine(model, SPACE.end, rows=2)
    engine._cached_blocks = broken(engine._cached_blocks, lambda request: [request], 1)
    hows = [asked(number) for number in range(5)]
    hows[2]["seed"] = BAD
    heard = [Heard(engine, **how) for how in hows]
    run(engine)
    assert [one.finish == "error" for one in heard] == [False, False, True, False, False]
    for one, how in zip(heard, hows, strict=True):
        assert one.tokens == ([] if how["seed"] == BAD else alone(model, how)[0])


def test_a_fault_of_the_whole_batch_ends_no_request():
    """Alone every step works; only steps of several requests raise."""
    model = built()
    engine = Engine(model, SPACE.end)
    right = engine._forward
    engine._forward = lambda work, ready: 1 / 0 if len(work) > 1 else right(work, ready)
    hows = [asked(number) for number in range(4)]
    heard = [Heard(engine, **how) for how in hows]
    run(engine)
    assert all(one.tokens == alone(model, how)[0] for one, how in zip(heard, hows, strict=True))
