"""Owners of keys share the queue, the engine and the lane of single jobs evenly; no request makes the server deaf."""

import json

import pytest

from sanbu.serve import json_body
from sanbu.serve import request_builder as builder
from sanbu.serve.engine import Engine
from sanbu.serve.key_file import make
from sanbu.serve.keys import Keys
from sanbu.serve.request import Busy
from sanbu.serve.single_lane import Job, SingleLane
from sanbu.strategies.autoregressive import Autoregressive
from tests.serve.conftest import Served
from tests.serve.test_engine import SPACE, Heard, alone, asked, built, finish


def endings(hows, **limits):
    """The owners of requests in the order in which they end. All requests have the same length."""
    engine, order = Engine(built(), None, **limits), []
    for owner in hows:
        one = Heard(engine, prompt=[3, 1], config=Autoregressive(max_tokens=3), seed=1, owner=owner)
        one.request.deliver = lambda event, owner=owner: order.append(owner) if event.finish else None
    finish(engine)
    return order


def test_owners_are_admitted_in_turns():
    assert endings("aaaaaabbc", rows=1) == [*"aaaaaabbc"]  # with one row nobody runs when the next is chosen
    order = endings("aaaaaaaaab", rows=2)
    assert order.index("b") <= 2
    order = endings("aaaaaaaaabbc", rows=3)
    assert set(order[:4]) == {"a", "b", "c"} or set(order[:5]) == {"a", "b", "c"}
    assert endings("aaaa", rows=2) == [*"aaaa"]


@pytest.mark.parametrize("limits", [{"blocks": 12, "size": 4}, {"rows": 3}, {"budget": 4}], ids=str)
def test_turns_change_no_answer(limits):
    model = built()
    engine = Engine(model, SPACE.end, **limits)
    hows = [asked(number) for number in range(16)]
    heard = [Heard(engine, **how, owner="ab"[number % 3 == 0]) for number, how in enumerate(hows)]
    finish(engine)
    assert all(one.tokens == alone(model, how)[0] for one, how in zip(heard, hows, strict=True))


def test_a_full_queue_has_a_share_for_everybody():
    engine = Engine(built(), None, queue=8)
    how = {"prompt": [3, 1], "config": Autoregressive(max_tokens=2), "seed": 1}
    for _ in range(8):
        Heard(engine, **how, owner="a")
    with pytest.raises(Busy):
        Heard(engine, **how, owner="a")
    for _ in range(4):
        Heard(engine, **how, owner="b")
    for owner in "ab":
        with pytest.raises(Busy):
            Heard(engine, **how, owner=owner)
    for _ in range(2):
        Heard(engine, **how, owner="c")
    with pytest.raises(Busy):
        Heard(engine, **how, owner="c")


def test_single_jobs_of_owners_take_turns():
    lane, order = SingleLane(queue=8), []
    for owner in "aaaabbc":
        lane.submit(Job(iter([1]), lambda made: None, lambda how, owner=owner: order.append(owner), owner))
    while lane.busy():
        lane.step()
    assert order == [*"ababaca"]
    assert sorted(order) == [*"aaaabbc"]


def test_the_owner_of_a_request_is_its_key(runs, tmp_path):
    path = tmp_path / "keys.json"
    secrets = {name: make(path, name) for name in ("ada", "bob")}
    with Served(runs, Keys.load(path)) as one:
        engine, owners = one.service.find("talk").engine, []
        submit, lane = engine.submit, one.service.single_lane.submit
        engine.submit = lambda *requests: (owners.extend(r.owner for r in requests), submit(*requests))
        one.service.single_lane.submit = lambda job: (owners.append(job.owner), lane(job))
        for name, secret in secrets.items():
            client = one.client(secret)
            client.chat.completions.create(model="talk", messages=[{"role": "user", "content": "x"}], n=2, max_tokens=2)
            client.embeddings.create(model="bytes", input="x")
            client.images.generate(model="digits", prompt="1")
            assert owners == [f"key {name}"] * 4
            owners.clear()


VALUES = [
    {"a": 1, "choices": [{"t": "é", "l": {"content": [{"k": i, "top": [{"x": i}] * 3} for i in range(200)]}}] * 3},
    {"data": [{"embedding": [i / 7 for i in range(1000)]} for _ in range(70)]},
    {"data": [], "n": None, "s": "\u2028", "d": {}, "e": [[]], "f": [{}], "g": [[list(range(100))]]},
    {"list": [1, "a", None, {"b": list(range(65))}] * 40},
]


@pytest.mark.parametrize("value", VALUES, ids=[0, 1, 2, 3])
def test_json_in_parts_is_the_same_json(value):
    parts = list(json_body.parts(value))
    assert json.loads("".join(parts)) == value
    assert max(map(len, parts)) <= 64 * 1000


def test_an_answer_with_too_many_log_probabilities_is_ended(served, monkeypatch):
    monkeypatch.setattr(builder, "ENTRIES", 60)
    how = {"model": "talk", "messages": [{"role": "user", "content": "x"}], "logit_bias": {"0": -100}}
    how |= {"max_tokens": 30, "logprobs": True, "top_logprobs": 4}
    with served.client() as client:
        with pytest.raises(Exception, match="allowed: 60; lower n, max_tokens"):
            client.chat.completions.create(**how)
        assert len(list(client.chat.completions.create(**how, stream=True))) > 20  # nothing is kept of a stream
        assert client.chat.completions.create(**{**how, "max_tokens": 12}).choices[0].logprobs
        with pytest.raises(Exception, match="in one answer"):
            client.completions.create(model="bytes", prompt="x" * 100, echo=True, logprobs=1, max_tokens=1)
    served.quiet()
