"""Tables that fit: columns are chosen by the width there is, and no cell or heading is cut.

The width is COLUMNS where that is set, else that of the terminal, else (output into a file or a pipe) 80.
"""

from __future__ import annotations

import operator
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len, chop_cells
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

WITHOUT_TERMINAL = 80  # characters per line
GAP = 2  # spaces between two columns


@dataclass(frozen=True)
class Column:
    """A column of a table. rank 0: it is always shown; of the others, the lowest ranks that fit are.

    number: its cells stand at the right.
    """

    title: str
    rank: int = 0
    number: bool = True


@dataclass(frozen=True)
class FittedTable:
    """Rows of cells. Where not even the columns of rank 0 fit, each row is a block with one line per column.

    styles: of rich, one per row. rest: where to see all columns. Columns without content are left out.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    styles: Sequence[str] = ()
    title: str = ""
    rest: str = "wider terminal"

    def __str__(self) -> str:
        return "\n".join(line.plain for line in self.lines(output_width()))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.lines(options.max_width)

    def lines(self, width: int) -> list[Text]:
        """The table in lines of at most `width` characters."""
        filled = [
            place
            for place, column in enumerate(self.columns)
            if not column.rank or any(row[place] for row in self.rows)
        ]
        shown = self.choose(filled, width)
        title = [Text(line, "italic") for line in fold(self.title, width)] if self.title else []
        if shown is None:
            return title + self.blocks(filled, width)
        left = len(filled) - len(shown)
        note = fold(f"({left} more column{'s' if left > 1 else ''}: {self.rest})", width) if left else []
        return [*title, *self.grid(shown), *(Text(line, "dim") for line in note)]

    def choose(self, filled: Sequence[int], width: int) -> list[int] | None:
        """The places of the columns that fit, in their order; None if those of rank 0 do not."""
        chosen: list[int] = []
        for place in sorted(filled, key=lambda place: self.columns[place].rank):
            if sum(self.width_of(each) + GAP for each in [*chosen, place]) - GAP <= width:
                chosen.append(place)
            elif self.columns[place].rank:
                break  # a wider terminal shows the same columns and more
            else:
                return None
        return sorted(chosen)

    def width_of(self, place: int) -> int:
        """The width of a column: of its longest cell or word of its title, which may take more lines."""
        words = self.columns[place].title.split()
        cells = [row[place] for row in self.rows]
        return max(map(cell_len, ["", *words, *cells]))

    def grid(self, shown: Sequence[int]) -> list[Text]:
        """One line per row, below the titles."""
        titles = [fold(self.columns[place].title, self.width_of(place)) for place in shown]
        height = max(map(len, titles))
        above = [[""] * (height - len(title)) for title in titles]
        heads = zip(*map(operator.add, above, titles), strict=True)
        rows = [[row[place] for place in shown] for row in self.rows]
        return [
            *(Text(self.line(shown, head), "bold") for head in heads),
            *(Text(self.line(shown, row), style) for row, style in zip(rows, self.all_styles(), strict=True)),
        ]

    def line(self, shown: Sequence[int], cells: Iterable[str]) -> str:
        """Cells beside each other, numbers at the right of their column."""
        parts = []
        for place, cell in zip(shown, cells, strict=True):
            space = " " * (self.width_of(place) - cell_len(cell))
            parts.append(space + cell if self.columns[place].number else cell + space)
        return (" " * GAP).join(parts).rstrip()

    def blocks(self, filled: Sequence[int], width: int) -> list[Text]:
        """One block per row: its first cell, and below it a line per column with its title and its cell."""
        first, *others = filled
        label = max((cell_len(self.columns[place].title) for place in others), default=0)
        value = max((cell_len(row[place]) for row in self.rows for place in others), default=0)
        lines = []
        for row, style in zip(self.rows, self.all_styles(), strict=True):
            texts = fold(row[first], width)
            for place in filter(row.__getitem__, others):
                column, cell = self.columns[place], row[place]
                if label + value + 2 * GAP > width:
                    texts += [" " * GAP + line for line in fold(f"{column.title}: {cell}", width - GAP)]
                else:
                    space = label + GAP - cell_len(column.title)
                    space += value - cell_len(cell) if column.number else 0
                    texts.append(" " * GAP + column.title + " " * space + cell)
            lines += [Text(piece, style) for text in texts for piece in chop_cells(text, width)]
        return lines

    def all_styles(self) -> Sequence[str]:
        """A style per row."""
        return self.styles or [""] * len(self.rows)


def output_width() -> int:
    """Characters per line of standard output."""
    return shutil.get_terminal_size((WITHOUT_TERMINAL, 24)).columns


def fold(text: str, width: int, hang: str = "") -> list[str]:
    """Text in lines of at most `width`, broken at spaces and after |. hang: what each line but the first begins with.

    A word that is longer than a line stays whole, so that a path can be copied.
    """
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for part in re.findall(r" *[^ |]*\|?", paragraph):
            if line.strip() and cell_len(line + part) > width:
                lines.append(line.rstrip())
                line = hang + part.lstrip()
            else:
                line += part
        lines.append(line.rstrip())
    return lines


def folded(text: str, hang: str = "  ") -> str:
    """Text in lines that fit standard output."""
    return "\n".join(fold(text, output_width(), hang))
