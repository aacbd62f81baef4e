"""Served transformers whose matrices are divided over several processes: rank 0 serves, the others compute with it.

Each process has some heads and hidden units of every layer, and their part of the KV cache (Shoeybi and others, 2019).
Embedding and head are whole in each, so only rank 0 computes logits and scores. Before a forward pass rank 0 sends the
tokens, their positions, and the cache slots of their keys and values.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sanbu.config import ConfigError, SanbuError
from sanbu.machine import find_device
from sanbu.models.tokens.transformer import Decoder, Readout, logits
from sanbu.parallel.launch import in_job
from sanbu.parallel.layout import Layout
from sanbu.parallel.lost import note_failure
from sanbu.parallel.tensors import cut_matrices, parts
from sanbu.parallel.world import ALONE, World, join
from sanbu.run import Run
from sanbu.serve.paged import Layout as PagedLayout
from sanbu.serve.paged import PagedCache

A = TypeVar("A")
IDLE = timedelta(days=365)  # that the other processes wait for a request
FAREWELL = 10  # seconds that processes of this machine have to end


class Pass(NamedTuple):
    """A forward pass of one of the models. layout: of its cache; None without one."""

    model: int
    tokens: Tensor
    positions: Tensor | None
    layout: PagedLayout | None

    def to(self, device: torch.device) -> Pass:
        """The same on a device."""
        moved = [None if each is None else each.to(device) for each in self[1:]]
        return Pass(self.model, *moved)  # type: ignore[arg-type]


class Team:
    """The processes that compute together, or one that is alone. Each adds the same models in the same order.

    leads: whether this process runs the HTTP server. ready: all have opened the runs. error: why no further pass is
    possible: another process is gone, or one has failed within a pass.
    """

    def __init__(self, world: World) -> None:
        self.world, self.lock, self.leads = world, threading.Lock(), world.first
        self.members: list[tuple[Callable[..., Tensor], PagedCache]] = []
        self.requests = None if world.alone else dist.new_group(backend="gloo", timeout=IDLE)
        self.error: Exception | None = None
        self.ready = self.ended = False

    @property
    def divided(self) -> bool:
        """Whether there are several processes."""
        return not self.world.alone

    def together(self, work: Callable[[], A]) -> A:
        """Do work in every process. Raises SanbuError in rank 0 if it fails in any; the others exit."""
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

    def cut(self, run: Run) -> None:
        """Keep this process's part of the matrices of a run's model. Raises SanbuError if it cannot be divided.

        The processes load one after another, since each has the whole model until it is cut.
        """
        trouble: SanbuError | None = None
        for rank in range(self.world.size):
            if rank == self.world.rank:
                try:
                    self._cut(run)
                except SanbuError as error:
                    trouble = error
            self.world.wait()
        if trouble is not None:
            raise trouble

    def _cut(self, run: Run) -> None:
        if not isinstance(run.model, Decoder) or run.codec.medium != "text":
            given = self.world.size
            raise SanbuError(f"--tensor: given {given}, but {run.folder} is no transformer of text; allowed: 1")
        try:
            cut_matrices(run.model, self.world.rank, self.world.size)
        except SanbuError as error:
            raise SanbuError(str(error).replace("layout.tensor", "--tensor")) from None

    def join(self, model: Decoder, cache: PagedCache) -> None:
        """Compute a model together, whose layers may have been converted since it was cut."""
        for _, attention, mlp in parts(model):
            attention.out.register_forward_hook(sum_over_ranks)
            mlp.down.register_forward_hook(sum_over_ranks)
        if self.leads:
            model.forward = self._leading(len(self.members), model.forward)  # type: ignore[method-assign]
        self.members.append((model.forward, cache))

    def _leading(self, number: int, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def lead(
            tokens_BT: Tensor,
            positions_BT: Tensor | None = None,
            cache: Any = None,
            readout: Readout = logits,
        ) -> Tensor:
            if cache is not None and not isinstance(cache, PagedCache):
                raise SanbuError("this strategy does not work where --tensor divides a model; allowed: autoregressive")
            computed = False

            def read(head: nn.Module, hidden_BTD: Tensor) -> Tensor:
                nonlocal computed
                computed = True  # an error from here on concerns rank 0 alone
                return readout(head, hidden_BTD)

            with self.lock:
                if self.ended or self.error is not None:
                    raise SanbuError("the server is ending")
                try:
                    self._send(Pass(number, tokens_BT, positions_BT, None if cache is None else cache[0].layout))
                    return forward(tokens_BT, positions_BT, cache, read)
                except Exception as error:
                    if not computed:
                        self.fail(error)
                    raise

        return lead

    def fail(self, error: Exception) -> None:
        """End the server: the sums of the processes no longer belong to the same pass."""
        if self.error is None and not self.ended:
            self.error = error
            note_failure(self.world.rank)
            os.kill(os.getpid(), signal.SIGTERM)

    def _send(self, what: Pass | None) -> None:
        dist.broadcast_object_list([what and what.to(torch.device("cpu"))], 0, group=self.requests)

    def follow(self) -> None:
        """Compute with rank 0 until it ends."""
        for number in (signal.SIGINT, signal.SIGTERM):  # rank 0 decides when requests are finished
            signal.signal(number, signal.SIG_IGN)
        device = find_device("auto")
        while True:
            held: list[Pass | None] = [None]
            dist.broadcast_object_list(held, 0, group=self.requests)
            if held[0] is None:
                return
            self._help(held[0].to(device))

    @torch.inference_mode()
    def _help(self, what: Pass) -> None:
        forward, cache = self.members[what.model]
        if what.layout is not None:
            cache.arrange(what.layout)
        forward(what.tokens, what.positions, None if what.layout is None else cache, readout=hidden_states)

    def end(self) -> None:
        """Let the others end. Raises what ended the server, if something did."""
        if self.error is not None:
            raise self.error
        if self.leads and self.ready and self.divided:
            with self.lock:
                self.ended = True
                self._send(None)


def sum_over_ranks(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """A hook after a matrix whose inputs are divided."""
    output = output.contiguous()
    dist.all_reduce(output)
    return output


def hidden_states(head: nn.Module, hidden_BTD: Tensor) -> Tensor:
    """The readout of the ranks that have no server."""
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
    with contextlib.nullcontext(Children()) if in_job() else started(processes, arguments) as children:
        size = int(os.environ["WORLD_SIZE"])
        if processes not in (1, size):
            raise ConfigError(f"--tensor: given {processes}, but torchrun started {size} processes; allowed: {size}")
        torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", size))))
        with join(Layout(tensor=size), find_device("auto").type) as world:
            team = children.team = Team(world)
            for name in ("RANK", "WORLD_SIZE"):  # a process that the server starts does not belong to the team
                del os.environ[name]
            signal.signal(signal.SIGTERM, exit_on_signal)  # uvicorn raises the signal again when it has stopped
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


def exit_on_signal(number: int, frame: Any) -> None:
    """A signal handler: exit with code 0."""
    raise SystemExit(0)


class Children:
    """The processes that were started here, by rank from 1, and the team once there is one."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.team: Team | None = None

    def watch(self) -> None:
        """(In a thread) End this process with one line when a child ends before it."""
        while True:
            for rank, child in enumerate(self.processes, 1):
                if child.poll() is not None:
                    self.end(rank, child.returncode)
                    return
            time.sleep(0.2)

    def end(self, rank: int, code: int) -> None:
        """End this process after a child. One that does not serve yet waits in a call that nothing interrupts."""
        if self.team is not None and self.team.ready:
            self.team.fail(RuntimeError(f"connection closed: it ended with exit code {code}"))
            return
        time.sleep(1)  # it may be about to say why itself
        print(f"sanbu: --tensor: process {rank} ended with exit code {code}", file=sys.stderr, flush=True)
        os._exit(2)


@contextlib.contextmanager
def started(processes: int, arguments: Sequence[str]) -> Iterator[Children]:
    """Processes on this machine that run the same command, of which this is rank 0."""
    if find_device("auto").type == "cuda" and processes > torch.cuda.device_count():
        raise ConfigError(f"--tensor: given {processes}, but there are {torch.cuda.device_count()} GPUs here")
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    common = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {**common, "RANK": "0", "LOCAL_RANK": "0"}
    children = Children()
    try:
        for rank in range(1, processes):
            own = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, "-m", "sanbu", *arguments]
            children.processes.append(
                subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, start_new_session=True)
            )
        threading.Thread(target=children.watch, name="sanbu-children", daemon=True).start()
        yield children
    finally:
        for child in children.processes:
            try:
                child.wait(FAREWELL)
            except subprocess.TimeoutExpired:
                child.kill()
