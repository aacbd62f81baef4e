"""Lists long or dense code: `python -m tests.style [PATH...]`; tests/test_style.py sets the limits."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SIMPLE = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Expr, ast.Assert, ast.Raise, ast.Delete)
LINE, FUNCTION, FILE, DENSE = 120, 40, 350, 35


def files(*places):
    """All Python files below the given places; default: the package."""
    for place in places or ("sanbu",):
        path = ROOT / place
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


def statements(tree):
    """Simple statements with their number of syntax nodes per line, without docstrings."""
    for node in ast.walk(tree):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, SIMPLE) and not docstring:
            yield node, sum(1 for _ in ast.walk(node)) / (node.end_lineno - node.lineno + 1)


def functions(tree):
    """Functions with their number of lines, without docstrings; a docstring may exempt one by `Long because ...`."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0]
            text = first.end_lineno - first.lineno + 1 if isinstance(first, ast.Expr) and ast.get_docstring(node) else 0
            yield node, node.end_lineno - node.lineno + 1 - text


def findings(*places):
    """(file, line, what) for each violation of the limits."""
    for file in files(*places):
        text = file.read_text(encoding="utf-8")
        name, tree = file.relative_to(ROOT), ast.parse(text)
        if text.count("\n") > FILE:
            yield name, 1, f"file of {text.count(chr(10))} lines"
        for number, line in enumerate(text.splitlines(), 1):
            if len(line) > LINE:
                yield name, number, f"line of {len(line)} characters"
        for node, lines in functions(tree):
            if lines > FUNCTION and "Long because" not in (ast.get_docstring(node) or ""):
                yield name, node.lineno, f"function {node.name} of {lines} lines"
        for node, nodes in statements(tree):
            if nodes > DENSE:
                yield name, node.lineno, f"dense statement: {nodes:.0f} nodes per line"


def density(*places):
    """Dense statements per 1,000 statements."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files(*places)]
    every = sum(isinstance(node, ast.stmt) for tree in trees for node in ast.walk(tree))
    return 1000 * sum(nodes > DENSE for tree in trees for _, nodes in statements(tree)) / every


if __name__ == "__main__":
    for file, line, what in findings(*sys.argv[1:]):
        print(f"{file}:{line}: {what}")
    print(f"dense statements: {density(*sys.argv[1:]):.1f} per 1,000")
