"""Server-sent events stay on one line, equal prompts are drawn independently, top may exceed the vocabulary."""

import json

import pytest
import torch

from sanbu.serve.request import Request
from sanbu.serve.request_builder import compact
from sanbu.serve.sampling import choose
from sanbu.strategies.autoregressive import Autoregressive


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r\n"])
def test_an_event_is_one_line_for_clients_that_split_lines(mark):
    content = {"text": f"a{mark}b", f"k{mark}": "é"}
    assert len(compact(content).splitlines()) == 1
    assert json.loads(compact(content)) == content


def test_equal_prompts_without_a_seed_are_independent_draws(client):
    ask = lambda **more: [
        choice.text
        for choice in client.completions.create(model="bytes", prompt=["and "] * 4, max_tokens=12, **more).choices
    ]
    assert len(set(ask())) == 4
    assert len(set(ask(seed=3))) == 1  # a given seed gives each prompt the same draws


def test_more_top_logprobs_than_tokens_do_not_raise():
    request = Request([0], Autoregressive(), 0, lambda event: None, 20)
    (event,) = choose(torch.zeros(1, 3), [request])
    assert sorted(token for token, _ in event.top) == [0, 1, 2]
