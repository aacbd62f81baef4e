"""A forest as arrays: f(x)_O = base + slope (z - center) + sum_t values[t, leaf_t(x)].

At node n a row goes left if x[feature_n] <= threshold_n, or, where x is missing (NaN), if missing_left_n. A leaf is its
own child, so all rows of all trees take the same number of steps, each a few gathers. Thresholds are float32, rounded
down: for x in float32 that decides as a threshold in float64 does.

A forest has no parameters: a search grows it (optimizers/boosting.py, optimizers/bagging.py). B rows, F features, D
columns of the linear part, O outputs, T trees, N nodes of a tree, W numbers in a leaf.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.layers.forest_memory import Memory

SUM, MEAN, LAWS = 0, 1, 2  # outputs: the sum of trees, their mean, the logarithm of the mean of laws over classes
LARGEST = float(np.finfo(np.float32).max)
LEAST = 1e-3  # of a probability, so that its logarithm is finite
AT_ONCE = 1 << 19  # leaves looked up at once


@dataclass(frozen=True)
class Tree:
    """One tree, the root first. A leaf is its own two children. values_NW: of every node, though only leaves count."""

    feature: np.ndarray
    threshold: np.ndarray
    child: np.ndarray  # [N, 2]: left, right
    missing_left: np.ndarray
    values: np.ndarray
    depth: int


def rounded_down(threshold: np.ndarray) -> np.ndarray:
    """The largest finite float32 that is not above each number. An infinite threshold tells missing from other rows."""
    near = np.minimum(threshold, LARGEST).astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)


class Forest(nn.Module):
    """Up to `trees` trees of at most `leaves` leaves. each: a leaf has one number, of output t mod O; else all O."""

    def __init__(self, outputs: int, trees: int, leaves: int, each: bool = False, design: int = 0) -> None:
        super().__init__()
        nodes = 2 * leaves - 1
        self.outputs, self.trees, self.most_leaves, self.each = outputs, trees, leaves, each
        arrays = {
            "feature": torch.zeros(trees, nodes, dtype=torch.int32),
            "threshold": torch.zeros(trees, nodes),
            "child": torch.arange(nodes, dtype=torch.int32)[:, None].repeat(trees, 1, 2),
            "missing_left": torch.zeros(trees, nodes, dtype=torch.bool),
            "values": torch.zeros(trees, nodes, 1 if each else outputs),
            "base": torch.zeros(outputs),
            "slope": torch.zeros(outputs, design),
            "center": torch.zeros(design),
            "state": torch.zeros(3, dtype=torch.int32),  # trees grown, the depth of the deepest, how they are combined
        }
        for name, array in arrays.items():
            self.register_buffer(name, array)
        self.memory: Memory | None = None  # of a search: sums of trees for rows that come again

    feature: Tensor
    threshold: Tensor
    child: Tensor
    missing_left: Tensor
    values: Tensor
    base: Tensor
    slope: Tensor
    center: Tensor
    state: Tensor

    @property
    def grown(self) -> int:
        """The number of trees so far."""
        return int(self.state[0])

    def forward(self, x_BF: Tensor, z_BD: Tensor | None = None) -> Tensor:
        """Outputs_BO. z: the columns of the linear part, where there is one."""
        grown, combined = int(self.state[0]), int(self.state[2])
        total_BO = self.sum(x_BF) if self.memory is None else self.memory.sum(self, x_BF)
        if combined != SUM and grown:
            total_BO = total_BO / (grown // self.outputs if self.each else grown)
        total_BO = total_BO + self.base
        if z_BD is not None and self.slope.shape[1]:
            with torch.autocast(x_BF.device.type, enabled=False):  # columns may be large: bfloat16 has 8 bits
                total_BO = total_BO + torch.nan_to_num(z_BD.float() - self.center) @ self.slope.T
        return total_BO.clamp(min=LEAST).log() if combined == LAWS and grown else total_BO

    def sum(self, x_BF: Tensor, first: int = 0) -> Tensor:
        """The sum_BO of the trees from `first` on, added up in their order."""
        grown = self.grown
        if grown <= first or not len(x_BF):
            return x_BF.new_zeros(len(x_BF), self.outputs, dtype=torch.float32)
        size = max(1, AT_ONCE // (grown - first))
        parts = [self._sum(part, first, grown) for part in x_BF.split(size)]
        return torch.cat(parts)

    def _sum(self, x_BF: Tensor, first: int, last: int) -> Tensor:
        node_BT = self.leaves(x_BF, first, last) + self._roots(first, last)
        if self.each:  # rows of the bag: one for each output, its trees in their order
            node_BT = (
                node_BT.view(len(x_BF), -1, self.outputs).transpose(1, 2).reshape(-1, (last - first) // self.outputs)
            )
        summed = F.embedding_bag(node_BT, self.values.flatten(0, 1), mode="sum")
        return summed.view(len(x_BF), self.outputs)

    def leaves(self, x_BF: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """The node, int32 [B, T], at which each row ends in each tree, counted as the tree was written."""
        last = self.grown if last is None else last
        x_BF = x_BF.float().clamp(max=LARGEST).contiguous()
        feature, threshold, missing = (
            a[first:last].flatten() for a in (self.feature, self.threshold, self.missing_left)
        )
        roots_T = self._roots(first, last)
        child = (self.child[first:last] + roots_T[:, None, None]).flatten()
        row = torch.arange(len(x_BF), device=x_BF.device, dtype=torch.int32).mul_(x_BF.shape[1])
        row = row.repeat_interleave(last - first)
        node, x = roots_T.repeat(len(x_BF)), x_BF.flatten()
        holes = bool(x.isnan().any())
        for _ in range(int(self.state[1])):
            value = x.index_select(0, feature.index_select(0, node) + row)
            right = value > threshold.index_select(0, node)
            if holes:
                right |= value.isnan() & ~missing.index_select(0, node)
            node = child.index_select(0, 2 * node + right)
        return node.view(len(x_BF), -1) - roots_T

    def _roots(self, first: int, last: int) -> Tensor:
        """The place of each root among the nodes of trees first .. last - 1."""
        return torch.arange(last - first, dtype=torch.int32, device=self.feature.device) * self.feature.shape[1]

    def write(self, tree: Tree) -> None:
        """Add a tree. Raises ValueError when the forest is full or the tree has too many leaves."""
        number, nodes = self.grown, len(tree.feature)
        if number >= self.trees or nodes > self.feature.shape[1]:
            raise ValueError(
                f"no room for tree {number + 1} of {nodes} nodes in {self.trees} of {self.feature.shape[1]}"
            )
        arrays = {
            "feature": np.maximum(tree.feature, 0),
            "threshold": rounded_down(tree.threshold),
            "child": tree.child,
            "missing_left": tree.missing_left,
            "values": tree.values,
        }
        for name, array in arrays.items():
            place = getattr(self, name)[number, :nodes]
            place.copy_(torch.from_numpy(np.ascontiguousarray(array)))
        self.state[0] += 1
        self.state[1].clamp_(min=tree.depth)
