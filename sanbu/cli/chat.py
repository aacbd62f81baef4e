"""The verbs of conversation: chat, preview, rank, merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sanbu.cli import app
from sanbu.cli.app import Json, Overrides, RunFolder, chosen, report


@app.command()
def chat(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|URL... [PATH=VALUE]...", help="run folders, or servers as http://host:port#MODEL; then changes"
        ),
    ],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="one question; without it, a conversation")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="what the assistant is told before")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Talk to a run, or to several side by side on the same words; answers come as they are drawn. An empty line ends.

    \b
    sanbu chat runs/life/ppo
    sanbu chat runs/life/base runs/life/sft runs/life/ppo --prompt "What is 12 + 30?"
    sanbu chat runs/life/sft strategy.temperature=0 --prompt "What is 12 + 30?" --json
    sanbu chat http://localhost:8000#ppo        (a key, where one is needed, in the variable SANBU_API_KEY)
    """
    from sanbu.cli.remote import RemoteSpeaker
    from sanbu.cli.talk import Speaker, Speaks, converse, say

    folders, changes = [name for name in runs if "=" not in name], tuple(name for name in runs if "=" in name)
    speakers: list[Speaks] = [
        RemoteSpeaker(name, changes, system)
        if name.startswith(("http://", "https://"))
        else Speaker.open(Path(name), changes, system)
        for name in folders
    ]
    if prompt is None:
        converse(speakers, seed)
        return
    answers = say(speakers, prompt, seed, quiet=as_json)
    found = dict(zip(folders, answers, strict=True))
    report({"prompt": prompt, "answers": found, "answer": answers[0]}, as_json, "")


@app.command()
def preview(
    name: Annotated[str, typer.Argument(metavar="RECIPE|RUN", help="a recipe's name, or a run folder")],
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="rows to show")] = 2,
    as_json: Json = False,
) -> None:
    """Show rows of training data token by token: what is taught, what is only read, what is padding. A wrong mask is seen at a glance.

    \b
    sanbu preview runs/life/sft
    sanbu preview sft base=runs/life/base data.path=mine.jsonl --rows 4
    """
    from sanbu.cli.preview import show, tokens_of

    recipe = chosen(name, overrides).resolve()
    found = tokens_of(recipe.data.build(), rows)
    if as_json:
        report({"rows": [[{"piece": token.piece, "state": token.state} for token in row] for row in found]}, True, "")
    else:
        show(found)


@app.command()
def rank(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="JSONL of rankings, for reward models and DPO")],
    questions: Annotated[int, typer.Option("--questions", help="questions to ask")] = 4000,
    n: Annotated[int, typer.Option("-n", help="answers to each")] = 4,
    as_json: Json = False,
) -> None:
    """Let a run answer questions several times and rank its answers by what is known to be right."""
    from sanbu.evaluation.rank import rank as rank_answers
    from sanbu.run import Run

    found = rank_answers(Run.open(run), out, questions, n)
    report(found, as_json, f"{out}: {found['questions']:,} questions, {found['right']:.0%} of the answers right")


@app.command()
def merge(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="the run folder to make")],
    as_json: Json = False,
) -> None:
    """Add the low-rank changes of a LoRA run to its weights: a plain run, to be served, exported, or trained on."""
    from sanbu.interop.merge import merged_run
    from sanbu.run import Run

    made: Any = merged_run(Run.open(run), out)
    report({"run": str(made.folder)}, as_json, str(made.folder))
