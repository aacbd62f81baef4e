"""The demo as jobs: an assistant in five stages, and six ways to draw digits, side by side on the cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sanbu.display.plots import draw_curves
from sanbu.evaluation.assistant import Answers, answers_of_run, figures, tabulate
from sanbu.evaluation.compare import contest_jobs, read_rows
from sanbu.evaluation.jobs import Job, Jobs, Progress
from sanbu.evaluation.report import write
from sanbu.files import write_json
from sanbu.recipes import pipelines
from sanbu.recipes.contests.pictures import digits
from sanbu.recipes.stages import Stage, split_overrides, train_stage
from sanbu.run import Run

SHOWN = ("base", "sft", "ppo", "dpo")  # the stages that write
SAMPLED = ("schedule.sample_every", 6)  # how often the digits are drawn during training
QUESTIONS = 256  # that the assistants answer at the end
TAKES = {"base": 14, "sft": 225, "answers": 22, "reward": 36, "ppo": 85, "dpo": 28, "measured": 18}  # seconds, about
MEASURED = "measured"
BEFORE = {"sft": "base", "answers": "sft", "reward": "answers", "ppo": "reward", "dpo": "answers"}


def jobs(folder: Path, seconds: float, overrides: Sequence[str] = ()) -> list[Job]:
    """All jobs; the assistant goes first, because its stages wait for each other.

    folder: of the assistant's runs; the digits are beside it. seconds: of CPU time for each way to draw digits.
    overrides: of the assistant's stages, as in sft.schedule.steps=100.
    """
    return [*assistant_jobs(folder, overrides), *digits_jobs(digits_folder(folder), seconds)]


def parts(everything: Jobs) -> list[Progress]:
    """How far each part of the demo is; the jobs that measure assistants are one part, those of the digits another."""
    states = everything.progress()
    asked = [each for each in states if each.job.name.startswith(MEASURED)]
    others = [each for each in states if each not in asked]
    alone = [each for each in others if each.job.run is not None or each.job.name in TAKES]
    rest = [each for each in others if each not in alone]
    return [*alone, merged(MEASURED, asked), merged("comparison", rest)]


def merged(name: str, states: Sequence[Progress]) -> Progress:
    """Several jobs as one, which runs while any of them does."""
    found = {each.status for each in states}
    status = "running" if "running" in found or len(found) > 1 else states[0].status
    seconds = sum(each.job.seconds for each in states)
    part = sum(each.part * each.job.seconds for each in states) / seconds
    job = replace(states[0].job, name=name, seconds=seconds)
    return Progress(job, status, part, sum(each.left for each in states))


def assistant_jobs(folder: Path, overrides: Sequence[str]) -> list[Job]:
    """A job for each stage, one for the answers that are ranked, and a measurement at the end."""
    made = []
    for stage in stages_of(overrides):
        place, arguments = folder / stage.name, (stage.name, folder, tuple(overrides))
        if stage.name == "reward":
            ranked = folder / "answers.jsonl"
            made.append(Job("answers", rank_answers, arguments, ranked, TAKES["answers"], after=("sft",)))
        after = (BEFORE[stage.name],) if stage.name in BEFORE else ()
        made.append(Job(stage.name, do_stage, arguments, place / "finished.json", TAKES[stage.name], place, after))
    files = [folder / f"answers-{name}.json" for name in SHOWN[1:]]
    for name, file in zip(SHOWN[1:], files, strict=True):
        title, given = f"{MEASURED}, {name}", (folder, name, file)
        made.append(Job(title, answer, given, file, TAKES[MEASURED], after=(name, "reward")))
    done = folder / "measured.json"
    waits = (*SHOWN, *(job.name for job in made[-len(files) :]))
    made.append(Job(MEASURED, measure_assistants, (folder, files, done), done, 2, after=waits))
    return made


def stages_of(overrides: Sequence[str]) -> list[Stage]:
    """The stages of the assistant, with the overrides in their recipes. Raises ConfigError for a wrong override."""
    stages, rest = pipelines.make("assistant", list(overrides))
    chosen = split_overrides(stages, rest)

    def changed(stage: Stage) -> Stage:
        changes = ["machine.threads=1", *chosen[stage.name]]
        return replace(stage, recipe=lambda folder: stage.recipe(folder).change(*changes))

    return [changed(stage) for stage in stages]


def stage_of(name: str, overrides: Sequence[str]) -> Stage:
    """One stage of the assistant."""
    return next(stage for stage in stages_of(overrides) if stage.name == name)


def do_stage(name: str, folder: Path, overrides: Sequence[str]) -> None:
    """Train one stage, or continue it, and draw its curves."""
    run = train_stage(stage_of(name, overrides), folder, (), watchers=[])
    if run.finished():
        draw_curves(run)


def rank_answers(name: str, folder: Path, overrides: Sequence[str]) -> None:
    """Make the rankings that a stage learns from."""
    stage_of(name, overrides).before(folder)


def answer(folder: Path, name: str, path: Path) -> None:
    """Let one assistant answer held-out questions, and write its answers into a file."""
    answers_of_run(Run.open(folder / name), Run.open(folder / "reward"), QUESTIONS).write(path)


def measure_assistants(folder: Path, files: Sequence[Path], path: Path) -> None:
    """Write into a file how well the assistants answered, as figures and as a table. files: of the sft run first."""
    found = [Answers.read(file) for file in files]
    names = [str(folder / name) for name in SHOWN[1:]]
    columns = [figures(one, found[0]) for one in found]
    measured, text = tabulate(dict(zip(names, columns, strict=True)))
    write_json(path, {**measured, "table": text})


def digits_folder(folder: Path) -> Path:
    """The folder of the digits, beside that of the assistant."""
    return folder.with_name(folder.name + "-digits")


def digits_jobs(folder: Path, seconds: float) -> list[Job]:
    """Every way to draw digits, trained and measured, and a report at the end."""
    shown = [replace(each, divided=(*each.divided, SAMPLED)) for each in digits()]
    made = contest_jobs(shown, folder, seconds, 1)
    rows = tuple(job.name for job in made if job.run is None)
    return [*made, Job("report", write_report, (folder, seconds), folder / "compare.html", 5, after=rows)]


def write_report(folder: Path, seconds: float) -> None:
    """Write compare.json, compare.png and compare.html."""
    write(read_rows(digits(), folder), folder, f"digits: {seconds:g} CPU seconds each")
