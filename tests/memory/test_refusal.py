"""What cannot fit is refused in one line before it is built; memory that runs out is one line too."""

import json
import resource
import struct
import subprocess
import sys

import pytest
import torch

import sanbu.loop
from sanbu.config import SanbuError
from sanbu.interop.shards import shard_paths
from sanbu.loop import train
from sanbu.memory import limits
from sanbu.memory.check import check_run, check_weights, headers
from sanbu.memory.headers import Header
from sanbu.memory.limits import Room
from sanbu.memory.parts import TooLarge
from sanbu.run import Run
from sanbu.serve.hosted_run import check_cache
from sanbu.training import Training
from tests.memory.measure import recipe_of

SMALL = ("model.width=48", "model.layers=1", "schedule.batch=2", "schedule.evaluate_every=0")
GB = 10**9


def leave(monkeypatch, count, addresses=False):
    """Let the machine have so many bytes left."""
    for module in ("sanbu.memory.check", "sanbu.serve.hosted_run"):
        monkeypatch.setattr(f"{module}.room", lambda device="cpu": Room(count, addresses))


def command(limit, *words):
    """The command line in a process whose address space is limited."""

    def lower():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    words = [sys.executable, "-m", "sanbu", *words]
    return subprocess.run(words, capture_output=True, text=True, preexec_fn=lower, check=False)


@pytest.mark.slow
def test_a_recipe_of_a_thousand_times_the_memory_is_refused_in_one_line(tmp_path):
    done = command(8 * GB, "train", "gpt3", "size=175b", "--run", str(tmp_path / "run"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("sanbu: gpt3 size=175b needs about 4,")
    assert "weights 698 GB, gradients 698 GB, optimizer 1,397 GB, activations" in done.stderr
    assert "size=125m schedule.micro_batch=" in done.stderr and "fits (about" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_that_does_not_fit_is_refused_before_its_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(sanbu.loop, "Training", None)
    leave(monkeypatch, 185 * 10**6)
    with pytest.raises(TooLarge, match=r"^gpt2 needs about .* has 185 MB left; schedule.micro_batch=\d+ .*fits"):
        train(recipe_of("gpt2"), tmp_path / "run", watchers=[])
    leave(monkeypatch, 10**6)
    with pytest.raises(TooLarge, match="lower model.width, model.layers or data.context"):
        train(recipe_of("gpt2"), tmp_path / "run", watchers=[])
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_counted_is_not_refused(monkeypatch):
    def build(self, space):
        raise RuntimeError("needs contents")

    recipe = recipe_of("gpt2")
    leave(monkeypatch, 10**6)
    monkeypatch.setattr(type(recipe.model), "build", build)
    check_run(recipe, {}, "cpu", torch.float32)


@pytest.mark.slow
def test_what_is_advised_fits(monkeypatch):
    recipe = recipe_of("gpt2")
    leave(monkeypatch, 185 * 10**6)
    with pytest.raises(TooLarge) as caught:
        check_run(recipe, {}, "cpu", torch.float32)
    changes = [word for word in caught.value.advice.split() if "=" in word]
    check_run(recipe.change(*changes), {}, "cpu", torch.float32)


@pytest.mark.slow
def test_objectives_that_cannot_be_split_are_advised_fewer_rows_per_step(monkeypatch):
    recipe = recipe_of("gan", "schedule.batch=512", "model.width=512")
    if recipe.objective.build().additive:
        pytest.skip("this objective can be split")
    leave(monkeypatch, 185 * 10**6)
    with pytest.raises(TooLarge, match=r"; schedule.batch=\d+"):
        check_run(recipe, {}, "cpu", torch.float32)


def header(path, tensors):
    """A safetensors file of so many bytes that holds nothing: the disk keeps no block of it."""
    offset, entries = 0, {}
    for name, (dtype, shape) in tensors.items():
        size = {"F32": 4, "BF16": 2}[dtype] * torch.Size(shape).numel()
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    content = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(content)) + content)
        file.truncate(8 + len(content) + offset)


def test_headers_tell_sizes_without_reading(tmp_path):
    header(tmp_path / "a.safetensors", {"w": ("F32", [10, 3]), "b": ("BF16", [5])})
    found = Header.read(tmp_path / "a.safetensors")
    assert (found.elements, found.is_float32) == (35, False)
    (tmp_path / "b.safetensors").write_bytes(b"not a file of tensors")
    assert Header.read(tmp_path / "b.safetensors") is None and headers([tmp_path / "missing"]) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    return train(recipe_of("gpt2", *SMALL, "schedule.checkpoint_every=1"), folder, steps=2, watchers=[])


