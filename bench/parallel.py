"""Layouts beside bare PyTorch: python -m bench.parallel [--part overhead|start] [--layout data] [--json]

overhead  seconds per step of two processes with gloo, one thread each, GPT-2 shape 4 x 256, 8 rows of 256 bytes, AdamW,
          clipping: a training of Sanbu beside the shortest loop over DistributedDataParallel, fully_shard and
          parallelize_module with the same model and rows; both run in the same processes, in turn. For data
          parallelism also the loop of accelerate's documentation (Accelerator.prepare, backward, clip_grad_norm_)
start     seconds from the command to the first step of 4 processes, and from a kill to the next step
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LAYOUTS = {"data": {"data": 2}, "zero1": {"zero": 1}, "zero3": {"zero": 3}, "tensor": {"tensor": 2}}
ROUNDS, STEPS = 12, 2
CHANGES = [
    "data.tokenizer=byte", "data.context=256", "model.context=256", "model.width=256", "model.heads=4",
    "model.layers=4",
    "schedule.batch=8", "schedule.micro_batch=8", "optimizer=adamw", "optimizer.clip=1.0", "machine.device=cpu",
    "machine.precision=float32", "machine.threads=1",
]  # fmt: skip


# -- a step -----------------------------------------------------------------------------------------------------------


def ours(recipe: Any, world: Any) -> Callable[[], None]:
    """A step of Sanbu."""
    from sanbu.machine import decide
    from sanbu.training import Training

    training = Training(recipe, decide(recipe.machine), world)
    return lambda: training.advance() and None


def bare(recipe: Any, world: Any, name: str) -> Callable[[], None]:
    """A step of the shortest loop of PyTorch with the same model, rows and optimizer."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.optim import ZeroRedundancyOptimizer
    from torch.distributed.tensor.parallel import parallelize_module
    from torch.nn.functional import cross_entropy
    from torch.nn.parallel import DistributedDataParallel

    from sanbu.parallel.tensors import STYLES, plan_of

    model: Any = recipe.model.build(recipe.data.space())
    data, parts = recipe.data.build(), world.degrees.data
    if name == "zero3":
        for block in model.blocks.values():
            fully_shard(block)
        fully_shard(model)
    elif name == "tensor":
        styles = {path: STYLES[word]() for path, word in plan_of(model, False).items()}
        parallelize_module(model, init_device_mesh("cpu", (2,)), styles)
        model.tie()
        for block in model.blocks.values():
            block.attention.key.out_features //= 2
    called = DistributedDataParallel(model) if name in ("data", "zero1") else model
    given = {"lr": 1e-3, "betas": (0.9, 0.95), "weight_decay": 0.1}
    if name == "zero1":
        optimizer: Any = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, **given)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), **given, foreach=name != "tensor")
    step = 0

    def advance() -> None:
        nonlocal step
        rows = 8 // parts
        batch = data.batch(step * 8 + rows * world.place.data, rows)
        logits = called(batch["tokens"], batch.get("positions"))
        cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=-100).backward()
        if name != "tensor":  # torch cannot clip what lies on two meshes
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1

    return advance


