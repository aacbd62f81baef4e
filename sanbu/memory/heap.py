"""Addresses as the C library gives them: memory that a process holds is more than what its tensors need at once.

A freed block is used again by the smallest request that it fits best; blocks between living ones cannot be joined, and
the training loop lets nothing go back to the system (`machine.reuse_memory`). What counts is the highest address.
An aligned block is looked for among the free ones with room to spare, so a block just freed is too small for the next
request of its own size: with that rule the highest address follows measurements, without it, it is a fifth too low.
"""

from __future__ import annotations

from bisect import bisect_left, insort

ALIGN, SPARE, OWN = 64, 96, 1 << 30  # bytes; a block of at least OWN is mapped alone and goes back to the system


class Heap:
    """take(size) -> address; give(address) frees it. most: the most bytes held from the system so far."""

    def __init__(self) -> None:
        self.top, self.mapped, self.most = 0, 0, 0
        self.highest = 0
        self.sizes: dict[int, int] = {}  # of blocks in use, by address; mapped ones have negative addresses
        self.free: list[tuple[int, int]] = []  # sizes and addresses of free blocks, sorted
        self.starts: dict[int, int] = {}  # address -> size of a free block
        self.ends: dict[int, int] = {}  # end -> address of a free block
        self.count = 0

    def take(self, size: int) -> int:
        """The address of a new block: in the smallest free one that is large enough, else at the top."""
        size = max(ALIGN, -(-size // ALIGN) * ALIGN + ALIGN)
        self.count += 1
        if size >= OWN:
            address = -self.count
            self.mapped += size
        else:
            address = self._place(size)
        self.sizes[address] = size
        self.highest = max(self.highest, self.top)
        self.most = max(self.most, self.highest + self.mapped)
        return address

    def give(self, address: int) -> None:
        """Free a block and join it with free neighbours."""
        size = self.sizes.pop(address)
        if address < 0:
            self.mapped -= size
            return
        before = self.ends.get(address)
        if before is not None:
            size += self._remove(before)
            address = before
        if address + size in self.starts:
            size += self._remove(address + size)
        if address + size == self.top:
            self.top = address
        else:
            self._add(address, size)

    def _place(self, size: int) -> int:
        place = bisect_left(self.free, (size + SPARE, 0))
        if place == len(self.free):
            self.top += size
            return self.top - size
        whole, address = self.free[place]
        self._remove(address)
        if whole > size:
            self._add(address + size, whole - size)
        return address

    def _add(self, address: int, size: int) -> None:
        insort(self.free, (size, address))
        self.starts[address], self.ends[address + size] = size, address

    def _remove(self, address: int) -> int:
        size = self.starts.pop(address)
        del self.ends[address + size]
        del self.free[bisect_left(self.free, (size, address))]
        return size
