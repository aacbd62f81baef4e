"""The Python API: the snippets of docs/python.md run, and mistakes get a one-line error."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sanbu
from sanbu.config import ConfigError, SanbuError
from sanbu.files import seal, write_json

ROOT = Path(__file__).parents[1]
TINY = ["data.tokenizer=byte", "model.width=16", "model.heads=2", "model.layers=1", "model.context=32"]
QUIET = [
    "machine.precision=float32",
    "schedule.sample_every=0",
    "schedule.evaluate_every=0",
    "schedule.checkpoint_every=0",
]


def tiny(**fields):
    documents = sanbu.data.text(["one document about cats. " * 40, "another about dogs. " * 40], context=16)
    return sanbu.recipes.gpt2().change(data=documents, steps=3, batch=2).change(*TINY, *QUIET).change(**fields)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return sanbu.train(tiny(), tmp_path_factory.mktemp("door") / "run", watchers=[])


def test_the_snippets_of_the_page_run(tmp_path):
    """As one script, in a new folder with a new cache."""
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.S)
    assert len(snippets) >= 9
    (tmp_path / "page.py").write_text("\n".join(snippets), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=250,
        env={"PATH": "/usr/bin:/bin", "SANBU_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1",
            "HOME": str(tmp_path),
             "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "did you mean 'steps'" in done.stdout and "Run('runs/first', gpt2, step 20" in done.stdout
    assert "(8, 8)" in done.stdout


def test_import_needs_no_torch_and_dir_lists_the_door():
    code = "import sanbu, sys; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules; print(*dir(sanbu))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"train", "load", "generate", "evaluate", "compare", "recipes", "data", "models"} <= set(done.stdout.split())


def test_keywords_are_overrides(run):
    by_text = run.generate("one", n=2, seed=5, overrides=("strategy.temperature=0.7", "strategy.max_tokens=6"))
    assert run.generate("one", n=2, seed=5, temperature=0.7, max_tokens=6) == by_text
    assert "".join(run.stream("one", 5, temperature=0.7, max_tokens=6)) == by_text[0]
    assert sanbu.generate(run, "one", seed=6, temperature=0.7, max_tokens=6) == by_text[1]


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda run: run.generate("x", temprature=1), "strategy.temprature: no field .*did you mean 'temperature'"),
        (lambda run: run.generate("x", temperature="hot"), "strategy.temperature: given \"hot\""),
        (lambda run: run.generate("x", overrides="strategy.temperature=1"), "give a list of them"),
        (lambda run: run.generate("x", strategy="beam"), "strategy: unknown kind 'beam'.*did you mean 'beam-search'"),
        (lambda run: run.recipe.change(stepz=1), "stepz: no such field.*did you mean 'steps'"),
        (lambda run: run.recipe.change(steps=-1), "schedule.steps: given -1"),
        (lambda run: run.recipe.change("model=lama"), "did you mean 'llama'"),
        (lambda run: run.recipe.change(model="lama"), "did you mean 'llama'"),
        (lambda run: run.export("huggingfac", "x"), "did you mean 'huggingface'"),
        (lambda run: sanbu.models.custom(torch.nn.Linear, family="denoise"), "did you mean 'denoiser'"),
        (lambda run: sanbu.models.custom(lambda: None), "move the definition to the top level"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(run, call, line):
    with pytest.raises(ConfigError, match=line) as error:
        call(run)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: sanbu.data.text("one text"), "give a non-empty list of str"),
        (lambda: sanbu.data.text([]), "give a non-empty list of str"),
        (lambda: sanbu.data.images(np.zeros((3, 8))), "2 axes"),
        (lambda: sanbu.data.images(np.full((3, 8, 8), 2.0)), "floats from 0 to 1"),
        (lambda: sanbu.data.images(np.zeros((3, 8, 8), np.uint8), [0, 1]), "3 integers from 0"),
        (lambda: sanbu.data.rows(x=torch.zeros(3), y=torch.zeros(4)), "same number of rows"),
        (lambda: sanbu.data.rows(), "given nothing"),
        (lambda: sanbu.load("nowhere"), "nowhere is not a run"),
    ],
)
def test_wrong_data_is_one_line(call, line):
    with pytest.raises(SanbuError, match=line):
        call()


def test_change_validates_and_leaves_the_old_recipe():
    old = tiny()
    new = old.change("model=llama", "model.width=32", steps=7, average="exponential", name="other")
    assert (new.schedule.steps, new.name, new.model.width) == (7, "other", 32) and new.average.decay == 0.999
    assert old.schedule.steps == 3 and old.change() == old
    with pytest.raises(ConfigError, match="must be a multiple"):
        old.change("model.width=17")


def test_a_recipe_and_a_run_say_what_they_are(run):
    assert re.match(r"Run\('.*run', gpt2, step 3, loss \d\.\d{3}\)", repr(run))
    lines = repr(tiny()).splitlines()
    assert len(lines) == 6 and str(tiny()) == repr(tiny()) and "gpt2(" in lines[2] and "width=16" in lines[2]


class Network(torch.nn.Module):
    """A user's network for pictures of 64 pixels."""

    def __init__(self, width):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.Tanh(), torch.nn.Linear(width, 64))

    def forward(self, x, clock, label):
        return self.body(x.flatten(1)).view_as(x)


