"""The kinds of strategy: how a sample is drawn. Configs only; each `build` imports its module when called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sanbu.config import Choice

if TYPE_CHECKING:
    from sanbu.data.kinds import Space
    from sanbu.strategies.strategy import Strategy


class StrategyConfig(Choice):
    """How samples are drawn from a function once it is found."""

    def build(self, space: Space) -> Strategy:
        raise NotImplementedError


class Autoregressive(StrategyConfig):
    """Token by token, left to right, with a key-value cache."""

    kind: Literal["autoregressive"] = "autoregressive"
    max_tokens: int = Field(128, ge=1, description="new tokens at most")
    temperature: float = Field(1.0, ge=0, description="0 takes the most likely token")
    top_k: int = Field(0, ge=0, description="keep the k most likely tokens; 0 keeps all")
    top_p: float = Field(1.0, gt=0, le=1, description="keep the smallest set with this probability")
    min_p: float = Field(0.0, ge=0, le=1, description="keep tokens at least this fraction as likely as the best")
    repetition_penalty: float = Field(1.0, gt=0, description="divides the logits of tokens already there; 1 is none")
    stop: tuple[str, ...] = Field((), description="texts that end a sample; they are not shown")
    prefill: int = Field(512, ge=1, description="prompt tokens through the model at once")

    def build(self, space: Space) -> Strategy:
        from sanbu.strategies.autoregressive import AutoregressiveStrategy

        return AutoregressiveStrategy(self, space)


class BeamSearch(StrategyConfig):
    """The most likely continuation among `beams` kept at each token."""

    kind: Literal["beam-search"] = "beam-search"
    max_tokens: int = Field(128, ge=1, description="new tokens at most")
    beams: int = Field(4, ge=1, description="hypotheses kept a row")
    length_penalty: float = Field(0.0, description="scores are divided by length to this power")
    stop: tuple[str, ...] = Field((), description="texts that end a sample; they are not shown")
    prefill: int = Field(512, ge=1, description="prompt tokens through the model at once")

    def build(self, space: Space) -> Strategy:
        from sanbu.strategies.beam import BeamSearcher

        return BeamSearcher(self, space)
