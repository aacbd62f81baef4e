"""Three small runs served over a real socket: a chat model, a byte-level model and an image model."""

import json
import threading
import time

import openai
import pytest
import uvicorn

from sanbu.config import override
from sanbu.loop import train
from sanbu.recipes import make as recipe_of
from sanbu.serve.app import application
from sanbu.serve.service import Service
from tests.serve.scripted import script

SMALL = ["model.layers=1", "model.heads=2", "model.width=16", "machine.threads=1", "machine.precision=float32"]


def trained(folder, name, *overrides):
    recipe, rest = recipe_of(name, [])
    return train(override(recipe, [*rest, *overrides]), folder, watchers=[]).folder


@pytest.fixture(scope="session")
def said(tmp_path_factory):
    """A file of conversations."""
    path = tmp_path_factory.mktemp("said") / "said.jsonl"
    turns = [
        [{"role": "user", "content": f"What is {a}?"}, {"role": "assistant", "content": f"It is é{a}."}]
        for a in range(300)
    ]
    path.write_text("\n".join(json.dumps({"messages": one}) for one in turns), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def runs(tmp_path_factory, said):
    place = tmp_path_factory.mktemp("runs")
    (place / "text.txt").write_text("Größe, 大小, 🙂 and more. " * 300, encoding="utf-8")
    chat = [
        f"data.path={said}",
        "data.tokenizer.vocabulary=300",
        "data.context=512",
        "model.context=512",
        "schedule.steps=20",
    ]
    plain = [
        "model=modern",  # differs from the first run in model, data and tokenizer
        f"data.path={place / 'text.txt'}",
        "data.tokenizer=byte",
        "data.context=128",
        "model.context=128",
        "schedule.steps=8",
    ]
    return [
        trained(place / "talk", "sft", *chat, *SMALL),
        trained(place / "bytes", "gpt2", *plain, *SMALL),
        trained(place / "digits", "flow", "schedule.steps=20", "strategy.steps=4", "machine.threads=1"),
    ]


@pytest.fixture(scope="session")
def long(tmp_path_factory, said):
    """A run with the name `long`, whose context holds schemas, which are long for a tokenizer of 300."""
    longer = [
        "schedule.steps=1",
        "data.tokenizer.vocabulary=300",
        "data.context=2048",
        "model.context=2048",
        "schedule.batch=1",
    ]
    return trained(tmp_path_factory.mktemp("long") / "long", "sft", f"data.path={said}", *longer, *SMALL)


class Served:
    """A service on its own socket, in a thread."""

    def __init__(self, folders, keys=None, limits=(), before=None, weights="full", **more):
        self.service = Service.open(folders, keys, weights, **dict(limits))
        self.app = application(self.service, **more)
        if before is not None:
            before(self.app, self.service)
        self.server = uvicorn.Server(
            uvicorn.Config(self.app, port=0, log_level="critical", timeout_graceful_shutdown=5)
        )
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()

    def client(self, key="none", **more):
        return openai.OpenAI(base_url=self.url + "/v1", api_key=key, timeout=30, **{"max_retries": 0, **more})

    def quiet(self):
        """Wait until no request runs, and check that all blocks are free again."""
        engines = [one.engine for one in self.service.runs.values() if one.engine]
        for _ in range(500):
            if not any(engine.busy() for engine in engines) and not self.service.single_lane.busy():
                break
            time.sleep(0.01)
        for engine in engines:
            engine.blocks.check()
            assert engine.blocks.available() == engine.blocks.count


@pytest.fixture(scope="session")
def served(runs):
    with Served(runs) as one:
        yield one


@pytest.fixture
def client(served):
    with served.client() as one:
        yield one
    served.quiet()


@pytest.fixture(scope="session")
def scripted(long):
    """A server for tests of clients; see scripted.py."""
    with Served([long], before=script) as one:
        yield one


@pytest.fixture
def url(scripted):
    """The base URL of that server, for any client. All blocks are free after the test."""
    yield scripted.url + "/v1"
    scripted.quiet()
