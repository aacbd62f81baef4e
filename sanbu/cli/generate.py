"""The verb that draws samples: generate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanbu.cli.app import Json, Overrides, RunFolder, Weights, app, report, shared
from sanbu.config import ConfigError
from sanbu.display.terminal import harmless
from sanbu.parallel.launch import in_job

if TYPE_CHECKING:
    from sanbu.run import Run


Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FOLDER",
        help="write each sample to a file; default for pictures and sound RUN/generated; (tables) a .csv or .tsv file;"
        " (sound) a .wav, .flac, .mp3, .ogg, .opus or .pcm file; (music) these, .mid or .png",
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        "-p",
        help="text to continue, message to answer (chat), picture with transparent pixels, sound to copy, or MIDI file",
    ),
]
Where = Annotated[
    str | None, typer.Option("--where", metavar="COLUMN=VALUE,...", help="(tables) cells that every row has")
]


@app.command()
@shared
def generate(
    run: RunFolder,
    overrides: Overrides = None,
    prompt: Prompt = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="(chat) continue the prompt as plain text, without the chat template")
    ] = False,
    n: Annotated[int, typer.Option("-n", min=1, max=1_000_000, help="number of samples")] = 1,
    label: Annotated[
        str | None,
        typer.Option("--label", help="(pictures) class number or name, or none; default: cycle through all classes"),
    ] = None,
    out: Out = None,
    where: Where = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="sample i is drawn with seed + i")] = 0,
    weights: Weights = "full",
    as_json: Json = False,
) -> None:
    """Draw samples: text and rows to the terminal, pictures to a folder.

    A run of chat answers the prompt, as sanbu chat does; only its answer is
    printed. Pictures come with a grid and an animation of how they were drawn.

    \b
    sanbu generate runs/first -p "os.path.join(" -n 3 strategy.temperature=0.7
    sanbu generate runs/first -p "import" strategy=beam-search strategy.beams=8
    sanbu generate runs/chat/sft -p "What is 3 + 4?"
    sanbu generate runs/flow -n 64 --label 7 --out pictures strategy.guidance=2
    sanbu generate runs/flow -n 8 -p half.png    (fills transparent pixels)
    sanbu generate runs/edm parents.guide=runs/weak strategy.guidance=2
    sanbu generate runs/vocoder -p in.wav --out out.wav    (sound -> mel -> sound)
    sanbu generate runs/music -p song.mid --out song.wav    (plays a score)
    sanbu generate runs/table -n 1000 --where "age=30,sex=F" --out synthetic.csv
    """
    found, changes = opened(run, weights), tuple(overrides or ())
    asked = found.codec.request(prompt if where is None else cells_of(found, where), label)
    if raw:
        asked = plain(found, asked)
    if found.codec.medium == "table":
        show_rows(found, asked, n, seed, changes, out, as_json)
        return
    if found.codec.medium in ("sound", "music") and out is not None:
        from sanbu.codecs.audio import is_sound

        is_sound(out)  # another suffix is refused before anything is drawn
    if found.codec.medium != "text" or out is not None:
        written = found.save(out or run / "generated", asked, n, seed, overrides=changes)
        report({"run": str(run), **written}, as_json, str(written.get("grid", written["folder"])))
        return
    if n == 1 and not as_json and not in_job():
        show_one(found, asked, seed, changes)
        return
    samples = found.generate(asked, n, seed, overrides=changes)
    report({"run": str(run), "prompt": prompt, "samples": samples}, as_json, joined(found, asked, samples))


def opened(folder: Path, weights: str) -> Run:
    """A run on the best device, with its linear layers in a format. Raises ConfigError for a format it cannot have."""
    from sanbu.run import Run
    from sanbu.serve.weights.convert import convert_run

    return convert_run(Run.open(folder).to("auto"), weights)


def cells_of(run: Run, where: str) -> str:
    """The cells of --where. Raises ConfigError for a run that draws no rows of a table."""
    if run.codec.medium != "table":
        raise ConfigError(f"--where: {run.folder} draws {run.codec.unit}, not rows of a table; leave --where out")
    return where


def plain(run: Run, prompt: Any) -> Any:
    """The prompt as plain text, for --raw. Raises ConfigError for a run that does not draw text."""
    from sanbu.codecs.text import Plain

    if run.codec.medium != "text":
        raise ConfigError(f"--raw: {run.folder} draws {run.codec.unit}, and only text is continued; leave --raw out")
    return Plain(prompt or "")


def show_rows(
    run: Run, asked: Any, n: int, seed: int, changes: tuple[str, ...], out: Path | None, as_json: bool
) -> None:
    """Draw rows of a table into a file, or print them."""
    from sanbu.parallel.sharing import by_first

    samples = run.generate(asked, n, seed, overrides=changes)
    if out is not None:
        written = by_first(lambda: run.codec.export(samples, out))
        report({"run": str(run.folder), **written}, as_json, str(written["overview"]))
        return
    report({"run": str(run.folder), "samples": samples}, as_json, rows_as_text(run.codec, samples))


def rows_as_text(codec: Any, samples: Sequence[Any]) -> str:
    """Rows as a table, or where it is too wide for the terminal, a block of lines per row."""
    from sanbu.display.tables import Column, FittedTable

    if not samples or not codec.is_row(samples[0]):
        return "\n".join(map(codec.show, samples))
    cells = [[codec.text(row, column) for column in codec.columns] for row in samples]
    return str(FittedTable([Column(name, number=False) for name in codec.names], cells))


def joined(run: Run, prompt: Any, samples: Sequence[str]) -> str:
    """Texts below each other, with a line between them."""
    from sanbu.codecs.codec import text_before
    from sanbu.display.tables import output_width

    rule = "\n" + "-" * min(80, output_width()) + "\n"
    return rule.join(text_before(run.codec, prompt) + run.codec.show(sample) for sample in samples)


def show_one(run: Run, prompt: Any, seed: int, changes: tuple[str, ...]) -> None:
    """Print one text as it is drawn, and end the line."""
    from sanbu.codecs.codec import text_before

    before = text_before(run.codec, prompt)  # printed with the first piece, so that a refusal prints nothing
    for piece in run.stream(prompt, seed, overrides=changes):
        print(harmless(before + piece), end="", flush=True)
        before = ""
    print(flush=True)
