"""Speculative decoding (Leviathan, Kalman and Matias, 2023): guessed tokens are verified in the same step.

A guess stands where the request's own draw says the same. A draw is a function of the logits and of one uniform a
position, so an answer is the same with guesses and without; what they change is how many tokens a step says.
"""

from __future__ import annotations

from collections import Counter

from sanbu.serve.block_manager import Blocks
from sanbu.serve.request import Request, Work


class Speculation:
    """Guesses for the steps of an engine, up to so many rows a step: few rows take about as long as one.

    blocks and counts are the engine's; no request becomes longer than `longest`.
    """

    def __init__(self, rows: int, blocks: Blocks, longest: int, counts: Counter[str]) -> None:
        self.rows, self.blocks, self.longest, self.counts = rows, blocks, longest, counts

    def guess(self, work: Work, running: int) -> Work:
        """The same work with guesses if it is small and all requests decode: forced tokens, or prompt lookup.

        running: requests that may need a block; so many are left to them.
        """
        room = (self.rows - sum(count for _, count in work)) // len(work)
        if room < 1 or any(count < request.missing for request, count in work):
            return work
        for request, _ in work:
            space = self._space(request, room, running)
            request.guess = forced(request)[:space] or request.guesser.guess(request.tokens, space)
        return [(request, count + len(request.guess)) for request, count in work]

    def learn(self, request: Request) -> None:
        """Count the guesses that were right, and hope for more or for fewer next time."""
        if request.guess:
            self.counts["guesses"] += len(request.guess)
            self.counts["guesses_right"] += request.met
            request.guesser.learn(request.met)
        request.guess, request.met = [], 0

    def _space(self, request: Request, most: int, running: int) -> int:
        """For how many guesses a request has a use and blocks, spare ones that nobody who runs can need."""
        size, held = self.blocks.size, len(request.tokens)
        left = request.config.max_tokens - len(request.come) - 1
        most = max(0, min(most, left, self.longest - held))
        while len(request.table) * size < held + most and self.blocks.available() > running:
            request.table.append(self.blocks.take())
        return min(most, len(request.table) * size - held)


def forced(request: Request) -> list[int]:
    """Tokens that a request's grammar forces; empty without grammar, or when it fails (it fails again later)."""
    if request.guide is None:
        return []
    try:
        return request.guide.forced()
    except Exception:
        return []
