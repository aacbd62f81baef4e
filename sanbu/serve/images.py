"""POST /v1/images/generations: pictures of a run, and how they come to be where that is asked for."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
from PIL import Image

from sanbu.config import SanbuError
from sanbu.serve.errors import APIError, translated
from sanbu.serve.hosted_run import Served
from sanbu.serve.request_builder import compact, seeded
from sanbu.serve.schemas import ImageBody
from sanbu.serve.single_lane import Job
from sanbu.serve.streaming import steps


class Drawn:
    """Pictures of one label, or of all in turn where the prompt is empty. `whole` or `stream`, once."""

    def __init__(self, served: Served, body: ImageBody) -> None:
        if served.run.codec.medium != "image":
            raise APIError(400, f"{served.name} draws no pictures", "model")
        _, height, width = served.run.recipe.data.space().shape
        if body.size not in (None, "auto", f"{width}x{height}"):
            raise APIError(400, f"size: given {body.size[:20]!r}, this run draws {width}x{height}", "size")
        if body.response_format == "url":
            raise APIError(400, "response_format: pictures are sent as b64_json; none are kept here", "response_format")
        if body.stream and (body.n or 1) > 1:
            raise APIError(400, "n: one picture can be streamed at a time", "n")
        codec: Any = served.run.codec
        try:
            self.condition = codec.condition(body.prompt.strip() or None, body.n or 1)
        except SanbuError as error:
            raise APIError(400, f"prompt: {error}", "prompt") from None
        try:
            self.drawing = served.run.drawing(fields=body.strategy or {})
        except SanbuError as error:
            raise APIError(400, str(error), "strategy") from None
        self.served, self.body = served, body
        self.seed, self.read = seeded(body.seed), codec.read

    def drafts(self) -> AsyncIterator[list[np.ndarray]]:
        """Submit; every draft's pictures. Raises Busy at once when the queue is full."""

        def told() -> Iterator[list[np.ndarray]]:
            for draft in self.drawing.drafts(self.condition, self.seed):
                yield [self.read(row) for row in draft.sample]

        return steps(lambda deliver, end: Job(told(), deliver, end), self.served)

    async def whole(self, drafts: AsyncIterator[list[np.ndarray]]) -> dict[str, Any]:
        """The finished pictures."""
        pictures: list[np.ndarray] = []
        async for drawn in drafts:
            pictures = drawn
        return {
            "created": int(time.time()),
            "data": [{"b64_json": png(picture)} for picture in pictures],
            "output_format": "png",
        }

    async def stream(self, drafts: AsyncIterator[list[np.ndarray]]) -> AsyncIterator[tuple[str, str]]:
        """So many drafts on the way, evenly among the steps where their number is known, and the picture."""
        most, sent, picture, count = self.body.partial_images or 0, 0, None, 0
        expected = getattr(self.drawing.recipe.strategy, "steps", most)
        shown = {max(1, round((i + 1) * expected / (most + 1))) for i in range(most)}
        about = {
            "created_at": int(time.time()),
            "output_format": "png",
            "size": "auto",
            "quality": "auto",
            "background": "opaque",
        }
        try:
            async for drawn in drafts:
                picture, count = drawn[0], count + 1
                if count in shown:
                    kind = "image_generation.partial_image"
                    yield kind, compact({"type": kind, "b64_json": png(picture), "partial_image_index": sent, **about})
                    sent += 1
            if picture is not None:
                kind = "image_generation.completed"
                usage = {
                    "input_tokens": 0,
                    "output_tokens": count,
                    "total_tokens": count,
                    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
                }
                yield kind, compact({"type": kind, "b64_json": png(picture), "usage": usage, **about})
        except Exception as error:
            yield "error", compact(translated(error).body())


def png(picture: np.ndarray) -> str:
    """A picture as PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
