"""Speed, waiting and memory of each rank: what sleeps is waiting, and the rank that the others wait for is named."""

import json
import time

import pytest
import torch

from sanbu.display.ranks import table
from sanbu.memory import cost
from sanbu.parallel.layout import Layout
from sanbu.parallel.pace import Pace, late, ranks_of, utilisation
from sanbu.parallel.world import join
from sanbu.recipes import make
from tests.parallel.processes import run_processes

SLOW, STEPS = 0.2, 3  # seconds more that rank 1 computes per step


def work(folder):
    """Three steps of which rank 1 computes more; every rank then takes part in a sum."""
    with join(Layout(), "cpu") as world:
        pace = Pace(world, 9, folder, flops=lambda: 10**6)
        for _ in range(STEPS):
            pace.start()
            until = time.thread_time() + (SLOW if world.rank == 1 else 0.01)
            while time.thread_time() < until:
                pass
            world.total({"loss": torch.ones(())})
            times = pace.stop()
        pace.report(STEPS)
        return times


def test_the_rank_that_the_others_wait_for_is_named(tmp_path):
    times = run_processes(3, work, tmp_path)
    assert all(each["time/seconds"] > SLOW for each in times)
    (line,) = (tmp_path / "ranks.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == STEPS
    ranks = ranks_of(tmp_path)
    assert [rank["rows"] for rank in ranks] == [STEPS * 3] * 3 and list(late(ranks)) == [1]
    assert ranks[0]["flops"] == STEPS * 3 * 10**6 and 0 < utilisation(ranks[0]) < 1
    assert ranks[1]["waiting"] < 0.5 * STEPS * SLOW < ranks[0]["waiting"] and ranks[0]["memory_bytes"] > 10**7
    shown = table(ranks, 16, "tokens/s").splitlines()
    assert len(shown) == 5 and shown[-1].startswith("rank 1 on ") and "which wait for it" in shown[-1]


def test_what_a_rank_reaches_of_what_its_device_can():
    rank = of(2.0, 0.0, flops=400.0, peak_flops=1000)
    assert utilisation(rank) == 400 / (2.0 * 1000) and utilisation(of(2.0, 0.0, flops=0.0, peak_flops=9)) is None
    assert "20 %" in table([rank, rank], 1, "rows/s").splitlines()[1]


def of(seconds, waiting, **more):
    return {"machine": "a", "steps": 1, "seconds": seconds, "waiting": waiting, "rows": 4, "memory_bytes": 5, **more}


def test_lines_are_put_together_as_long_as_there_are_as_many_ranks(tmp_path):
    lines = [[of(9.0, 0.0)] * 2, [of(1.0, 0.5)] * 3, [of(2.0, 0.5, memory_bytes=7)] * 3]
    (tmp_path / "ranks.jsonl").write_text("".join(json.dumps({"step": 1, "ranks": ranks}) + "\n" for ranks in lines))
    found = ranks_of(tmp_path)
    assert len(found) == 3 and found[0] == of(3.0, 1.0, steps=2, rows=8, memory_bytes=7)
    assert late(found) == {} and ranks_of(tmp_path / "other") == [] and table([], 1, "rows/s") == ""
    assert table(found, 6, "tokens/s").splitlines()[1].split() == ["0", "a", "16", "tokens/s", "33", "%", "0", "MB"]


def test_of_many_ranks_those_that_wait_least_are_listed():
    ranks = [of(2.0, 1.0 + number / 1000) for number in range(100)]
    ranks[70] = of(2.0, 0.2)
    lines = table(ranks, 1, "rows/s").splitlines()
    assert len(lines) < 20 and any(line.startswith("  70") for line in lines)
    assert lines[-1].startswith("rank 70 on a computes 1.9 times")
    assert late(ranks)[70] == pytest.approx(1.8 / 0.95, rel=0.02)
    assert late([{key: value for key, value in of(1.0, 0.0).items() if key != "waiting"}] * 2) == {}


def test_flops_that_cannot_be_counted_are_unknown(monkeypatch):
    recipe = make("gpt2", [])[0]
    assert cost.flops_per_row(recipe) == cost.cost(recipe).flops_per_token * recipe.data.space().shape[0]
    monkeypatch.setattr(cost, "cost", lambda recipe: 1 / 0)
    assert cost.flops_per_row(recipe) == 0
