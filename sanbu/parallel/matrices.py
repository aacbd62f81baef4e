"""Muon on matrices that lie on several ranks: each is made whole, orthogonalised by one rank, and divided again.

As many matrices as there are ranks are made whole at a time, so each rank computes one of them.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from sanbu.optimizers.muon import polar_factors
from sanbu.parallel.stored import as_held


def polar_over_ranks(matrices: list[Tensor]) -> list[Tensor]:
    """The polar factors of matrices of one shape, divided as these are. Every rank takes part."""
    first = matrices[0]
    if not isinstance(first, DTensor):
        return polar_factors(matrices)
    group = dividing_group(first)
    ranks, place = dist.get_world_size(group), dist.get_rank(group)
    found: list[Tensor] = []
    for start in range(0, len(matrices), ranks):
        some = matrices[start : start + ranks]
        whole = [matrix.full_tensor() for matrix in some]  # type: ignore[attr-defined]
        own = polar_factors([whole[place]])[0] if place < len(whole) else torch.empty_like(whole[0])
        every = [torch.empty_like(own) for _ in range(ranks)]
        dist.all_gather(every, own.contiguous(), group=group)
        found += [as_held(matrix, direction) for matrix, direction in zip(some, every, strict=False)]
    return found


def dividing_group(tensor: DTensor) -> dist.ProcessGroup:
    """The ranks of the first dimension of the mesh that divides a tensor."""
    for number, placement in enumerate(tensor.placements):
        if isinstance(placement, Shard):
            return tensor.device_mesh.get_group(number)
    return tensor.device_mesh.get_group(0)
