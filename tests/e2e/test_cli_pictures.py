"""The command line with pictures: normal use and common mistakes."""

import json

import numpy as np
import pytest
from PIL import Image

from sanbu.files import read_tensors
from tests.command_line import sanbu
from tests.e2e.test_cli import refused

SMALL = [
    "schedule.steps=4",
    "schedule.batch=8",
    "schedule.samples=4",
    "schedule.evaluate_rows=16",
    "machine.threads=1",
    "model.width=16",
    "model.layers=1",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with three small runs."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, more in {
        "flow": ["strategy.steps=3", "data.drop_label=0.1", "data.test=0.3"],
        "vae": ["data.classes=0", "data.test=0.3"],
        "ddpm": ["model.groups=4", "strategy.steps=3"],
    }.items():
        done = sanbu("train", name, *SMALL, *more, "--run", folder / name)
        assert done.returncode == 0, done.stderr
    return folder


def test_generate_writes_pictures(place, tmp_path):
    done = sanbu(
        "generate",
        place / "flow",
        "-n",
        "6",
        "--label",
        "7",
        "--out",
        tmp_path / "out",
        "strategy.guidance=2",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["pictures"] == 6 and said["evaluations"] == 6
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"{i:04d}.png" for i in range(6)]  # programs that compute FID take every picture of a folder
    assert (tmp_path / "out-grid.png").exists() and (tmp_path / "out-refinement.gif").exists()
    with Image.open(tmp_path / "out" / "0000.png") as picture:
        assert picture.size == (8, 8) and picture.mode == "L"
    again = sanbu(
        "generate", place / "flow", "-n", "6", "--label", "7", "--out", tmp_path / "again", "strategy.guidance=2"
    )
    assert again.stdout.strip() == str(tmp_path / "again-grid.png")
    assert (tmp_path / "again" / "0003.png").read_bytes() == (tmp_path / "out" / "0003.png").read_bytes()


def test_compare_own_runs_and_evaluate_one(place, tmp_path):
    other = sanbu(
        "train",
        "flow",
        *SMALL,
        "data.classes=0",
        "data.drop_label=0",
        "data.test=0.3",
        "strategy.steps=2",
        "--run",
        tmp_path / "flow",
    )
    assert other.returncode == 0, other.stderr
    done = sanbu("compare", place / "vae", tmp_path / "flow", "--run", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert (
        "GMM-60" in done.stdout
        and "Better than a mixture of 60 Gaussians by KID: none" in done.stdout
        and str(tmp_path / "report" / "compare.html") in done.stdout
    )
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"compare.html", "compare.json", "compare.png"}
    rows = json.loads((tmp_path / "report" / "compare.json").read_text())["rows"]
    wanted = {
        "name",
        "kid",
        "frechet",
        "precision",
        "recall",
        "coverage",
        "copy_rate",
        "nfe",
        "ms_per_image",
        "training_cpu_seconds",
        "parameters",
    }
    assert len(rows) == 8 and all(wanted <= set(row) for row in rows)
    found = sanbu("evaluate", place / "vae", "--json")
    assert json.loads(found.stdout.splitlines()[-1])["bits_per_dimension"] > 0


def test_export_to_diffusers_and_back(place, tmp_path):
    assert sanbu("export", place / "ddpm", "--to", "diffusers", "--out", tmp_path / "out").returncode == 0
    assert (tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors").exists()
    done = sanbu("import", tmp_path / "out", "--run", tmp_path / "back")
    assert done.returncode == 0, done.stderr
    first, second = (read_tensors(path / "model.safetensors") for path in (place / "ddpm", tmp_path / "back"))
    assert first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def test_average(place, tmp_path):
    done = sanbu("average", place / "flow", "--length", "0.08", "--out", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    assert sanbu("generate", tmp_path / "new", "--out", tmp_path / "out").returncode == 0
    refused(
        sanbu("average", place / "flow", "--length", "0.9", "--out", tmp_path / "other"),
        "allowed: more than 0 and less than 0.28",
    )


WRONG = [
    (["generate", "{place}/flow", "--label", "11"], "label: given 11, allowed: 0 to 9"),
    (["generate", "{place}/vae", "--label", "3"], "trained without labels"),
    (["generate", "{place}/vae", "--prompt", "{place}/half.png"], "cannot complete a given picture"),
    (["generate", "{place}/flow", "--prompt", "{place}/none.png"], "cannot be read as a picture"),
    (["generate", "{place}/flow", "strategy.sampler=hun"], "strategy.sampler: given"),
    (["train", "flow", "data.classes=0", "strategy.guidance=3"], "the run is unconditional"),
    (["train", "flow", "data.path={place}/mixed"], "all must have the same size"),
    (["train", "flow", "data.path={place}/colours"], "grey and colour mixed"),
    (["train", "flow", "data.path={place}/broken"], "b.png cannot be read as a picture"),
    (["train", "flow", "data.path={place}/one"], "has 1 pictures, 1 of them for training; at least 2 are needed"),
    (["train", "flow", "data.path={place}/nowhere"], "there is no file or folder"),
    (["train", "flow", "data.path={place}/few.npz", "data.classes=2"], "has labels up to 4"),
    (["train", "dit", "model.patch=3"], "model.patch: given 3, but it must divide"),
    (["train", "unet"], "unknown recipe 'unet'"),
    (["train", "vae", "model=unet"], "needs one of: consistency, denoising"),
    (["compare", "digts"], "did you mean 'digits'?"),
    (
        ["export", "{place}/flow", "--to", "diffusers", "--out", "{place}/out"],
        "diffusers has no pipeline for 'skip-perceptron'",
    ),
    (["export", "{place}/ddpm", "--to", "difusers", "--out", "{place}/out"], "did you mean 'diffusers'?"),
    (["export", "{place}/ddpm", "--to", "diffusers", "--label", "12", "--out", "{place}/out"], "label: given 12"),
]


@pytest.fixture(scope="module")
def wrong(place):
    """Arrays and folders of invalid pictures."""
    draws = np.random.default_rng(0)

    def save(name, *shape):
        (place / name).parent.mkdir(exist_ok=True)
        Image.fromarray(draws.integers(0, 255, shape, dtype=np.uint8)).save(place / name)

    for folder, second in (("mixed", (9, 8)), ("colours", (8, 8, 3))):
        save(f"{folder}/a.png", 8, 8)
        save(f"{folder}/b.png", *second)
    save("broken/a.png", 8, 8)
    (place / "broken" / "b.png").write_bytes(b"no picture")
    save("one/a.png", 8, 8)
    save("half.png", 8, 8, 4)
    np.savez(place / "few.npz", x=draws.integers(0, 255, (20, 8, 8), dtype=np.uint8), y=np.arange(20) % 5)
    return place


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_what_is_wrong_is_said_in_one_line(number, wrong, tmp_path):
    arguments, line = WRONG[number]
    more = ["data.validation=0", "data.test=0"] if arguments[0] == "train" and "data.path" in arguments[-1] else []
    refused(
        sanbu(
            *(text.format(place=wrong) for text in arguments), *more, cwd=tmp_path, SANBU_CACHE=str(tmp_path / "cache")
        ),
        line,
    )
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())
