"""Two nodes: two network namespaces with an address each, which meet through torchrun's rendezvous."""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack

import pytest

from sanbu.files import file_hash
from tests.parallel.test_jobs import COMMON, TEXT, start

NODES = {"sanbu-a": "10.77.0.1", "sanbu-b": "10.77.0.2"}
PORT = 29511


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True)


def connect(stack):
    """Two namespaces joined by a cable; skips where the system does not allow it."""
    if shutil.which("ip") is None or os.geteuid():
        pytest.skip("network namespaces need root and the program ip")
    for name in NODES:
        made = ip("netns", "add", name)
        if made.returncode:
            pytest.skip(f"network namespaces are not allowed here: {made.stderr.strip()}")
        stack.callback(ip, "netns", "del", name)
    first, second = NODES
    joined = ip("link", "add", "end-a", "netns", first, "type", "veth", "peer", "name", "end-b", "netns", second)
    if joined.returncode:
        pytest.skip(f"virtual cables are not allowed here: {joined.stderr.strip()}")
    for (name, address), end in zip(NODES.items(), ("end-a", "end-b"), strict=True):
        for words in (f"addr add {address}/24 dev {end}", f"link set {end} up", "link set lo up"):
            done = ip("-n", name, *words.split())
            assert not done.returncode, done.stderr


def node(number, name, folder, *layout):
    """torchrun on one node, two processes."""
    command = ["ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    command += ["--nproc-per-node", "1", "--node-rank", str(number), "--rdzv-id", "nodes", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", f"{NODES['sanbu-a']}:{PORT}", "--local-addr", NODES[name]]
    command += ["--rdzv-conf", f"is_host={1 - number}"]  # torch asks the name of the machine, which both nodes share
    command += ["-m", "--", "sanbu", "train", "gpt2", "--run", str(folder), *COMMON, *TEXT, *layout]
    end = {"sanbu-a": "end-a", "sanbu-b": "end-b"}[name]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": end, "OMP_NUM_THREADS": "1"}
    output = (folder.parent / f"{name}.txt").open("w+")
    process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder.parent, env=environment)
    return process, output


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_nodes_are_as_one(tmp_path):
    """The same run as of two processes on one node, bit for bit."""
    layout, folder = ["layout.zero=3", "schedule.steps=6"], tmp_path / "run"
    with ExitStack() as stack:
        connect(stack)
        started = [node(number, name, folder, *layout) for number, name in enumerate(NODES)]
        for process, output in started:
            code = process.wait(400)
            output.seek(0)
            assert code == 0, output.read()
    process = start(tmp_path / "one", "layout.data=2", *layout)
    assert process.wait(400) == 0
    assert file_hash(folder / "model.safetensors") == file_hash(tmp_path / "one" / "model.safetensors")
    assert not ip("netns", "list").stdout.strip().startswith("sanbu-")
