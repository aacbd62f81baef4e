"""Keys while the server runs: made, changed and revoked; limits that hold for requests at once."""

import json
import threading

import httpx
import openai
import pytest

from sanbu.config import SanbuError
from sanbu.serve import keys as module
from sanbu.serve.errors import APIError
from sanbu.serve.key_file import Key, make, read_keys, revoke
from sanbu.serve.keys import Keys
from tests.command_line import sanbu
from tests.serve.conftest import Served

CHAT = {"model": "talk", "messages": [{"role": "user", "content": "x"}], "logit_bias": {"0": -100}}


def status(url, secret):
    return httpx.get(url + "/v1/models", headers={"authorization": f"Bearer {secret}"}).status_code


def test_keys_made_and_revoked_count_at_once(runs, tmp_path):
    path = tmp_path / "keys.json"
    ada = make(path, "ada")
    with Served(runs[:1], Keys.load(path)) as one:
        assert status(one.url, ada) == 200
        bob = make(path, "bob")
        assert status(one.url, bob) == 200
        revoke(path, "ada")
        assert (status(one.url, ada), status(one.url, bob)) == (401, 200)
        path.write_text("{ not JSON")
        assert (status(one.url, ada), status(one.url, bob)) == (401, 200)  # a damaged file changes nothing
        path.unlink()
        assert status(one.url, bob) == 200
        path.write_text(json.dumps({"keys": []}))
        assert status(one.url, bob) == status(one.url, "none") == 401  # a file without keys opens nothing


def clocked(monkeypatch):
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_tokens_are_set_aside_when_a_request_begins(monkeypatch):
    now = clocked(monkeypatch)
    key = Key(name="a", sha256="0" * 64, tokens_per_minute=100)
    keys = Keys((key,))
    first = keys.admit(key)
    keys.reserve(key, first, 60)
    second = keys.admit(key)
    with pytest.raises(APIError, match="100 tokens per minute"):
        keys.reserve(key, second, 50)
    second.settle(0)
    third = keys.admit(key)
    keys.reserve(key, third, 40)
    with pytest.raises(APIError, match="100 tokens"):
        keys.admit(key)  # all are set aside
    now[0] += 500  # what runs counts however long it runs
    with pytest.raises(APIError, match="100 tokens"):
        keys.admit(key)
    first.settle(10)
    third.settle(20)
    fourth = keys.admit(key)
    keys.reserve(key, fourth, 70)  # 10 + 20 were used
    fourth.settle(70)
    now[0] += 59
    with pytest.raises(APIError) as caught:
        keys.admit(key)
    assert caught.value.wait == 1
    now[0] += 2
    keys.admit(key)


def test_a_request_beyond_the_whole_limit_needs_all_of_it(monkeypatch):
    clocked(monkeypatch)
    key = Key(name="a", sha256="0" * 64, tokens_per_minute=100)
    keys = Keys((key,))
    large = keys.admit(key)
    keys.reserve(key, large, 5000)
    large.settle(5)
    with pytest.raises(APIError):
        keys.reserve(key, keys.admit(key), 5000)
    keys.reserve(key, keys.admit(key), 95)


def test_requests_per_minute_are_those_of_the_last_minute(monkeypatch):
    now = clocked(monkeypatch)
    key = Key(name="a", sha256="0" * 64, requests_per_minute=2)
    keys = Keys((key,))
    keys.admit(key)
    now[0] += 20
    keys.admit(key)
    with pytest.raises(APIError) as caught:
        keys.admit(key)
    assert caught.value.wait == 40
    now[0] += 40.5
    keys.admit(key)


@pytest.mark.parametrize("stream", [False, True])
def test_requests_at_once_do_not_pass_the_limit_together(runs, tmp_path, stream):
    path = tmp_path / "keys.json"
    secret = make(path, "ada", tokens_per_minute=120)
    with Served(runs[:1], Keys.load(path)) as one:
        used, refused = [], []

        def ask():
            try:
                answer = one.client(secret).chat.completions.create(**CHAT, max_tokens=50, stream=stream)
                used.append(sum(1 for _ in answer) if stream else answer.usage.total_tokens)
            except openai.RateLimitError as error:
                refused.append(error)

        threads = [threading.Thread(target=ask) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(used) == 2 and len(refused) == 8  # 53 tokens each
        assert "120 tokens per minute" in str(refused[0]) and int(refused[0].response.headers["retry-after"]) >= 1


def command(*words):
    return sanbu("key", *words)


def test_keys_are_made_listed_and_revoked_on_the_command_line(tmp_path):
    path = str(tmp_path / "keys.json")
    made = command("ada", "--keys", path, "--requests", "7", "--json")
    secret = json.loads(made.stdout)["key"]
    make(tmp_path / "keys.json", "bob", tokens_per_minute=9)
    listed = command("list", "--keys", path)
    assert listed.stdout.splitlines() == ["ada: 7 requests per minute", "bob: 9 tokens per minute"]
    assert secret not in listed.stdout
    wrong = command("revoke", "adda", "--keys", path)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "did you mean 'ada'?" in wrong.stderr
    assert command("revoke", "ada", "--keys", path).returncode == 0
    assert [key.name for key in read_keys(tmp_path / "keys.json")] == ["bob"]
    assert "allowed: NAME, list or revoke NAME" in command("a", "b", "--keys", path).stderr


def test_keys_made_at_once_are_all_kept(tmp_path):
    path = tmp_path / "keys.json"
    threads = [threading.Thread(target=make, args=(path, f"k{i}")) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in read_keys(path)) == sorted(f"k{i}" for i in range(20))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["keys.json"]


def test_a_lock_that_was_left_behind_is_named(tmp_path, monkeypatch):
    from sanbu.serve import key_file

    monkeypatch.setattr(key_file, "WAIT", 0.05)
    (tmp_path / "keys.json.lock").touch()
    with pytest.raises(SanbuError, match=r"keys.json.lock exists"):
        make(tmp_path / "keys.json", "ada")
    with pytest.raises(SanbuError, match="except list and revoke"):
        make(tmp_path / "other.json", "list")
