"""What the verbs share: the application, common arguments, and how a recipe is found and a result is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sanbu.parallel.launch import in_job, speaks

if TYPE_CHECKING:
    from sanbu.recipe import Recipe

GROUPS = {
    "Learn": ("list", "show", "train", "preview", "data", "demo"),
    "Use": ("generate", "chat", "impute", "predict"),
    "Compare": ("evaluate", "compare"),
    "Serve": ("serve", "key"),
    "Exchange": ("import", "export", "merge", "average", "rank"),
}


class Grouped(TyperGroup):
    """The verbs in groups, each in the order a newcomer needs them."""

    def format_commands(self, context: Any, formatter: Any) -> None:
        """Write a section for each group."""
        width = max(map(len, self.commands)) + 2
        for title, names in GROUPS.items():
            lines = [(name, self.commands[name].get_short_help_str(limit=78 - width)) for name in names]
            with formatter.section(title):
                formatter.write_dl(lines)


app = typer.Typer(
    cls=Grouped, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True
)
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[PATH=VALUE]...", help="changes: schedule.steps=100")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object as the last line")]
Weights = Annotated[str, typer.Option("--weights", help="(text) full, bfloat16 (half the memory) or int8 (a quarter)")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="run folder")]


@app.callback()
def about() -> None:
    """Sanbu: generative learning in three steps. Choose a set of functions, choose
    what makes one good, find the best one; then choose how to draw samples.

    \b
    sanbu train gpt2 --run runs/first        train a recipe into a run folder
    sanbu generate runs/first -p "import "   draw samples from it
    sanbu evaluate runs/first                bits per byte on held-out text
    sanbu compare digits                     six strategies on the same pictures
    sanbu train assistant --run runs/chat    base, sft, reward, ppo, dpo
    sanbu serve runs/chat/ppo                an API in the shape of OpenAI's

    \b
    Tables and texts fit the terminal, or COLUMNS where it is set; 80 in a pipe.
    Progress and time left go to standard error: bars in a terminal, else lines.
    """


def choose(name: str, overrides: Sequence[str] | None) -> Recipe:
    """The recipe of that name, or of a run folder, with overrides applied."""
    from sanbu import recipes

    if name not in recipes.RECIPES and (Path(name) / "recipe.json").exists():
        from sanbu.run import Run

        return Run.open(name).recipe.change(*(overrides or ()))
    recipe, rest = recipes.make(name, list(overrides or ()))
    return recipe.change(*rest)


def report(result: dict[str, Any], as_json: bool, text: str) -> None:
    """The result of a verb, for a person or for a program. Of several processes the first one prints it."""
    if speaks():
        typer.echo(json.dumps(result, ensure_ascii=False) if as_json else text)


def shared(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb whose work is divided over the processes of torchrun."""

    @wraps(verb)
    def call(*given: Any, **named: Any) -> None:
        if in_job():
            from sanbu.parallel.sharing import sharing

            with sharing():
                verb(*given, **named)
        else:
            verb(*given, **named)

    return call
