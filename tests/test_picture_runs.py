"""Whole runs on pictures: bitwise resume, sampling, post-hoc averages, comparison."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sanbu import recipes
from sanbu.checkpoints import Writer
from sanbu.config import SanbuError, override
from sanbu.evaluation.compare import compare_runs
from sanbu.evaluation.contest import Contestant, train_contestants
from sanbu.evaluation.report import advice, row_figures, write
from sanbu.files import FileError, read_tensors
from sanbu.interop.averages import combine_snapshots, rebuild
from sanbu.layers.average import power_of
from sanbu.loop import train
from sanbu.run import Run

QUICK = [
    "schedule.steps=8", "schedule.batch=16", "schedule.checkpoint_every=2", "schedule.evaluate_every=4",
    "schedule.evaluate_rows=32",
    "schedule.sample_every=4", "schedule.samples=4", "schedule.keep=9", "machine.threads=1", "machine.device=cpu",
    "machine.precision=float32",
]  # fmt: skip
SMALL = {
    "pixelcnn": ["model.width=8", "model.layers=1"],
    "pixelrnn": ["model.width=8", "model.layers=1"],
    "image-gpt": ["model.width=8", "model.heads=2", "model.layers=1"],
    "vae": ["model.width=16", "model.layers=1"],
    "gan": ["model.width=16", "model.layers=1", "objective.every=2"],
    "ddpm": ["model.width=8", "model.groups=4", "strategy.steps=4"],
    "edm": ["model.width=16", "model.layers=1", "strategy.steps=3"],
    "flow": ["model.width=16", "model.layers=1", "strategy.steps=4"],
    "dit": ["model.width=16", "model.heads=2", "model.layers=1", "strategy.steps=4"],
    "consistency": ["model.width=16", "model.layers=1", "objective.stage=2"],
}


def small(name, *more):
    return override(recipes.find(name)(), [*QUICK, *SMALL[name], *more])


@pytest.mark.parametrize("name", SMALL)
def test_every_recipe_trains_draws_and_goes_on_to_the_bit(name, tmp_path):
    """Eight rounds equal eight with the last four repeated after a resume, for averages and both players too."""
    whole = train(small(name), tmp_path / "whole")
    again = train(small(name), tmp_path / "again")
    for path in Writer(again.folder).checkpoints()[2:]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    (again.folder / "model.safetensors").unlink()
    again = train(small(name), tmp_path / "again", resume=True)
    for file in (
        "model.safetensors",
        "averages/step-00000006.safetensors",
        "averages/step-00000008.safetensors",
        "checkpoints/step-00000008/state.safetensors",
    ):
        assert (whole.folder / file).read_bytes() == (again.folder / file).read_bytes(), file
    kept = [
        [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.metrics()] for run in (whole, again)
    ]
    assert kept[0] == kept[1]
    assert {path.suffix for path in (whole.folder / "samples").iterdir()} == {".png"}
    one, several = whole.generate(seed=5), whole.generate(n=3, seed=4)
    assert one.shape == (8, 8) and one.dtype == np.uint8 and len(several) == 3


@pytest.mark.parametrize("name", SMALL)
def test_a_picture_is_the_same_alone_and_among_64(name, tmp_path):
    run = train(small(name, "schedule.steps=2", "schedule.sample_every=0"), tmp_path / "run")
    together = run.generate({"label": 3}, n=64, seed=100)
    for row in (0, 17, 63):
        alone = run.generate({"label": 3}, seed=100 + row)
        # rounding changes at most one of 17 levels
        assert int((together[row].astype(int) - alone).__abs__().max()) <= 16
        assert (together[row] == alone).mean() > 0.95


def test_pictures_are_written_with_a_grid_and_an_animation(tmp_path):
    run = train(small("flow"), tmp_path / "run")
    written = run.save(tmp_path / "out", {"label": 7}, 12)
    assert sorted(p.name for p in (tmp_path / "out").iterdir())[:2] == ["0000.png", "0001.png"]
    with Image.open(tmp_path / "out-refinement.gif") as animation:
        assert 2 <= animation.n_frames <= 4  # equal frames are merged
    assert written["evaluations"] == 4 and written["pictures"] == 12
    one_shot = train(small("vae"), tmp_path / "vae")
    assert "animation" not in one_shot.save(tmp_path / "vae-out", None, 4)


def test_a_folder_of_pictures_holds_as_many_as_were_asked_for(tmp_path):
    """All of one size and nothing else, also after an earlier, longer call, as programs for FID need it."""
    run, out = train(small("flow"), tmp_path / "run"), tmp_path / "out"
    for n in (12, 1, 4):
        run.save(out, None, n)
        assert sorted(path.name for path in out.iterdir()) == [f"{number:04d}.png" for number in range(n)]
        assert {Image.open(path).size for path in out.iterdir()} == {(8, 8)}
    Image.new("L", (9, 9)).save(out / "mine.png")
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(FileError):
        run.save(out, None, 2)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_picture_is_completed(tmp_path):
    run = train(small("pixelcnn"), tmp_path / "run")
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, :] = (255, 255, 255, 255)
    Image.fromarray(pixels).save(tmp_path / "half.png")
    for picture in run.generate({"picture": tmp_path / "half.png"}, n=3):
        assert (picture[:4] == 255).all() and (picture[4:] != 255).any()


# -- averages ----------------------------------------------------------------------------------------------------------


def test_an_average_of_another_length_is_rebuilt_from_two(tmp_path):
    """From the stored lengths 0.05 and 0.1, length 0.075 is rebuilt close to the one tracked in training."""
    steps = [
        "schedule.steps=64",
        "schedule.checkpoint_every=4",
        "schedule.sample_every=0",
        "optimizer.learning_rate=0.01",
    ]
    run = train(small("flow", *steps), tmp_path / "run")
    direct = train(small("flow", *steps, "average.lengths=[0.075,0.2]"), tmp_path / "direct")
    found = rebuild(run, 0.075, tmp_path / "new")
    flat = lambda tensors: torch.cat([tensors[name].flatten().double() for name in sorted(tensors)])
    wanted, near, rebuilt = (flat(read_tensors(r.folder / "model.safetensors")) for r in (direct, run, found))
    assert float((rebuilt - wanted).norm()) < 0.1 * float((near - wanted).norm())
    assert Run.open(tmp_path / "new").generate().shape == (8, 8)
    files = sorted((run.folder / "averages").iterdir())
    same = flat(combine_snapshots(files, power_of(0.05)))
    assert float((same - near).norm()) < 1e-4 * float(near.norm())  # a stored length is reproduced


def test_a_length_out_of_range_or_a_run_without_averages_is_refused(tmp_path):
    run = train(small("flow", "average=none"), tmp_path / "run")
    with pytest.raises(SanbuError, match="has no snapshots of averages"):
        rebuild(run, 0.1, tmp_path / "new")
    with pytest.raises(SanbuError, match="allowed: more than 0 and less than 0.28"):
        rebuild(run, 0.5, tmp_path / "new")


def test_a_power_of_a_length_is_that_of_its_weights():
    for length in (0.02, 0.05, 0.1, 0.2):
        t = np.arange(1, 200001) / 200000
        weights = t ** power_of(length)
        mean = (weights * t).sum() / weights.sum()
        assert np.sqrt((weights * (t - mean) ** 2).sum() / weights.sum()) == pytest.approx(length, rel=1e-3)


# -- comparisons -------------------------------------------------------------------------------------------------------


def test_own_runs_are_compared_and_reported(tmp_path):
    compared = ["data.validation=0", "data.test=0.33"]
    runs = [
        train(small(name, *compared, "schedule.sample_every=0"), tmp_path / name)
        for name in ("flow", "vae", "pixelcnn")
    ]
    rows = compare_runs(runs)
    names = [row.name for row in rows]
    assert names == ["real half", "copycat", "one Gaussian", "GMM-60", "KDE", "noise", "flow", "vae", "pixelcnn"]
    by_name = dict(zip(names, rows, strict=True))
    assert by_name["flow"].nfe == 4 and by_name["vae"].nfe == 1 and by_name["pixelcnn"].nfe == 64
    assert by_name["vae"].bits_per_dimension > 1 and by_name["flow"].bits_per_dimension is None
    assert by_name["flow"].training_cpu_seconds > 0 and by_name["flow"].parameters == sum(
        p.numel() for p in runs[0].model.parameters()
    )
    content = write(rows, tmp_path / "report", "three")
    page = (tmp_path / "report" / "compare.html").read_text()
    assert (
        "http" not in page.replace("http-equiv", "")
        and "data:image/png" in page
        and all(name in page for name in names)
    )
    assert (tmp_path / "report" / "compare.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((tmp_path / "report" / "compare.json").read_text()) == json.loads(json.dumps(content))
    assert "Better than a mixture of 60 Gaussians by KID: none" in advice(rows)[-1] and "kid" in row_figures(rows[0])


def test_runs_of_other_pictures_are_not_compared(tmp_path):
    first = train(small("vae", "data.test=0.3"), tmp_path / "first")
    other = train(small("vae", "data.test=0.2"), tmp_path / "other")
    with pytest.raises(SanbuError, match="was trained on other pictures"):
        compare_runs([first, other])
    few = train(small("vae", "data.test=0.05"), tmp_path / "few")
    with pytest.raises(SanbuError, match="set data.test higher"):
        compare_runs([few])


def test_a_contest_gives_each_its_budget_and_goes_on_where_it_was(tmp_path):
    quick = ["schedule.sample_every=0", "schedule.evaluate_every=0", "data.classes=0"]
    teacher, student = small("edm", *quick), small("consistency", *quick)
    contestants = (
        Contestant("edm", teacher, share=0.6),
        Contestant("consistency", student, share=0.4, parent="edm", divided=(("objective.stage", 4),)),
    )
    runs = list(train_contestants(contestants, tmp_path, 2.0, 1))
    for each, seed, run in runs:
        spent = json.loads((run.folder / "cost.json").read_text())["training_cpu_seconds"]
        assert 0.3 * 2 * each.share < spent < 3 * 2 * each.share
    assert runs[1][2].recipe.parents["model"].endswith("edm-0")
    assert runs[1][2].recipe.objective.stage == max(1, runs[1][2].recipe.schedule.steps // 4)
    before = [(run.folder / "model.safetensors").stat().st_mtime_ns for _, _, run in runs]
    with pytest.raises(SanbuError, match="was trained for 1.2 CPU seconds, not 1.8; give another --run"):
        list(train_contestants(contestants, tmp_path, 3.0, 1))
    again = list(train_contestants(contestants, tmp_path, 2.0, 1))
    assert [(run.folder / "model.safetensors").stat().st_mtime_ns for _, _, run in again] == before
