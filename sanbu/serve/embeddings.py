"""POST /v1/embeddings: the mean of a text run's last states."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from sanbu.serve.errors import APIError
from sanbu.serve.hosted_run import Served
from sanbu.serve.schemas import EmbeddingBody
from sanbu.serve.single_lane import Job
from sanbu.serve.streaming import steps


async def embedded(served: Served, body: EmbeddingBody) -> dict[str, Any]:
    """One vector of length one for each input."""
    if served.engine is None:
        raise APIError(400, f"{served.name} reads no text", "model")
    given: Any = body.input
    many = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
    texts: list[Any] = given if many else [given]
    ids = [served.begin(text) for text in texts]
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
        raise APIError(400, f"dimensions: given {body.dimensions}, this model has {width}", "dimensions")

    def told() -> Iterator[Tensor]:
        for row in ids:
            yield served.embed(row)

    found = [vector async for vector in steps(lambda deliver, end: Job(told(), deliver, end), served)]
    data = [{"object": "embedding", "index": i, "embedding": written(vector, body)} for i, vector in enumerate(found)]
    used = sum(map(len, ids))
    return {
        "object": "list",
        "data": data,
        "model": served.name,
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }


def written(vector: Tensor, body: EmbeddingBody) -> Any:
    """As numbers, or as little-endian float32 in base64; cut to the dimensions asked for, of length one again."""
    vector = vector[: body.dimensions].float().cpu()
    vector = vector / vector.norm().clamp(min=1e-12)
    if body.encoding_format == "base64":
        return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
    return vector.tolist()
