"""The command line: a few verbs, each a thin layer over the library."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[PATH=VALUE]...", help="changes, such as schedule.steps=100")
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object as the last line")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")]


@app.callback()
def about() -> None:
    """Sanbu: generative learning in three steps. Choose a set of functions, choose what makes one good, find the best.

    \b
    sanbu list                                  the recipes
    sanbu show gpt2 size=1.5b                   what a recipe is and costs
    sanbu train gpt2 --run runs/first           train it, here and now
    sanbu train gpt2 data.path=my.txt model=llama schedule.steps=500
    sanbu generate runs/first --prompt "os.path" -n 3
    sanbu evaluate runs/first                   bits per byte on held-out text
    sanbu train flow --run runs/flow            pictures of digits, in refinements
    sanbu generate runs/flow -n 64 --label 7 --out pictures
    sanbu compare digits --run runs/digits      every strategy on the same pictures: quality, speed, diversity
    sanbu train assistant --run runs/life       base, sft, reward, ppo, dpo: the life of an assistant
    sanbu chat runs/life/sft runs/life/ppo      talk to its stages, side by side
    sanbu serve runs/life/ppo runs/flow         an API in OpenAI's shape
    sanbu preview sft base=runs/life/base       which tokens are taught
    sanbu export runs/first --to huggingface --out folder
    """


@app.command("list")
def list_recipes(as_json: Json = False) -> None:
    """List the recipes, with what each is."""
    from sanbu import recipes
    from sanbu.recipes.pipelines import LIVES

    every = {**recipes.all(), **LIVES}
    found = {name: (function.__doc__ or "").split("\n")[0] for name, function in every.items()}
    width = max(map(len, found))
    report({"recipes": found}, as_json, "\n".join(f"{name:{width}}  {text}" for name, text in found.items()))


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="RECIPE|RUN", help="a recipe's name, or a run folder")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show every field of a recipe, ready to be pasted back as an override, and what its model costs.

    \b
    sanbu show gpt2
    sanbu show gpt2 size=1.5b --json
    sanbu show runs/first
    """
    from dataclasses import asdict

    from sanbu.config import dump, plain, walk
    from sanbu.evaluation.cost import cost

    recipe = chosen(name, overrides).resolve()
    costs = asdict(cost(recipe))
    lines = [
        f"{path}={plain(value)}".ljust(44) + f"  # {kind}{'; ' + text if text else ''}"
        for path, value, kind, text in walk(recipe)
    ]
    lines += ["", *(f"{key.replace('_', ' ')}: {value:,}" for key, value in costs.items())]
    report({**costs, "recipe": dump(recipe)}, as_json, "\n".join(lines))


