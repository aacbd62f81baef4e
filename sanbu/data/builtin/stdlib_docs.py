"""The documentation of the installed Python as text: language topics, and the docstrings of the standard library."""

from __future__ import annotations

import ast
import inspect
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

LEFT_OUT = {
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
    """What the text depends on: the version of Python and of this reader."""
    return f"python {platform.python_version()} reader 1"


def documentation() -> Iterator[str]:
    """Topics of the language reference, then `module.name` with its docstring for every public name; no text twice."""
    seen: set[str] = set()
    for text in (*topics(), *docstrings()):
        if text not in seen:
            seen.add(text)
            yield text


def topics() -> Iterator[str]:
    """The pages that `help()` shows; some distributions leave them out."""
    try:
        from pydoc_data.topics import topics as pages
    except ImportError:
        return
    yield from (pages[name].strip() + "\n" for name in sorted(pages))


def docstrings() -> Iterator[str]:
    """Docstrings read from the library's source, without running it."""
    root = Path(sysconfig.get_path("stdlib"))
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        if LEFT_OUT & set(parts):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        name = ".".join(part for part in parts if part != "__init__")
        yield from named(tree, name)


def named(node: ast.AST, name: str) -> Iterator[str]:
    """`name`, signature and docstring of a module, class or function, and of the public ones inside it."""
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
                yield from named(child, f"{name}.{child.name}")
