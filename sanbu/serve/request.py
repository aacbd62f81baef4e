"""What is asked of the engine, and what it tells while it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from sanbu.config import SanbuError
from sanbu.serve.prompt_lookup import Guesser
from sanbu.strategies.autoregressive import Autoregressive

Finish = Literal["stop", "length", "cancelled", "error"]


class Busy(SanbuError):
    """The queue is full: try again later."""


@dataclass(frozen=True)
class Event:
    """One more token with its unfiltered log-probability and, if requested, the most likely ones; or the end."""

    token: int | None = None
    logprob: float = 0.0
    top: Sequence[tuple[int, float]] = ()
    finish: Finish | None = None


class Guide(Protocol):
    """What may come next: a grammar that follows the tokens."""

    def allowed(self) -> Tensor:
        """bool_V: the tokens that may come next."""

    def commit(self, token: int) -> None:
        """A token has come."""

    def ended(self) -> bool:
        """Whether nothing more may come. `allowed` is asked only where this is False."""

    def forced(self) -> list[int]:
        """Tokens that must follow, where it is known: what a form leaves no choice about need not be waited for."""


@dataclass(eq=False)  # two that ask the same are two
class Request:
    """A prompt, how to go on from it, and where it stands.

    tokens are the prompt and what has come; table are its blocks; filled of its tokens are in the cache. penalties
    and bias follow OpenAI: presence and frequency count what has come, bias is added to the logits of the ids it
    names. expected is what the answer may turn out to be, a first draft say: only its speed depends on it. Of the
    guesses that were made for it, `right` were right and `wrong` were not.
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
    tokens: list[int] = field(init=False, default_factory=list)
    table: list[int] = field(init=False, default_factory=list)
    names: list[bytes] = field(init=False, default_factory=list)
    filled: int = field(init=False, default=0)
    cached: int = field(init=False, default=0)
    cancelled: bool = field(init=False, default=False)
    may: Tensor | None = field(init=False, default=None)  # bool_V, what the guide allows next
    guesser: Guesser = field(init=False)
    guess: list[int] = field(
        init=False, default_factory=list
    )  # what goes through the model in this step beside its tokens
    met: int = field(init=False, default=0)  # how many of them have come
    right: int = field(init=False, default=0)
    wrong: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)
        self.guesser = Guesser(self.prompt, self.expected)

    def cancel(self) -> None:
        """Stop before the next step; may be called from any thread."""
        self.cancelled = True

    @property
    def come(self) -> list[int]:
        """The tokens that have come."""
        return self.tokens[len(self.prompt) :]

    def ahead(self, count: int) -> list[int]:
        """The next so many tokens that are not in the cache yet, guesses after the others."""
        return [*self.tokens[self.filled : self.filled + count], *self.guess][:count]

    @property
    def missing(self) -> int:
        """Tokens that are not in the cache yet; one is left for each step of decoding."""
        return len(self.tokens) - self.filled


Work = list[tuple[Request, int]]  # who is in a step, with how many tokens
