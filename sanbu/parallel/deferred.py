"""Models that are built without contents and filled part by part, so that no rank ever holds one whole.

Under a tape a model is built on the meta device, where tensors have shapes alone. The tape notes every operation. It
draws the random numbers of those that fill a tensor and forgets them, so that the generator moves on as otherwise, and
notes the state of the generator before. Later the operations that filled one tensor are repeated on real memory: the
numbers are those of a model that is built whole, and one tensor at a time is whole. Everything is drawn twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from sanbu.machine import local

IS_META = Tensor.is_meta.__get__  # type: ignore[attr-defined]
META, CPU = torch.device("meta"), torch.device("cpu")
FILLS = ("normal_", "uniform_", "zero_", "fill_", "copy_")  # operations that leave nothing of what was there before


@dataclass(frozen=True)
class Call:
    """One operation. state: of the generator before, where the operation draws random numbers."""

    function: Any
    given: tuple[Any, dict[str, Any]]
    result: Any
    state: Tensor | None

    @property
    def changes(self) -> bool:
        """Whether it changes one of its arguments."""
        return bool(self.function._schema.is_mutable)

    def fills(self) -> bool:
        """Whether it overwrites all of the storage of its first argument."""
        target = self.given[0][0] if self.given[0] else None
        if self.function.__name__.partition(".")[0] not in FILLS or not isinstance(target, Tensor):
            return False
        return target.numel() * target.element_size() == target.untyped_storage().nbytes()


class Tape(TorchDispatchMode):
    """Notes the operations under it. Use it with torch.device("meta")."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = args, kwargs or {}
        state = None
        if torch.Tag.nondeterministic_seeded in function.tags:
            state = torch.get_rng_state()
            positional, named = tree_map(Memory().real, given)
            function(*positional, **named)
        result = function(*given[0], **given[1])
        self.calls.append(Call(function, given, result, state))
        return result

    def make(self, tensor: Tensor) -> Tensor:
        """The contents of a tensor that was built under the tape."""
        memory = Memory()
        for call in self.calls_for(tensor):
            memory.repeat(call)
        return memory.real(tensor)

    def calls_for(self, tensor: Tensor) -> list[Call]:
        """The operations from which the contents of a tensor follow, in their order."""
        needed, found = {storage_of(tensor)}, []
        for call in reversed(self.calls):
            written = {storage_of(each) for each in tensors_in(call.result)}
            if not needed & written:
                continue
            found.append(call)
            if call.fills():
                needed -= written
                needed |= {storage_of(each) for each in tensors_in(call.given[0][1:])}
            else:
                needed |= {storage_of(each) for each in tensors_in(call.given)}
        return found[::-1]


class Contents(TorchFunctionMode):
    """Data can be put into tensors without contents; and torch does not leave out what fills them."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function == IS_META:
            return False
        if function in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor):
            return function(*args, **{**(kwargs or {}), "device": CPU}).to(META)
        return function(*args, **(kwargs or {}))


class Memory:
    """Real tensors in the place of those without contents, by storage."""

    def __init__(self) -> None:
        self.held: dict[int, Tensor] = {}

    def real(self, value: Any) -> Any:
        """A value with real memory: a tensor, or the device that tensors are made on."""
        if value == META:
            return CPU
        if not isinstance(value, Tensor) or not value.is_meta:
            return value
        number = storage_of(value)
        if number not in self.held:
            size = value.untyped_storage().nbytes() // value.element_size()
            self.held[number] = torch.empty(size, dtype=value.dtype)
        return self.held[number].as_strided(value.shape, value.stride(), value.storage_offset())

    def repeat(self, call: Call) -> None:
        """Do an operation again; a view needs nothing to be done."""
        results = tensors_in(call.result)
        if not call.changes and all(storage_of(each) in self.held for each in results):
            return
        if call.state is not None:
            torch.set_rng_state(call.state)
        positional, named = tree_map(self.real, call.given)
        made = tensors_in(call.function(*positional, **named))
        if not call.changes:
            for empty, tensor in zip(results, made, strict=True):
                self.held[storage_of(empty)] = tensor


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors in a tree."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def storage_of(tensor: Tensor) -> int:
    """The storage of a tensor, which its views share."""
    return int(tensor.untyped_storage()._cdata)


# -- models -----------------------------------------------------------------------------------------------------------

Models = dict[str, nn.Module]


@dataclass(frozen=True)
class Hollow:
    """Models without contents, and their tensors as they were built, by model and name."""

    tape: Tape
    built: Mapping[str, Mapping[str, Tensor]]

    def fill(self, models: Models, device: torch.device) -> None:
        """Fill the models on this device: of what is divided, the part of this rank."""
        from sanbu.parallel.stored import as_held

        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for model, tensors in self.built.items():
                models[model].to_empty(device=device)
                for name, held in named_tensors(models[model]):
                    local(held).copy_(local(as_held(held, self.tape.make(tensors[name]))))


def build_hollow(build: Callable[[], Models]) -> tuple[Models, Hollow | None]:
    """Models without contents, and what fills them; whole models where one cannot be built without contents."""
    tape = Tape()
    before = torch.get_rng_state()
    try:
        with META, Contents(), tape:
            models = build()
    except (NotImplementedError, RuntimeError, TypeError):  # it asks for contents
        torch.set_rng_state(before)
        return build(), None
    if any(left_over(module) for module in models.values()):
        torch.set_rng_state(before)
        return build(), None
    return models, Hollow(tape, {name: dict(named_tensors(module)) for name, module in models.items()})


def named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers under each of their names."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def left_over(module: nn.Module) -> bool:
    """Whether a module keeps tensors of which it does not know, so that they would stay empty; or has real ones."""
    known = {id(tensor) for _, tensor in named_tensors(module)}
    kept = [tensor for part in module.modules() for tensor in tensors_in(list(vars(part).values()))]
    real = any(not tensor.is_meta for _, tensor in named_tensors(module))
    return real or any(tensor.is_meta and id(tensor) not in known for tensor in kept)