def test_weights_that_do_not_fit_are_not_loaded(run, monkeypatch, tmp_path):
    header(tmp_path / "large.safetensors", {"w": ("F32", [1_000_000, 100_000])})
    files = headers([tmp_path / "large.safetensors"])
    with pytest.raises(TooLarge, match=r"^RUN needs about 400 GB \(weights 400 GB\), and this machine has"):
        check_weights("RUN", files)
    leave(monkeypatch, 500 * GB)
    check_weights("RUN", files)
    leave(monkeypatch, 500 * GB, addresses=True)  # the mapped file counts too
    with pytest.raises(TooLarge, match=r"needs about 800 GB.*; about 62,500 million parameters fit$"):
        check_weights("RUN", files)
    leave(monkeypatch, 1000)
    with pytest.raises(TooLarge, match="million parameters fit"):
        Run.open(run.folder).generate("a")


def test_a_cache_that_does_not_fit_is_refused_with_the_number_of_blocks_that_do(run, monkeypatch):
    weights = (run.folder / "model.safetensors").stat().st_size
    leave(monkeypatch, weights + 10**6)
    with pytest.raises(TooLarge, match=r"^serving .* cache .*; --blocks 163 fits$"):
        check_cache(run, 512)
    check_cache(run, 162)


def test_an_import_that_does_not_fit_is_refused_before_it_is_read(tmp_path):
    header(tmp_path / "model-1.safetensors", {"w": ("BF16", [1_000_000, 100_000])})
    index = {"weight_map": {"w": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(TooLarge, match=r"needs about 800 GB"):  # as float32, once read and once built
        check_weights("importing", headers(shard_paths(tmp_path)), built="imported")


def test_memory_that_runs_out_names_the_last_checkpoint_and_what_to_lower(tmp_path, monkeypatch):
    advance = Training.advance

    def fail(self):
        if self.step == 2:
            raise MemoryError
        return advance(self)

    monkeypatch.setattr(Training, "advance", fail)
    recipe = recipe_of("gpt2", *SMALL, "schedule.checkpoint_every=1")
    with pytest.raises(SanbuError) as caught:
        train(recipe, tmp_path / "run", watchers=[])
    line = str(caught.value)
    assert line.startswith("memory ran out in the training of gpt2; the last checkpoint is ")
    assert "step-00000002; lower schedule.micro_batch (now 2) or schedule.batch (2), data.context (128)" in line


def test_an_allocation_that_is_refused_is_one_line(tmp_path, monkeypatch):
    """A true error of torch's allocator: far more than any machine has."""
    monkeypatch.setattr(Training, "advance", lambda self: torch.empty(1 << 57))
    with pytest.raises(SanbuError, match="^memory ran out in the training of gpt2; there is no checkpoint yet; lower"):
        train(recipe_of("gpt2", *SMALL), tmp_path / "run", watchers=[])


# -- limits -----------------------------------------------------------------------------------------------------------


def test_the_smallest_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "PROC", tmp_path / "proc")
    monkeypatch.setattr(limits, "GROUPS", tmp_path / "groups")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\nSwapFree: 1000 kB\n")
    assert limits.room() == Room(6000 * 1024)
    (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n")
    (tmp_path / "groups/a/b").mkdir(parents=True)
    group = tmp_path / "groups/a"
    (group / "memory.max").write_text("3000000\n")
    (group / "memory.current").write_text("1000000\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 400000\n")
    assert limits.room() == Room(3000000 - 1000000 + 400000)
    (group / "memory.max").write_text("max\n")
    assert limits.room() == Room(6000 * 1024)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/c\n")
    (tmp_path / "groups/memory/c").mkdir(parents=True)
    (tmp_path / "groups/memory/c/memory.limit_in_bytes").write_text("2000000\n")
    (tmp_path / "groups/memory/c/memory.usage_in_bytes").write_text("500000\n")
    assert limits.room() == Room(1500000)


def test_the_limit_of_the_shell_counts():
    code = "from sanbu.memory.limits import room; r = room(); print(r.bytes, r.addresses)"

    def lower():
        resource.setrlimit(resource.RLIMIT_AS, (GB, GB))

    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, preexec_fn=lower, check=False)
    count, addresses = done.stdout.split()
    assert 0 < int(count) < GB and addresses == "True"
