"""The engine: batch neighbours, shared blocks and shared prefixes do not change a request's output."""

import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sanbu.config import SanbuError
from sanbu.models.tokens.gemma import Gemma2, Gemma3
from sanbu.models.tokens.gpt import GPT2, GPT3
from sanbu.models.tokens.llama import Llama, Mistral
from sanbu.models.tokens.modern import Modern
from sanbu.models.tokens.neox import NeoX
from sanbu.models.tokens.opt import OPT
from sanbu.serve.block_manager import ROOT, Blocks, chain
from sanbu.serve.engine import Engine
from sanbu.serve.request import Busy, Request
from sanbu.serve.worker import Worker
from sanbu.space import Space
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.strategies.strategy import generate, last

V = 13
SPACE = Space((48,), V, end=0)
MODELS = [
    GPT2(layers=2, heads=2, width=16, context=48),
    GPT3(layers=2, heads=2, width=16, context=48),
    Llama(layers=2, heads=4, key_heads=2, hidden=32, width=16, context=48),
    Modern(layers=2, heads=2, width=16, context=48),
    Mistral(layers=2, heads=4, key_heads=2, hidden=32, width=16, context=48, window=3),
    Gemma2(layers=2, heads=4, key_heads=2, hidden=32, width=16, context=48, window=3),
    Gemma3(layers=2, heads=4, key_heads=2, hidden=32, width=16, context=48, window=3, local=(1,)),
    NeoX(layers=2, heads=2, width=16, context=48),
    OPT(layers=2, heads=2, width=16, context=48),
]


def built(config=MODELS[0], seed=0):
    torch.manual_seed(seed)
    model = config.build(SPACE).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


class Heard:
    """Collects the events of a request."""

    def __init__(self, engine=None, **how):
        self.events, self.finish = [], None
        self.request = Request(deliver=self.hear, **how)
        if engine is not None:
            engine.submit(self.request)

    def hear(self, event):
        assert self.finish is None, "told after the end"
        if event.finish:
            self.finish = event.finish
        else:
            self.events.append(event)

    @property
    def tokens(self):
        return [event.token for event in self.events]


def asked(number, most=12, **rules):
    draws = random.Random(number)
    prompt = [draws.randrange(1, V) for _ in range(draws.randrange(1, 20))]
    config = Autoregressive(max_tokens=draws.randrange(1, most), **rules)
    return {"prompt": prompt, "config": config, "seed": number}


def finish(engine, steps=10_000):
    for _ in range(steps):
        if not engine.waiting and not engine.running:
            return
        engine.step()
        engine.blocks.check()
    raise AssertionError("the engine does not come to an end")


def alone(model, how):
    """The output of the strategy for one row."""
    condition = {"tokens": torch.tensor([how["prompt"]]), "length": torch.tensor([len(how["prompt"])])}
    draft = last(generate(how["config"].build(SPACE), {"model": model}, condition, torch.tensor([how["seed"]])))
    size = int(draft.committed.sum())
    return draft.sample[0, len(how["prompt"]) : size].tolist(), draft.record["logprobs"][
        0, len(how["prompt"]) : size
    ].tolist()


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.kind)
@pytest.mark.parametrize(
    "limits", [{}, {"blocks": 12, "size": 4}, {"budget": 3}, {"rows": 2}, {"blocks": 48, "size": 1}], ids=str
)
def test_whatever_shares_a_step_each_request_is_told_what_the_strategy_says_alone(config, limits):
    model = built(config)
    engine = Engine(model, SPACE.end, **limits)
    rules = [{"temperature": 0.0}, {}, {"temperature": 0.7, "top_k": 5}, {"top_p": 0.8}, {"repetition_penalty": 1.3}]
    hows = [asked(number, **rules[number % len(rules)]) for number in range(24)]
    heard = [Heard(engine, **how) for how in hows]
    finish(engine)
    for one, how in zip(heard, hows, strict=True):
        tokens, logprobs = alone(model, how)
        assert one.tokens == tokens
        assert [event.logprob for event in one.events] == pytest.approx(logprobs, abs=1e-5)
        assert one.finish == ("length" if len(tokens) == how["config"].max_tokens else "stop")
    assert engine.blocks.available() == engine.blocks.count


def test_preemption_with_few_blocks_is_unlimited_blocks():
    model = built()
    hows = [asked(number) for number in range(12)]
    told = []
    for blocks in (3, 500):
        engine = Engine(model, None, blocks=blocks, size=12)
        heard = [Heard(engine, **how) for how in hows]
        finish(engine)
        told.append([one.tokens for one in heard])
        assert (engine.counts["preemptions"] > 0) == (blocks == 3)
    assert told[0] == told[1]


