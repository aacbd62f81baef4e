"""Device, precision, compilation and threads: decided once for a run, and measured rather than assumed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.utils.checkpoint import checkpoint

from sanbu.config import Auto, Config, SanbuError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
ROWS, PRODUCTS = 128, 10  # of the products that decide how many threads pay


class MachineConfig(Config):
    """The machine settings of a recipe; `auto` chooses by measurement."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="precision of the forward and backward pass"
    )
    compile: Literal["auto", "on", "off"] = Field("auto", description="whether to torch.compile the models")
    recompute: Literal["off", "on"] = Field(
        "off", description="recompute each block's activations in the backward pass; slower, uses less memory"
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | Auto = Field("auto", description="CPU threads per operation")


class MachineError(SanbuError):
    """The recipe asks for something this machine does not have."""


@dataclass(frozen=True)
class Machine:
    """The machine settings that a run uses. `reason` says why compilation is off."""

    device: torch.device
    precision: torch.dtype
    compile: bool
    threads: int
    reason: str = ""
    recompute: bool = False

    def describe(self) -> str:
        """A summary of one line."""
        compiled = "compiled" if self.compile else f"not compiled ({self.reason})"
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.device}, {threads}, {str(self.precision).removeprefix('torch.')}, {compiled}"

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """A context for each forward pass: autocast where the precision is below float32."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.precision)

    def prepare(self, module: nn.Module) -> nn.Module:
        """Move a module to the device and compile it in place where that pays. One without contents stays so."""
        if not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
            module.to(self.device)
        if self.recompute:
            recompute(module)
        if self.compile:
            module.compile()
        return module


def decide(config: MachineConfig, processes: int = 1) -> Machine:
    """The settings for this machine, whose cores so many processes share. Raises MachineError for what it has not."""
    device = find_device(config.device)
    if config.threads != "auto":
        torch.set_num_threads(config.threads)
    elif processes > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    if device.type == "cpu":
        torch.set_flush_denormal(True)  # tiny gradients otherwise make a backward pass tens of times slower
        reuse_memory()
    else:
        torch.set_float32_matmul_precision("high")
    reason = why_not_compile(config.compile, device)
    precision, threads = find_precision(config.precision, device), torch.get_num_threads()
    return Machine(device, precision, not reason, threads, reason, config.recompute == "on")


def local(tensor: Any) -> Any:
    """The part of a tensor that this process holds, where several divide it."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def recompute(module: nn.Module) -> None:
    """Activation checkpointing: recompute each block in the backward pass (Chen and others, 2016)."""
    blocks = [block for part in module.modules() for block in submodules(getattr(part, "blocks", None))]
    for block in blocks:
        block.forward = partial(again, block.forward)


def again(forward: Callable[..., Any], *inputs: Any) -> Any:
    """A forward pass that does not keep its activations, where gradients are enabled."""
    return checkpoint(forward, *inputs, use_reentrant=False) if torch.is_grad_enabled() else forward(*inputs)


def submodules(blocks: Any) -> list[nn.Module]:
    """The modules in a list or dictionary of modules."""
    return list(blocks.children()) if isinstance(blocks, (nn.ModuleDict, nn.ModuleList)) else []


def reuse_memory() -> None:
    """Let glibc keep freed memory: returning large tensors to the system at every step costs a fifth of the speed."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL("libc.so.6")
            library.mallopt(M_MMAP_THRESHOLD, 1 << 30)
            library.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def column_major(model: nn.Module) -> nn.Module:
    """Store the matrices of linear layers column by column: products with few rows are up to 1.6 times as fast.

    Nothing else changes; an output matrix that is also the embedding stays as it is, since rows are looked up in it.
    """
    shared = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        if isinstance(module, nn.Linear) and id(module.weight) not in shared:
            module.weight.data = module.weight.data.t().contiguous().t()
    return model


def ready_to_draw(model: nn.Module) -> nn.Module:
    """Prepare a module for inference: matrices column by column, convolutions channels last, freed memory kept."""
    reuse_memory()
    for module in column_major(model).modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1:  # others serve as plain matrices too
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return model


def find_device(name: str) -> torch.device:
    """The named device, or the best available one. Raises MachineError if it is missing."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if available[device])
    if not available[name]:
        have = ", ".join(device for device, there in available.items() if there)
        raise MachineError(f"machine.device: given {name!r}, but this machine has no such device; available: {have}")
    return torch.device(name)


@contextlib.contextmanager
def fitting_threads(module: nn.Module) -> Iterator[int]:
    """Within it, operations on a CPU use one thread or all, whichever is faster for a module; gives their number.

    Small products gain nothing from a second thread, and on a busy machine the threads wait for each other. Measured
    in milliseconds, on products with the largest matrix of the module, so a busy machine is noticed.
    """
    every = torch.get_num_threads()
    matrices = [parameter.detach().flatten(1) for parameter in module.parameters() if parameter.ndim > 1]
    if every == 1 or not matrices or matrices[0].device.type != "cpu":
        yield every
        return
    largest = max(matrices, key=torch.numel)
    rows = torch.ones(ROWS, largest.shape[1], dtype=largest.dtype)

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        rows @ largest.mT
        since = time.perf_counter()
        for _ in range(PRODUCTS):
            rows @ largest.mT
        return time.perf_counter() - since

    try:
        torch.set_num_threads(1 if seconds(1) + seconds(1) < seconds(every) + seconds(every) else every)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(every)


def find_precision(name: str, device: torch.device) -> torch.dtype:
    """The given precision; for auto, bfloat16 where it is measured to be faster than float32."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    return torch.bfloat16 if bfloat16_pays(device.type) else torch.float32


@lru_cache
def bfloat16_pays(device: str) -> bool:
    """Whether a bfloat16 product is at least 1.5 times as fast as a float32 one. Measured once, in about 50 ms."""
    if device == "mps":
        return False

    return product_flops(device, torch.bfloat16) > 1.5 * product_flops(device, torch.float32)


def product_flops(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product, the best of six: about the peak of the device for a model."""
    size = 512 if device == "cpu" else 4096
    a = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def why_not_compile(wish: str, device: torch.device) -> str:
    """Why a run is not compiled; an empty text when it is."""
    if wish == "off":
        return "machine.compile=off"
    if device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        return "no C++ compiler found"
    if device.type == "mps":
        return "not tested on this device"
    if wish == "auto" and device.type == "cpu":
        return "no gain measured on a CPU; machine.compile=on tries it"
    return ""