@app.command()
def train(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="a recipe's name; see: sanbu list")],
    overrides: Overrides = None,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="where the run lives; default runs/RECIPE")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the latest checkpoint in --run")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="write event files into the run folder too")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a recipe into a run folder. Ctrl-C saves and stops; --resume goes on, bit for bit.

    \b
    sanbu train gpt2
    sanbu train gpt2 size=124m data.path=corpus/ --run runs/owt
    sanbu train gpt2 --run runs/first --resume
    """
    from sanbu.config import ConfigError
    from sanbu.display.console import Console
    from sanbu.display.plots import loss_curve, policy_curve, shots_curve
    from sanbu.display.tensorboard import TensorBoard
    from sanbu.loop import train as train_recipe
    from sanbu.recipes.pipelines import LIVES
    from sanbu.run import Run
    from sanbu.watcher import Watchers

    if name in LIVES:
        report(live_through(name, overrides or (), run), as_json, str(run or Path("runs") / name))
        return
    watchers = Watchers(Console(), TensorBoard()) if tensorboard else Watchers(Console())
    if resume and run is None:
        raise ConfigError("--resume needs --run DIR")
    recipe = chosen(name, overrides)
    if resume and run is not None and not overrides:
        old, recipe = recipe.name, Run.open(run).recipe
        if recipe.name != old:
            raise ConfigError(f"{run} is a run of {recipe.name}, not of {old}")
    done = train_recipe(recipe, run, resume=resume, watcher=watchers)
    rows = done.metrics()
    curve = loss_curve(done) if rows else None
    policy_curve(done)
    shots_curve(done)
    final = {key: value for row in rows for key, value in row.items() if not key.startswith("time/")}
    report({"run": str(done.folder), "curve": str(curve) if curve else None, **final}, as_json, str(done.folder))


@app.command()
def generate(
    run: RunFolder,
    overrides: Overrides = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="text to go on from, or a picture to complete; without it, from nothing"),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="samples")] = 1,
    label: Annotated[
        str | None,
        typer.Option("--label", help="of pictures: a class by number or name, or none; without it, all in turn"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="of pictures; default RUN/generated")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="sample i is drawn with seed + i, alone or together")] = 0,
    as_json: Json = False,
) -> None:
    """Draw samples from a run: text to the terminal; pictures into --out, with a grid and an animation of how they came to be.

    \b
    sanbu generate runs/first --prompt "os.path.join(" -n 3 strategy.temperature=0.7
    sanbu generate runs/first --prompt "import" strategy=beam-search strategy.beams=8
    sanbu generate runs/flow -n 64 --label 7 --out pictures strategy.guidance=2
    sanbu generate runs/flow -n 8 --prompt half.png          (transparent pixels are drawn anew)
    sanbu generate runs/edm parents.guide=runs/weak strategy.guidance=2
    """
    from sanbu.data.image_rows import Images
    from sanbu.run import Run

    found = Run.open(run).to("auto")
    if isinstance(found.recipe.data, Images) or out is not None or label is not None:
        from sanbu.display.gallery import draw

        asked = {"label": label, "picture": prompt}
        written = draw(found, out or run / "generated", asked, n, seed, tuple(overrides or ()))
        report({"run": str(run), **written}, as_json, str(written.get("grid")))
        return
    if n == 1 and not as_json:
        from sanbu.display.console import stream

        stream(found, prompt, seed, tuple(overrides or ()))
        return
    samples = found.generate(prompt, n, seed, tuple(overrides or ()))
    rule = "\n" + "-" * 80 + "\n"
    report(
        {"run": str(run), "prompt": prompt, "samples": samples},
        as_json,
        rule.join((prompt or "") + text for text in samples),
    )


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders; several only of assistants")],
    data: Annotated[
        str | None, typer.Option("--data", metavar="PATH", help="other text: all of it is evaluated")
    ] = None,
    inception: Annotated[
        int, typer.Option("--inception", min=0, help="of pictures: Inception FID of so many samples")
    ] = 0,
    tasks: Annotated[
        str | None, typer.Option("--tasks", metavar="NAME,...", help="few-shot tasks: a name, or a task file")
    ] = None,
    shots: Annotated[str, typer.Option("--shots", metavar="K,...", help="worked examples in each prompt")] = "0",
    folder: Annotated[Path, typer.Option("--folder", help="where the files of the tasks lie")] = Path("data"),
    questions: Annotated[
        int, typer.Option("--questions", min=1, help="questions at most, of a task or to an assistant")
    ] = 512,
    as_json: Json = False,
) -> None:
    """Measure runs on what they have not learnt from.

    \b
    sanbu evaluate runs/first                          text: bits per byte, loss, perplexity
    sanbu evaluate runs/life/sft runs/life/ppo         assistants: right answers, reward, KL, who wins
    sanbu evaluate runs/first --tasks arc-easy,lambada --shots 0,1,5 --folder data    zero-shot and few-shot tables
    sanbu evaluate runs/icl                            accuracy by the number of examples in the prompt
    sanbu evaluate runs/flow                           pictures: the row of a comparison
    """
    from sanbu.evaluation.measure import measure

    found, text = measure(runs, data, inception, tasks, shots, folder, questions)
    report(found, as_json, text)


@app.command()
def compare(
    names: Annotated[
        list[str], typer.Argument(metavar="CONTEST|RUN...", help="digits, or run folders on the same pictures")
    ],
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="where runs and report go")] = Path("runs/compare"),
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="CPU seconds of training for each strategy")] = 60,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="runs of each strategy")] = 3,
    as_json: Json = False,
) -> None:
    """Put strategies side by side on the same pictures: quality, speed, diversity; compare.html, .png and .json in --run.

    \b
    sanbu compare digits                                  trains each strategy for a minute, three seeds, one thread
    sanbu compare digits --seconds 20 --seeds 1
    sanbu compare runs/mine runs/other --run runs/report  measures runs you have
    """
    from sanbu.evaluation.compare import compare_contest, compare_runs
    from sanbu.evaluation.report import table, write
    from sanbu.recipes import contests

    folders = [Path(name) for name in names]
    if all((folder / "recipe.json").exists() for folder in folders):
        rows, title = compare_runs(folders), ", ".join(folder.name for folder in folders)
    else:
        missing = next(name for name in names if not (Path(name) / "recipe.json").exists())
        rows = compare_contest(contests.find(missing), run, seconds, seeds)
        title = f"{missing}: {seconds:g} CPU seconds each, {seeds} seed{'s' if seeds > 1 else ''}"
    content = write(rows, run, title)
    if as_json:
        report(content, True, "")
        return
    from rich.console import Console

    Console(width=max(170, Console().width)).print(table(rows))
    typer.echo("\n" + "\n".join(content["advice"]) + f"\n{run / 'compare.html'}")


@app.command()
def average(
    run: RunFolder,
    length: Annotated[
        float, typer.Option("--length", help="deviation of the weights, as a fraction of the run: 0.01 to 0.25")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="the run folder to make")],
    as_json: Json = False,
) -> None:
    """Rebuild the average of a run's weights at another length, after training (average=power-function)."""
    from sanbu.interop.averages import rebuild
    from sanbu.run import Run

    made = rebuild(Run.open(run), length, out)
    report({"run": str(made.folder), "length": length}, as_json, str(made.folder))


