"""Tokens on a web server: the same rows as on the disk, each rank reads its own, and the disk holds none of them."""

import json
import re
import shutil
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from sanbu.config import SanbuError
from sanbu.data import remote
from sanbu.files import cache_root
from sanbu.machine import decide
from sanbu.parallel.layout import Layout
from sanbu.parallel.world import join
from sanbu.training import Training
from tests.parallel.processes import run_processes
from tests.parallel.test_parity import COMMON, TEXT, check, recipe_of


class Ranges(BaseHTTPRequestHandler):
    """A server of files that answers ranges, and notes them; `faults` of its answers are errors."""

    ranges, faults = True, 0

    def __init__(self, folder, asked, *given):
        self.folder, self.asked = folder, asked
        super().__init__(*given)

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        file = self.folder / self.path.lstrip("/")
        if Ranges.faults and body:
            Ranges.faults -= 1
            self.send_error(503)
            return
        if not file.is_file():
            self.send_error(404)
            return
        content, begin, end = file.read_bytes(), 0, file.stat().st_size
        given = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if given and Ranges.ranges:
            begin, end = int(given[1]), int(given[2]) + 1
            self.asked.append((file.name, begin, end))
        self.send_response(206 if given and Ranges.ranges else 200)
        self.send_header("Content-Length", str(end - begin))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if body:
            self.wfile.write(content[begin:end])

    def log_message(self, *given):
        pass


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The tokens of a text on a server: the address, its folder, and the ranges that were asked for."""
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    (tmp_path / "text.txt").write_text("".join(f"line {i} of {i * i}: the quick brown fox\n" for i in range(400)))
    local = recipe_of("gpt2", *COMMON, *TEXT, f"data.path={tmp_path / 'text.txt'}")
    folder = tmp_path / "server"
    shutil.copytree(local.data.build().shards.folder, folder)
    asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, folder, asked))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield local, f"http://127.0.0.1:{server.server_port}", folder, asked
    server.shutdown()
    server.server_close()


def equal(one, two):
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_rows_are_those_of_the_disk(store):
    local, address, _, asked = store
    here, there = local.data.build(), local.change(f"data.path={address}").data.build()
    for number in ("rows", "held_out_rows", "held_out_bytes"):
        assert getattr(there, number) == getattr(here, number)
    assert there.describe() == here.describe()
    for start, size in ((0, 7), (here.rows - 3, 9)):
        equal(there.batch(start, size), here.batch(start, size))
    equal(there.held_out(0, 99), here.held_out(0, 99))
    width = there.shards.train.dtype.itemsize
    assert all(end - begin <= 17 * width for name, begin, end in asked if name == "train.bin")
    kept = [path.name for path in (cache_root() / there.fingerprint).iterdir()]
    assert "header.json" in kept and not any(name.endswith(".bin") for name in kept)


def rows_read(recipe):
    """The first rows of this rank's batches of an epoch."""
    with join(recipe.layout, "cpu") as world:
        training = Training(recipe, decide(recipe.machine), world)
        read, batch = [], training.data.batch

        def noting(start, size):
            read.extend(range(start, start + size))
            return batch(start, size)

        training.data.batch = noting
        while training.step < 4:
            training.advance()
        return read


def test_ranks_read_rows_without_overlap(store):
    local, address, _, asked = store
    recipe = local.change(f"data.path={address}")
    for count in (1, 2, 4):
        asked.clear()
        found = run_processes(count, rows_read, recipe.change(layout=Layout(data=count)))
        assert sorted(row for read in found for row in read) == list(range(32))
        assert len({len(read) for read in found}) == 1
        parts = [(begin, end) for name, begin, end in asked if name == "train.bin"]
        assert len(set(parts)) == len(parts) == 32


def test_training_is_that_of_the_disk(store):
    _, address, _, _ = store
    check({"zero": 3}, 2, "gpt2", *COMMON, *TEXT, f"data.path={address}")


def test_a_busy_server_is_asked_again(store):
    local, address, _, _ = store
    data = local.change(f"data.path={address}").data.build()
    Ranges.faults = 2
    equal(data.batch(0, 1), local.data.build().batch(0, 1))
    Ranges.faults = 99
    with pytest.raises(SanbuError, match=r"train.bin cannot be read: .*tried 4 times") as error:
        data.batch(0, 1)
    Ranges.faults = 0
    assert "\n" not in str(error.value)


def test_what_is_no_folder_of_tokens_is_one_line(store):
    local, address, folder, _ = store
    recipe = local.change(f"data.path={address}")
    with pytest.raises(SanbuError, match="there is no file .*/other/hashes.json"):
        local.change(f"data.path={address}/other").data.build()
    with pytest.raises(SanbuError, match="given one of 300 tokens, but http.* has tokens of 25"):
        recipe.change("data.tokenizer=bpe", "data.tokenizer.vocabulary=300").data.build()
    Ranges.ranges = False
    with pytest.raises(SanbuError, match="a server must answer ranges"):
        recipe.data.build().batch(0, 1)
    Ranges.ranges = True
    (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:-2])
    with pytest.raises(SanbuError, match=r"train.bin has [\d,]+ bytes, but [\d,]+ were written"):
        recipe.data.build()
    about = json.loads((folder / "hashes.json").read_text())
    (folder / "hashes.json").write_text(json.dumps(about | {"files": {}}))
    with pytest.raises(SanbuError, match="is no folder of tokens, or hashes.json there is damaged"):
        recipe.data.build()
