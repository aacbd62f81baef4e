"""Folders of derived data, kept under ~/.cache/sanbu or $SANBU_CACHE, each named by the hash of its inputs.

A folder appears atomically, with the hashes of its files in `hashes.json`. One that no longer matches them is made
again, with a warning. Of several processes that need a folder at once, one makes it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from sanbu.files import (
    FileError,
    cache_root,
    check_seal,
    file_hash,
    read_object,
    remove,
    replace_atomically,
    seal,
    write_json,
)
from sanbu.progress import interruptible

HASHES = "hashes.json"


def cache_folder(name: str, make: Callable[[Path], object]) -> Path:
    """The cache folder of that name; `make` fills it, in a temporary place, when it is missing or damaged."""
    root = cache_root()
    folder = root / name
    if not is_intact(folder):
        root.mkdir(parents=True, exist_ok=True)
        with interruptible(), FileLock(root / f".{name}.lock"):
            if not is_intact(folder):
                remove(folder)
                with replace_atomically(folder) as temporary:
                    temporary.mkdir()
                    make(temporary)
                    write_json(temporary / HASHES, seal({"files": hashes(temporary)}))
    return folder


def is_intact(folder: Path) -> bool:
    """Whether a cache folder exists and its files match their hashes; warns where they do not."""
    if not (folder / HASHES).exists():  # absent, or from a version without hashes
        return False
    try:
        known = read_object(folder / HASHES, "files")
        check_seal(folder / HASHES, known)
        intact = bool(known["files"] == hashes(folder))
    except FileError:
        intact = False
    if not intact:
        warnings.warn(f"{folder} is damaged and is made again", stacklevel=3)
    return intact


def hashes(folder: Path) -> dict[str, str]:
    """The hash of each file in a folder, without that of the hashes."""
    return {path.name: file_hash(path) for path in sorted(folder.iterdir()) if path.name != HASHES}
