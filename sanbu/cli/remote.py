"""A model behind an OpenAI-compatible server, asked over HTTP with streaming."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from sanbu.codecs.chat import Message
from sanbu.config import ConfigError, SanbuError


class RemoteSpeaker:
    """A model at a URL, http://host:port/v1#MODEL; the first model by default. The API key is in SANBU_API_KEY."""

    def __init__(self, url: str, overrides: Sequence[str] = (), system: str | None = None) -> None:
        try:
            import httpx
        except ImportError:
            raise SanbuError("asking a server needs httpx: pip install 'sanbu[serve]'") from None
        address, _, model = url.partition("#")
        key = os.environ.get("SANBU_API_KEY", "none")
        self.library = httpx
        base = address.rstrip("/").removesuffix("/v1") + "/v1/"
        try:
            self.client = httpx.Client(
                base_url=base, headers={"Authorization": f"Bearer {key}"}, timeout=httpx.Timeout(60, connect=5)
            )
        except httpx.InvalidURL as error:
            raise SanbuError(f"{address} is not a URL: {error}; write http://host:port#MODEL") from None
        self.name = model or self._first()
        self.strategy = dict(map(strategy_field, overrides))
        self.said: list[Message] = [{"role": "system", "content": system}] if system else []

    def answer(self, words: str, seed: int) -> Iterator[str]:
        """The answer, piece by piece; then it joins the conversation. Raises SanbuError when the server refuses."""
        self.said.append({"role": "user", "content": words})
        body: dict[str, Any] = {"model": self.name, "messages": self.said, "stream": True, "seed": seed}
        if self.strategy:
            body["strategy"] = self.strategy
        whole = ""
        try:
            with self.client.stream("POST", "chat/completions", json=body) as answer:
                self._check(answer)
                for line in answer.iter_lines():
                    piece = delta_text(line)
                    whole += piece
                    yield piece
        except self.library.HTTPError as error:
            raise SanbuError(f"{self.client.base_url}: {error}") from None
        self.said.append({"role": "assistant", "content": whole.strip()})

    def _first(self) -> str:
        try:
            answer = self.client.get("models")
            self._check(answer)
            found = answer.json()["data"]
        except (self.library.HTTPError, self.library.InvalidURL, ValueError, KeyError) as error:
            raise SanbuError(f"{self.client.base_url} is not an OpenAI-compatible server: {error}") from None
        if not found:
            raise SanbuError(f"{self.client.base_url} has no model")
        return str(found[0]["id"])

    def _check(self, answer: Any) -> None:
        if answer.status_code < 400:
            return
        answer.read()
        try:
            message = answer.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = answer.text[:200]
        raise SanbuError(f"{self.client.base_url} refuses ({answer.status_code}): {message}")


def delta_text(line: str) -> str:
    """The text in one line of the stream; empty for comments and the end. Raises SanbuError for an error event."""
    if not line.startswith("data: ") or line == "data: [DONE]":
        return ""
    chunk = json.loads(line.removeprefix("data: "))
    if "error" in chunk:
        raise SanbuError(str(chunk["error"]["message"]))
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])


def strategy_field(text: str) -> tuple[str, Any]:
    """An override of the strategy, such as strategy.temperature=0.5, as a field of the request."""
    path, _, value = text.partition("=")
    if path == "strategy":
        return "kind", value
    if not path.startswith("strategy."):
        raise ConfigError(f"{path}: only the strategy of a served run can be changed, as in strategy.temperature=0.5")
    try:
        return path.removeprefix("strategy."), json.loads(value)
    except ValueError:
        return path.removeprefix("strategy."), value
