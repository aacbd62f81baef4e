"""Every file and diff of docs/extending.md is applied to a copy of the package, and each result is trained."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
TINY = {
    "gpt2": [
        "data.tokenizer=byte",
        "data.context=16",
        "model.width=16",
        "model.heads=2",
        "model.layers=1",
        "model.context=32",
    ],
    "flow": ["model.width=8", "model.layers=1", "schedule.samples=4"],
}
SCHEDULE = [
    f"schedule.{field}" for field in ("steps=4", "batch=4", "evaluate_every=2", "sample_every=4", "evaluate_rows=4")
]


def files():
    return dict(re.findall(r"```python\n# (sanbu/\S+\.py)\n(.*?)```", PAGE, re.S))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A copy of the package with all changes of the page."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "sanbu", folder / "sanbu", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "text.txt").write_text("".join(f"line {i}: the quick brown fox\n" for i in range(300)), encoding="utf-8")
    for name, body in files().items():
        assert not (folder / name).exists(), name
        (folder / name).write_text(body, encoding="utf-8")
    for name, change in re.findall(r"```diff\n# (\S+)\n(.*?)```", PAGE, re.S):
        apply(folder / name, change.splitlines())
    return folder


def apply(file, change):
    """Apply one diff hunk: context lines begin with a space, removed lines with -, added lines with +."""
    before = "\n".join(line[1:] for line in change if line[0] != "+")
    after = "\n".join(line[1:] for line in change if line[0] != "-")
    text = file.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{file}: {before!r}"
    file.write_text(text.replace(before, after), encoding="utf-8")


def commands():
    return [line.split()[2:] for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]


def test_each_is_one_file_and_one_line():
    hunks = re.findall(r"```diff\n# \S+\n(.*?)```", PAGE, re.S)
    assert len(commands()) == len(hunks) == 5 and len(files()) == 6  # the modality needs a codec and a data file
    assert all(sum(line.startswith("+") for line in hunk.splitlines()) == 1 for hunk in hunks)


SOME = [pytest.param(words, marks=[pytest.mark.slow] * (place > 0)) for place, words in enumerate(commands())]


@pytest.mark.parametrize("words", SOME, ids=lambda words: words[1])
def test_the_change_trains_and_draws(place, words):
    changes = [*TINY[words[0]], *(["data.path=text.txt"] if words[0] == "gpt2" else []), *words[1:], *SCHEDULE]
    run = f"runs/{words[1].replace('=', '-')}"
    environment = {"PATH": "/usr/bin:/bin", "SANBU_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    for verb in (["train", words[0], *changes, "--run", run], ["generate", run, "-n", "2"]):
        done = subprocess.run(
            [sys.executable, "-m", "sanbu", *verb],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    if "tones" in run:
        assert (place / run / "generated" / "0001.wav").read_bytes()[:4] == b"RIFF"


def test_the_kinds_of_the_page_pass_the_checks(place):
    code = """
import torch
from sanbu.models.denoisers.plain_convolutions import PlainConvolutions
from sanbu.objectives.smoothed import Smoothed
from sanbu.optimizers.sign import SignDescent
from sanbu.strategies.midpoint import Midpoint
from sanbu.models.tokens.gpt import GPT2
from sanbu.space import Space
from sanbu.testing import check_model, check_objective, check_search, check_strategy

space, text = Space((1, 4, 4), 17, classes=2), Space((12,), 30, 0)
label = torch.tensor([0, 1, 2])
check_model(PlainConvolutions(width=8), space, (torch.rand(3, 1, 4, 4), torch.tensor([0.1, 0.5, 0.9]), label))
tokens = torch.arange(48).view(4, 12) % 29 + 1
model = GPT2(layers=1, heads=2, width=16, context=16).build(text)
check_objective(Smoothed(), model, {"tokens": tokens, "targets": tokens.roll(-1, 1)})
check_search(SignDescent(learning_rate=0.01))
denoiser = PlainConvolutions(width=8).build(space).eval()
check_strategy(Midpoint(steps=3), {"model": denoiser}, space, {"label": label})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