@app.command("import")
def import_model(
    source: Annotated[
        str, typer.Argument(metavar="FOLDER|NAME", help="a Hugging Face folder, or a model's name there")
    ],
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="the run folder to make")],
    as_json: Json = False,
) -> None:
    """Make a run of GPT-1, GPT-2 or LLaMA weights in a Hugging Face folder, or of a U-Net or DiT in a diffusers pipeline's."""
    from sanbu.interop import diffusers, huggingface

    pipeline = (Path(source) / "model_index.json").exists()
    made = diffusers.import_run(Path(source), run) if pipeline else huggingface.import_run(source, run)
    report({"run": str(made.folder), "model": made.recipe.name}, as_json, str(made.folder))


@app.command("export")
def export_run(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="the folder to make")],
    to: Annotated[str, typer.Option("--to", help="huggingface or diffusers")] = "huggingface",
    label: Annotated[
        str | None,
        typer.Option("--label", help="of a U-Net for diffusers: the label its pipeline shall draw; without it, none"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run as a folder that other tools load.

    \b
    --to huggingface    text: AutoModelForCausalLM and AutoTokenizer of transformers
    --to diffusers      pictures: DiffusionPipeline of diffusers (U-Net, DiT, autoencoder)
    """
    from sanbu.config import ConfigError, nearest
    from sanbu.run import Run

    if to not in ("huggingface", "diffusers"):
        raise ConfigError(
            f"--to: given {to!r}, allowed: huggingface, diffusers{nearest(to, ['huggingface', 'diffusers'])}"
        )
    if to == "diffusers":
        from sanbu.interop import diffusers

        diffusers.export_folder(Run.open(run), out, label)
    else:
        from sanbu.interop import huggingface

        huggingface.export_folder(Run.open(run), out)
    report({"folder": str(out)}, as_json, str(out))


@app.command()
def demo(
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="where the run lives")] = Path("runs/demo"),
) -> None:
    """Draw a hundred digits by a flow; train the life of an assistant on this Python alone, and talk to its stages side by side."""
    from sanbu.cli.demo import demonstrate

    demonstrate(run)


def live_through(name: str, overrides: Sequence[str], folder: Path | None) -> dict[str, Any]:
    """Train the stages of a life that are not done yet; where each pipelines."""
    from sanbu.display.console import Console
    from sanbu.display.plots import loss_curve, policy_curve
    from sanbu.recipes import pipelines
    from sanbu.recipes.stages import live

    folder = folder or Path("runs") / name
    stages, rest = pipelines.make(name, list(overrides))
    runs = live(stages, folder, rest, Console)
    for run in runs.values():
        loss_curve(run)
        policy_curve(run)
    return {"run": str(folder), "stages": {stage: str(run.folder) for stage, run in runs.items()}}


def chosen(name: str, overrides: Sequence[str] | None) -> Any:
    """The recipe of a name or of a run folder, with overrides applied."""
    from sanbu import recipes
    from sanbu.config import override
    from sanbu.run import Run

    if name not in recipes.all() and (Path(name) / "recipe.json").exists():
        return override(Run.open(name).recipe, overrides or ())
    recipe, rest = recipes.make(name, list(overrides or ()))
    return override(recipe, rest)


def report(result: dict[str, Any], as_json: bool, text: str) -> None:
    """The result of a verb, for a person or for a program."""
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else text)


def main() -> None:
    """Run the command line. What a user can mend is one line and exit code 2."""
    from typer.exceptions import Abort, Exit, TyperException

    from sanbu.config import SanbuError

    try:
        status = app(standalone_mode=False) or 0
    except Exit as error:
        status = error.exit_code
    except TyperException as error:
        status = fail(error.format_message())
    except SanbuError as error:
        status = fail(str(error))
    except OSError as error:
        status = fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    except (KeyboardInterrupt, Abort):
        status = 130
    sys.exit(status)


def fail(line: str) -> int:
    """Say what is wrong in one line."""
    print("sanbu: " + " ".join(line.split()), file=sys.stderr)
    return 2
