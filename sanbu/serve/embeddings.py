"""POST /v1/embeddings: the mean of a text run's last hidden states."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from sanbu.serve.errors import APIError
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.schemas import EmbeddingBody
from sanbu.serve.single_lane import Job
from sanbu.serve.streaming import stream_job


async def create_embeddings(served: HostedRun, body: EmbeddingBody) -> dict[str, Any]:
    """One normalised vector per input."""
    if served.engine is None:
        raise APIError(400, f"{served.name} does not read text; choose a text run", "model")
    given: Any = body.input
    many = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
    texts: list[Any] = given if many else [given]
    ids = [served.encode_prompt(text) for text in texts]
    size, width = served.engine.vocabulary, served.engine.model.embedding.tokens.embedding_dim
    for number, row in enumerate(ids):
        if not 0 < len(row) <= served.context:
            raise APIError(
                400,
                f"input {number} has {len(row)} tokens; allowed: 1 to {served.context}",
                "input",
                "context_length_exceeded",
            )
        if max(row) >= size:
            raise APIError(400, f"input {number}: there is no token {max(row)}; allowed: 0 to {size - 1}", "input")
    if body.dimensions is not None and body.dimensions > width:
        raise APIError(400, f"dimensions: given {body.dimensions}, allowed: 1 to {width}", "dimensions")

    def vectors() -> Iterator[Tensor]:
        for row in ids:
            yield served.embed(row)

    found = [vector async for vector in stream_job(lambda deliver, end: Job(vectors(), deliver, end), served)]
    data = [
        {"object": "embedding", "index": i, "embedding": encode_vector(vector, body)} for i, vector in enumerate(found)
    ]
    used = sum(map(len, ids))
    return {
        "object": "list",
        "data": data,
        "model": served.name,
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }


def encode_vector(vector: Tensor, body: EmbeddingBody) -> Any:
    """A list of floats or base64 of little-endian float32; truncated to `dimensions` and normalised to length 1."""
    vector = vector[: body.dimensions].float().cpu()
    vector = vector / vector.norm().clamp(min=1e-12)
    if body.encoding_format == "base64":
        return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
    return vector.tolist()