def test_a_known_beginning_is_not_read_again_and_changes_nothing():
    model = built()
    prompt = [1 + number % 12 for number in range(33)]
    engine = Engine(model, None, size=8, guesses=0)
    first = Heard(engine, prompt=prompt, config=Autoregressive(max_tokens=9), seed=5)
    finish(engine)
    read = engine.counts["tokens"]
    second = Heard(engine, prompt=prompt, config=Autoregressive(max_tokens=9), seed=5)
    finish(engine)
    assert second.tokens == first.tokens
    assert engine.counts["tokens"] - read == read - 32 and second.request.cached == 32 and first.request.cached == 0
    other = Heard(engine, prompt=[2, *prompt[1:]], config=Autoregressive(max_tokens=9), seed=5)
    finish(engine)
    assert other.request.cached == 0, "another beginning is another beginning"


def test_neighbours_do_not_change_a_bit_at_equal_shapes():
    """Two batches of equal shape share one request: its log-probabilities are bitwise equal."""
    model = built().float()
    same = {"prompt": [3, 1, 4, 1, 5], "config": Autoregressive(max_tokens=8, temperature=0.0), "seed": 0}
    found = []
    for others in ([2, 7, 1, 8, 2], [9, 9, 9, 9, 9]):
        engine = Engine(model, None, guesses=0)  # speculation by a neighbour would add rows
        one = Heard(engine, **same)
        for _ in range(3):
            Heard(engine, prompt=others, config=Autoregressive(max_tokens=8), seed=1)
        finish(engine)
        found.append([event.logprob for event in one.events])
    assert found[0] == found[1]


def test_who_leaves_frees_blocks_within_a_step():
    engine = Engine(built(), None, size=4)
    staying = Heard(engine, prompt=[1] * 9, config=Autoregressive(max_tokens=20), seed=0)
    leaving = Heard(engine, prompt=[2] * 9, config=Autoregressive(max_tokens=20), seed=0)
    for _ in range(3):
        engine.step()
    before = sum(map(bool, engine.blocks.owners))
    leaving.request.cancel()
    engine.step()
    assert leaving.finish == "cancelled" and sum(map(bool, engine.blocks.owners)) < before
    finish(engine)
    assert staying.finish == "length" and len(staying.tokens) == 20


def test_a_prompt_is_read_beside_those_who_decode():
    """Chunked prefill: a long prompt does not block running requests."""
    engine = Engine(built(), None, budget=4, guesses=0)
    short = Heard(engine, prompt=[1], config=Autoregressive(max_tokens=12), seed=0)
    engine.step()
    long = Heard(engine, prompt=[2] * 24, config=Autoregressive(max_tokens=2), seed=0)
    for step in range(8):
        said = len(short.tokens)
        engine.step()
        assert len(short.tokens) == said + 1
        assert len(long.tokens) == (step == 7)


def test_queue_full_and_what_can_never_be():
    engine = Engine(built(), None, queue=2, blocks=2, size=8)
    for _ in range(2):
        Heard(engine, **asked(1))
    with pytest.raises(Busy, match="2 requests are waiting"):
        Heard(engine, **asked(1))
    for prompt in ([], [1] * 16):
        with pytest.raises(SanbuError, match=rf"{len(prompt)} tokens; allowed: 1 to 15"):
            Heard(engine, prompt=prompt, config=Autoregressive(), seed=0)


def test_two_that_ask_the_same_are_two():
    one, two = (Request([1], Autoregressive(), 0, print) for _ in range(2))
    assert one != two and [one, two].index(two) == 1


def test_bias_penalties_and_grammar():
    model = built()

    class Odd:
        def allowed(self):
            return torch.arange(V) % 2 == 1

        def commit(self, token):
            self.count = getattr(self, "count", 0) + 1

        def ended(self):
            return self.count == 4

    engine = Engine(model, 0)
    greedy = Autoregressive(max_tokens=6, temperature=0.0)
    biased = Heard(engine, prompt=[1], config=greedy, seed=0, bias={7: 1e4})
    various = Heard(engine, prompt=[1], config=greedy, seed=0, bias={0: -1e4}, presence=1e4)
    odd = Heard(engine, prompt=[1], config=Autoregressive(max_tokens=6), seed=0, guide=Odd())
    top = Heard(engine, prompt=[1], config=greedy, seed=0, bias={0: -1e4}, top=3)
    finish(engine)
    assert biased.tokens == [7] * 6
    assert len(set(various.tokens)) == 6
    assert len(odd.tokens) == 4 and all(token % 2 for token in odd.tokens) and odd.finish == "stop"
    for event in top.events:
        best = [logprob for _, logprob in event.top]
        assert len(best) == 3 and best == sorted(best, reverse=True) and event.logprob <= best[0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["take", "share", "give", "name"]), st.integers(0, 30)), max_size=80))
