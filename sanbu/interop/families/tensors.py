"""Names and layouts of tensors: rules that lead from their tensors to ours and back, bit for bit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sanbu.config import nearest
from sanbu.interop.families.sheet import InteropError

Tensors = dict[str, Tensor]
BUFFERS = re.compile(r"(attn|attention)\.(masked_)?bias$|rotary_emb\.inv_freq$")  # constants in older files
QUANTISED = re.compile(
    r"\.(SCB|qweight|qzeros|g_idx|scales|absmax|quant_map|weight_format|weight_packed|weight_shape"
    r"|(weight|input|output)_(global_)?scale(_inv)?|weight\.(absmax|quant_map|nested_.*|quant_state\..*))$"
)
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Rule:
    """One of their tensors and the tensors of ours that it holds."""

    theirs: str
    ours: tuple[str, ...]
    split: Callable[[Tensor], Sequence[Tensor]]
    join: Callable[[Sequence[Tensor]], Tensor]


def same(theirs: str, ours: str) -> Rule:
    """The same tensor under another name."""
    return Rule(theirs, (ours,), lambda tensor: [tensor], lambda parts: parts[0])


def transposed(theirs: str, ours: str) -> Rule:
    """A matrix with inputs as rows, as GPT-2 stores it; a vector unchanged."""
    return Rule(theirs, (ours,), lambda tensor: [transpose(tensor)], lambda parts: transpose(parts[0]))


def stacked(theirs: str, ours: Sequence[str], rows: Sequence[int]) -> Rule:
    """Matrices or vectors below each other, with so many rows each."""
    return Rule(theirs, tuple(ours), lambda tensor: tensor.split(list(rows)), lambda parts: torch.cat(list(parts)))


def transposed_stack(theirs: str, ours: Sequence[str]) -> Rule:
    """Transposed matrices of one size side by side."""
    return Rule(
        theirs,
        tuple(ours),
        lambda tensor: [transpose(part) for part in tensor.chunk(len(ours), -1)],
        lambda parts: transpose(torch.cat(list(parts))),
    )


def by_head(theirs: str, ours: Sequence[str], heads: int) -> Rule:
    """Matrices or vectors whose rows alternate by head: the first of head 0, the second of head 0, ..."""

    def split(tensor: Tensor) -> list[Tensor]:
        return [part.flatten(0, 1) for part in tensor.unflatten(0, (heads, len(ours), -1)).unbind(1)]

    def join(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack([part.unflatten(0, (heads, -1)) for part in parts], 1).flatten(0, 2)

    return Rule(theirs, tuple(ours), split, join)


def transpose(tensor: Tensor) -> Tensor:
    """The transpose of a matrix; a vector unchanged."""
    return (tensor.T if tensor.ndim == 2 else tensor).contiguous()


def tensors_in(theirs: Tensors, rules: Sequence[Rule]) -> Tensors:
    """Our tensors, from theirs after `check_tensors`."""
    return {
        name: part.contiguous()
        for rule in rules
        for name, part in zip(rule.ours, rule.split(theirs[rule.theirs]), strict=True)
    }


def tensors_out(ours: Tensors, rules: Sequence[Rule]) -> Tensors:
    """Their tensors, from ours."""
    return {rule.theirs: rule.join([ours[name] for name in rule.ours]) for rule in rules}


def with_prefix(theirs: Tensors, rules: Sequence[Rule], prefix: str) -> Tensors:
    """Their tensors under full names: a model saved without its head leaves the prefix out."""
    wanted = {rule.theirs for rule in rules}
    full = {name: prefix + name if prefix + name in wanted else name for name in theirs}
    return {full[name]: tensor for name, tensor in theirs.items()}


def check_tensors(theirs: Tensors, rules: Sequence[Rule], shapes: dict[str, torch.Size], place: Path) -> None:
    """Raise InteropError for quantised, missing or unknown tensors, and for other shapes. shapes: of our tensors."""
    for name, tensor in theirs.items():
        strange = tensor.dtype not in FLOATS and not BUFFERS.search(name)
        if strange or QUANTISED.search(name):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InteropError(
                f"{place}: the weights are quantised ({name!r} is {kind}); import the model in float32, float16 or"
                " bfloat16"
            )
    empty = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    expected = {name: list(tensor.shape) for name, tensor in tensors_out(empty, rules).items()}
    for name, shape in expected.items():
        if name not in theirs:
            raise InteropError(f"{place}: there is no tensor {name!r} in its weights")
        if list(theirs[name].shape) != shape:
            raise InteropError(f"{place}: {name!r} has shape {list(theirs[name].shape)}, expected {shape}")
    for name in theirs:
        if name not in expected and not BUFFERS.search(name):
            raise InteropError(f"{place}: unknown tensor {name!r}{nearest(name, expected)}")
