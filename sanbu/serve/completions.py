"""POST /v1/completions, with and without streaming."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sanbu.serve.errors import APIError, api_error
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.legacy_logprobs import LegacyLogprobs, joined
from sanbu.serve.request_builder import Answers, build_generation, compact
from sanbu.serve.schemas import CompletionBody
from sanbu.serve.streaming import GeneratedToken, Piece


class Completion:
    """The continuations of one or more prompts. Call either `response` or `stream`, once."""

    def __init__(self, served: HostedRun, body: CompletionBody) -> None:
        check_completion(body)
        self.body, self.served = body, served
        given: Any = body.prompt
        many = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
        prompts: list[Any] = given if many else [given]
        if not served.writes:
            raise APIError(400, f"{served.name} does not write text; use /v1/images/generations", "model")
        ids = [served.encode_prompt(prompt) for prompt in prompts]
        self.scored = bool(body.echo) and body.logprobs is not None
        most = 16 if body.max_tokens is None else max(1, body.max_tokens)
        self.generation = build_generation(served, body, ids, most, top=body.logprobs, scored=self.scored)
        # the start token that is put before a text is no part of the echo
        start = served.codec.tokenizer.start is not None
        self.hidden = [int(isinstance(prompt, str) and start) for prompt in prompts]
        pieces = served.codec.tokenizer.pieces
        self.echoes = [""] * len(ids)
        if body.echo:
            self.echoes = [prompt if isinstance(prompt, str) else decode_ids(pieces, prompt) for prompt in prompts]
        self.head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": served.fingerprint,
        }

    def response(self, answers: Answers) -> dict[str, Any]:
        """The response body."""
        choices = []
        for index, text in enumerate(answers.texts):
            logprobs = self._legacy(index)
            parts = [*self._echo_part(index, logprobs), logprobs.part(self._new(answers.tokens[index]))]
            told = None if self.body.logprobs is None else joined(parts)
            choices.append(self._choice(index, self._echo(index) + self._said(text), told, answers.ends[index]))
        return {**self.head, "choices": choices, "usage": self._usage()}

    async def stream(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[str]:
        """Chunks of the stream: the data of one server-sent event each."""
        counted = bool(self.body.stream_options and self.body.stream_options.include_usage)
        more = {"usage": None} if counted else {}
        logprobs = [self._legacy(index) for index in range(len(self.generation.prompts) * self.generation.n)]
        echoed: set[int] = set()
        try:
            async for piece in pieces:
                index = piece.index
                if index not in echoed and self.body.echo:  # the first piece comes after the prompt is computed
                    told = self._echo_part(index, logprobs[index])
                    choice = self._choice(index, self._echo(index), told[0] if told else None, None)
                    yield compact({**self.head, "choices": [choice], **more})
                echoed.add(index)
                if not (piece.text or piece.tokens or piece.finish):
                    continue
                part = None if self.body.logprobs is None else logprobs[index].part(self._new(piece.tokens))
                choice = self._choice(index, self._said(piece.text), part, piece.finish)
                yield compact({**self.head, "choices": [choice], **more})
            if counted:
                yield compact({**self.head, "choices": [], "usage": self._usage()})
            yield "[DONE]"
        except Exception as error:
            yield compact(api_error(error).body())

    def _choice(self, index: int, text: str, logprobs: dict[str, Any] | None, end: Any) -> dict[str, Any]:
        if self.body.max_tokens == 0 and end is not None:
            end = "length"
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": end}

    def _echo(self, index: int) -> str:
        return self.echoes[index // self.generation.n]

    def _legacy(self, index: int) -> LegacyLogprobs:
        """The log-probabilities of an answer, which begins after the echoed text."""
        made = LegacyLogprobs(self.served.codec.tokenizer, bool(self.body.logprobs))
        if not self.scored:
            made.skip(self._echo(index))
        return made

    def _echo_part(self, index: int, logprobs: LegacyLogprobs) -> list[dict[str, Any]]:
        """The log-probabilities of an echoed prompt, if they are wanted."""
        scores = self.generation.requests[index].scores if self.scored else None
        if scores is None:
            return []
        prompt = index // self.generation.n
        hidden = self.hidden[prompt]
        return [logprobs.prompt(self.generation.prompts[prompt][hidden:], scores[hidden:])]

    def _new(self, tokens: Sequence[GeneratedToken]) -> Sequence[GeneratedToken]:
        """The generated tokens; with max_tokens=0 one is drawn all the same, and left out."""
        return () if self.body.max_tokens == 0 else tokens

    def _said(self, text: str) -> str:
        return "" if self.body.max_tokens == 0 else text

    def _usage(self) -> dict[str, Any]:
        usage = self.generation.usage()
        if self.body.max_tokens == 0:
            usage |= {"completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}
        return usage


def decode_ids(pieces: Sequence[bytes], ids: Sequence[int]) -> str:
    """The text of token ids."""
    return b"".join(pieces[token] for token in ids if token < len(pieces)).decode("utf-8", "replace")


def check_completion(body: CompletionBody) -> None:
    """Raise APIError for fields that are not supported and would change the answer."""
    if body.suffix:
        raise APIError(
            400, "suffix is not supported: the served models generate from left to right only; leave it out", "suffix"
        )
    if body.best_of and body.best_of != (body.n or 1):
        raise APIError(400, "best_of is not supported; use n and select among the answers", "best_of")
    if body.max_tokens == 0 and not body.echo:
        raise APIError(400, "max_tokens: given 0, allowed: at least 1; 0 needs echo: true", "max_tokens")
    if isinstance(body.prompt, list) and not body.prompt:
        raise APIError(400, "prompt is empty; give a text, token ids or a list of either", "prompt")
    if isinstance(body.prompt, list) and len(body.prompt) * (body.n or 1) > 128 and not isinstance(body.prompt[0], int):
        raise APIError(400, "more than 128 answers in one request (prompts times n); send several requests", "prompt")
