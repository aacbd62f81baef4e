"""How much memory this process may still take: what the machine, a control group and a limit of the shell leave."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60


@dataclass(frozen=True)
class Room:
    """Bytes that can still be taken. addresses: the limit counts mapped files and unused reservations too."""

    bytes: int
    addresses: bool = False


def room(device: str = "cpu") -> Room:
    """What is left on a device: of all limits the smallest. On a CPU, swap counts as memory."""
    if device == "cuda":
        import torch

        return Room(torch.cuda.mem_get_info()[0])
    limits = [Room(machine_bytes()), *(Room(left) for left in group_bytes()), Room(address_bytes(), True)]
    return min(limits, key=lambda limit: limit.bytes)


def room_per_rank(device: str, here: int) -> int:
    """Bytes that each of the ranks on this machine may take: each has its own GPU, and all share one CPU memory."""
    return room(device).bytes // (here if device != "cuda" else 1)


def machine_bytes() -> int:
    """Memory of the machine that programs can take: free, or used for nothing but copies of files, and swap."""
    facts = kilobytes(PROC / "meminfo")
    if "MemAvailable" in facts:
        return 1024 * (facts["MemAvailable"] + facts.get("SwapFree", 0))
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return UNLIMITED


def group_bytes() -> Iterator[int]:
    """What each control group of this process leaves, of version 2 and 1, as in containers."""
    for line in lines(PROC / "self/cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            names, place = ("memory.max", "memory.current", "inactive_file"), GROUPS / path.lstrip("/")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            place = GROUPS / "memory" / path.lstrip("/")
        else:
            continue
        top = GROUPS if controllers == "" else GROUPS / "memory"
        for folder in (place, *place.parents):
            yield left_of(folder, *names)
            if folder == top:
                break


def left_of(folder: Path, most: str, used: str, files: str) -> int:
    """The limit of one group less its use; copies of files that nobody reads do not count as used."""
    values = [next(iter(lines(folder / name)), "") for name in (most, used)]
    if not all(value.isdigit() for value in values):
        return UNLIMITED
    facts = dict(line.split(maxsplit=1) for line in lines(folder / "memory.stat"))
    taken = int(values[1]) - int(facts.get(files, 0))
    return max(0, int(values[0]) - max(0, taken))


def address_bytes() -> int:
    """What `ulimit -v` leaves of the address space."""
    if sys.platform == "win32":
        return UNLIMITED
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return UNLIMITED
    return max(0, limit - 1024 * kilobytes(PROC / "self/status").get("VmSize", 0))


def kilobytes(path: Path) -> dict[str, int]:
    """The fields "Name: 123 kB" of a file of the kernel."""
    found = (line.split() for line in lines(path))
    sizes = [words for words in found if words[2:] == ["kB"]]
    return {words[0].rstrip(":"): int(words[1]) for words in sizes}


def lines(path: Path) -> list[str]:
    """The lines of a file; none where it cannot be read."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8").splitlines()
    return []
