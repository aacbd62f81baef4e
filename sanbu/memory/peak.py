"""The most memory that code would take at once, found by running it on tensors that have shapes and no contents.

Under FakeTensorMode every operation computes shapes alone, in time that does not depend on sizes, and draws no random
number. What a step decides from contents is answered in the way that takes the most memory: `Answers`.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sanbu.memory.heap import Heap

RECORD = 400  # bytes of what describes a tensor and its place in the graph
TRUTHS = (Tensor.__bool__,)
WHOLES = (Tensor.__int__, Tensor.__index__)
FILLS = (Tensor.normal_, Tensor.uniform_, Tensor.zero_, Tensor.fill_)
NUMBERS = (Tensor.__float__, Tensor.item)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Within it, tensors on any device have shapes and no contents."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # an import of a second or two, which small runs spare

    class Shapes(FakeTensorMode):
        def __deepcopy__(self, memo: Any) -> Shapes:
            return self  # a copy of a tensor belongs to the same mode

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), Shapes():
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        yield


class Peak(TorchDispatchMode):
    """Bytes of all tensors that were made under it and still live, and the most of them so far; and their heap."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.most, self.heap = 0, 0, Heap()
        self.known: dict[int, Any] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.add(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Count the storages of these tensors until they end."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            number, size = storage._cdata, storage.nbytes()
            if number not in self.known and size:
                places = self.heap.take(size), self.heap.take(RECORD)
                self.known[number] = weakref.finalize(storage, self._end, number, size, places)
                self.live += size
                self.most = max(self.most, self.live)

    def _end(self, number: int, size: int, places: tuple[int, int]) -> None:
        del self.known[number]
        self.live -= size
        for place in places:
            self.heap.give(place)


class Unfilled(TorchFunctionMode):
    """Leaves out what fills tensors in place: on the meta device it has no effect but an import of two seconds."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if function in FILLS else function(*args, **(kwargs or {}))


class Answers(TorchFunctionMode):
    """Answers to questions about contents: true, 0, and `longest` for a maximum; a choice of rows takes all rows."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.longest = longest

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        first: Any = args[0] if args else None
        if function in TRUTHS:
            return True
        if function in WHOLES or function in NUMBERS:
            value = self.longest if getattr(first, "is_largest", False) else 0
            whole = function in WHOLES or not (first.is_floating_point() or function is Tensor.__float__)
            return value if whole else float(value)
        if function is Tensor.tolist:
            return zeros(tuple(first.shape))
        if function in (Tensor.nonzero, torch.nonzero) and not kwargs.get("as_tuple"):
            return torch.zeros(first.numel(), first.ndim, dtype=torch.long)
        if function is Tensor.__getitem__ and is_mask(args[1]):
            return first.flatten(0, args[1].ndim - 1).clone()
        result = function(*args, **kwargs)
        if function in (Tensor.max, Tensor.amax) and len(args) == 1 and not kwargs:
            result.is_largest = True
        return result


def is_mask(index: Any) -> bool:
    """Whether an index is a tensor of booleans."""
    return isinstance(index, Tensor) and index.dtype == torch.bool


def zeros(shape: tuple[int, ...]) -> Any:
    """Nested lists of zeros."""
    return [zeros(shape[1:]) for _ in range(shape[0])] if shape else 0
