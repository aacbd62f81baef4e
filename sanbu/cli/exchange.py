"""The verbs that make runs and files from runs: import, export, merge, average, rank."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sanbu.cli.app import Json, RunFolder, app, report

NewRun = Annotated[Path, typer.Option("--out", metavar="DIR", help="run folder to create")]


@app.command("import")
def import_model(
    source: Annotated[str, typer.Argument(metavar="FOLDER|NAME", help="folder, ARPA file, or name on the hub")],
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="run folder to create")],
    as_json: Json = False,
) -> None:
    """Make a run from weights of a text model, a picture model or a vocoder.

    An ARPA file of n-grams of characters or bytes is read too.

    Text, from a Hugging Face folder: GPT-1, GPT-2, OPT, LLaMA, Mistral, Qwen 2
    and 3, Phi-3, Gemma 2 and 3, GPT-NeoX. Pictures, from a diffusers pipeline
    or a folder of the model alone: U-Net, DiT, autoencoder. Sound: a folder
    of the HiFi-GAN project (config.json and g_...). A setting or tensor that
    would be lost is refused.
    """
    from sanbu.display.tables import folded
    from sanbu.interop import arpa, diffusers, diffusers_in, diffusers_layout, hifigan, huggingface

    pictures = diffusers_layout.is_diffusers(Path(source))
    if arpa.is_arpa(Path(source)):
        made = arpa.import_run(Path(source), run)
    elif hifigan.is_hifigan(Path(source)):
        made = hifigan.import_run(Path(source), run)
    else:
        made = diffusers.import_run(Path(source), run) if pictures else huggingface.import_run(source, run)
    left = diffusers_in.left_out(Path(source)) if pictures else []
    about = {"run": str(made.folder), "model": made.recipe.name, "left_out": left}
    report(about, as_json, "\n".join([str(made.folder), *map(folded, left)]))


@app.command("export")
def export_run(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="folder to create")],
    to: Annotated[str, typer.Option("--to", help="huggingface, diffusers or arpa")] = "huggingface",
    label: Annotated[
        str | None, typer.Option("--label", help="(U-Net to diffusers) the label its pipeline draws; default none")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run as a folder that another library loads.

    \b
    --to huggingface    text: AutoModelForCausalLM and AutoTokenizer
    --to diffusers      pictures: DiffusionPipeline (U-Net, DiT, autoencoder)
    --to arpa           n-grams: one file for kenlm or SRILM
    """
    from sanbu.run import Run

    options: dict[str, Any] = {"label": label} if label is not None else {}
    Run.open(run).export(to, out, **options)
    report({"folder": str(out)}, as_json, str(out))


@app.command()
def merge(run: RunFolder, out: NewRun, as_json: Json = False) -> None:
    """Add the low-rank changes of a LoRA run to its weights.

    The result is a plain run, to be served, exported or trained further.
    """
    from sanbu.interop.merge import merge_run
    from sanbu.run import Run

    made = merge_run(Run.open(run), out)
    report({"run": str(made.folder)}, as_json, str(made.folder))


@app.command()
def average(
    run: RunFolder,
    length: Annotated[float, typer.Option("--length", help="relative width of the average: 0.01 to 0.25")],
    out: NewRun,
    as_json: Json = False,
) -> None:
    """Rebuild the average of a run's weights at another length.

    The run must have been trained with average=power-function.
    """
    from sanbu.interop.averages import rebuild
    from sanbu.run import Run

    made = rebuild(Run.open(run), length, out)
    report({"run": str(made.folder), "length": length}, as_json, str(made.folder))


@app.command()
def rank(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="JSONL of rankings to write")],
    questions: Annotated[int, typer.Option("--questions", min=1, help="number of questions")] = 4000,
    n: Annotated[int, typer.Option("-n", min=1, max=512, help="answers per question")] = 4,
    as_json: Json = False,
) -> None:
    """Rank a run's own answers, as data for reward models and DPO.

    Answers are ranked by what is known to be right.
    """
    from sanbu.display.tables import folded
    from sanbu.evaluation.rank import rank as rank_answers
    from sanbu.run import Run

    found = rank_answers(Run.open(run), out, questions, n)
    text = f"{out}: {found['questions']:,} questions, {found['right']:.0%} of the answers right"
    report(found, as_json, folded(text))
