"""API keys and their rate limits. The file of keys is watched: keys made and revoked count at once.

A request sets aside the tokens that it may use when it begins; when it ends, those that it used count. A request that
may use more than the whole limit is let in when nothing else counts.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from sanbu.config import SanbuError
from sanbu.serve.errors import APIError
from sanbu.serve.key_file import Key, read_keys

log = logging.getLogger("sanbu.serve")
WINDOW = 60.0  # seconds


@dataclass(eq=False)
class Spending:
    """What a request counts: tokens set aside while it runs, tokens used after it has ended. since: its last change."""

    limit: int
    since: float = field(default_factory=time.monotonic)
    tokens: int = 0
    running: bool = True

    def settle(self, tokens: int) -> None:
        """The request has ended, and used these tokens."""
        self.tokens, self.running, self.since = tokens, False, time.monotonic()


class Keys:
    """Authentication and rate limits. Without keys and without a file every request is allowed."""

    def __init__(self, keys: tuple[Key, ...] = (), path: Path | None = None) -> None:
        self.keys, self.path = keys, path
        self.seen = stamp(path)
        self.requests: dict[str, list[float]] = defaultdict(list)
        self.spent: dict[str, list[Spending]] = defaultdict(list)

    @classmethod
    def load(cls, path: Path) -> Keys:
        """Load a key file. Raises SanbuError with a one-line message."""
        keys = read_keys(path)
        if not keys:
            raise SanbuError(f"{path} has no keys; create one with: sanbu key NAME --keys {path}")
        return cls(keys, path)

    @property
    def required(self) -> bool:
        """Whether a request needs a key."""
        return bool(self.keys) or self.path is not None

    def refresh(self) -> None:
        """Read the file again if it has changed. A file that cannot be read changes nothing, and is logged once."""
        now = stamp(self.path)
        if self.path is None or now == self.seen:
            return
        self.seen = now
        try:
            self.keys = read_keys(self.path)
            log.info("%s has changed: %d keys", self.path, len(self.keys))
        except (SanbuError, OSError) as error:
            log.error("%s has changed and cannot be read, so the keys stay as they were: %s", self.path, error)

    def authenticate(self, authorization: str) -> Key | None:
        """The key of an Authorization header; None if the server requires no key. Raises APIError 401."""
        self.refresh()
        if not self.required:
            return None
        scheme, _, given = authorization.partition(" ")
        digest = hashlib.sha256(given.strip().encode("utf-8", "replace")).hexdigest()
        found = [
            key for key in self.keys if hmac.compare_digest(key.sha256, digest)
        ]  # compares all keys, so that the time reveals nothing
        if scheme.lower() != "bearer" or not found:
            raise APIError(
                401, "missing or unknown API key; send the header Authorization: Bearer KEY", code="invalid_api_key"
            )
        return found[0]

    def admit(self, key: Key) -> Spending:
        """Count a request. Raises APIError 429 when a rate limit of the key is reached."""
        now = time.monotonic()
        recent = [when for when in self.requests[key.name] if when > now - WINDOW]
        self.requests[key.name] = recent
        if key.requests_per_minute and len(recent) >= key.requests_per_minute:
            raise too_many(key.requests_per_minute, "requests", recent[0] + WINDOW - now)
        spending = Spending(key.tokens_per_minute)
        self._check(key.name, spending, 0)
        recent.append(now)
        self.spent[key.name].append(spending)
        return spending

    def reserve(self, key: Key, spending: Spending, tokens: int) -> None:
        """Set aside the tokens that an admitted request may use. Raises APIError 429 when they exceed the limit."""
        self._check(key.name, spending, min(tokens, spending.limit))
        spending.tokens = min(tokens, spending.limit)

    def _check(self, name: str, spending: Spending, tokens: int) -> None:
        """Raise APIError 429 if others have used the limit, or leave less than these tokens of it."""
        now = time.monotonic()
        self.spent[name] = [one for one in self.spent[name] if one.running or one.since > now - WINDOW]
        others = [one for one in self.spent[name] if one is not spending and one.tokens]
        used = sum(one.tokens for one in others)
        if spending.limit and used + max(tokens, 1) > spending.limit:
            ended = [one.since for one in others if not one.running]
            raise too_many(spending.limit, "tokens", min(ended) + WINDOW - now if ended else 1)


def too_many(allowed: int, what: str, seconds: float) -> APIError:
    """The error of a rate limit; seconds: until a part of it is free again."""
    wait = max(1, round(seconds))
    return APIError(429, f"rate limit reached: {allowed} {what} per minute", code="rate_limit_exceeded", wait=wait)


def stamp(path: Path | None) -> tuple[int, int, int] | None:
    """What changes whenever a file does; None without a file."""
    try:
        state = path.stat() if path is not None else None
    except OSError:
        return None
    return None if state is None else (state.st_mtime_ns, state.st_size, state.st_ino)
