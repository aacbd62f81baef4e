"""Which runs are compared, under which names, with which labels; what a comparison says while it works."""

import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from sanbu.config import ConfigError, SanbuError, override
from sanbu.data import memory
from sanbu.data.image_rows import Images
from sanbu.evaluation import compare, pictures
from sanbu.evaluation.contest import Contestant
from sanbu.evaluation.jobs import Job, Jobs
from sanbu.evaluation.picture_metrics import Judge
from sanbu.evaluation.pictures import labels_of_data
from sanbu.evaluation.same_pictures import check_same_pictures
from sanbu.loop import train
from sanbu.recipes import images
from sanbu.run import Run

# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["a/run", "b/run"], ["a/run", "b/run"]),
        (["x/a/run", "y/a/run", "z/other"], ["x/a/run", "y/a/run", "other"]),
        (["run", "deep/run"], None),
        (["a", "b"], ["a", "b"]),
    ],
    ids=str,
)
def test_runs_of_one_name_are_told_apart(folders, names, tmp_path):
    found = compare.names_of([SimpleNamespace(folder=tmp_path / folder) for folder in folders])
    assert found == names if names else len(set(found)) == len(folders)


def test_one_run_twice_is_refused(tmp_path):
    """Also through a link, or another spelling of its path."""
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for other in ("a", "link", "b/../a"):
        runs = [SimpleNamespace(folder=tmp_path / folder) for folder in ("a", "c", other)]
        with pytest.raises(ConfigError, match="is given more than once"):
            compare.names_of(runs)


# -- labels ------------------------------------------------------------------------------------------------------------


def labelled(counts, **fields):
    """Grey pictures sorted by class, so many of each."""
    label = np.repeat(np.arange(len(counts)), counts)
    array = np.random.default_rng(0).integers(0, 256, (len(label), 4, 4), dtype=np.uint8)
    return memory.images(array, label, **{"test": 0.5, "validation": 0.0, **fields})


