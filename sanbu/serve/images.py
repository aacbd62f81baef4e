"""POST /v1/images/generations, with and without streaming of partial images."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
from PIL import Image

from sanbu.config import SanbuError
from sanbu.serve.errors import APIError, api_error
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.request_builder import compact, seed_or_random
from sanbu.serve.schemas import ImageBody
from sanbu.serve.single_lane import Job
from sanbu.serve.strategy_fields import check_limits, check_shape
from sanbu.serve.streaming import stream_job


class ImageGeneration:
    """Images of one class, or of all classes in turn if the prompt is empty. Call either `result` or `stream`, once."""

    def __init__(self, served: HostedRun, body: ImageBody) -> None:
        if served.run.codec.medium != "image":
            raise APIError(400, f"{served.name} does not generate images; choose an image run", "model")
        _, height, width = served.run.recipe.data.space().shape
        if body.size not in (None, "auto", f"{width}x{height}"):
            raise APIError(400, f"size: given {body.size[:20]!r}, allowed: auto, {width}x{height}", "size")
        if body.response_format == "url":
            raise APIError(
                400, "response_format: given 'url', allowed: b64_json; images are not stored", "response_format"
            )
        if body.stream and (body.n or 1) > 1:
            raise APIError(400, "n: only 1 image can be streamed; set n to 1 or stream to false", "n")
        codec: Any = served.run.codec
        self.seed, self.read = seed_or_random(body.seed), codec.read
        try:
            self.condition = codec.condition(body.prompt.strip() or None, body.n or 1, self.seed)
        except SanbuError as error:
            raise APIError(400, f"prompt: {error}", "prompt") from None
        check_shape(body.strategy or {})
        try:
            self.drawing = served.run.drawing(fields=body.strategy or {})
        except SanbuError as error:
            raise APIError(400, str(error), "strategy") from None
        check_limits(self.drawing.recipe.strategy, served.run.recipe.strategy, body.n or 1)
        self.served, self.body = served, body

    def drafts(self, owner: str = "") -> AsyncIterator[list[np.ndarray]]:
        """Submit, and stream the images of every draft. Raises Busy immediately when the queue is full."""

        def pictures() -> Iterator[list[np.ndarray]]:
            for draft in self.drawing.drafts(self.condition, self.seed):
                yield [self.read(row) for row in draft.sample]

        return stream_job(lambda deliver, end: Job(pictures(), deliver, end, owner), self.served)

    async def last(self, drafts: AsyncIterator[list[np.ndarray]]) -> list[np.ndarray]:
        """The finished images."""
        pictures: list[np.ndarray] = []
        async for drawn in drafts:
            pictures = drawn
        return pictures

    def result(self, pictures: list[np.ndarray]) -> dict[str, Any]:
        """The response body with the finished images."""
        return {
            "created": int(time.time()),
            "data": [{"b64_json": png(picture)} for picture in pictures],
            "output_format": "png",
        }

    async def stream(self, drafts: AsyncIterator[list[np.ndarray]]) -> AsyncIterator[tuple[str, str]]:
        """`partial_images` drafts, evenly spaced over the sampling steps, then the finished image."""
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
            yield "error", compact(api_error(error).body())


def png(picture: np.ndarray) -> str:
    """An image as PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
