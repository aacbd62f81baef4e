"""POST /v1/completions, whole or as it comes."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sanbu.serve.chat import gathered
from sanbu.serve.errors import APIError, translated
from sanbu.serve.hosted_run import Served
from sanbu.serve.request_builder import asked, compact
from sanbu.serve.schemas import CompletionBody
from sanbu.serve.streaming import Piece, Word


class Completion:
    """One or several prompts' continuations. `whole` or `stream`, once."""

    def __init__(self, served: Served, body: CompletionBody) -> None:
        refuse(body)
        self.body, self.served = body, served
        given: Any = body.prompt
        many = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
        prompts: list[Any] = given if many else [given]
        if not served.writes:
            raise APIError(400, f"{served.name} draws no text; ask /v1/images/generations", "model")
        ids = [served.begin(prompt) for prompt in prompts]
        self.asked = asked(served, body, ids, body.max_tokens or 16, top=body.logprobs)
        decode = served.codec.tokenizer
        self.echoes = (
            [prompt if isinstance(prompt, str) else spelled(decode.pieces, prompt) for prompt in prompts]
            if body.echo
            else [""] * len(ids)
        )
        self.head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": served.name,
        }

    async def whole(self, pieces: AsyncIterator[Piece]) -> dict[str, Any]:
        """The texts when all have ended."""
        texts, words, ends = gathered(self.asked)
        async for piece in pieces:
            texts[piece.index] += piece.text
            words[piece.index] += piece.words
            ends[piece.index] = piece.finish
        choices = [
            {
                "index": i,
                "text": self._echo(i) + text,
                "logprobs": self._logprobs(words[i], 0),
                "finish_reason": ends[i],
            }
            for i, text in enumerate(texts)
        ]
        return {**self.head, "choices": choices, "usage": self.asked.usage()}

    async def stream(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[str]:
        """Chunks as the clients read them, the data of one event each."""
        counted = bool(self.body.stream_options and self.body.stream_options.include_usage)
        more = {"usage": None} if counted else {}
        said = [self._echo(index) for index in range(len(self.asked.prompts) * self.asked.n)]
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
                if not (piece.text or piece.words or piece.finish):
                    continue
                logprobs = self._logprobs(piece.words, len(said[piece.index]))
                said[piece.index] += piece.text
                choice = {"index": piece.index, "text": piece.text, "logprobs": logprobs, "finish_reason": piece.finish}
                yield compact({**self.head, "choices": [choice], **more})
            if counted:
                yield compact({**self.head, "choices": [], "usage": self.asked.usage()})
            yield "[DONE]"
        except Exception as error:
            yield compact(translated(error).body())

    def _echo(self, index: int) -> str:
        return self.echoes[index // self.asked.n]

    def _logprobs(self, words: Sequence[Word], offset: int) -> dict[str, Any] | None:
        if self.body.logprobs is None:
            return None
        pieces = self.served.codec.tokenizer.pieces
        texts = [word.spelling.decode("utf-8", "replace") for word in words]
        offsets = [offset + sum(map(len, texts[:i])) for i in range(len(texts))]
        tops = [{spelled(pieces, [token]): max(logprob, -9999.0) for token, logprob in word.top} for word in words]
        return {
            "tokens": texts, "token_logprobs": [max(word.logprob, -9999.0) for word in words],
            "top_logprobs": tops if self.body.logprobs else None, "text_offset": offsets,
        }  # fmt: skip


def spelled(pieces: Sequence[bytes], ids: Sequence[int]) -> str:
    """The text of ids."""
    return b"".join(pieces[token] for token in ids if token < len(pieces)).decode("utf-8", "replace")


def refuse(body: CompletionBody) -> None:
    """Name what would change the answer and is not done."""
    if body.suffix:
        raise APIError(400, "suffix needs a run that fills in; these go on from left to right", "suffix")
    if body.best_of and body.best_of != (body.n or 1):
        raise APIError(400, "best_of is not supported; ask for n and choose", "best_of")
    if body.echo and body.logprobs is not None:
        raise APIError(400, "logprobs of the prompt (echo) are not supported", "echo")
    if isinstance(body.prompt, list) and not body.prompt:
        raise APIError(400, "prompt: there is none", "prompt")
    if isinstance(body.prompt, list) and len(body.prompt) * (body.n or 1) > 128 and not isinstance(body.prompt[0], int):
        raise APIError(400, "prompt: more than 128 answers in one request", "prompt")