def test_a_network_of_ones_own_reloads_or_says_why_not(tmp_path):
    mine = sanbu.models.custom(Network, family="denoiser", width=8)
    recipe = sanbu.recipes.flow().change(*QUIET, model=mine, steps=2, batch=4)
    first = sanbu.train(recipe, tmp_path / "run", watchers=[])
    again = sanbu.load(tmp_path / "run")
    assert (again.generate(seed=1, steps=2) == first.generate(seed=1, steps=2)).all()
    file = tmp_path / "run" / "recipe.json"
    changed = json.loads(file.read_text().replace(f"{__name__}:Network", "a_module_that_went:Network"))
    changed.pop("sha256")
    write_json(file, seal(changed))
    with pytest.raises(SanbuError, match="a_module_that_went:Network cannot be imported"):
        sanbu.load(tmp_path / "run").generate()
    with pytest.raises(SanbuError, match=r"refuses .*hight"):
        sanbu.train(
            recipe.change(model=sanbu.models.custom(Network, family="denoiser", hight=8)), tmp_path / "x", watchers=[]
        )


def test_data_in_memory_is_kept_by_its_content(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    one, same = (
        sanbu.data.images(array, np.arange(30) % 3),
        sanbu.data.images(torch.tensor(array), list(np.arange(30) % 3)),
    )
    assert one == same and one.resolve().classes == 3
    assert sanbu.data.images(array / 255, np.arange(30) % 3).path == one.path
    batch = one.resolve().build().batch(0, 30)
    assert len(batch["label"].unique()) == 3
    x = torch.arange(40.0).view(20, 2)
    rows = sanbu.data.rows(x=x, y=x[:, 0], validation=0.25)
    data = rows.resolve().build()
    seen = torch.cat((data.batch(0, data.rows)["x"], data.held_out(0, 99)["x"]))
    assert data.held_out_rows > 0 and seen[seen[:, 0].argsort()].equal(x) and rows.space().shape == (2,)


class Recorder(sanbu.Watcher):
    def __init__(self):
        self.seen = []

    def begin(self, run, training):
        self.seen.append("begin")

    def step(self, row):
        self.seen.append(row["step"])
        return sanbu.STOP if row["step"] == 2 else None

    def end(self, run, interrupted):
        self.seen.append("end")

    def close(self):
        self.seen.append("close")


def test_a_watcher_sees_everything_and_may_stop(tmp_path):
    watcher = Recorder()
    run = sanbu.train(tiny(), tmp_path / "run", steps=9, watchers=[watcher])
    assert watcher.seen == ["begin", 1, 2, "end", "close"]
    assert (tmp_path / "run" / "model.safetensors").exists() and run.metrics()[-1]["step"] == 2
    more = sanbu.train(run.recipe, run.folder, resume=True, watchers=[])
    assert more.metrics()[-1]["step"] == 9


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_solver", "ddim", "ancestral", "consistency"])
def test_plain_samplers_reach_the_law_of_the_data(name):
    """For data N(0.5, 0.25) the denoiser is exact: mean and deviation agree up to sampling and method error."""
    mean, deviation, seen = 0.5, 0.5, []

    def denoise(x, t):
        gain = (1 - t) * deviation**2 / ((1 - t) ** 2 * deviation**2 + t**2)
        return mean + gain * (x - (1 - t) * mean)

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, 2, generator=generator)
    times = torch.linspace(1, 0, 41 if name != "consistency" else 2)
    sample = getattr(sanbu.strategies, f"sample_{name}")
    more = {"generator": generator} if name in ("ancestral", "consistency") else {}
    found = sample(denoise, noise, times.tolist(), lambda step, t, x, clean: seen.append(t), **more)
    assert seen == times.tolist()[1:] and found.shape == noise.shape
    assert abs(found.mean() - mean) < 0.05
    if name != "consistency":  # the posterior mean is not a consistency function: one step only gives the mean
        assert abs(found.std() - deviation) < 0.06
    with pytest.raises(ValueError, match="smaller than the one before"):
        sample(denoise, noise, [0.0, 1.0])
