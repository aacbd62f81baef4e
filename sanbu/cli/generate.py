"""The verb that draws samples: generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sanbu.cli.app import Json, Overrides, RunFolder, app, report


@app.command()
def generate(
    run: RunFolder,
    overrides: Overrides = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="text to continue, or picture with transparent pixels to draw"),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, max=1_000_000, help="number of samples")] = 1,
    label: Annotated[
        str | None,
        typer.Option("--label", help="(pictures) class number or name, or none; default: cycle through all classes"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="write each sample to a file; default for pictures RUN/generated"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="sample i is drawn with seed + i")] = 0,
    as_json: Json = False,
) -> None:
    """Draw samples: text to the terminal, pictures to a folder.

    Pictures come with a grid and an animation of how they were drawn.

    \b
    sanbu generate runs/first -p "os.path.join(" -n 3 strategy.temperature=0.7
    sanbu generate runs/first -p "import" strategy=beam-search strategy.beams=8
    sanbu generate runs/flow -n 64 --label 7 --out pictures strategy.guidance=2
    sanbu generate runs/flow -n 8 -p half.png    (fills transparent pixels)
    sanbu generate runs/edm parents.guide=runs/weak strategy.guidance=2
    """
    from sanbu.run import Run

    found, changes = Run.open(run).to("auto"), tuple(overrides or ())
    asked = found.codec.request(prompt, label)
    if found.codec.medium != "text" or out is not None:
        written = found.save(out or run / "generated", asked, n, seed, overrides=changes)
        report({"run": str(run), **written}, as_json, str(written.get("grid", written["folder"])))
        return
    if n == 1 and not as_json:
        before = prompt or ""  # printed with the first piece, so that a refusal prints nothing
        for piece in found.stream(asked, seed, overrides=changes):
            print(before + piece, end="", flush=True)
            before = ""
        print("\n", flush=True)
        return
    samples = found.generate(asked, n, seed, overrides=changes)
    rule = "\n" + "-" * 80 + "\n"
    shown = rule.join((prompt or "") + found.codec.show(sample) for sample in samples)
    report({"run": str(run), "prompt": prompt, "samples": samples}, as_json, shown)