@pytest.mark.parametrize("counts", [(950, 50), (10, 980, 10), (500, 500), (997, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("times", [1, 3])
def test_labels_are_drawn_as_often_as_the_test_pictures_have_them(counts, times):
    data = labelled(counts)
    built = data.build()
    run, places = SimpleNamespace(recipe=SimpleNamespace(data=data.resolve())), built.places["test"]
    drawn = labels_of_data(run, built, times * len(places)).numpy()
    assert np.array_equal(np.bincount(drawn, minlength=10), times * np.bincount(built.labels[places], minlength=10))


def test_a_few_labels_of_sorted_data_are_of_every_class():
    data = labelled((500, 500))
    run = SimpleNamespace(recipe=SimpleNamespace(data=data.resolve()))
    drawn = labels_of_data(run, data.build(), 100).float()
    assert 0.3 < float(drawn.mean()) < 0.7


def test_a_run_without_labels_draws_without():
    data = labelled((500, 500))
    run = SimpleNamespace(recipe=SimpleNamespace(data=labelled((500, 500), classes=0, drop_label=0.0).resolve()))
    assert labels_of_data(run, data.build(), 50).equal(torch.zeros(50, dtype=torch.long))


# -- the same pictures -------------------------------------------------------------------------------------------------


def written(place, shade=0, labels=None):
    """60 pictures as NPZ, or as a folder."""
    array = np.random.default_rng(0).integers(0, 200, (60, 8, 8, 3), dtype=np.uint8) + np.uint8(shade)
    if place.suffix == ".npz":
        np.savez(place, x=array, y=np.arange(60) % 2 if labels is None else labels)
    else:
        for number, picture in enumerate(array):
            (place / str(number % 2)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place / str(number % 2) / f"{number:02d}.png")
    return place


def run_on(path, folder, *more):
    """A run that saw the pictures, untrained."""
    small = ["model.width=16", "model.layers=1", "schedule.steps=0", "schedule.samples=1", "machine.threads=1"]
    return train(override(images.flow(), [f"data.path={path}", *small, *more]), folder, watchers=[])


def test_pictures_are_known_by_what_is_in_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = written(tmp_path / "x.npz")
    first = run_on(whole, tmp_path / "first")
    same = [
        run_on("x.npz", tmp_path / "relative"),
        run_on(shutil.copy(whole, tmp_path / "copy.npz"), tmp_path / "copy"),
        run_on(written(tmp_path / "folder"), tmp_path / "as-folder"),
        run_on(whole, tmp_path / "without", "data.classes=0", "data.drop_label=0"),
    ]
    for run in same:
        assert check_same_pictures([first, run]).folder == first.folder
    other = {
        "shade": run_on(written(tmp_path / "brighter.npz", shade=9), tmp_path / "brighter"),
        "labels": run_on(written(tmp_path / "labels.npz", labels=np.zeros(60, int)), tmp_path / "labels"),
        "split": run_on(whole, tmp_path / "split", "data.test=0.4"),
        "levels": run_on(whole, tmp_path / "levels", "data.levels=4"),
        "shape": run_on(whole, tmp_path / "shape", "data.shape=[3,4,4]"),
    }
    for name, run in other.items():
        with pytest.raises(SanbuError, match="was trained on other pictures than"):
            pytest.fail(f"{name}: {check_same_pictures([first, run]).folder}")


def test_other_contents_under_one_path_are_other_pictures(tmp_path):
    source = written(tmp_path / "x.npz")
    before, kept = run_on(source, tmp_path / "before"), shutil.copy(source, tmp_path / "kept.npz")
    on_copy = run_on(kept, tmp_path / "on-copy")
    written(source, shade=30)
    after = run_on(source, tmp_path / "after")
    for runs in ([before, after], [after, before], [before]):
        with pytest.raises(SanbuError, match="other pictures"):
            check_same_pictures([Run.open(run.folder) for run in runs])
    assert check_same_pictures([before, on_copy]).folder == on_copy.folder  # whose source is as it was


# -- what a run needs for it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pixelcnn", "vae", "gan", "flow", "edm", "ddpm", "dit"])
def test_the_default_recipes_can_be_judged(name):
    assert Judge(getattr(images, name)().data).count >= 100


def test_too_few_pictures_say_what_to_do():
    """A split that is changed afterwards would test on what the run has learnt from."""
    with pytest.raises(SanbuError, match=r"but 100 of each are needed for distances; train again and set data.test"):
        Judge(labelled((300, 300), test=0.1))
    with pytest.raises(SanbuError, match="needed for distances; add pictures"):
        Judge(labelled((40, 40)))


@pytest.mark.parametrize("recipe", [images.flow, images.edm])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (3, 32, 32), (1, 48, 20)], ids=str)
def test_the_noise_of_pictures_of_any_size_passes_through(recipe, shape):
    """Predictions of a rank below the size of a picture cannot remove its noise."""
    data = Images(path="unknown", shape=shape, levels=256, classes=0, drop_label=0.0)
    model = recipe().change(data=data).model.build(data.space())
    rows = 400
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        out = model(torch.randn(rows, *shape), torch.full((rows,), 0.9), torch.zeros(rows, dtype=torch.long)).flatten(1)
    values = torch.linalg.svdvals((out - out.mean(0)).double())
    assert int((values > 1e-4 * values[0]).sum()) == min(rows - 1, out.shape[1])


def test_progress_is_said_for_every_run_and_baseline(monkeypatch):
    """On photographs the baselines alone take more than a minute."""
    steps = []

    @contextmanager
    def progress(title, total):
        found = []
        yield lambda count, name="": found.append(name)
        steps.append((title, total, found))

    monkeypatch.setattr(compare, "progress_tasks", progress)
    monkeypatch.setattr(compare, "measure_runs", lambda judge, runs: [])
    compare.measure_rows(Judge(labelled((250, 250))), [])
    ((title, total, found),) = steps
    assert title == "measuring baselines" and total == len(found) and set(found) == set(compare.FLOORS)


def test_progress_is_said_within_the_measuring_of_a_run(monkeypatch):
    """Its parts make one in all, so the time left is known before the first run is measured."""
    said = []

    @contextmanager
    def progress(title, total):
        assert title == "measuring" and total == 3
        yield lambda part, name: said.append((part, name))

    def draw(run, count, *given):
        for _ in range(4) if count > 1 else ():
            given[-1](0.25)
        return None, 1, 1.0

    monkeypatch.setattr(compare, "progress_tasks", progress)
    for name, found in {"labels_of_data": None, "bits_per_dimension": None, "training_cost": {}}.items():
        monkeypatch.setattr(pictures, name, lambda *given, found=found: found)
    monkeypatch.setattr(pictures, "draw_pictures", draw)
    figures = dict.fromkeys(("kid", "frechet", "precision", "recall", "density", "coverage", "copy_rate"), 0.5)
    judge = SimpleNamespace(data=None, count=100, score=lambda samples: figures)
    recipe = images.flow()
    run = SimpleNamespace(recipe=recipe, model=torch.nn.Linear(2, 2))
    runs = [
        (Contestant("flow", recipe, draws=(("1 step", ()), ("2 steps", ()))), run),
        (Contestant("other", recipe), run),
    ]
    compare.measure_runs(judge, runs)
    for name in ("flow, 1 step", "flow, 2 steps", "other"):
        parts = [part for part, each in said if each == name]
        assert len(parts) == 5 and sum(parts) == pytest.approx(1)


def test_what_was_done_before_does_not_count_as_fast(tmp_path):
    """The time left is estimated from the work of this call; `done` is the work that needs none."""
    (tmp_path / "a").write_text("")
    jobs = Jobs(
        [Job(name, print, (), tmp_path / name, seconds) for name, seconds in (("a", 30), ("b", 10))], 1, tmp_path
    )
    assert jobs.done() == 30


def refuse():
    raise SanbuError("data.path: given 'x'")


def note(place):
    place.write_text("x")


def test_a_folder_in_which_nothing_was_made_is_removed(tmp_path):
    refused = Job("bad", refuse, (), tmp_path / "new" / "bad", 1)
    with pytest.raises(SanbuError, match="bad: data.path"):
        list(Jobs([refused], 1, tmp_path / "new" / "jobs.log").work())
    assert not (tmp_path / "new").exists()
    good = Job("good", note, (tmp_path / "new" / "good",), tmp_path / "new" / "good", 1)
    with pytest.raises(SanbuError):
        list(Jobs([good, refused], 1, tmp_path / "new" / "jobs.log").work())
    assert good.made.exists()
