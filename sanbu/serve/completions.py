"""POST /v1/completions, with and without streaming."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sanbu.serve.chat import empty_answers
from sanbu.serve.errors import APIError, api_error
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.request_builder import build_generation, compact
from sanbu.serve.schemas import CompletionBody
from sanbu.serve.streaming import GeneratedToken, Piece


class Completion:
    """The continuations of one or more prompts. Call either `result` or `stream`, once."""

    def __init__(self, served: HostedRun, body: CompletionBody) -> None:
        check_completion(body)
        self.body, self.served = body, served
        given: Any = body.prompt
        many = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
        prompts: list[Any] = given if many else [given]
        if not served.writes:
            raise APIError(400, f"{served.name} does not write text; use /v1/images/generations", "model")
        ids = [served.encode_prompt(prompt) for prompt in prompts]
        self.generation = build_generation(served, body, ids, body.max_tokens or 16, top=body.logprobs)
        decode = served.codec.tokenizer
        self.echoes = (
            [prompt if isinstance(prompt, str) else decode_ids(decode.pieces, prompt) for prompt in prompts]
            if body.echo
            else [""] * len(ids)
        )
        self.head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": served.name,
        }

    async def result(self, pieces: AsyncIterator[Piece]) -> dict[str, Any]:
        """The response body, once all continuations are finished."""
        texts, tokens, ends = empty_answers(self.generation)
        async for piece in pieces:
            texts[piece.index] += piece.text
            tokens[piece.index] += piece.tokens
            ends[piece.index] = piece.finish
        choices = [
            {
                "index": i,
                "text": self._echo(i) + text,
                "logprobs": self._logprobs(tokens[i], 0),
                "finish_reason": ends[i],
            }
            for i, text in enumerate(texts)
        ]
        return {**self.head, "choices": choices, "usage": self.generation.usage()}

    async def stream(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[str]:
        """Chunks of the stream: the data of one server-sent event each."""
        counted = bool(self.body.stream_options and self.body.stream_options.include_usage)
        more = {"usage": None} if counted else {}
        said = [self._echo(index) for index in range(len(self.generation.prompts) * self.generation.n)]
        try:
            for index, echo in enumerate(said):
                if echo:
                    yield compact(
                        {
                            **self.head,
                            "choices": [{"index": index, "text": echo, "logprobs": None, "finish_reason": None}],
                            **more,
                        }
                    )
            async for piece in pieces:
                if not (piece.text or piece.tokens or piece.finish):
                    continue
                logprobs = self._logprobs(piece.tokens, len(said[piece.index]))
                said[piece.index] += piece.text
                choice = {"index": piece.index, "text": piece.text, "logprobs": logprobs, "finish_reason": piece.finish}
                yield compact({**self.head, "choices": [choice], **more})
            if counted:
                yield compact({**self.head, "choices": [], "usage": self.generation.usage()})
            yield "[DONE]"
        except Exception as error:
            yield compact(api_error(error).body())

    def _echo(self, index: int) -> str:
        return self.echoes[index // self.generation.n]

    def _logprobs(self, tokens: Sequence[GeneratedToken], offset: int) -> dict[str, Any] | None:
        if self.body.logprobs is None:
            return None
        pieces = self.served.codec.tokenizer.pieces
        texts = [one.spelling.decode("utf-8", "replace") for one in tokens]
        offsets = [offset + sum(map(len, texts[:i])) for i in range(len(texts))]
        tops = [{decode_ids(pieces, [token]): max(logprob, -9999.0) for token, logprob in one.top} for one in tokens]
        return {
            "tokens": texts, "token_logprobs": [max(one.logprob, -9999.0) for one in tokens],
            "top_logprobs": tops if self.body.logprobs else None, "text_offset": offsets,
        }  # fmt: skip


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
    if body.echo and body.logprobs is not None:
        raise APIError(400, "echo together with logprobs is not supported; leave out one of them", "echo")
    if isinstance(body.prompt, list) and not body.prompt:
        raise APIError(400, "prompt is empty; give a text, token ids or a list of either", "prompt")
    if isinstance(body.prompt, list) and len(body.prompt) * (body.n or 1) > 128 and not isinstance(body.prompt[0], int):
        raise APIError(400, "more than 128 answers in one request (prompts times n); send several requests", "prompt")
