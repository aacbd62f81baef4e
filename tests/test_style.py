"""Limits on long and dense code; `python -m tests.style` lists the violations."""

from tests import style


def test_nothing_is_long():
    """Files of 350 lines, functions of 40 (or a docstring that gives the reason), lines of 120."""
    found = [f"{file}:{line}: {what}" for file, line, what in style.findings() if not what.startswith("dense")]
    assert not found, "\n".join(found)


def test_little_is_dense():
    assert style.density() < 5, "python -m tests.style lists the dense statements"
