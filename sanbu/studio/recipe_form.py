"""What the form of a recipe means: its arguments are the one truth, and the table shows the recipe that they make."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from sanbu import recipes
from sanbu.config import SanbuError, dump, load, plain
from sanbu.memory.limits import room
from sanbu.memory.parts import Parts, size
from sanbu.recipe import Recipe, walk
from sanbu.studio.messages import plain_assignment, plain_number, told
from sanbu.studio.translations import Language, translate

UNCOUNTED = {"steps": 1, "seed": 0, "sample_every": 0, "checkpoint_every": 0, "keep": 1}  # of the schedule: no memory
PARTS = ("weights", "gradients", "optimizer", "activations")
Table = list[list[str]]


def words(text: str) -> list[str]:
    """Arguments split as in a shell, also at spaces in full width, with digits in full width made plain.

    Raises SanbuError for an unclosed quotation.
    """
    reader = shlex.shlex(text, posix=True, punctuation_chars=False)
    reader.whitespace_split, reader.commenters = True, ""
    reader.whitespace += "\u3000"
    try:
        return [plain_assignment(word) for word in reader]
    except ValueError as error:
        raise SanbuError(f"{text!r}: {error}") from None


def make_recipe(name: str, assignments: Sequence[str]) -> Recipe:
    """A recipe with arguments and changes applied. Raises SanbuError for unknown names."""
    recipe, changes = recipes.make(name, list(assignments))
    return recipe.change(*changes)


def rows(recipe: Recipe) -> Table:
    """Table rows of all fields: path, value, type and description."""
    return [[path, plain(value), kind, text] for path, value, kind, text in walk(recipe)]


def edits(table: Iterable[Sequence[object]], shown: Iterable[Sequence[object]]) -> dict[str, str]:
    """The cells that a person has edited: path -> value. shown: the rows as the page had filled them."""
    known = {str(path): str(value) for path, value, *_ in shown}
    given = {str(path): str(value) for path, value, *_ in table}
    changed = [path for path in given if path in known and given[path] != known[path]]
    return {path: plain_number(given[path]) for path in changed}


def with_edits(name: str, arguments: Sequence[str], changes: Mapping[str, str]) -> list[str]:
    """The arguments with edited cells in them; an edit back to the recipe's own value takes its argument out."""
    kept = [text for text in arguments if text.partition("=")[0] not in changes]
    try:
        own = {path: value for path, value, *_ in rows(make_recipe(name, kept))}
    except SanbuError:
        own = {}
    added = [path for path in changes if changes[path] != own.get(path)]
    return [*kept, *(f"{path}={changes[path]}" for path in added)]


def counted(name: str, arguments: Sequence[str]) -> tuple[int, Parts]:
    """The parameters of the model, and the memory of its training. Raises SanbuError; takes up to seconds."""
    recipe = make_recipe(name, arguments)
    return counted_once(json.dumps(dump(recipe.change(name="any", **UNCOUNTED))))


@lru_cache(64)
def counted_once(recipe: str) -> tuple[int, Parts]:
    """See `counted`. recipe: as JSON."""
    from sanbu.memory.cost import cost
    from sanbu.memory.training import estimate
    from sanbu.run import Run

    resolved = load(Recipe, json.loads(recipe)).resolve()
    parents = {role: Run.open(path).recipe for role, path in resolved.parents.items()}
    return cost(resolved).parameters, estimate(resolved, parents)


def size_text(name: str, arguments: Sequence[str], language: Language) -> str:
    """Parameters and memory in one line, or why they cannot be counted."""
    try:
        parameters, need = counted(name, arguments)
    except Exception as error:  # models of a user may need more than shapes
        reason = told(error, language).split("\n")[0]
        return translate("size_unknown", language).format(error=reason)
    return translate("size_of", language).format(
        parameters=f"{parameters:,}", memory=memory_text(need, language), room=size(room().bytes)
    )


def memory_text(need: Parts, language: Language) -> str:
    """The memory and its parts, in one phrase."""
    present = [part for part in PARTS if getattr(need, part)]
    texts = [f"{translate(f'part_{part}', language)} {size(getattr(need, part))}" for part in present]
    texts += [translate("not_counted", language)] if need.activations is None else []
    if language == "zh":
        return f"{size(need.total)}（{'，'.join(texts)}）"
    return f"{size(need.total)} ({', '.join(texts)})"
