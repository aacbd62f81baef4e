"""Loss on a text as one stream: every token is scored once, with the context that it should have."""

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from sanbu.evaluation import streams
from sanbu.evaluation.streams import carried, overlapping, stream_loss
from sanbu.models.tokens.gpt import GPT2
from sanbu.models.tokens.recurrent import LSTM
from sanbu.space import Space

SPACE = Space((8,), vocabulary=11)


class Telltale(torch.nn.Module):
    """Predicts the next token with a probability that depends on the number of tokens read."""

    context = 8

    def __init__(self, stream):
        super().__init__()
        self.next = {int(here): int(after) for here, after in pairwise(stream)}

    def forward(self, tokens_BT):
        reads = torch.arange(1, tokens_BT.shape[1] + 1, dtype=torch.float32)
        logits = torch.zeros(*tokens_BT.shape, len(self.next) + 1)
        for row, tokens in enumerate(tokens_BT.tolist()):
            for place, token in enumerate(tokens):
                logits[row, place, self.next.get(token, 0)] = reads[place]
        return logits


@pytest.mark.parametrize("length", [2, 5, 9, 10, 13, 40, 41])
def test_windows_score_every_token_once_with_at_least_half_a_context(length):
    stream, half = torch.arange(length), 4
    logits = torch.zeros(length - 1, length)
    for place in range(length - 1):
        read = place + 1 if place < 8 else half + 1 + (place - 8) % half
        logits[place, place + 1] = read
    expected = F.cross_entropy(logits, stream[1:])
    assert overlapping(Telltale(stream), stream, 8) == pytest.approx(float(expected), rel=1e-6)


@torch.no_grad()
def test_windows_do_not_depend_on_how_many_are_read_at_once(monkeypatch):
    torch.manual_seed(0)
    model, stream = GPT2(layers=1, heads=2, width=8, context=8).build(SPACE).eval(), torch.randint(11, (150,))
    whole = overlapping(model, stream, 8)
    monkeypatch.setattr(streams, "AT_ONCE", 3)
    assert overlapping(model, stream, 8) == pytest.approx(whole, rel=1e-6)


@torch.no_grad()
def test_a_carried_state_reads_each_lane_as_one_piece(monkeypatch):
    monkeypatch.setattr(streams, "LANES", 3)
    monkeypatch.setattr(streams, "PIECE", 7)
    torch.manual_seed(0)
    model, stream = LSTM(layers=1, width=8).build(SPACE).eval(), torch.randint(11, (101,))
    nats = 0.0
    for start in range(0, 100, 34):
        piece = stream[start : start + 35][None]
        logits = model(piece[:, :-1])
        nats += float(F.cross_entropy(logits[0], piece[0, 1:], reduction="sum"))
    assert carried(model, stream) == pytest.approx(nats / 100, rel=1e-5)


def test_several_documents_are_no_stream():
    assert stream_loss(None, SimpleNamespace(single_document=False)) is None
    assert math.isfinite(overlapping(Telltale(torch.arange(3)), torch.arange(3), 8))
