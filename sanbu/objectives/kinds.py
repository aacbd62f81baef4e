"""The kinds of step 2: how good a function is. Configs only; each `build` imports its module when called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sanbu.config import Choice

if TYPE_CHECKING:
    from sanbu.objectives.objective import Objective


class ObjectiveConfig(Choice):
    """Step 2: what makes one function good."""

    def build(self) -> Objective:
        raise NotImplementedError


class NextToken(ObjectiveConfig):
    """Cross-entropy of the next token."""

    kind: Literal["next-token"] = "next-token"

    def build(self) -> Objective:
        from sanbu.objectives.next_token import next_token

        return next_token()


class ChunkedNextToken(ObjectiveConfig):
    """Cross-entropy of the next token that never holds all logits: for large vocabularies."""

    kind: Literal["next-token-chunked"] = "next-token-chunked"
    chunk: int = Field(1024, ge=1, description="tokens whose logits exist at once")

    def build(self) -> Objective:
        from sanbu.objectives.next_token import next_token_chunked

        return next_token_chunked(self.chunk)
