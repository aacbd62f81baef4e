"""Which block of the cache belongs to whom (Kwon and others, 2023), and which beginnings are known already.

A full block is known by the hash of all tokens up to its end, so equal beginnings share blocks. A block nobody owns
any more keeps what it holds until it is needed: the one that was let go first is taken first.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

ROOT = b""


def chain(before: bytes, tokens: Sequence[int]) -> bytes:
    """The name of a full block: a hash of its tokens and of the name of the block before it."""
    return hashlib.blake2b(before + array("q", tokens).tobytes(), digest_size=16).digest()


class Blocks:
    """So many blocks of `size` tokens each."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self.free = list(range(count - 1, -1, -1))
        self.owners = [0] * count
        self.names: list[bytes | None] = [None] * count
        self.known: dict[bytes, int] = {}
        self.idle: dict[int, None] = {}  # known and not owned, the longest idle first

    def available(self) -> int:
        """Blocks that can be taken."""
        return len(self.free) + len(self.idle)

    def take(self) -> int:
        """A block for new tokens. Raises IndexError when there is none."""
        block = self.free.pop() if self.free else self._forget()
        self.owners[block] = 1
        return block

    def share(self, block: int) -> None:
        """One owner more for a known block."""
        self.idle.pop(block, None)
        self.owners[block] += 1

    def give(self, block: int) -> None:
        """One owner less."""
        self.owners[block] -= 1
        if self.owners[block]:
            return
        if self.names[block] is None:
            self.free.append(block)
        else:
            self.idle[block] = None

    def name(self, block: int, name: bytes) -> None:
        """Make a full block known; of two equal ones the first stays known."""
        if name not in self.known:
            self.known[name], self.names[block] = block, name

    def find(self, names: Sequence[bytes]) -> list[int]:
        """The blocks of the longest known beginning."""
        found = []
        for name in names:
            if name not in self.known:
                break
            found.append(self.known[name])
        return found

    def check(self) -> None:
        """Every block is free, idle or owned, and every name leads to its block; for tests."""
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
