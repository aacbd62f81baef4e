"""Speculative decoding (Leviathan, Kalman and Matias, 2023): tokens that may come next go through the model beside those that are certain.

A guess stands where the request's own draw says the same. A draw is a function of the logits and of one uniform a position, so an answer is
the same with guesses and without; what they change is how many tokens a step says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sanbu.models.transformer import Decoder
from sanbu.serve.choose import choose
from sanbu.serve.guess import Pace
from sanbu.serve.request import Request, Work

if TYPE_CHECKING:
    from sanbu.serve.engine import Engine

DRAFTS = 3  # tokens that a twin says before the model looks


class Speculation:
    """Guesses for the steps of an engine, up to so many rows a step.

    twin: a model of the same shape that is nearly as good and reads less memory; it guesses where nothing else does, as long as that is faster.
    """

    def __init__(self, engine: Engine, rows: int, twin: Decoder | None = None) -> None:
        self.engine, self.rows, self.twin = engine, rows, twin
        self.pace = Pace()
        self.drafting: bool | None = None  # in this step; None where it was no question

    def guess(self, work: Work) -> Work:
        """The same work with guesses where it is small and everybody in it draws: what must come, what stood there before, what the twin says."""
        self.drafting = None
        room = (self.rows - sum(count for _, count in work)) // len(work)
        if room < 1 or any(count < request.missing for request, count in work):
            return work
        for request, _ in work:
            space = self._space(request, room)
            request.guess = forced(request)[:space] or request.guesser.guess(request.tokens, space)
        if self.twin is not None:
            self._draft(self.twin, [request for request, _ in work if not request.guess and request.guide is None], room)
        return [(request, count + len(request.guess)) for request, count in work]

    def learn(self, request: Request) -> None:
        """Count the guesses that were right, and hope for more or for fewer next time."""
        if request.guess:
            self.engine.counts["guesses"] += len(request.guess)
            self.engine.counts["guesses_right"] += request.met
            request.guesser.learn(request.met)
        request.guess, request.met = [], 0

    def timed(self, seconds: float, tokens: int) -> None:
        """A step took so long and said so much: what the twin is measured by."""
        if self.drafting is not None:
            self.pace.learn(self.drafting, seconds, tokens)

    def _space(self, request: Request, most: int) -> int:
        """For how many guesses a request has a use and blocks, spare ones that nobody who runs can need."""
        blocks, held = self.engine.blocks, len(request.tokens)
        most = max(0, min(most, request.config.max_tokens - len(request.come) - 1, self.engine.longest - held))
        while len(request.table) * blocks.size < held + most and blocks.available() > len(self.engine.running):
            request.table.append(blocks.take())
        return min(most, len(request.table) * blocks.size - held)

    def _draft(self, twin: Decoder, requests: Sequence[Request], room: int) -> None:
        """Let the twin go on from what the model has kept. What the twin keeps is written over when its guesses go through the model."""
        most = min([DRAFTS, room, *(self._space(request, room) for request in requests)])
        if not requests or most < 1 or any(request.missing > 1 for request in requests):
            return
        self.drafting = self.pace.choose()
        if not self.drafting:
            return
        for _ in range(most):
            logits_RV = self.engine.forward(twin, [(request, 1) for request in requests], requests)
            for request, event in zip(requests, choose(logits_RV, requests), strict=True):
                assert event.token is not None
                request.tokens.append(event.token)
                request.filled += 1
        for request in requests:
            request.guess = request.tokens[-most:]
            del request.tokens[-most:]
            request.filled -= most


def forced(request: Request) -> list[int]:
    """What a request's guide leaves no choice about; nothing where it has none, or fails: then it fails again where it is asked for more."""
    if request.guide is None:
        return []
    try:
        return request.guide.forced()
    except Exception:
        return []
