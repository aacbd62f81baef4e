"""Speculative decoding (Leviathan, Kalman and Matias, 2023): guessed tokens are verified in the same step.

A speculative token is accepted if sampling gives the same token. Sampling is a function of the logits and of one
uniform number per position, so the answer does not depend on speculation; only the number of tokens per step does.
"""

from __future__ import annotations

from collections import Counter

from sanbu.serve.block_manager import Blocks
from sanbu.serve.request import Request, Work


class Speculation:
    """Speculative tokens for the steps of an engine, up to `rows` tokens per step.

    A step with a few rows takes about as long as a step with one. blocks and counts are the engine's; no request grows
    beyond `longest` tokens.
    """

    def __init__(self, rows: int, blocks: Blocks, longest: int, counts: Counter[str]) -> None:
        self.rows, self.blocks, self.longest, self.counts = rows, blocks, longest, counts

    def guess(self, work: Work, running: int) -> Work:
        """The work with speculative tokens added, if it is small and all requests decode.

        They are forced by the grammar, or else found by prompt lookup. running: blocks left to running requests.
        """
        room = (self.rows - sum(count for _, count in work)) // len(work)
        if room < 1 or any(count < request.missing for request, count in work):
            return work
        for request, _ in work:
            space = self._space(request, room, running)
            request.guess = forced_tokens(request)[:space] or request.guesser.guess(request.tokens, space)
        return [(request, count + len(request.guess)) for request, count in work]

    def learn(self, request: Request) -> None:
        """Count accepted tokens and adjust the number of speculative tokens of the next step."""
        if request.guess:
            self.counts["guesses"] += len(request.guess)
            self.counts["guesses_right"] += request.matched
            request.guesser.learn(request.matched)
        request.guess, request.matched = [], 0

    def _space(self, request: Request, most: int, running: int) -> int:
        """How many speculative tokens a request can use; takes spare blocks for them beyond those left to others."""
        size, held = self.blocks.size, len(request.tokens)
        left = request.config.max_tokens - len(request.generated) - 1
        most = max(0, min(most, left, self.longest - held))
        while len(request.table) * size < held + most and self.blocks.available() > running:
            request.table.append(self.blocks.take())
        return min(most, len(request.table) * size - held)


def forced_tokens(request: Request) -> list[int]:
    """Tokens forced by a request's grammar; none without a grammar or if it fails (`_apply_guide` handles that)."""
    if request.guide is None:
        return []
    try:
        return request.guide.forced()
    except Exception:
        return []
