"""A server whose matrices lie on several processes: the tokens of one process, and ends that say why."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import httpx
import pytest
import torch
import torch.distributed as dist

from sanbu.config import SanbuError
from sanbu.models.tokens.lora import LoRA
from sanbu.parallel.layout import Layout
from sanbu.parallel.world import join
from sanbu.serve.engine import Engine
from sanbu.serve.paged import PagedCache
from sanbu.serve.team import Team
from sanbu.serve.weights.convert import convert
from tests.parallel.processes import run_processes
from tests.serve.test_engine import MODELS, SPACE, Heard, asked, built, finish

QUICK = ("gpt2", "gemma2", "lora")  # the others in the slow run
KINDS = [
    pytest.param(config, id=config.kind, marks=() if config.kind in QUICK else pytest.mark.slow)
    for config in (*MODELS, LoRA(base=MODELS[2], rank=2))
]
RULES = [{"temperature": 0.0}, {"temperature": 0.7, "top_k": 5}, {"top_p": 0.8}]


def answers(engine):
    heard = [Heard(engine, **asked(number, **RULES[number % 3])) for number in range(9)]
    finish(engine)
    return [(one.tokens, [event.logprob for event in one.events]) for one in heard]


def run_of(model):
    return SimpleNamespace(model=model, folder="a run", codec=SimpleNamespace(medium="text"))


def served(config, weights="full"):
    """The answers of an engine, and bytes of the matrices and of the cache in this process."""
    with join(Layout(tensor=2), "cpu") as world:
        team, model = Team(world), built(config).requires_grad_(False)
        if weights != "full":
            model = model.float()
        team.together(lambda: team.cut(run_of(model)))
        convert(model, weights) if weights != "full" else None
        engine = Engine(model, SPACE.end)
        team.join(model, engine.cache)
        held = sum(p.nbytes for p in model.blocks.parameters()), sum(layer.keys.nbytes for layer in engine.cache)
        if not team.leads:
            team.follow()
            return None, held
        found = answers(engine)
        embedding = model(torch.tensor([[3, 4, 5]]), readout=lambda head, hidden: hidden)
        team.end()
        return (found, embedding.tolist()), held


@pytest.mark.parametrize("config", KINDS)
def test_two_processes_give_the_tokens_of_one(config):
    model = built(config)
    expected = answers(Engine(model, SPACE.end))
    (found, embedding), _ = (result := run_processes(2, served, config))[0]
    for (tokens, logprobs), (one, before) in zip(found, expected, strict=True):
        assert tokens == one and logprobs == pytest.approx(before, abs=1e-9)
    hidden = model(torch.tensor([[3, 4, 5]]), readout=lambda head, hidden: hidden)
    assert torch.allclose(torch.tensor(embedding).double(), hidden, atol=1e-9)
    whole = sum(p.nbytes for p in model.blocks.parameters())
    cache = sum(layer.keys.nbytes for layer in PagedCache(model, 512, 16))
    for _, (matrices, keys) in result:
        assert matrices < 0.75 * whole and keys == cache // 2


def test_eight_bit_matrices_are_divided_before_they_are_converted():
    (found, _), _ = run_processes(2, served, MODELS[2], "int8")[0]
    assert sum(len(tokens) for tokens, _ in found) > 20


def refused(config):
    with join(Layout(tensor=2), "cpu") as world:
        team = Team(world)
        try:
            team.together(lambda: team.cut(run_of(built(config))))
        except BaseException as error:
            return type(error).__name__, str(error)


def test_heads_that_cannot_be_divided_are_one_line():
    first, second = run_processes(2, refused, MODELS[2].model_copy(update={"key_heads": 1}))
    assert first[0] == "SanbuError" and "--tensor: given 2, but blocks.0 has 1 heads of keys" in first[1]
    assert second == ("SystemExit", "2")


def failed(config, where):
    """What the first process raises when one of them fails within a pass, and the signals that it sends itself."""
    signals = []
    try:
        with join(Layout(tensor=2, timeout=5), "cpu") as world:
            team, model = Team(world), built(config).requires_grad_(False)
            team.together(lambda: team.cut(run_of(model)))
            os.kill = lambda *given: signals.append(given)
            engine = Engine(model, SPACE.end)
            team.join(model, engine.cache)
            if world.rank == where:
                model.blocks["1"].register_forward_pre_hook(broken)
            if not team.leads:
                team.follow()
                return None
            heard = Heard(engine, **asked(0, temperature=0.0))
            for _ in range(3):
                try:
                    engine.step()
                except (RuntimeError, SanbuError):
                    engine.fail()
            assert not heard.events, "a token of sums that do not belong together"
            team.end()
    except BaseException as error:
        dist.barrier = lambda: None  # of `run_processes`, which nobody else reaches
        return type(error).__name__, len(signals)


def broken(*_):
    raise RuntimeError("out of memory")


@pytest.mark.parametrize("where", [0, 1])
def test_a_pass_that_fails_in_one_process_ends_the_server(where):
    first, _ = run_processes(2, failed, MODELS[0], where)
    assert first is not None and first[1] == 1, first


# -- the command ------------------------------------------------------------------------------------------------------


class Command:
    """`sanbu serve --tensor 2`, once it serves."""

    def __init__(self, *arguments):
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))
            self.port = place.getsockname()[1]
        command = [sys.executable, "-m", "sanbu", "serve", *map(str, arguments), "--no-studio", "--port", self.port]
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.url = f"http://127.0.0.1:{self.port}"

    def wait(self):
        until = time.monotonic() + 120
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if httpx.get(self.url + "/health").status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.1)
        self.process.kill()
        raise AssertionError(self.process.communicate()[0])

    def children(self):
        return subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout.split()

    def other(self):
        """The process that helps."""
        return int(self.children()[0])

    def answer(self, **more):
        asked = {"model": "talk", "prompt": "Hello", "max_tokens": 24, "seed": 7, "logit_bias": {"0": -100}}
        return httpx.post(self.url + "/v1/completions", json={**asked, **more}, timeout=60).json()


def test_the_command_serves_in_two_processes(runs, client):
    command = Command(runs[0], "--tensor", 2).wait()
    other = command.other()
    expected = client.completions.create(model="talk", prompt="Hello", max_tokens=24, seed=7, logit_bias={"0": -100})
    assert command.answer()["choices"][0]["text"] == expected.choices[0].text
    error = command.answer(strategy={"kind": "beam"}, seed=None)["error"]
    assert error["code"] != 500 and "served with autoregressive alone" in error["message"]
    vector = httpx.post(command.url + "/v1/embeddings", json={"model": "talk", "input": "Hi"}).json()["data"][0]
    same = client.embeddings.create(model="talk", input="Hi").data[0].embedding
    assert vector["embedding"] == pytest.approx(same, abs=1e-5)
    command.process.send_signal(signal.SIGTERM)
    said = command.process.communicate(timeout=30)[0]
    assert command.process.returncode == 0 and "Traceback" not in said, said
    assert not os.path.exists(f"/proc/{other}")


@pytest.mark.slow
def test_a_helper_that_is_killed_ends_the_server_with_one_line(runs):
    command = Command(runs[0], "--tensor", 2).wait()
    os.kill(command.other(), signal.SIGKILL)  # nothing is asked: it is noticed all the same
    said = command.process.communicate(timeout=60)[0]
    assert command.process.returncode == 2
    assert re.search(rf"^sanbu: rank 1 on {socket.gethostname()} ended without a word", said, re.M), said


def test_a_helper_that_is_killed_before_it_serves_is_one_line(runs):
    command = Command(runs[0], "--tensor", 2)
    until = time.monotonic() + 60
    while time.monotonic() < until and not command.children():
        time.sleep(0.02)
    os.kill(command.other(), signal.SIGKILL)
    said = command.process.communicate(timeout=60)[0]
    assert command.process.returncode == 2 and "process 1 ended with exit code -9" in said, said


@pytest.mark.slow
def test_a_run_that_cannot_be_divided_is_one_line(runs):
    command = Command(runs[-1], "--tensor", 2)
    said = command.process.communicate(timeout=120)[0]
    assert command.process.returncode == 2 and said.count("\n") == 1
    assert "--tensor: given 2, but" in said and "is no transformer of text; allowed: 1" in said
