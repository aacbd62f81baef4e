"""The file of API keys, which has hashes only.

It is JSON: {"keys": [{"name": "ada", "sha256": "...", "requests_per_minute": 60, "tokens_per_minute": 10000}]}.
A key is 32 random bytes, so an unsalted hash is enough.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sanbu.config import SanbuError, nearest
from sanbu.files import read_json, write_json

RESERVED = ("list", "revoke")  # words of the command line
WAIT = 10.0  # seconds for another process that changes the file


class Key(BaseModel):
    """A key of the file; a limit of 0 means no limit."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    requests_per_minute: int = Field(0, ge=0)
    tokens_per_minute: int = Field(0, ge=0)


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file. Raises SanbuError for a file of another shape."""
    content = read_json(path)
    try:
        return tuple(Key.model_validate(one) for one in content["keys"])
    except (ValidationError, KeyError, TypeError) as error:
        raise SanbuError(f"{path} is not a key file: {str(error).splitlines()[0]}") from None


def make(path: Path, name: str, **limits: int) -> str:
    """Create a key and store its hash in the file; returns the key. Raises SanbuError when the name is taken."""
    if not name.isprintable() or not 1 <= len(name) <= 64 or name in RESERVED:
        raise SanbuError(f"NAME: given {name[:80]!r}, allowed: 1 to 64 printable characters, except list and revoke")
    with alone(path):
        known = read_keys(path) if path.exists() else ()
        if any(key.name == name for key in known):
            raise SanbuError(f"{path} already has a key named {name!r}; choose another name")
        secret = "sk-" + secrets.token_urlsafe(32)
        key = Key(name=name, sha256=hashlib.sha256(secret.encode()).hexdigest(), **limits)
        write(path, (*known, key))
    return secret


def revoke(path: Path, name: str) -> None:
    """Take a key out of the file. Raises SanbuError when there is none of this name."""
    with alone(path):
        known = read_keys(path)
        left = tuple(key for key in known if key.name != name)
        if len(left) == len(known):
            names = [key.name for key in known]
            raise SanbuError(f"{path} has no key named {name[:80]!r}{nearest(name[:80], names)}")
        write(path, left)


def write(path: Path, keys: tuple[Key, ...]) -> None:
    """Write the file, readable by its owner only."""
    write_json(path, {"keys": [each.model_dump() for each in keys]})
    path.chmod(0o600)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other processes from changing the file meanwhile. Raises SanbuError when one takes long."""
    lock, end = path.with_name(path.name + ".lock"), time.monotonic() + WAIT
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            break
        except FileExistsError:
            if time.monotonic() > end:
                raise SanbuError(f"{lock} exists: another process changes {path}; if none does, delete it") from None
            time.sleep(0.02)
        except OSError as error:
            raise SanbuError(f"{path} cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
