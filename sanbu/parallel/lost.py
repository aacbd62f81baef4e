"""Ranks that are gone or do not answer, named by the others.

A call that fails because another rank is gone says neither which nor where. So each rank says in the store of the job
on which machine it is, and notes there that a call of its failed. Those that have not noted it are the ones to name.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from dataclasses import dataclass

from torch.distributed.distributed_c10d import Store, _get_default_store

from sanbu.config import SanbuError

SIGNS = ("connection", "timed out", "timeout", "read error", "write error", "broken pipe", "nccl")
LATE = "timed out", "timeout"
WAIT = 5.0  # seconds: how much later than the first the call of another rank may fail
FIRST = 1.0  # seconds: how much sooner the lowest rank ends than the others, so that what it says is read


class Lost(SanbuError):
    """Another rank is gone or does not answer. speaks: whether this is the rank that says so for all."""

    def __init__(self, line: str, speaks: bool) -> None:
        self.speaks = speaks
        super().__init__(line)


def lost_contact(error: BaseException) -> bool:
    """Whether an error says that another rank is gone, or does not answer."""
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def note_failure(rank: int) -> None:
    """Note in the store of the job that a call of this rank failed, before `join` does."""
    with contextlib.suppress(RuntimeError):
        _get_default_store().set(f"failed-{rank}", "")


@dataclass(frozen=True)
class Roll:
    """The ranks of a job in its store. timeout: of a call, in seconds."""

    store: Store
    rank: int
    size: int
    timeout: float

    def enter(self) -> None:
        """Say on which machine this rank is."""
        self.store.set(f"machine-{self.rank}", socket.gethostname())

    def name_missing(self, error: BaseException) -> Lost:
        """What to raise for a call that failed: the ranks whose calls did not fail, and their machines."""
        reason = re.sub(r"^\[[^]]*\] *", "", str(error)).partition(". ")[0]
        late = any(sign in reason.lower() for sign in LATE)
        what = f"did not answer for {self.timeout:g} seconds" if late else "ended without a word"
        try:
            self.store.set(f"failed-{self.rank}", "")
            failed = self._failed()
            named = [f"rank {rank} on {self._machine(rank)}" for rank in range(self.size) if rank not in failed]
        except RuntimeError:
            return Lost(f"rank {self.rank}: the machine of rank 0 does not answer ({reason})", speaks=True)
        speaks = self.rank == min(failed)
        if not speaks:
            time.sleep(FIRST)
        return Lost(f"{', '.join(named) or 'a rank'} {what} ({reason})", speaks)

    def _failed(self) -> set[int]:
        """The ranks whose calls failed, when all but one have said so or the time to say so is over."""
        until = time.monotonic() + WAIT
        while True:
            failed = {rank for rank in range(self.size) if self.store.check([f"failed-{rank}"])}
            if len(failed) == self.size or time.monotonic() > until:
                return failed
            time.sleep(0.2)

    def _machine(self, rank: int) -> str:
        """The machine of a rank."""
        name = f"machine-{rank}"
        return self.store.get(name).decode() if self.store.check([name]) else "a machine that never joined"
