"""Atomic writes of files and folders, and trees of tensors without pickles."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanbu.config import SanbuError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn


PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm")  # that programs for FID count
EXPORTED, NOTHING = re.compile(r"\d{4,}\.(png|txt)|grid\.png|refinement\.gif"), re.compile("")


class FileError(SanbuError):
    """A file that cannot be read or written."""


def nearest_file(given: str | Path, names: Iterable[str] = ()) -> str:
    """`nearest` among names, or else among what stands beside a path; hidden files do not count.

    Empty for a path that exists.
    """
    place = Path(given)
    if place.exists():
        return ""
    if found := nearest(str(given), names):
        return found
    try:
        beside = sorted(each.name for each in place.parent.iterdir() if not each.name.startswith("."))
    except OSError:
        return ""
    match = difflib.get_close_matches(place.name, beside, n=1, cutoff=0.6)
    return f"; did you mean {str(place.with_name(match[0]))!r}?" if match else ""


def cache_root() -> Path:
    """Where derived data is kept: $SANBU_CACHE, or ~/.cache/sanbu."""
    return Path(os.environ.get("SANBU_CACHE") or Path.home() / ".cache" / "sanbu")


def fsync(path: Path) -> None:
    """Flush a file, or the list of names of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path`, flushed to disk, if the block succeeds, and is removed otherwise."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if temporary.is_dir():
            for file in temporary.iterdir():
                fsync(file)
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Delete a folder under another name, so that an interruption leaves no half of it."""
    if folder.exists():
        doomed = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        folder.replace(doomed)
        shutil.rmtree(doomed)


def beside(folder: Path, what: str) -> Path:
    """FOLDER-what, next to the folder."""
    whole = folder if folder.name not in ("", "..") else folder.resolve()
    return whole.with_name(f"{whole.name}-{what}")


def written_before(folder: Path) -> list[Path]:
    """The files that an earlier export wrote into a folder, which its overview tells: numbered samples.

    Raises FileError if the folder holds other pictures, which would be counted among the samples.
    """
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    overviews = (folder / "grid.png", folder / "samples.txt", beside(folder, "grid.png"))
    ours = EXPORTED if any(path.exists() for path in overviews) else NOTHING
    earlier = [path for path in found if ours.fullmatch(path.name)]
    other = next((path for path in found if path.suffix.lower() in PICTURES and not ours.fullmatch(path.name)), None)
    if other is not None:
        raise FileError(f"{folder} holds the picture {other.name}, which is no earlier sample; give another folder")
    return earlier


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replace_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises FileError if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise FileError(f"{path} is damaged: it does not read as JSON") from None


def read_object(path: Path, *names: str) -> dict[str, Any]:
    """Read a JSON object with these fields. Raises FileError if it is missing, damaged or of another shape."""
    value = read_json(path)
    if not isinstance(value, dict) or not value.keys() >= set(names):
        raise FileError(f"{path} is damaged or of another kind: it needs a JSON object with {', '.join(names)}")
    return value


def seal(value: dict[str, Any]) -> dict[str, Any]:
    """The object with a hash of its other fields, so that any damage is noticed. See `check_seal`."""
    return {**value, "sha256": hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()}


def check_seal(path: Path, value: dict[str, Any]) -> None:
    """Raise FileError if a sealed object that was read from `path` does not match its hash."""
    rest = {name: field for name, field in value.items() if name != "sha256"}
    if seal(rest) != value:
        raise FileError(f"{path} is damaged, or was changed by hand: it does not match its hash")


def file_hash(path: Path) -> str:
    """The SHA-256 of a file. Raises FileError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from None


def fingerprint(paths: Iterable[Path], more: str = "") -> str:
    """A hash of the names and the contents of files, after a hash of `more`."""
    digest = hashlib.sha256(more.encode())
    for path in paths:
        digest.update(path.name.encode())
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def write_tensors(path: Path, tensors: dict[str, Tensor], facts: dict[str, str] | None = None) -> None:
    """Write a safetensors file; not atomic by itself. facts: saved with the tensors under one hash (see `facts_of`)."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    # one field of metadata only, because safetensors writes several in no fixed order
    about = {"format": "pt"} if facts is None else {"sanbu": json.dumps({**facts, "sha256": tensor_hash(whole, facts)})}
    try:
        save_file(whole, path, about)
    except SafetensorError as error:
        raise FileError(f"cannot write {path}: {error}") from None


def read_tensors(path: Path, sealed: bool = False) -> dict[str, Tensor]:
    """Read a safetensors file. Raises FileError if it is missing or damaged. sealed: it must have a hash."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise FileError(f"{path} is missing or damaged ({error})") from None
    facts = facts_of(path)
    expected = facts.pop("sha256", None)
    if (sealed or expected) and tensor_hash(tensors, facts) != expected:
        raise FileError(f"{path} is damaged: its tensors do not match their hash")
    return tensors


def facts_of(path: Path) -> dict[str, str]:
    """The facts that were saved with the tensors, and their hash as "sha256". Raises FileError if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            found = json.loads((file.metadata() or {}).get("sanbu", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"{path} is missing or damaged ({error})") from None
    return dict(found)


def tensor_hash(tensors: dict[str, Tensor], facts: dict[str, str]) -> str:
    """A hash of names, types, shapes and bytes of tensors, and of facts about them."""
    import torch

    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def pack(tree: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """JSON for a tree of dictionaries, lists, numbers and tensors; the tensors go into `tensors` under their path."""
    import torch

    if isinstance(tree, torch.Tensor):
        tensors[path] = tree
        return {"tensor": path}
    if isinstance(tree, dict):
        return {"pairs": [[key, pack(value, tensors, f"{path}.{key}")] for key, value in tree.items()]}
    if isinstance(tree, (list, tuple)):
        return [pack(value, tensors, f"{path}.{index}") for index, value in enumerate(tree)]
    return tree


def unpack(tree: Any, tensors: Mapping[str, Any]) -> Any:
    """The inverse of `pack`; tuples come back as lists."""
    if isinstance(tree, dict):
        if "tensor" in tree:
            return tensors[tree["tensor"]]
        return {key: unpack(value, tensors) for key, value in tree["pairs"]}
    if isinstance(tree, list):
        return [unpack(value, tensors) for value in tree]
    return tree


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A module's state with each shared tensor once."""
    seen: set[tuple[int, tuple[int, ...]]] = set()
    unique: dict[str, Tensor] = {}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name, tensor in module.state_dict().items():
        if not tensor.numel() or hasattr(tensor, "placements"):  # of tensors that lie on several ranks, the parameter
            identity = (id(parameters.get(name, tensor)), ())
        else:
            identity = (tensor.data_ptr(), tuple(tensor.shape))
        if identity not in seen:
            unique[name] = tensor
        seen.add(identity)
    return unique


def take_shapes(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give the buffers of modules that are fitted to data (`fitted`) the shapes of the tensors that they will hold."""
    for prefix, part in module.named_modules():
        if getattr(part, "fitted", False):
            for name, buffer in part.named_buffers(prefix, recurse=False):
                if name in tensors and tensors[name].ndim == buffer.ndim:
                    setattr(part, name.rpartition(".")[2], buffer.new_zeros(tensors[name].shape))


def load_weights(module: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Fill a module from `weights`. Raises FileError naming the first tensor that does not fit."""
    take_shapes(module, tensors)
    expected = weights(module)
    for name in expected.keys() ^ tensors.keys():
        which = "has no tensor" if name in expected else "has an unknown tensor"
        raise FileError(f"{source} does not fit this model: it {which} {name!r}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            given, want = list(tensor.shape), list(expected[name].shape)
            raise FileError(f"{source} does not fit this model: {name!r} has shape {given}, expected {want}")
    module.load_state_dict(tensors, strict=False)
