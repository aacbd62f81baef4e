"""The documentation of the installed Python as text: language topics and docstrings of the standard library."""

from __future__ import annotations

import ast
import inspect
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

EXCLUDED = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "_pyrepl",
}


def version() -> str:
    """The version of the text: that of Python and of this reader."""
    return f"python {platform.python_version()} reader 1"


def documentation() -> Iterator[str]:
    """Topics of the language reference, then every public name with its docstring, without duplicates."""
    seen: set[str] = set()
    for text in (*topics(), *docstrings()):
        if text not in seen:
            seen.add(text)
            yield text


def topics() -> Iterator[str]:
    """The topic pages of `help()`; some distributions do not include them."""
    try:
        from pydoc_data.topics import topics as pages
    except ImportError:
        return
    yield from (pages[name].strip() + "\n" for name in sorted(pages))


def docstrings() -> Iterator[str]:
    """Docstrings parsed from the source of the standard library; no module is imported."""
    root = Path(sysconfig.get_path("stdlib"))
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        if EXCLUDED & set(parts):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        name = ".".join(part for part in parts if part != "__init__")
        yield from read_docstrings(tree, name)


def read_docstrings(node: ast.AST, name: str) -> Iterator[str]:
    """Name, signature and docstring of a module, class or function, then those of its public members."""
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        text = ast.get_docstring(node, clean=False)
        if text and len(text) > 20:
            signature = (
                f"({ast.unparse(node.args)})" if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else ""
            )
            yield f"{name}{signature}\n\n{inspect.cleandoc(text)}\n"
        for child in node.body:
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not child.name.startswith(
                "_"
            ):
                yield from read_docstrings(child, f"{name}.{child.name}")
