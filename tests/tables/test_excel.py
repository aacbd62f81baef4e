"""Tables from Excel files."""

import sys

import pytest

from sanbu.config import SanbuError
from sanbu.data.table_files import read_frame
from sanbu.data.tables import Table


def write(path, rows):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return str(path)


def test_excel_has_the_rows_of_csv(tmp_path):
    rows = [["age", "name"], *([20 + number, "ab"[number % 2]] for number in range(30)), [None, "a"]]
    found = read_frame(write(tmp_path / "table.xlsx", rows))
    text = "\n".join(",".join("" if cell is None else str(cell) for cell in row) for row in rows)
    (tmp_path / "table.csv").write_text(text)
    expected = read_frame(str(tmp_path / "table.csv"))
    assert found.names == expected.names and len(found) == len(expected) == 31
    kinds = [Table(path=str(tmp_path / f"table.{end}"), target="none").build() for end in ("xlsx", "csv")]
    assert [column.type for column in kinds[0].features.columns] == ["integer", "category"]
    assert kinds[0].features.columns == kinds[1].features.columns
    assert kinds[0].parts["train"].nan_to_num().equal(kinds[1].parts["train"].nan_to_num())


def test_without_the_extra_one_line_names_it(tmp_path, monkeypatch):
    path = write(tmp_path / "table.xlsx", [["a", "b"], [1, 2]])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(SanbuError, match=r"needs openpyxl: pip install 'sanbu\[tables\]'"):
        read_frame(path)
