"""This process among the others of a job: what it holds, what it reads, and what all of them agree on."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store, _set_pg_timeout
from torch.distributed.rendezvous import rendezvous

from sanbu.config import SanbuError
from sanbu.parallel.layout import Degrees, Layout, Place
from sanbu.parallel.lost import Roll, lost_contact
from sanbu.space import Batch, row_count

T = TypeVar("T")
NAMES = ("pipeline", "replicas", "shard", "tensor")


@dataclass(frozen=True)
class World:
    """One process of a job. The defaults are a process that is alone.

    mesh: the dimensions in NAMES. rows: of the ranks with other rows or positions and the same part of the model.
    ends: the first and the last stage, for those that are in one of the two. context: other positions, same rows.
    everybody: the group for what all agree on; None: the one of the job.
    """

    layout: Layout = field(default_factory=Layout)
    degrees: Degrees = field(default_factory=lambda: Degrees(1, 1, 1, 1, 1))
    rank: int = 0
    mesh: DeviceMesh | None = None
    rows: DeviceMesh | None = None
    ends: dist.ProcessGroup | None = None
    context: dist.ProcessGroup | None = None
    everybody: dist.ProcessGroup | None = None

    @property
    def size(self) -> int:
        """The number of processes."""
        return dist.get_world_size() if self.mesh is not None else 1

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.mesh is None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes what is written once."""
        return self.rank == 0

    @property
    def here(self) -> int:
        """The number of processes on this machine, which share its cores."""
        return 1 if self.alone else int(os.environ.get("LOCAL_WORLD_SIZE", self.size))

    @property
    def place(self) -> Place:
        """Where this rank stands in the layout."""
        return self.degrees.place(self.rank)

    # -- groups -------------------------------------------------------------------------------------------------------

    def part(self, *names: str) -> DeviceMesh:
        """The mesh of the ranks that differ from this one in these dimensions alone."""
        assert self.mesh is not None
        return self.mesh[names if len(names) > 1 else names[0]]

    @property
    def batch(self) -> dist.ProcessGroup:
        """The ranks that have the same part of the model and other rows or positions."""
        assert self.rows is not None
        return self.rows.get_group()

    # -- together -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def one_by_one(self) -> Iterator[None]:
        """The first process does this before all others, so that it alone fills a cache that all of them read."""
        if not self.alone and not self.first:
            self.wait()
        try:
            yield
        finally:
            if not self.alone and self.first:
                self.wait()

    def wait(self) -> None:
        """Wait until all processes are here."""
        if not self.alone:
            dist.barrier(self.everybody)

    def from_first(self, value: T) -> T:
        """What the first process has: numbers, texts, lists of them."""
        if self.alone:
            return value
        held = [json.dumps(value) if self.first else None]
        dist.broadcast_object_list(held, 0, group=self.everybody)
        return json.loads(held[0] or "null")

    def of_all(self, value: Any) -> list[Any]:
        """What each process has, by rank."""
        if self.alone:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.everybody)
        return found

    def aside(self) -> World:
        """This world for another thread: what that agrees on does not meet what the main thread sends."""
        if self.alone:
            return self
        return replace(self, everybody=dist.new_group(backend="gloo", timeout=timedelta(seconds=self.layout.timeout)))

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is set in any process."""
        if self.alone:
            return list(flags)
        found = torch.tensor(flags, dtype=torch.int32, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return [bool(flag) for flag in found.tolist()]

    def least(self, value: int) -> int:
        """The least of a number over all processes."""
        if self.alone:
            return value
        found = torch.tensor(value, dtype=torch.int64, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return int(found)

    def same(self, what: str, values: Sequence[str]) -> None:
        """Raise SanbuError, in every process, with the first of some texts that is not the same in all of them."""
        if self.alone:
            return
        found = self.of_all(list(values))
        for rank, others in enumerate(found):
            for first, other in zip_longest(found[0], others, fillvalue="nothing"):
                if other != first:
                    raise SanbuError(f"the processes have different {what}: rank 0 has {first}, rank {rank} {other}")

    def once(self, work: Callable[[], T]) -> T | None:
        """Work of the first process; an error there is raised in all of them, so that none waits for it."""
        if self.alone:
            return work()
        result, trouble = None, ""
        if self.first:
            try:
                result = work()
            except SanbuError as error:
                trouble = str(error)
        trouble = self.from_first(trouble)
        if trouble:
            raise SanbuError(trouble)
        return result

    # -- sums ---------------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """The device whose tensors are sent."""
        return torch.device("cpu" if self.mesh is None else self.mesh.device_type)

    def total(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the ranks with other rows or positions; numbers by name, in float64."""
        if self.alone or not values:
            return dict(values)
        names = sorted(values)
        row = torch.stack([torch.as_tensor(values[name]).detach().double().to(self.device) for name in names])
        dist.all_reduce(row, group=self.batch)
        return dict(zip(names, row.unbind(), strict=True))

    def gather_rows(self, tensor: Tensor) -> Tensor:
        """The rows of all data ranks in their order; axis 1 is padded to the longest."""
        if self.degrees.data == 1:
            return tensor
        shape = torch.tensor([tensor.shape[0], *tensor.shape[1:2]], device=tensor.device)
        shapes = self._gather(shape)
        if tensor.ndim > 1:
            longest = int(torch.stack(shapes)[:, 1].max())
            wider = tensor.new_zeros(tensor.shape[0], longest, *tensor.shape[2:])
            wider[:, : tensor.shape[1]] = tensor
            tensor = wider
        most = int(torch.stack(shapes)[:, 0].max())
        padded = torch.cat((tensor, tensor.new_zeros(most - tensor.shape[0], *tensor.shape[1:])))
        parts = self._gather(padded)
        return torch.cat([part[: int(size[0])] for part, size in zip(parts, shapes, strict=True)])

    def _gather(self, tensor: Tensor) -> list[Tensor]:
        """A tensor of each data rank, in the order of their rows."""
        kind = torch.uint8 if tensor.dtype == torch.bool else tensor.dtype
        sent = tensor.to(kind).contiguous()
        found = [torch.empty_like(sent) for _ in range(dist.get_world_size(self.batch))]
        dist.all_gather(found, sent, group=self.batch)
        blocks = torch.arange(len(found)).view(-1, self.degrees.context, self.degrees.shard)[:, 0].flatten()
        return [found[int(number)].to(tensor.dtype) for number in blocks]

    # -- rows ---------------------------------------------------------------------------------------------------------

    def mine(self, batch: Batch) -> Batch:
        """The rows of a batch that this rank computes; if they cannot be divided equally, the first have one more."""
        ranks, rank, rows = self.degrees.data, self.place.data, row_count(batch)
        start, end = (number * (rows // ranks) + min(number, rows % ranks) for number in (rank, rank + 1))
        return {name: tensor[start:end] for name, tensor in batch.items()}


ALONE = World()


# -- joining -----------------------------------------------------------------------------------------------------------


def launched() -> bool:
    """Whether this process was started as one of a job: by torchrun, or inside a group."""
    return dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def join(layout: Layout, device: str) -> Iterator[World]:
    """Take this process's place in the job that it was started in; a process that is alone stays alone."""
    if not launched():
        layout.degrees(1)
        yield replace(ALONE, layout=layout)
        return
    created = not dist.is_initialized()
    if created:
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        begin(device, timedelta(seconds=layout.timeout))
    roll = call_roll(layout)
    try:
        yield make_world(layout, device)
        if created:
            dist.barrier()  # a process that exits early closes connections that others are still reading
    except RuntimeError as error:
        if not lost_contact(error):
            raise
        raise roll.name_missing(error) from None
    finally:
        if created:
            dist.destroy_process_group()


def begin(device: str, timeout: timedelta) -> None:
    """Begin the group. Each start of the processes has its own names in the store, so none meets an old address."""
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    store = PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


def call_roll(layout: Layout) -> Roll:
    """The ranks of the group that exists, with this one entered."""
    roll = Roll(_get_default_store(), dist.get_rank(), dist.get_world_size(), layout.timeout)
    roll.enter()
    return roll


def make_world(layout: Layout, device: str) -> World:
    """The world of a group that exists."""
    size = dist.get_world_size()
    degrees = layout.degrees(size)
    if size == 1:
        return replace(ALONE, layout=layout)
    mesh = init_device_mesh(device, degrees.mesh, mesh_dim_names=NAMES)
    rows = mesh["replicas", "shard"]._flatten("rows")
    places = [degrees.place(rank) for rank in range(size)]
    ends = context = None
    if degrees.pipeline > 1:
        last = degrees.pipeline - 1
        firsts = [place for place in places if place.stage == 0]
        ends = own_group([[degrees.rank(place), degrees.rank(replace(place, stage=last))] for place in firsts])
    if degrees.context > 1:
        firsts, numbers = [place for place in places if place.context == 0], range(degrees.context)
        context = own_group([[degrees.rank(replace(place, context=n)) for n in numbers] for place in firsts])
    groups = [*mesh.get_all_groups(), rows.get_group(), ends, context]
    for group in filter(None, groups):  # torch gives them half an hour
        _set_pg_timeout(timedelta(seconds=layout.timeout), group)
    return World(layout, degrees, dist.get_rank(), mesh, rows, ends, context)


def own_group(members: list[list[int]]) -> dist.ProcessGroup | None:
    """The one of several groups in which this rank is; every rank has to make all of them."""
    found = None
    for ranks in members:
        group = dist.new_group(ranks)
        found = group if dist.get_rank() in ranks else found
    return found


def gradient_of(parameter: Any) -> Tensor:
    """The gradient of a parameter, divided as the parameter is; torch may leave it whole."""
    wanted = getattr(parameter, "placements", None)
    if wanted is not None and parameter.grad.placements != wanted:
        parameter.grad = parameter.grad.redistribute(placements=wanted)
    gradient: Tensor = parameter.grad
    return gradient
