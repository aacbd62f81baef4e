"""OpenAI's client for Node and the Vercel AI SDK: the scripts in `node/`, which print what they got.

npm install --prefix FOLDER openai ai @ai-sdk/openai-compatible zod;  SANBU_NODE_MODULES=FOLDER/node_modules
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.serve.scripted import QUESTION, RESULT, TOLD, Person, documented

PLACE = Path(__file__).parent / "node"
HINT = "npm install --global {0}, or --prefix FOLDER and SANBU_NODE_MODULES=FOLDER/node_modules"


def modules():
    """The folder of Node's packages: of the environment, else the global one."""
    given = os.environ.get("SANBU_NODE_MODULES")
    if given:
        return Path(given)
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed here")
    return Path(subprocess.run(["npm", "root", "-g"], capture_output=True, text=True, check=True).stdout.strip())


def found(line, script, *packages):
    """What a script got from the server."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed here")
    folder = modules()
    if any(not (folder / name).is_dir() for name in packages):
        pytest.skip(HINT.format(" ".join(packages)))
    words = ["node", str(PLACE / script), line, QUESTION, RESULT]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=60, env={**os.environ, "SANBU_NODE_MODULES": str(folder)}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_openai_for_node(url):
    got = found(documented("openai (Node)", url), "openai.mjs", "openai", "zod")
    assert got["whole"] == got["streamed"] == got["response"] == "".join(got["events"]) == TOLD
    assert got["pieces"] > 4 and got["usage"]["completion_tokens"] > 0
    assert got["tools"] == got["toolsStreamed"] == TOLD and got["asked"] == ["Rome", "Rome"]
    assert got["parsed"] == got["parsedStreamed"] and Person.model_validate(got["parsed"])
    kinds = [error[:4] for error in got["errors"]]
    assert kinds == [
        ["BadRequestError", 400, None, "temperature"],
        ["NotFoundError", 404, "model_not_found", "model"],
        ["BadRequestError", 400, "context_length_exceeded", "messages"],
    ]


def test_the_vercel_ai_sdk(url):
    got = found(documented("Vercel AI SDK", url), "vercel.mjs", "ai", "@ai-sdk/openai-compatible", "zod")
    assert got["whole"] == "".join(got["streamed"]) == TOLD and got["end"] == "stop" and len(got["streamed"]) > 3
    assert got["usage"]["outputTokens"] > 0 and got["usage"]["inputTokens"] > 0
    assert got["tools"] == [TOLD, ["tool-calls", "stop"]] and "".join(got["toolsStreamed"]) == TOLD
    assert got["asked"] == ["Rome", "Rome"]
    assert got["parsed"] == got["parsedStreamed"] and Person.model_validate(got["parsed"])
    assert got["embedding"] == 16
    assert [error[:2] for error in got["errors"]] == [[400, False], [404, False], [400, False]]
