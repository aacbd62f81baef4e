"""Several processes for a test: forked, with gloo on the CPU, one thread each, under a time limit."""

import multiprocessing
import os
import socket
import time
import traceback

import torch
import torch.distributed as dist


def free_port():
    """A port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def run_processes(count, work, *arguments, seconds=240):
    """work(*arguments) in each of `count` processes of one group; what each gives back, by rank."""
    context, port = multiprocessing.get_context("fork"), free_port()
    queue = context.Queue()
    processes = [
        context.Process(target=member, args=(rank, count, port, queue, work, arguments)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    found, until = {}, time.monotonic() + seconds
    try:
        while len(found) < count:
            rank, result, trouble = queue.get(timeout=max(0.1, until - time.monotonic()))
            assert not trouble, f"rank {rank}: {trouble}"
            found[rank] = result
    finally:
        for process in processes:
            process.join(5 if len(found) == count else 0)
            if process.is_alive():
                process.kill()
    return [found[rank] for rank in range(count)]


def member(rank, count, port, queue, work, arguments):
    """One process."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", rank=rank, world_size=count)
        queue.put((rank, work(*arguments), ""))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        queue.put((rank, None, traceback.format_exc()))
        raise
