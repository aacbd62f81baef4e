"""Served transformers whose matrices lie on several processes: the first one serves, the others compute with it.

Each process has some heads and hidden units of every layer, and their part of the KV cache (Shoeybi and others, 2019).
Embedding and head are whole in each, so that logits and scores are the first one's business alone. Before a pass the
first one sends the tokens, their positions, and where their keys and values go.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sanbu.config import ConfigError, SanbuError
from sanbu.machine import find_device
from sanbu.models.tokens.transformer import Decoder, Readout, logits
from sanbu.parallel.launch import in_job
from sanbu.parallel.layout import Layout
from sanbu.parallel.lost import lost_contact
from sanbu.parallel.tensors import cut_matrices, parts
from sanbu.parallel.world import ALONE, World, join
from sanbu.serve.paged import Layout as Slots
from sanbu.serve.paged import PagedCache

A = TypeVar("A")
PATIENCE = timedelta(days=365)  # that the others wait for requests
FAREWELL = 10  # seconds that processes of this machine have to end


class Pass(NamedTuple):
    """A pass of one of the models. slots: of its cache; None without one."""

    model: int
    tokens: Tensor
    positions: Tensor | None
    slots: Slots | None


class Team:
    """The processes that compute together, or one that is alone. Each adds the same models in the same order.

    leads: whether this one has the server. error: what told it that another is gone. ready: all have opened the runs.
    """

    def __init__(self, world: World) -> None:
        self.world, self.lock, self.leads = world, Lock(), world.first
        self.members: list[tuple[Callable[..., Tensor], PagedCache]] = []
        self.waiting = None if world.alone else dist.new_group(backend="gloo", timeout=PATIENCE)
        self.error: RuntimeError | None = None
        self.ready = False

    def together(self, work: Callable[[], A]) -> A:
        """Work of every process. An error in any of them ends all, and the first says what it is."""
        found: list[A] = []
        trouble = ""
        try:
            found.append(work())
        except SanbuError as error:
            trouble = str(error)
        troubles = [each for each in self.world.of_all(trouble) if each]
        if troubles and not self.leads:
            raise SystemExit(2)
        if troubles:
            raise SanbuError(troubles[0])
        self.ready = True
        return found[0]

    def cut(self, model: nn.Module, name: str) -> None:
        """Keep this process's part of the matrices of a model. Raises SanbuError if it has none."""
        if self.world.alone:
            return
        if not isinstance(model, Decoder):
            raise SanbuError(f"--tensor: given {self.world.size}, but {name} is no transformer of text; allowed: 1")
        try:
            cut_matrices(model, self.world.rank, self.world.size)
        except SanbuError as error:
            raise SanbuError(str(error).replace("layout.tensor", "--tensor")) from None

    def join(self, model: Decoder, cache: PagedCache) -> None:
        """Compute a model together, whose layers may have been converted since it was cut."""
        if self.world.alone:
            return
        for _, attention, mlp in parts(model):
            attention.out.register_forward_hook(add_parts)
            mlp.down.register_forward_hook(add_parts)
        if self.leads:
            model.forward = self._leading(len(self.members), model.forward)  # type: ignore[method-assign]
        self.members.append((model.forward, cache))

    def _leading(self, number: int, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def led(
            tokens_BT: Tensor,
            positions_BT: Tensor | None = None,
            cache: Any = None,
            readout: Readout = logits,
        ) -> Tensor:
            if cache is not None and not isinstance(cache, PagedCache):
                raise SanbuError("this strategy does not work where --tensor divides a model; allowed: autoregressive")
            with self.lock:
                try:
                    self._send(Pass(number, tokens_BT, positions_BT, None if cache is None else cache[0].layout))
                    return forward(tokens_BT, positions_BT, cache, readout)
                except RuntimeError as error:
                    self._end_if_alone(error)
                    raise

        return led

    def _end_if_alone(self, error: RuntimeError) -> None:
        if lost_contact(error) and self.error is None:
            self.error = error
            os.kill(os.getpid(), signal.SIGTERM)

    def _send(self, what: Pass | None) -> None:
        dist.broadcast_object_list([what and on(what, torch.device("cpu"))], 0, group=self.waiting)

    def follow(self) -> None:
        """Compute with the first process until it ends."""
        for number in (signal.SIGINT, signal.SIGTERM):  # the first one decides when requests are finished
            signal.signal(number, signal.SIG_IGN)
        device = find_device("auto")
        while True:
            held: list[Pass | None] = [None]
            dist.broadcast_object_list(held, 0, group=self.waiting)
            if held[0] is None:
                return
            self._help(on(held[0], device))

    @torch.inference_mode()
    def _help(self, what: Pass) -> None:
        forward, cache = self.members[what.model]
        if what.slots is not None:
            cache.arrange(what.slots)
        try:
            forward(what.tokens, what.positions, None if what.slots is None else cache, readout=nothing)
        except RuntimeError as error:
            if lost_contact(error):
                raise

    def end(self) -> None:
        """Let the others end. Raises what told that one of them is gone."""
        if self.error is not None:
            raise self.error
        if self.leads and self.ready and not self.world.alone:
            self._send(None)


def on(what: Pass, device: torch.device) -> Pass:
    """The same on a device."""
    positions, slots = what.positions, what.slots
    return Pass(
        what.model,
        what.tokens.to(device),
        None if positions is None else positions.to(device),
        None if slots is None else slots.to(device),
    )


def add_parts(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """A hook after a matrix whose inputs are divided: the sum over processes."""
    output = output.contiguous()
    dist.all_reduce(output)
    return output


def nothing(head: nn.Module, hidden_BTD: Tensor) -> Tensor:
    """The readout of those that help."""
    return hidden_BTD


# -- processes --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def team_of(processes: int, arguments: Sequence[str]) -> Iterator[Team]:
    """The processes of a server: those that torchrun started, or others that are started here.

    arguments: the command line after `sanbu`.
    """
    if processes == 1 and not in_job():
        yield Team(ALONE)
        return
    with contextlib.nullcontext() if in_job() else started(processes, arguments):
        size = int(os.environ["WORLD_SIZE"])
        if processes not in (1, size):
            raise ConfigError(f"--tensor: given {processes}, but torchrun started {size} processes; allowed: {size}")
        torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", size))))
        with join(Layout(tensor=size), find_device("auto").type) as world:
            team = Team(world)
            for name in ("RANK", "WORLD_SIZE"):  # a process that the server starts does not belong to the team
                del os.environ[name]
            signal.signal(signal.SIGTERM, leave)  # after a signal the server gives it to whoever had it before
            ended: BaseException | None = None
            try:
                yield team
            except BaseException as error:
                if not team.ready:
                    raise
                ended = error
            team.end()
        if ended is not None:
            raise ended


def leave(number: int, frame: Any) -> None:
    """What SIGTERM does."""
    raise SystemExit(0)


@contextlib.contextmanager
def started(processes: int, arguments: Sequence[str]) -> Iterator[None]:
    """Processes on this machine that run the same command, of which this is the first."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    common = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {**common, "RANK": "0", "LOCAL_RANK": "0"}
    others = []
    try:
        for rank in range(1, processes):
            own = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, "-m", "sanbu", *arguments]
            others.append(subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, start_new_session=True))
        yield
    finally:
        for other in others:
            try:
                other.wait(FAREWELL)
            except subprocess.TimeoutExpired:
                other.kill()
