"""The fields of a strategy in a request: OpenAI's names for some of them, and limits on what a request may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sanbu.serve.errors import APIError
from sanbu.serve.schemas import SamplingBody
from sanbu.strategies.strategy import StrategyConfig

MOST = {"beams": 128, "steps": 1000, "particles": 1024}  # unless the run itself has more
STOPS, STOP_LENGTH = 16, 1024  # stop texts, and characters of one


def strategy_fields(body: SamplingBody, most: int | None) -> dict[str, Any]:
    """Strategy fields from the OpenAI names."""
    given = {
        "temperature": body.temperature,
        "top_p": None if body.top_p is None else max(body.top_p, 1e-9),
        "top_k": body.top_k,
        "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty,
        "max_tokens": most,
        "stop": [body.stop] if isinstance(body.stop, str) else body.stop,
    }
    return {name: value for name, value in given.items() if value is not None}


def check_shape(strategy: dict[str, Any]) -> None:
    """Raise APIError for a strategy whose kind is no name, or with texts that are not valid Unicode."""
    kind = strategy.get("kind", "")
    if not isinstance(kind, str):
        raise APIError(400, f"strategy.kind: given a value of type {type(kind).__name__}, allowed: a name", "strategy")
    for text in texts_of(strategy):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise APIError(400, f"strategy: {text[:40]!r} is not valid Unicode", "strategy")


def texts_of(value: Any) -> Iterator[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        yield value
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from texts_of(part)


def check_limits(strategy: StrategyConfig, own: StrategyConfig, samples: int) -> None:
    """Raise APIError for a strategy that asks for more than a request may. own: that of the run."""
    for name, most in MOST.items():
        value, allowed = getattr(strategy, name, 0), max(most, getattr(own, name, 0))
        if value > allowed:
            raise APIError(400, f"strategy.{name}: given {value}, allowed: 1 to {allowed} in a request", "strategy")
    beams = getattr(strategy, "beams", 1) * samples
    if beams > max(MOST["beams"], getattr(own, "beams", 0)):
        raise APIError(400, f"n: {beams} beams in one request (n times beams), allowed: {MOST['beams']}", "n")
    stops = list(getattr(strategy, "stop", ()))
    if len(stops) > max(STOPS, len(getattr(own, "stop", ()))):
        raise APIError(400, f"stop: given {len(stops)} texts, allowed: at most {STOPS}", "stop")
    longest = max(map(len, stops), default=0)
    if longest > STOP_LENGTH:
        raise APIError(400, f"stop: given a text of {longest:,} characters, allowed: at most {STOP_LENGTH:,}", "stop")
