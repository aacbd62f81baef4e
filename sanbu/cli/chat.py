"""The verb of conversation: chat."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sanbu.cli.app import Json, app, report


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