def accelerated(recipe: Any, world: Any) -> Callable[[], None]:
    """A step of the loop of accelerate, over DistributedDataParallel, with the same model, rows and optimizer."""
    import torch
    from accelerate import Accelerator
    from torch.nn.functional import cross_entropy

    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == world.size, "accelerate has not found the other process"
    given: Any = {"lr": 1e-3, "betas": (0.9, 0.95), "weight_decay": 0.1, "foreach": True}
    model: Any = recipe.model.build(recipe.data.space())
    called, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), **given))
    data, rows, step = recipe.data.build(), 8 // world.degrees.data, 0

    def advance() -> None:
        nonlocal step
        batch = data.batch(step * 8 + rows * world.place.data, rows)
        logits = called(batch["tokens"], batch.get("positions"))
        accelerator.backward(cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=-100))
        accelerator.clip_grad_norm_(called.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1

    return advance


def member(rank: int, port: int, name: str, pipe: Any) -> None:
    """One of two processes: both loops in turn; the first sends the medians."""
    import torch
    import torch.distributed as dist

    from sanbu.parallel.layout import Layout
    from sanbu.parallel.world import join
    from sanbu.recipes import make

    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",  # or accelerate takes as many threads as there are cores, in each process
        "MKL_NUM_THREADS": "1",
    }
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    recipe, rest = make("gpt2", CHANGES)
    recipe = recipe.change(*rest, layout=Layout(**LAYOUTS[name]), steps=10_000).resolve()
    with join(recipe.layout, "cpu") as world:
        loops = {"sanbu": ours(recipe, world), "torch": bare(recipe, world, name)}
        if name == "data":
            loops["accelerate"] = accelerated(recipe, world)
        found: dict[str, list[float]] = {each: [] for each in loops}
        for number in range(ROUNDS + 1):
            for each, step in loops.items():
                dist.barrier()
                since = time.perf_counter()
                for _ in range(STEPS):
                    step()
                if number:
                    found[each].append((time.perf_counter() - since) / STEPS)
        if rank == 0:
            pipe.send(found)
    dist.destroy_process_group()


def overhead(name: str) -> dict[str, float]:
    """Seconds per step of both, and by how much ours is slower: the median of the ratios within a round."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipe, theirs = context.Pipe()
    processes = [context.Process(target=member, args=(rank, port, name, theirs)) for rank in range(2)]
    for process in processes:
        process.start()
    found = pipe.recv()
    for process in processes:
        process.join()
    ratios = [ours / bare for ours, bare in zip(found["sanbu"], found["torch"], strict=True)]
    seconds = {f"{each}_seconds": statistics.median(values) for each, values in found.items()}
    figures = {**seconds, "overhead": statistics.median(ratios) - 1}
    if "accelerate" in found:  # the same rows: tokens per second of ours over theirs
        both = zip(found["accelerate"], found["sanbu"], strict=True)
        figures["speed_beside_accelerate"] = statistics.median(theirs / ours for theirs, ours in both)
    return figures


# -- start ------------------------------------------------------------------------------------------------------------


def start() -> dict[str, float]:
    """Seconds to the first step of 4 processes, and from a kill to the next step."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        changes = [*CHANGES, "schedule.steps=100000", "schedule.checkpoint_every=5", "layout.data=4", "model.width=64"]
        command = [sys.executable, "-m", "sanbu", "train", "gpt2", "--run", str(folder), *changes]
        since = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        first = wait_for(folder, 1) - since
        wait_for(folder, 12)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        killed = time.perf_counter()
        os.kill(int(children[-1]), signal.SIGKILL)
        time.sleep(1.0)
        steps = len((folder / "metrics.jsonl").read_text().splitlines())
        again = wait_for(folder, steps + 1) - killed
        process.terminate()
        process.wait(60)
    return {"first_step_seconds": first, "restart_seconds": again}


def wait_for(folder: Path, steps: int) -> float:
    """The time when the metrics have so many steps."""
    path = folder / "metrics.jsonl"
    while not path.exists() or len(path.read_text().splitlines()) < steps:
        time.sleep(0.02)
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("overhead", "start"))
    parser.add_argument("--layout", choices=tuple(LAYOUTS), help="of overhead; default: all")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures: dict[str, Any] = {}
    if given.part in (None, "overhead"):
        chosen = [given.layout] if given.layout else LAYOUTS
        figures |= {f"overhead.{name}": overhead(name) for name in chosen}
    if given.part in (None, "start"):
        figures["start"] = start()
    if given.json:
        print(json.dumps(figures))
        return
    for name, values in figures.items():
        print(f"{name:16}" + "  ".join(f"{key} {value:.3f}" for key, value in values.items()))


if __name__ == "__main__":
    main()
