"""`sanbu chat` gives the same answers from a server and from a folder."""

import json
import subprocess
import sys

import pytest

from sanbu.cli.remote import RemoteSpeaker
from sanbu.cli.talk import Speaker
from sanbu.config import SanbuError


def test_a_conversation_over_http_is_the_conversation_here(served, runs):
    changes = ("strategy.temperature=0.7", "strategy.max_tokens=12")
    here, there = Speaker.open(runs[0], changes, "Be short."), RemoteSpeaker(served.url + "#talk", changes, "Be short.")
    for turn in range(3):
        assert "".join(there.answer("What is 3?", turn)) == "".join(here.answer("What is 3?", turn))
    assert there.said == here.said


def test_the_command_line_takes_urls_and_folders_side_by_side(served, runs):
    words = [
        sys.executable,
        "-m",
        "sanbu",
        "chat",
        served.url,
        str(runs[0]),
        "strategy.max_tokens=8",
        "--prompt",
        "What is 3?",
        "--json",
    ]
    answers = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)["answers"]
    assert answers[served.url] == answers[str(runs[0])]


def test_what_a_server_refuses_is_one_line(served):
    with pytest.raises(SanbuError, match=r"refuses \(404\): no model 'king'"):
        list(RemoteSpeaker(served.url + "/v1#king").answer("x", 0))
    with pytest.raises(SanbuError, match="is not an OpenAI-compatible server"):
        RemoteSpeaker("http://127.0.0.1:9")
    with pytest.raises(SanbuError, match="only the strategy of a served run can be changed"):
        RemoteSpeaker(served.url + "#talk", ["model.width=3"])
