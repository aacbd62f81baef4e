"""POST /v1/embeddings: the mean of a text run's last hidden states."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from sanbu.serve.errors import APIError
from sanbu.serve.hosted_run import HostedRun, PromptTooLong
from sanbu.serve.schemas import EmbeddingBody
from sanbu.serve.single_lane import Job
from sanbu.serve.streaming import stream_job


class Embeddings:
    """One normalised vector per input."""

    def __init__(self, served: HostedRun, body: EmbeddingBody) -> None:
        if served.engine is None:
            raise APIError(400, f"{served.name} does not read text; choose a text run", "model")
        given: Any = body.input
        many = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
        texts: list[Any] = given if many else [given]
        self.served, self.body = served, body
        self.ids = [served.encode_prompt(text, "input") for text in texts]
        self.tokens = sum(map(len, self.ids))
        for number, row in enumerate(self.ids):
            self._check(number, row, served.engine.vocabulary)
        width = served.engine.model.embedding.tokens.embedding_dim
        if body.dimensions is not None and body.dimensions > width:
            raise APIError(400, f"dimensions: given {body.dimensions}, allowed: 1 to {width}", "dimensions")

    def _check(self, number: int, row: list[int], size: int) -> None:
        most = self.served.context
        if len(row) > most:
            raise PromptTooLong(f"input {number} has {len(row)} tokens", most, "input", answer=0)
        if not row:
            raise APIError(400, f"input {number} has 0 tokens; allowed: 1 to {most}", "input")
        if max(row) >= size:
            raise APIError(
                400,
                f"input {number}: there is no token {max(row)}; allowed: 0 to {size - 1}. "
                "Token ids are those of this run's own tokenizer; send text instead",
                "input",
            )

    async def vectors(self, owner: str) -> list[Tensor]:
        """The vector of each input, computed one by one."""

        def steps() -> Iterator[Tensor]:
            for row in self.ids:
                yield self.served.embed(row)

        job = lambda deliver, end: Job(steps(), deliver, end, owner)  # noqa: E731
        return [one async for one in stream_job(job, self.served)]

    def result(self, vectors: list[Tensor]) -> dict[str, Any]:
        """The response body."""
        data = [
            {"object": "embedding", "index": i, "embedding": encode_vector(vector, self.body)}
            for i, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": self.tokens, "total_tokens": self.tokens}
        return {"object": "list", "data": data, "model": self.served.name, "usage": usage}


def encode_vector(vector: Tensor, body: EmbeddingBody) -> Any:
    """A list of floats or base64 of little-endian float32; truncated to `dimensions` and normalised to length 1."""
    vector = vector[: body.dimensions].float().cpu()
    vector = vector / vector.norm().clamp(min=1e-12)
    if body.encoding_format == "base64":
        return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
    return vector.tolist()
