"""Tables and text fit the width there is: nothing is cut, needed columns are there, numbers stand at the right."""

import io
import os
import subprocess
import sys

from rich.cells import cell_len
from rich.console import Console as Screen

from sanbu.display.tables import Column, FittedTable, fold, output_width

COLUMNS = (
    Column("name", number=False),
    Column("KID x1e3"),
    Column("precision", 2),
    Column("copies", 1),
    Column("empty", 1),
    Column("trained, CPU s", 3),
)
ROWS = (
    ("flow, 4 steps", "1.60 ±0.06", "0.99", "0.05", "", "62"),
    ("real half of it", "-0.21 ±0.18", "0.97", "1.00", "", ""),
    ("生成模型", "12.00", "1.00", "0.00", "", "1,062"),
)
TABLE = FittedTable(COLUMNS, ROWS, rest="wider terminal, or FILE.json")


def plain(width, table=TABLE):
    return [line.plain for line in table.lines(width)]


def test_nothing_is_cut_and_no_line_is_too_long():
    for width in range(2, 130):
        lines = plain(width)
        assert all(cell_len(line) <= width for line in lines) and "…" not in "".join(lines)
        together = "".join("".join(lines).split())
        for row in ROWS:  # in a grid or in a block, name and KID are whole
            assert all("".join(cell.split()) in together for cell in row[:2]), lines


def test_columns_come_in_the_order_of_their_rank():
    """Each wider table shows the columns of the narrower one, and says how many more there are."""
    seen = {}
    for width in range(30, 90):
        lines = plain(width)
        head = " ".join(lines[: len(lines) - len(ROWS) - (lines[-1].endswith(")") or lines[-2].startswith("("))])
        shown = tuple(word for word in ("copies", "precision", "trained,") if word in head)
        left = 3 - len(shown)
        said = " ".join(lines[-2:])
        assert (f"({left} more column{'s' if left > 1 else ''}: wider terminal" in said) == (left > 0), (width, lines)
        seen[shown] = seen.get(shown, width)
    assert list(seen) == [(), ("copies",), ("copies", "precision"), ("copies", "precision", "trained,")]
    assert "empty" not in str(seen) and not any("empty" in line for line in plain(129))


def test_numbers_stand_at_the_right_and_titles_above_them():
    assert plain(100) == [
        "                                                 trained,",
        "name                KID x1e3  precision  copies     CPU s",
        "flow, 4 steps     1.60 ±0.06       0.99    0.05        62",
        "real half of it  -0.21 ±0.18       0.97    1.00",
        "生成模型               12.00       1.00    0.00     1,062",
    ]


def test_a_block_per_row_where_the_needed_columns_do_not_fit():
    needed = FittedTable([Column("name", number=False), *map(Column, ("KID x1e3", "copies, too"))], [ROWS[0][:3]])
    assert plain(27, needed) == ["flow, 4 steps", "  KID x1e3     1.60 ±0.06", "  copies, too        0.99"]
    assert plain(20, needed) == ["flow, 4 steps", "  KID x1e3: 1.60", "  ±0.06", "  copies, too: 0.99"]


def test_rich_prints_the_same_lines():
    """By `rich.print`, as the demo does, and by a console that wraps nothing, as standard error does."""
    for soft in (False, True):
        for width in (20, 60, 80):
            file = io.StringIO()
            Screen(file=file, width=width, soft_wrap=soft).print(TABLE)
            assert [line.rstrip() for line in file.getvalue().splitlines()] == plain(width)


def test_the_width_is_of_columns_then_of_the_terminal_then_80(monkeypatch):
    monkeypatch.setenv("COLUMNS", "97")
    assert output_width() == 97
    code = "from sanbu.display.tables import output_width; print(output_width())"
    kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept)
    assert done.stdout == "80\n"


def test_text_is_folded_at_spaces_and_between_alternatives():
    assert fold("one two three four", 9, "  ") == ["one two", "  three", "  four"]
    assert fold("gpt1|gpt2|gpt3", 11) == ["gpt1|gpt2|", "gpt3"]
    assert fold("see /a/long/path/to/a/file now", 10) == ["see", "/a/long/path/to/a/file", "now"]
    assert fold("  indented\n\nnext", 20) == ["  indented", "", "next"] and fold("", 5) == [""]
