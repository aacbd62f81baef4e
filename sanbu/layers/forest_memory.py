"""The sums of a forest's trees for rows that come again, so that T rounds of growing do not cost T^2 evaluations."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from sanbu.noise import MIX_1, MIX_2, mix

RECENT = 16  # calls of a round, as a rule its micro-batches


class Sums(Protocol):
    """What a memory asks of a forest."""

    outputs: int
    each: bool
    values: Tensor

    @property
    def grown(self) -> int: ...

    def sum(self, x_BF: Tensor, first: int = 0) -> Tensor: ...

    def leaves(self, x_BF: Tensor, first: int = 0, last: int | None = None) -> Tensor: ...


class Memory:
    """Sums by the content of a row; to a row that comes again, only the trees grown since are added.

    The additions are those of `Forest.sum`, in the same order, so the sums are equal to the last bit. A memory is no
    part of a run's state: it fills again. most: numbers that are kept.
    """

    def __init__(self, most: int = 1 << 23) -> None:
        self.most, self.again = most, False  # again: whether any row came again after the forest had grown
        self.recent: list[tuple[Tensor, int, Tensor]] = []  # inputs, trees, sums of the last calls
        self.clear()

    def clear(self, outputs: int = 0, device: torch.device | str = "cpu") -> None:
        """Forget all rows."""
        self.keys = torch.zeros(0, dtype=torch.long, device=device)
        self.sums = torch.zeros(0, outputs, device=device)
        self.through = torch.zeros(0, dtype=torch.long, device=device)  # how many trees are in each sum

    def sum(self, forest: Sums, x_BF: Tensor) -> Tensor:
        """`forest.sum`, with less work."""
        for x, grown, sums in self.recent:
            if grown == forest.grown and x.device == x_BF.device and x.equal(x_BF):
                return sums
        found = self._sum(forest, x_BF)
        self.recent = [*self.recent[-RECENT + 1 :], (x_BF, forest.grown, found)]
        return found

    def _sum(self, forest: Sums, x_BF: Tensor) -> Tensor:
        keys_B = contents(x_BF)
        if not self._learn(keys_B, forest.outputs):
            return forest.sum(x_BF)
        place_B = self._find(keys_B)
        through_B, grown = self.through[place_B], forest.grown
        new_B = through_B == 0
        if grown and bool(new_B.any()):
            self.sums[place_B[new_B]] = forest.sum(x_BF[new_B])
        older_B = ~new_B & (through_B < grown)
        if bool(older_B.any()):
            self.again = True
            self._continue(forest, x_BF[older_B], place_B[older_B])
        self.through[place_B] = grown
        return self.sums[place_B]

    def _continue(self, forest: Sums, x_BF: Tensor, place_B: Tensor) -> None:
        """Add the trees that each sum lacks, one after another."""
        through_B, total_BO, grown = self.through[place_B], self.sums[place_B], forest.grown
        first = int(through_B.min())
        leaf_BT = forest.leaves(x_BF, first, grown)
        for tree in range(first, grown):
            lacking_B = through_B <= tree
            column = slice(tree % forest.outputs, tree % forest.outputs + 1) if forest.each else slice(None)
            leaf = leaf_BT[lacking_B, tree - first]
            total_BO[lacking_B, column] += forest.values[tree].index_select(0, leaf)
        self.sums[place_B] = total_BO

    def _find(self, keys_B: Tensor) -> Tensor:
        """The place of each row, which must be known."""
        return torch.searchsorted(self.keys, keys_B)

    def _learn(self, keys_B: Tensor, outputs: int) -> bool:
        """Make room for rows that are new. False when the rows are too many, or never come again."""
        if not self.most or not len(keys_B):
            return False
        if not len(self.keys):
            self.clear(outputs, keys_B.device)
        near_B = self._find(keys_B).clamp(max=max(len(self.keys) - 1, 0))
        known_B = self.keys[near_B] == keys_B if len(self.keys) else torch.zeros_like(keys_B, dtype=torch.bool)
        new = keys_B[~known_B].unique()
        if (len(self.keys) + len(new)) * outputs > self.most:
            self.most = self.most if self.again and len(keys_B) * outputs <= self.most else 0
            self.clear(outputs, keys_B.device)
            return self._learn(keys_B, outputs)
        if len(new):
            self.keys, order = torch.cat((self.keys, new)).sort()
            self.sums = torch.cat((self.sums, self.sums.new_zeros(len(new), outputs)))[order]
            self.through = torch.cat((self.through, torch.zeros_like(new)))[order]
        return True


def contents(x_BF: Tensor) -> Tensor:
    """A hash, int64 [B], of the numbers of each row."""
    column_F = mix(torch.arange(1, x_BF.shape[1] + 1, device=x_BF.device) * MIX_1)
    bits_BF = (x_BF.float().contiguous().view(torch.int32) ^ column_F) * (column_F * MIX_2 | 1)
    return mix((bits_BF ^ (bits_BF >> 32)).sum(1))
