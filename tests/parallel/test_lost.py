"""A rank that does not answer is noticed in time and named, and so is its machine."""

import socket
import time

import torch
import torch.distributed as dist

from sanbu.parallel import lost
from sanbu.parallel.layout import Layout
from sanbu.parallel.lost import Lost
from sanbu.parallel.world import join
from tests.parallel.processes import run_processes


def sum_without(hangs):
    """What a rank is told when another one does not take part in a sum of gradients."""
    lost.WAIT = lost.FIRST = 0.5
    dist.barrier = lambda: None  # at the end of a test; the group is broken then
    try:
        with join(Layout(timeout=1.0), "cpu") as world:
            if world.rank == hangs:
                time.sleep(2.5)
                return "", False, 0.0
            since = time.monotonic()
            dist.all_reduce(torch.ones(3), group=world.batch)
    except Lost as error:
        found = str(error), error.speaks, time.monotonic() - since
        if error.speaks:
            time.sleep(2.0)  # the store is in this process here, and the others still read it; torchrun keeps its own
        return found
    return "no error", False, 0.0


def test_a_rank_that_hangs_is_named():
    """torch gives every group but the first half an hour, whatever time was asked for."""
    found = run_processes(3, sum_without, 1)
    for rank in (0, 2):
        line, speaks, seconds = found[rank]
        assert line.startswith(f"rank 1 on {socket.gethostname()} did not answer for 1 seconds (") and "\n" not in line
        assert speaks == (rank == 0) and seconds < 4
