"""Data parallelism: every rank has all weights and its own rows; gradients are summed over ranks.

Gradients go into buckets, last parameters first, and a bucket is sent as soon as its last gradient is there, while the
backward pass goes on (Li and others, "PyTorch Distributed", 2020). DistributedDataParallel of torch does the same for
one module that is called once per backward pass and uses every parameter. A player of ours may be several modules that
share weights, be called many times, or leave parameters unused, so the hooks are on the parameters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sanbu.machine import local
from sanbu.parallel.world import gradient_of

BUCKET = 25 * 2**20  # bytes of gradients that are sent together


@dataclass(eq=False)
class Bucket:
    """Parameters whose gradients are sent together. missing: how many gradients of this pass are not there yet."""

    parameters: list[nn.Parameter]
    missing: int = 0
    flat: Tensor | None = None
    sent: dist.Work | None = None

    def send(self, group: dist.ProcessGroup) -> None:
        """Begin to sum; a parameter without a gradient counts as zero, and says so behind the gradients."""
        first = local(self.parameters[0])
        held = [local(torch.zeros_like(p) if p.grad is None else gradient_of(p)) for p in self.parameters]
        pieces = [gradient.flatten() for gradient in held]
        used = [float(parameter.grad is not None) for parameter in self.parameters]
        pieces.append(torch.tensor(used, dtype=first.dtype, device=first.device))
        self.flat = torch.cat(pieces)
        self.sent = dist.all_reduce(self.flat, group=group, async_op=True)

    def receive(self) -> None:
        """Wait for the sums and make them the gradients; what no rank has used stays without a gradient."""
        assert self.flat is not None and self.sent is not None
        self.sent.wait()
        sizes = [local(parameter).numel() for parameter in self.parameters]
        *sums, used = self.flat.split([*sizes, len(sizes)])
        for parameter, total, count in zip(self.parameters, sums, used.tolist(), strict=True):
            if parameter.grad is None and count:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is not None:
                gradient = local(parameter.grad)
                gradient.copy_(total.view_as(gradient))
        self.flat = self.sent = None


@dataclass(eq=False)
class Reducer:
    """Sums the gradients of some parameters over a group, in buckets that are sent in the same order everywhere."""

    parameters: Sequence[nn.Parameter]
    group: dist.ProcessGroup
    size: int = BUCKET
    buckets: list[Bucket] = field(default_factory=list)
    launched: int = 0
    open: bool = False

    def __post_init__(self) -> None:
        self.buckets = list(in_buckets(self.parameters, self.size))
        for bucket in self.buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(lambda _, bucket=bucket: self._arrived(bucket))

    @contextlib.contextmanager
    def around(self, last: bool) -> Iterator[None]:
        """Around a backward pass; the gradients are summed in the last one of a turn."""
        if not last:
            yield
            return
        self.launched, self.open = 0, True
        for bucket in self.buckets:
            bucket.missing = len(bucket.parameters)
        try:
            yield
        finally:
            self.open = False
        self._launch(len(self.buckets))
        for bucket in self.buckets:
            bucket.receive()

    def _arrived(self, bucket: Bucket) -> None:
        if self.open:
            bucket.missing -= 1
            ready = self.launched
            while ready < len(self.buckets) and self.buckets[ready].missing <= 0:
                ready += 1
            self._launch(ready)

    def _launch(self, until: int) -> None:
        for bucket in self.buckets[self.launched : until]:
            bucket.send(self.group)
        self.launched = max(self.launched, until)


def in_buckets(parameters: Sequence[nn.Parameter], size: int) -> Iterator[Bucket]:
    """Parameters of one type and device together, last first, up to so many bytes."""
    for _, same in groupby(reversed(parameters), lambda parameter: (parameter.dtype, parameter.device)):
        members: list[nn.Parameter] = []
        held = 0
        for parameter in same:
            if members and held + local(parameter).nbytes > size:
                yield Bucket(members)
                members, held = [], 0
            members.append(parameter)
            held += local(parameter).nbytes
        yield Bucket(members)
