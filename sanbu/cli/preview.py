"""Training rows as a person can check them: every token with what becomes of it; what was done to pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.space import IGNORED, Batch

State = Literal["taught", "read", "padding"]
STYLES: dict[State, str] = {"taught": "bold green", "read": "default", "padding": "dim"}


@dataclass(frozen=True)
class Shown:
    """A token's text, its id, and whether the loss asks for it."""

    piece: str
    number: int
    state: State


def tokens_of(data: Any, rows: int) -> list[list[Shown]]:
    """The first rows of training. Raises SanbuError for data that has no tokens."""
    batch = data.batch(0, min(rows, data.rows))
    if "tokens" not in batch:
        raise SanbuError("preview shows tokens or pictures, and this data has neither")
    tokenizer = data.codec.tokenizer
    tokens = batch["tokens"].flatten(0, -2)
    targets = batch["targets"].flatten(0, -2) if "targets" in batch else tokens * 0 + IGNORED
    return [
        list(mark_tokens(tokenizer, row.tolist(), asked.tolist(), length))
        for row, asked, length in zip(tokens, targets, lengths_of(batch, tokens, targets), strict=True)
    ]


def lengths_of(batch: Batch, tokens_RT: Tensor, targets_RT: Tensor) -> list[int]:
    """How many tokens of each row are not padding, by their place: a token of the text may be the padding token."""
    if "length" in batch:
        return batch["length"].flatten().tolist()
    if "last" in batch:
        return (batch["last"].flatten() + 1).tolist()
    taught_RT = targets_RT != IGNORED
    time_T = torch.arange(1, tokens_RT.shape[1] + 1)
    taught_R = torch.where(taught_RT, time_T, 0).amax(1)
    if "bytes" in batch:  # plain text: each token is a target, so the first that is not follows the text
        return (taught_R + 1).clamp(max=tokens_RT.shape[1]).tolist()
    if "positions" not in batch:
        return [tokens_RT.shape[1]] * len(tokens_RT)
    begin_R = torch.where(batch["positions"] == 0, time_T, 0).amax(1) - 1  # of the last conversation, or of the padding
    return torch.where(taught_R <= begin_R, begin_R, tokens_RT.shape[1]).tolist()


def picture_lines(data: Any, rows: int) -> tuple[dict[str, Any], list[str]]:
    """Pictures: what was read, left out and changed, pictures per class, and the first rows; as fields and as lines."""
    batch = data.batch(0, min(rows, data.rows))
    classes = data.class_counts()
    shown = []
    for levels, label in zip(batch["levels"], batch["label"].tolist(), strict=True):
        name = data.codec.label_name(label) if label < len(classes) else "none"
        mean = round(float(levels.float().mean()), 1)
        shown.append({"label": name, "lowest": int(levels.min()), "highest": int(levels.max()), "mean": mean})
    about = {"data": data.summary(), "remarks": list(data.remarks), "classes": classes, "rows": shown}
    lines = [data.summary(), *(f"  {remark}" for remark in data.remarks)]
    lines += [f"  class {name}: {count:,}" for name, count in classes.items()]
    for number, row in enumerate(shown):
        levels = f"levels {row['lowest']} to {row['highest']}, mean {row['mean']}"
        lines.append(f"row {number}: label {row['label']}, {levels}")
    return about, lines


def mark_tokens(tokenizer: Any, ids: list[int], targets: list[int], length: int) -> Iterator[Shown]:
    """One row, of which the first `length` tokens are not padding; the last target is a token beyond it."""
    for place, number in enumerate(ids):
        taught = place > 0 and targets[place - 1] != IGNORED
        state: State = "taught" if taught else "padding" if place >= length else "read"
        yield Shown(text_of(tokenizer, number), number, state)
    if targets and targets[-1] != IGNORED:
        yield Shown(text_of(tokenizer, targets[-1]), targets[-1], "taught")


def text_of(tokenizer: Any, number: int) -> str:
    """What a token stands for; the name of one that stands for nothing."""
    piece = tokenizer.pieces[number].decode("utf-8", "replace") if number < len(tokenizer.pieces) else ""
    if piece:
        return piece
    file = getattr(tokenizer, "tokenizer", None)
    return (file.id_to_token(number) if file is not None else "<end>") or f"<{number}>"


def show(rows: Sequence[Sequence[Shown]]) -> None:
    """Print rows in colour; what is taught stands in «» besides, for eyes and files that have no colour."""
    from rich.console import Console
    from rich.text import Text

    from sanbu.display.tables import output_width

    console = Console(highlight=False, width=output_width())
    legend = [(f"{name} ", style) for name, style in STYLES.items()]
    console.print(Text.assemble("«taught», read, padding: ", *legend))
    for number, row in enumerate(rows):
        text, last = Text(f"{number}: "), "read"
        for token in row:
            if (token.state == "taught") != (last == "taught"):
                text.append("«" if token.state == "taught" else "»", style="dim")
            if token.state != "padding" or last != "padding":
                text.append("·pad·" if token.state == "padding" else token.piece, style=STYLES[token.state])
            last = token.state
        text.append("»" if last == "taught" else "", style="dim")
        counts = Counter(token.state for token in row)
        text.append("\n   " + ", ".join(f"{counts[name]} {name}" for name in STYLES), style="dim")
        console.print(text)
