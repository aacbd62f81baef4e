"""Sets of functions for text side by side: n-grams, trees, recurrent and convolutional networks, a transformer."""

from __future__ import annotations

from pathlib import Path

from sanbu.config import ConfigError
from sanbu.evaluation.figures import Entry, Figures
from sanbu.evaluation.function_sets import Competitor
from sanbu.evaluation.function_sets import compete as compete_in
from sanbu.models.tokens.token_trees import TokenTrees
from sanbu.recipe import Recipe
from sanbu.recipes.text import ngram, shakespeare

SECONDS, SEEDS = 60.0, 1
TOKENS = 500_000  # that every network reads at equal tokens
SHAPES = {  # about 0.8M parameters each
    "rnn": ("model=rnn", "model.layers=2", "model.width=356"),
    "gru": ("model=gru", "model.layers=2", "model.width=236"),
    "lstm": ("model=lstm", "model.layers=2", "model.width=208"),
    "mingru": ("model=mingru", "model.layers=4", "model.width=116"),
    "causal-cnn": ("model=causal-cnn", "model.layers=4", "model.width=112"),
    "transformer": ("model=modern", "model.layers=4", "model.heads=4", "model.width=128", "model.context=64"),
    "canon": (),
}
QUIET = ("schedule.evaluate_every=0", "schedule.sample_every=0", "schedule.checkpoint_every=0", "machine.device=cpu")


def compete(entry: Entry) -> Figures:
    """Train every set of functions on the same text and measure it. Settings: path=FILE, tokens=N."""
    given = entry.values("functions", path="FILE", tokens="N")
    tokens = whole(given.get("tokens", str(TOKENS)))
    path, alphabet = given.get("path", "builtin:python"), alphabet_of(given.get("path"))
    seconds, seeds = entry.seconds or SECONDS, entry.seeds or SEEDS
    budgets = f"{tokens:,} tokens, or {seconds:g} CPU seconds"
    title = f"{Path(path).name}: {budgets}, {seeds} seed{'s' if seeds > 1 else ''}"
    return compete_in(competitors(path, alphabet, tokens), entry.folder, seconds, seeds, title)


def competitors(path: str, alphabet: str, tokens: int) -> list[Competitor]:
    """Every set of functions as a recipe."""
    counted = ngram("nano", path, alphabet).change(*QUIET)
    grown = counted.change(model=TokenTrees(), name="trees")
    rows = min(rows_for(counted, tokens), counted.data.build().rows)
    found = [Competitor(each.name, each.change(batch=rows), each, counted=True) for each in (counted, grown)]
    plain = shakespeare("nano", path, alphabet).change(*QUIET)
    for name, shape in SHAPES.items():
        recipe = plain.change(*shape)
        batch = recipe.schedule.batch
        assert isinstance(batch, int)
        found.append(Competitor(name, recipe.change(steps=max(1, rows_for(recipe, tokens) // batch)), recipe))
    return found


def rows_for(recipe: Recipe, tokens: int) -> int:
    """The rows that have so many tokens."""
    return max(1, tokens // recipe.data.space().shape[0])


def whole(text: str) -> int:
    """A number of tokens. Raises ConfigError for what is none."""
    if not text.replace("_", "").isdigit() or not int(text):
        raise ConfigError(f"tokens: given {text!r}, but a number of tokens is needed, as in tokens=500000")
    return int(text)


def alphabet_of(path: str | None) -> str:
    """The characters of a text file; empty for other sources, which are read as bytes."""
    if path is None or not Path(path).is_file() or Path(path).suffix != ".txt":
        return ""
    return "".join(sorted(set(Path(path).read_text(encoding="utf-8", errors="replace"))))
