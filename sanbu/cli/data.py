"""The verbs about data: data check."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Annotated

import typer

from sanbu.cli.app import Json, app, report

data = typer.Typer(help="Check a corpus before training on it.", rich_markup_mode=None, no_args_is_help=True)
app.add_typer(data, name="data")
EXAMPLES = 3  # of each kind of problem


@data.callback()
def about() -> None:
    """Check a corpus before training on it."""


@data.command()
def check(
    path: Annotated[str, typer.Argument(metavar="PATH", help="LJSpeech folder, folder of x.wav with x.txt, .parquet")],
    rate: Annotated[int, typer.Option("--rate", min=1, help="samples per second of the model")] = 22050,
    language: Annotated[str, typer.Option("--language", help="language of the texts, a name of espeak-ng")] = "en-us",
    as_json: Json = False,
) -> None:
    """Read a corpus of speech and say what is wrong with it. Exit code 2 if
    anything is.

    Found: files that cannot be read, silence, clipping, a low rate, long pauses,
    odd lengths, texts without a letter, texts that do not match the length of
    their sound, times that do not add up.

    \b
    sanbu data check LJSpeech-1.1/
    sanbu data check recordings/ --rate 16000 --language de
    """
    from sanbu.data.speech_check import check as check_speech

    found = check_speech(path, rate, language)
    rates = ", ".join(f"{each} Hz" for each in found.rates)
    size = f"{found.utterances:,} utterances, {found.seconds / 60:,.1f} minutes"
    lines = [f"{size}, voices: {found.voices}, {rates or 'no rate'}"]
    kinds = Counter(problem.kind for problem in found.problems)
    for kind, count in kinds.most_common():
        lines.append(f"{kind}: {count:,}")
        those = [problem for problem in found.problems if problem.kind == kind]
        lines += [f"  {problem.name}: {problem.detail}" for problem in those[:EXAMPLES]]
        if count > EXAMPLES:
            lines.append(f"  and {count - EXAMPLES:,} more; --json lists all")
    lines.append("nothing is wrong" if not kinds else f"{len({each.name for each in found.problems}):,} files to mend")
    report({**asdict(found), "kinds": dict(kinds)}, as_json, "\n".join(lines))
    if kinds:
        raise typer.Exit(2)
