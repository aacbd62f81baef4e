"""The verbs of tables: impute, predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sanbu.cli.app import Json, RunFolder, app, report
from sanbu.config import ConfigError

File = Annotated[str, typer.Argument(metavar="FILE", help="table with the rows: CSV, TSV, Parquet, Excel or JSON")]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="file to write, .csv or .tsv")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="row i is drawn with seed + i")]


@app.command()
def impute(
    run: RunFolder,
    file: File,
    out: Out = Path("filled.csv"),
    draws: Annotated[int, typer.Option("--draws", min=1, max=1000, help="fillings of each row")] = 1,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fill the missing cells of a table by draws given the others.

    Cells that are there stay as they are. With several draws a first column
    numbers them: their spread says how sure a cell is.

    \b
    sanbu impute runs/table holes.csv --out filled.csv --draws 5
    """
    from sanbu.codecs.tables import write_lines
    from sanbu.evaluation.tables.answers import impute as fill
    from sanbu.run import Run

    check(out)
    lines, holes = fill(Run.open(run), file, draws, seed)
    write_lines(lines, out)
    rows = (len(lines) - 1) // draws
    about = {"run": str(run), "out": str(out), "rows": rows, "filled": holes, "draws": draws}
    times = f", {draws} draws" if draws > 1 else ""
    report(about, as_json, f"{out}: {holes:,} cells of {rows:,} rows filled{times}")


@app.command()
def predict(
    run: RunFolder,
    file: File,
    out: Out = Path("predictions.csv"),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Predict the target of the rows of a table; classes come with their probabilities.

    \b
    sanbu predict runs/classify rows.csv --out predictions.csv
    """
    from sanbu.codecs.tables import write_lines
    from sanbu.evaluation.tables.answers import predict as answer
    from sanbu.run import Run

    check(out)
    lines = answer(Run.open(run), file, seed)
    write_lines(lines, out)
    rows = len(lines) - 1
    report({"run": str(run), "out": str(out), "rows": rows}, as_json, f"{out}: {rows:,} rows")


def check(out: Path) -> None:
    """Raise ConfigError unless the file to write is CSV or TSV."""
    from sanbu.codecs.tables import SUFFIXES

    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--out: given {out}, allowed: a file that ends with {' or '.join(SUFFIXES)}")
