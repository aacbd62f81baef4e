"""The verb of conversation: chat."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sanbu.cli.app import Json, Weights, app, report
from sanbu.config import ConfigError


@app.command()
def chat(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|URL... [PATH=VALUE]...", help="run folders or servers (http://host:port#MODEL), then changes"
        ),
    ],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="one message; default: an interactive chat")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="system prompt")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="seed of the first answer")] = 0,
    weights: Weights = "full",
    as_json: Json = False,
) -> None:
    """Chat with a run, or with several side by side.

    Answers are streamed; an empty line quits.

    \b
    sanbu chat runs/chat/ppo
    sanbu chat runs/chat/base runs/chat/sft runs/chat/ppo -p "What is 12 + 7?"
    sanbu chat runs/chat/sft strategy.temperature=1 -p "What is 12 + 7?" --json
    sanbu chat http://localhost:8000#ppo    (API key in SANBU_API_KEY, if needed)
    """
    from sanbu.cli.remote import RemoteSpeaker
    from sanbu.cli.talk import Speaker, Speaks, answer_all, converse

    folders = [name for name in runs if "=" not in name]
    changes = tuple(name for name in runs if "=" in name)
    if not folders:
        raise ConfigError(f"chat: given only {' '.join(changes)}; a run folder or the URL of a server is needed")
    remote = [name for name in folders if name.startswith(("http://", "https://"))]
    if remote and weights != "full":
        raise ConfigError(f"--weights: given {weights}, but {remote[0]} is a server; give it to sanbu serve")
    speakers: list[Speaks] = [
        RemoteSpeaker(name, changes, system) if name in remote else Speaker.open(Path(name), changes, system, weights)
        for name in folders
    ]
    if prompt is None:
        converse(speakers, seed)
        return
    answers = answer_all(speakers, prompt, seed, quiet=as_json)
    found = dict(zip(folders, answers, strict=True))
    if as_json:
        report({"prompt": prompt, "answers": found, "answer": answers[0]}, as_json, "")
