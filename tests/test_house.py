"""The structure of the package: imports in one direction, tables that agree with the classes, and modality-specific
code only in codecs, data and models.
"""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import sanbu
from sanbu.config import Choice, contents, kind_of, module_of

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "sanbu"
FLOORS = [  # lowest first; a file imports only from its own or a lower layer
    {"config", "noise", "progress", "space"},
    {"files", "paths", "machine"},
    {"layers", "checkpoints"},
    {"codecs", "models"},
    {"data", "objectives", "strategies"},
    {"optimizers"},
    {"parallel"},
    {"recipe", "testing"},
    {"memory"},
    {"run"},
    {"training"},
    {"watcher"},
    {"display"},
    {"loop"},
    {"evaluation"},
    {"interop", "recipes"},
    {"serve"},
    {"studio"},
    {"cli"},
    {"__init__", "__main__"},
]
STEPS = ("layers", "codecs", "data", "models", "objectives", "optimizers", "strategies")
TABLES = [
    "sanbu.models:KINDS", "sanbu.objectives:KINDS", "sanbu.objectives:REWARDS", "sanbu.objectives:TIMES",
    "sanbu.optimizers:KINDS", "sanbu.optimizers:RATES", "sanbu.layers:AVERAGES", "sanbu.layers:SCALINGS",
    "sanbu.layers:QUANTIZERS", "sanbu.codecs:TOKENIZERS", "sanbu.codecs:TEMPLATES", "sanbu.data:KINDS",
    "sanbu.strategies:KINDS",
]  # fmt: skip


def module_name(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports():
    """{module: modules of this package that it imports}, including imports inside functions and for type checking."""
    modules = {module_name(file): file for file in HOUSE.rglob("*.py")}
    graph = {name: set() for name in modules}
    for name, file in modules.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                found = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= {each if each in modules else node.module for each in found}
            elif isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
        graph[name] = {other for other in graph[name] if other in modules and other != name}
    return graph


def room(module):
    return (module.split(".") + ["__init__"])[1]


def floor(module):
    return next(number for number, rooms in enumerate(FLOORS) if room(module) in rooms)


def test_arrows_point_one_way():
    upward = [(a, b) for a, others in imports().items() for b in others if floor(b) > floor(a)]
    assert not upward


def test_there_is_no_circle_of_files_and_none_of_rooms():
    """graphlib raises CycleError, which names the files."""
    graph = imports()
    tuple(TopologicalSorter(graph).static_order())
    rooms = {}
    for a, others in graph.items():
        rooms.setdefault(room(a), set()).update(room(b) for b in others if room(b) != room(a))
    tuple(TopologicalSorter(rooms).static_order())


def test_the_steps_know_no_rank_and_no_run():
    for folder in STEPS:
        for file in (HOUSE / folder).rglob("*.py"):
            assert "torch.distributed" not in file.read_text(encoding="utf-8"), file


def test_the_root_holds_only_the_spine():
    assert len(list(HOUSE.glob("*.py"))) <= 16


@pytest.mark.parametrize("table", TABLES)
def test_a_table_names_what_its_files_define(table):
    """Every kind is defined in the file that its table names, and every kind of that base class is in the table."""
    package = table.partition(":")[0]
    for name, file in contents(table).items():
        module = module_of(table, name)
        found = [cls for cls in vars(module).values() if isinstance(cls, type) and issubclass(cls, Choice)]
        mine = {kind_of(cls) for cls in found if cls.__module__ == f"{package}.{file}"}
        assert name in mine, f"{table}: {name!r} is not defined in {file}"


def test_no_kind_stands_outside_a_table():
    for file in HOUSE.rglob("*.py"):
        if "\n    kind: Literal[" in file.read_text(encoding="utf-8"):
            import_module(module_name(file))
    bases = {cls.table: cls for cls in descendants(Choice) if "table" in cls.__dict__ and cls.table}
    assert set(bases) == set(TABLES)
    for table, base in bases.items():
        ours = {name for name, cls in base.defined().items() if cls.__module__.startswith("sanbu.")}
        assert ours == set(contents(table)), table


def descendants(cls):
    for child in cls.__subclasses__():
        yield child
        yield from descendants(child)


def test_tables_and_help_import_no_torch():
    packages = [table.partition(":")[0] for table in TABLES]
    code = f"import sys, importlib; [importlib.import_module(p) for p in {packages}]; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_modality_is_asked_of_its_codec_alone():
    wrong = re.compile(r'isinstance\(.*Images\)|family == "|family != "|len\(.*shape\) == 3')
    for file in HOUSE.rglob("*.py"):
        if file.relative_to(HOUSE).parts[0] not in ("data", "codecs", "models"):
            assert not wrong.search(file.read_text(encoding="utf-8")), file


def test_no_module_bears_the_name_of_a_public_function():
    public = {name: sanbu.__name__ for name in sanbu.__all__ if name not in sanbu.FOLDERS}
    assert not [name for name in public if (HOUSE / f"{name}.py").exists()]
    for folder in ("data", "models", "strategies"):
        names = getattr(import_module(f"sanbu.{folder}"), "FUNCTIONS", ("custom",))
        assert not [name for name in names if (HOUSE / folder / f"{name}.py").exists()]
