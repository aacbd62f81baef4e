"""Bodies with too many values are refused before they are parsed; long texts are not, whatever they contain."""

import json
import random

import httpx
import pytest

from sanbu.serve.errors import APIError
from sanbu.serve.json_limits import STRINGS, VALUES, check_counts

JSON = {"content-type": "application/json"}


def counts(value):
    """(names and texts, items and members) of a JSON value."""
    inner = list(value) if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    strings = len(value) if isinstance(value, dict) else isinstance(value, str)
    found = [counts(one) for one in inner]
    return strings + sum(a for a, _ in found), len(inner) + sum(b for _, b in found)


def allowed(text, monkeypatch, strings, values):
    monkeypatch.setattr("sanbu.serve.json_limits.STRINGS", strings)
    monkeypatch.setattr("sanbu.serve.json_limits.VALUES", values)
    try:
        check_counts(text)
    except APIError:
        return False
    return True


def value_of(draws, depth):
    kind = draws.randrange(3 if depth else 1)
    if kind == 0:
        return draws.choice([1, "", '"', "\\", '\\"', 'a,b:[{"', "\\\\", "é,[", ",,,,,,,,"])
    more = [value_of(draws, depth - 1) for _ in range(draws.randrange(1, 4))]
    return more if kind == 1 else {f'{number}"\\,[': one for number, one in enumerate(more)}


def test_the_counts_are_exact(monkeypatch):
    draws = random.Random(0)
    for _ in range(300):
        value = value_of(draws, 4)
        text, (strings, values) = json.dumps(value, ensure_ascii=draws.random() < 0.5), counts(value)
        assert allowed(text, monkeypatch, strings, values)
        assert not strings or not allowed(text, monkeypatch, strings - 1, values)
        assert not values or not allowed(text, monkeypatch, strings, values - 1)


@pytest.mark.parametrize("mark", [",", '"', "{", "[", "\\", ':"'])
def test_a_long_text_is_one_text(mark):
    check_counts(json.dumps({"content": mark * (1 << 20)}))


MANY = {
    "members": json.dumps({"logit_bias": {str(number): 1 for number in range(STRINGS)}}),
    "items": '{"prompt": [' + "1," * VALUES + "1]}",
    "lists": '{"prompt": [' + "[]," * VALUES + "[]]}",
    "texts": '{"prompt": [' + '"",' * STRINGS + '""]}',
    "no JSON": '"' * (3 * STRINGS),
}


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_a_body_of_many_values_is_refused_in_one_line(served, name, encoding):
    answer = httpx.post(served.url + "/v1/completions", content=MANY[name].encode(encoding), headers=JSON)
    assert answer.status_code == 413 and "; allowed: " in answer.json()["error"]["message"]


def test_other_encodings_are_read(served):
    body = json.dumps({"model": "bytes", "prompt": "é", "max_tokens": 1}, ensure_ascii=False)
    for encoding in ("utf-8", "utf-16", "utf-32-le", "utf-8-sig"):
        answer = httpx.post(served.url + "/v1/completions", content=body.encode(encoding), headers=JSON)
        assert answer.status_code == 200, encoding
