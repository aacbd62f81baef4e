"""The weights of a Hugging Face folder: model.safetensors, or the files that its index names."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from sanbu.files import read_object, read_tensors
from sanbu.interop.families.sheet import InteropError
from sanbu.progress import progress_bytes

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_shards(folder: Path) -> dict[str, Tensor]:
    """All tensors of the model, as transformers finds them; other files in the folder do not count."""
    if (folder / ONE).is_file():
        return read_tensors(folder / ONE)
    if (folder / INDEX).is_file():
        return read_indexed(folder)
    found = sorted(file.name for file in folder.glob("*.safetensors"))
    if found:
        raise InteropError(f"{folder}: no {INDEX} says whether {found[0]} belongs to the model, and there is no {ONE}")
    raise InteropError(f"{folder} has no {ONE} (pickled weights are not read)")


def shard_paths(folder: Path) -> list[Path]:
    """The files that `read_shards` reads; none where it would refuse the folder."""
    if (folder / ONE).is_file():
        return [folder / ONE]
    if not (folder / INDEX).is_file():
        return []
    places = read_object(folder / INDEX).get("weight_map")
    names = set(map(str, places.values())) if isinstance(places, dict) else set()
    return [folder / name for name in sorted(names)]


def read_indexed(folder: Path) -> dict[str, Tensor]:
    """The tensors that the index names, each from the file that it names."""
    index = folder / INDEX
    places = read_object(index, "weight_map")["weight_map"]
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise InteropError(f"{index}: weight_map must lead from names of tensors to names of files")
    files, tensors = sorted(set(places.values())), {}
    wrong = next((file for file in files if Path(file).name != file), None)
    if wrong is not None:
        raise InteropError(f"{index}: {wrong!r} is not the name of a file in this folder")
    sizes = {file: (folder / file).stat().st_size for file in files if (folder / file).is_file()}
    with progress_bytes("reading weights", sum(sizes.values())) as progress:
        for file in files:
            held = read_tensors(folder / file)
            for name in [name for name, place in places.items() if place == file]:
                if name not in held:
                    raise InteropError(f"{index}: {name!r} is not in {file}")
                tensors[name] = held[name]
            progress(sizes[file])
    return tensors
