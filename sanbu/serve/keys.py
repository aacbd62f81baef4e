"""API keys, stored as hashes, each with its own rate limits.

The file is JSON: {"keys": [{"name": "ada", "sha256": "...", "requests_per_minute": 60, "tokens_per_minute": 10000}]}.
A key is 32 random bytes, so an unsalted hash is enough.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import defaultdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sanbu.config import SanbuError
from sanbu.files import read_json, write_json
from sanbu.serve.errors import APIError


class Key(BaseModel):
    """A key of the file; a limit of 0 means no limit."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    requests_per_minute: int = Field(0, ge=0)
    tokens_per_minute: int = Field(0, ge=0)


class Keys:
    """Authentication and rate limits. Without keys every request is allowed."""

    def __init__(self, keys: tuple[Key, ...] = ()) -> None:
        self.keys = keys
        self.spent: dict[str, list[tuple[float, int]]] = defaultdict(list)

    @classmethod
    def load(cls, path: Path) -> Keys:
        """Load a key file. Raises SanbuError with a one-line message."""
        keys = read_keys(path)
        if not keys:
            raise SanbuError(f"{path} has no keys; create one with: sanbu key NAME --keys {path}")
        return cls(keys)

    def authenticate(self, authorization: str) -> Key | None:
        """The key of an Authorization header; None if the server requires no key. Raises APIError 401."""
        if not self.keys:
            return None
        scheme, _, given = authorization.partition(" ")
        digest = hashlib.sha256(given.strip().encode()).hexdigest()
        found = [
            key for key in self.keys if hmac.compare_digest(key.sha256, digest)
        ]  # compares all keys, so that the time reveals nothing
        if scheme.lower() != "bearer" or not found:
            raise APIError(
                401, "missing or unknown API key; send the header Authorization: Bearer KEY", code="invalid_api_key"
            )
        return found[0]

    def admit(self, key: Key) -> None:
        """Count a request. Raises APIError 429 when a rate limit of the key is reached."""
        now = time.monotonic()
        recent = [(when, tokens) for when, tokens in self.spent[key.name] if when > now - 60]
        self.spent[key.name] = recent
        requests = sum(1 for _, tokens in recent if not tokens)
        tokens = sum(tokens for _, tokens in recent)
        for used, allowed, what in (
            (requests, key.requests_per_minute, "requests"),
            (tokens, key.tokens_per_minute, "tokens"),
        ):
            if allowed and used >= allowed:
                wait = max(1, round(60 - (now - recent[0][0])))
                raise APIError(
                    429, f"rate limit reached: {allowed} {what} per minute", code="rate_limit_exceeded", wait=wait
                )
        recent.append((now, 0))

    def record_tokens(self, key: Key, tokens: int) -> None:
        """Record the tokens that a request with this key has used."""
        if tokens:
            self.spent[key.name].append((time.monotonic(), tokens))


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file. Raises SanbuError for a file of another shape."""
    content = read_json(path)
    try:
        return tuple(Key.model_validate(one) for one in content["keys"])
    except (ValidationError, KeyError, TypeError) as error:
        raise SanbuError(f"{path} is not a key file: {str(error).splitlines()[0]}") from None


def make(path: Path, name: str, **limits: int) -> str:
    """Create a key and store its hash in the file; returns the key. Raises SanbuError when the name is taken."""
    known = read_keys(path) if path.exists() else ()
    if any(key.name == name for key in known):
        raise SanbuError(f"{path} already has a key named {name!r}; choose another name")
    if not name.isprintable() or not 1 <= len(name) <= 64:
        raise SanbuError(f"NAME: given {name[:80]!r}, allowed: 1 to 64 printable characters")
    secret = "sk-" + secrets.token_urlsafe(32)
    key = Key(name=name, sha256=hashlib.sha256(secret.encode()).hexdigest(), **limits)
    write_json(path, {"keys": [each.model_dump() for each in (*known, key)]})
    path.chmod(0o600)
    return secret
