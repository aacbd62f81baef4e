"""Requests to the engine, and the events that it delivers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from sanbu.config import SanbuError
from sanbu.serve.prompt_lookup import Guesser
from sanbu.strategies.autoregressive import Autoregressive

Finish = Literal["stop", "length", "cancelled", "error"]


class Busy(SanbuError):
    """The queue is full; the client should retry later."""


@dataclass(frozen=True)
class Event:
    """A generated token with its unfiltered log-probability and, on request, the top log-probabilities; or the end.

    reason: what was wrong with the request, if it ended with an error for which the request is to blame. last: the end
    token that was drawn, with its log-probability.
    """

    token: int | None = None
    logprob: float = 0.0
    top: Sequence[tuple[int, float]] = ()
    finish: Finish | None = None
    reason: str = ""
    last: Event | None = None


Score = tuple[float, Sequence[tuple[int, float]]]  # log-probability of a prompt token, and the most likely tokens


class Guide(Protocol):
    """Constrained decoding: a grammar that follows the generated tokens."""

    def allowed(self) -> Tensor:
        """bool_V: the tokens allowed next."""

    def commit(self, token: int) -> None:
        """Advance by a generated token."""

    def ended(self) -> bool:
        """Whether the answer is complete. `allowed` is called only while this is False."""

    def forced(self) -> list[int]:
        """The next tokens, where the grammar leaves only one choice; they are used as speculative tokens."""


@dataclass(eq=False)  # compare by identity
class Request:
    """A prompt, its sampling parameters, and the state of its generation.

    tokens: prompt and generated tokens. table: its KV-cache blocks; their hashes are in names. filled: number of
    tokens whose keys and values are in the cache. cached: prompt tokens found in the prefix cache. presence and
    frequency are penalties on generated tokens, bias is added to the logits of the given ids, as in OpenAI's API.
    expected: the predicted output, which affects the speed only. accepted and rejected count speculative tokens.
    scores: log-probabilities of the prompt tokens after the first, if they are wanted, else None. owner: who asks;
    owners share the engine evenly.
    """

    prompt: Sequence[int]
    config: Autoregressive
    seed: int
    deliver: Callable[[Event], None]
    top: int = 0
    presence: float = 0.0
    frequency: float = 0.0
    bias: dict[int, float] = field(default_factory=dict)
    guide: Guide | None = None
    expected: Sequence[int] = ()
    scores: list[Score] | None = None
    owner: str = ""
    tokens: list[int] = field(init=False, default_factory=list)
    table: list[int] = field(init=False, default_factory=list)
    names: list[bytes] = field(init=False, default_factory=list)
    filled: int = field(init=False, default=0)
    cached: int = field(init=False, default=0)
    cancelled: bool = field(init=False, default=False)
    preempted: bool = field(init=False, default=False)
    mask: Tensor | None = field(init=False, default=None)  # bool_V: the tokens that the guide allows next
    guesser: Guesser = field(init=False)
    guess: list[int] = field(init=False, default_factory=list)  # speculative tokens of this step
    matched: int = field(init=False, default=0)  # how many of them were accepted
    accepted: int = field(init=False, default=0)
    rejected: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)
        self.guesser = Guesser(self.prompt, self.expected)

    def cancel(self) -> None:
        """Stop before the next step; may be called from any thread."""
        self.cancelled = True

    @property
    def generated(self) -> list[int]:
        """The generated tokens."""
        return self.tokens[len(self.prompt) :]

    def next_tokens(self, count: int) -> list[int]:
        """The first `count` tokens that are not in the cache yet; speculative tokens come last."""
        return [*self.tokens[self.filled : self.filled + count], *self.guess][:count]

    @property
    def missing(self) -> int:
        """Number of tokens that are not in the cache yet; 1 while decoding."""
        return len(self.tokens) - self.filled


def share_exceeded(waiting: Sequence[Any], mine: str, count: int, queue: int) -> bool:
    """Whether `count` more entries of an owner are too many: the queue is full, and so is the owner's share of it."""
    if len(waiting) + count <= queue:
        return False
    owners = {one.owner for one in waiting} | {mine}
    return sum(one.owner == mine for one in waiting) + count > queue // len(owners)


Work = list[tuple[Request, int]]  # the requests of a step, each with its number of tokens
