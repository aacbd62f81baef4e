"""KV-cache blocks with reference counts (Kwon and others, 2023) and a prefix cache.

A full block is identified by a hash of all tokens up to its end, called its name, so requests with equal prefixes
share blocks. A block without owners keeps its content until the space is needed; least recently used goes first.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

ROOT = b""


def chain(before: bytes, tokens: Sequence[int]) -> bytes:
    """The name of a full block: a hash of its tokens and of the previous block's name."""
    return hashlib.blake2b(before + array("q", tokens).tobytes(), digest_size=16).digest()


class Blocks:
    """`count` blocks of `size` tokens each."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self.free = list(range(count - 1, -1, -1))
        self.owners = [0] * count
        self.names: list[bytes | None] = [None] * count
        self.known: dict[bytes, int] = {}
        self.idle: dict[int, None] = {}  # cached without owner, least recently used first

    def available(self) -> int:
        """Number of blocks that can be taken."""
        return len(self.free) + len(self.idle)

    def take(self) -> int:
        """Take a block for new tokens, evicting a cached one if necessary. Raises StopIteration when there is none."""
        block = self.free.pop() if self.free else self._forget()
        self.owners[block] = 1
        return block

    def share(self, block: int) -> None:
        """Add an owner to a cached block."""
        self.idle.pop(block, None)
        self.owners[block] += 1

    def give(self, block: int) -> None:
        """Remove an owner; a named block stays cached, any other becomes free."""
        self.owners[block] -= 1
        if self.owners[block]:
            return
        if self.names[block] is None:
            self.free.append(block)
        else:
            self.idle[block] = None

    def name(self, block: int, name: bytes) -> None:
        """Enter a full block in the prefix cache; of two equal blocks the first is kept."""
        if name not in self.known:
            self.known[name], self.names[block] = block, name

    def find(self, names: Sequence[bytes]) -> list[int]:
        """The blocks of the longest cached prefix."""
        found = []
        for name in names:
            if name not in self.known:
                break
            found.append(self.known[name])
        return found

    def check(self) -> None:
        """Assert that every block is free, idle or owned, and that every name leads to its block; for tests."""
        owned = [block for block in range(self.count) if self.owners[block]]
        assert sorted([*self.free, *self.idle, *owned]) == list(range(self.count))
        assert all(self.names[block] == name for name, block in self.known.items())
        assert len(self.known) == sum(name is not None for name in self.names)
        assert all(self.names[block] is None for block in self.free)

    def _forget(self) -> int:
        block = next(iter(self.idle))
        del self.idle[block]
        name = self.names[block]
        assert name is not None
        del self.known[name]
        self.names[block] = None
        return block