def test_random_operations_keep_the_blocks_invariants(operations):
    blocks, owned = Blocks(6, 2), []
    for what, number in operations:
        if what == "take" and blocks.available():
            owned.append(blocks.take())
        elif what == "share" and blocks.known:
            owned.append(list(blocks.known.values())[number % len(blocks.known)])
            blocks.share(owned[-1])
        elif what == "give" and owned:
            blocks.give(owned.pop(number % len(owned)))
        elif what == "name" and owned and blocks.names[owned[number % len(owned)]] is None:
            blocks.name(owned[number % len(owned)], chain(ROOT, [number]))
        blocks.check()
        assert [blocks.owners[block] for block in range(6)] == [owned.count(block) for block in range(6)]
    for block in owned:
        blocks.give(block)
    assert blocks.available() == 6


def test_idle_blocks_that_a_request_will_use_are_no_room_for_it():
    """Of 4 blocks, 2 are cached and idle, 1 is in use: a request that needs the cached 2 and 2 more must wait."""
    engine = Engine(built(), None, blocks=4, size=4)
    known = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    Heard(engine, prompt=known, config=Autoregressive(max_tokens=1), seed=0)
    finish(engine)
    first = Heard(engine, prompt=[10], config=Autoregressive(max_tokens=3), seed=0)
    engine.step()
    second = Heard(engine, prompt=known, config=Autoregressive(max_tokens=1), seed=0)
    engine.step()
    assert engine.running == [first.request] and second.request in engine.waiting
    finish(engine)
    assert engine.counts["preemptions"] == 0 and second.finish == "length"


def test_names_of_blocks_know_all_that_came_before():
    names = {chain(chain(ROOT, a), b) for a, b in itertools.product(itertools.product(range(3), repeat=2), repeat=2)}
    assert len(names) == 81


@pytest.mark.slow
def test_nothing_leaks_after_many_requests_with_random_cancels():
    engine = Engine(built(MODELS[0]), 0, blocks=24, size=4, queue=20_000)
    worker = Worker([engine])
    worker.start()
    draws, heard = random.Random(0), []
    for number in range(10_000):
        heard.append(Heard(engine, **asked(number, most=6)))
        if draws.random() < 0.3:
            heard[draws.randrange(len(heard))].request.cancel()
    worker.stop()
    worker.thread.join(240)
    assert not worker.thread.is_alive() and all(one.finish for one in heard)
    engine.blocks.check()
    assert engine.blocks.available() == 24 and not engine.running and not engine.waiting
    assert sum(engine.counts[f"finished_{how}"] for how in ("stop", "length", "cancelled")) == 10_000


class Broken:
    """A grammar that allows no token, or raises an error when queried or advanced."""

    def __init__(self, where):
        self.where = where

    def allowed(self):
        if self.where == "asked":
            raise ValueError
        return torch.full((V,), self.where != "nothing")

    def commit(self, token):
        if self.where == "told":
            raise ValueError

    def ended(self):
        return False


@pytest.mark.parametrize("where", ["nothing", "asked", "told", "deliver"])
def test_what_goes_wrong_with_one_request_ends_that_one_alone(where):
    model = built()
    engine = Engine(model, None)
    how = {"prompt": [3, 1], "config": Autoregressive(max_tokens=5), "seed": 4}

    def deaf(event):
        raise RuntimeError("gone")

    if where == "deliver":
        engine.submit(Request(deliver=deaf, **how))
    else:
        wrong = Heard(engine, guide=Broken(where), **how)
    well = Heard(engine, **how)
    finish(engine)
    assert well.tokens == alone(model, how)[0]
    assert engine.counts["finished_error"] == 1 and (where == "deliver" or wrong.finish == "error")
    assert engine.blocks.available() == engine.blocks.count


def test_a_step_that_fails_ends_what_it_was_about_and_the_worker_goes_on():
    model = built()
    engine = Engine(model, None)
    worker = Worker([engine])
    right, engine._forward = engine._forward, lambda *_: 1 / 0
    failed = Heard(engine, **asked(1))
    worker.start()
    while failed.finish is None:
        pass
    engine._forward = right
    well = Heard(engine, **asked(2))
    worker.stop()
    worker.thread.join(20)
    assert failed.finish == "error" and well.tokens == alone(model, asked(2))[0]


@pytest.mark.parametrize("wrong", [{"bias": {99: 1.0}}, {"bias": {-1: 1.0}}])
def test_ids_outside_the_vocabulary_are_refused(wrong):
    with pytest.raises(SanbuError, match=r"there is no token .*; allowed: 0 to 12"):
        Heard(Engine(built(), None), **asked(1), **wrong)
