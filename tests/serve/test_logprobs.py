"""Log-probabilities of prompts and answers, exactly those of the model; lm-evaluation-harness over HTTP."""

import random

import httpx
import openai
import pytest
import torch

from sanbu.interop.harness import harness_model
from sanbu.serve.legacy_logprobs import Offsets, TokenNames, starts
from tests.serve.conftest import Served

TEXT = "Größe, 大小, 🙂 and more. Gr"


def logprobs_of(run, ids):
    """log p(each token after the first | those before it), [T - 1, V], by the model alone."""
    with torch.inference_mode():
        return run.model(torch.tensor([ids]))[0].float().log_softmax(-1)[:-1]


def ask(served, **body):
    answer = httpx.post(served.url + "/v1/completions", json={"model": "bytes", "temperature": 0, **body}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("model", ["bytes", "talk"])
@pytest.mark.parametrize("budget", [512, 5])
def test_an_echoed_prompt_has_the_log_probabilities_of_the_model(runs, model, budget):
    """Also where the prompt is computed in parts, or was computed before (prefix cache)."""
    with Served(runs[:2], limits={"budget": budget}) as one:
        run = one.service.find(model)
        ids = run.encode_prompt(TEXT)
        table = logprobs_of(run.run, ids)
        wanted = table.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
        for prompt, hidden in ((ids, 0), (TEXT, 1), (TEXT, 1)):
            choice = ask(one, model=model, prompt=prompt, max_tokens=1, echo=True, logprobs=2)["choices"][0]
            told = choice["logprobs"]
            shown = ids[hidden:]
            assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None
            assert told["token_logprobs"][1 : len(shown)] == pytest.approx(wanted[hidden:], abs=1e-5)
            for row, top in zip(table[hidden:], told["top_logprobs"][1:], strict=False):
                assert sorted(top.values())[-2:] == pytest.approx(sorted(row.topk(2)[0].tolist()), abs=1e-5)
            assert len(told["tokens"]) == len(shown) + 1 == len(told["text_offset"])
            assert choice["text"].startswith(TEXT)
        one.quiet()


def test_scores_survive_a_preemption(runs):
    """Eight requests share blocks for two, so prompts are computed more than once."""
    with Served(runs[:2], limits={"blocks": 9, "budget": 24}) as one:
        prompts = [f"{i}" + TEXT + "x" * 5 * i for i in range(8)]  # without a common prefix
        body = {"prompt": prompts, "max_tokens": 40, "echo": True, "logprobs": 1, "logit_bias": {"256": -100}}
        together = ask(one, **body)["choices"]
        assert one.service.find("bytes").engine.counts["preemptions"] > 0
        for prompt, choice in zip(prompts, together, strict=True):
            alone = ask(one, **{**body, "prompt": prompt})["choices"][0]["logprobs"]["token_logprobs"]
            assert choice["logprobs"]["token_logprobs"][1:] == pytest.approx(alone[1:], abs=1e-4)


def test_without_new_tokens_the_prompt_is_only_scored(served):
    whole = ask(served, prompt="and more", max_tokens=1, echo=True, logprobs=1)["choices"][0]["logprobs"]
    answer = ask(served, prompt="and more", max_tokens=0, echo=True, logprobs=1)
    choice = answer["choices"][0]
    assert choice["text"] == "and more" and choice["finish_reason"] == "length"
    assert {name: values[:8] for name, values in whole.items()} == choice["logprobs"]
    assert answer["usage"]["completion_tokens"] == 0
    streamed = served.client().completions.create(
        model="bytes", prompt="and more", max_tokens=0, echo=True, logprobs=1, temperature=0, stream=True
    )
    parts = [choice for chunk in streamed for choice in chunk.choices]
    assert "".join(part.text for part in parts) == "and more"
    assert [t for part in parts if part.logprobs for t in part.logprobs.tokens] == list("and more")
    with pytest.raises(openai.BadRequestError, match="0 needs echo: true"):
        served.client().completions.create(model="bytes", prompt="x", max_tokens=0)


def test_an_end_that_is_drawn_is_told_with_an_echo(served):
    """lm-evaluation-harness drops the last token, which must not be one of the prompt."""
    how = {"prompt": "and more", "max_tokens": 1, "logprobs": 1, "logit_bias": {"256": 100}}
    told = ask(served, **how, echo=True)["choices"][0]
    assert told["text"] == "and more" and told["finish_reason"] == "stop"
    assert told["logprobs"]["tokens"] == [*"and more", "token_id:256"]
    assert ask(served, **how)["choices"][0]["logprobs"]["tokens"] == []


@pytest.mark.parametrize("seed", range(4))
def test_every_drawn_token_is_among_its_alternatives(served, seed):
    body = {"prompt": TEXT, "max_tokens": 24, "temperature": 1.8, "seed": seed, "logit_bias": {"256": -100}}
    for top in (0, 1, 5):
        whole = ask(served, **body, logprobs=top)["choices"][0]
        told = whole["logprobs"]
        assert (told["top_logprobs"] is None) == (top == 0)
        for name, value, tops in zip(told["tokens"], told["token_logprobs"], told["top_logprobs"] or (), strict=False):
            assert tops[name] == value and top <= len(tops) <= top + 1
        spelt = [bytes([int(name[-2:], 16)]) if name.startswith("bytes:") else name.encode() for name in told["tokens"]]
        assert b"".join(spelt).decode("utf-8", "replace") == whole["text"]
        begun = starts(b"".join(spelt))
        place = 0
        for piece, offset in zip(spelt, told["text_offset"], strict=True):
            assert offset == sum(start <= place for start in begun) - 1
            place += len(piece)
        stream = served.client().completions.create(model="bytes", **body, logprobs=top, stream=True)
        parts = [one.logprobs for chunk in stream for one in chunk.choices if one.logprobs]
        assert [offset for part in parts for offset in part.text_offset] == told["text_offset"]
        assert [name for part in parts for name in part.tokens] == told["tokens"]


def test_offsets_of_any_bytes_are_those_of_their_characters():
    draws = random.Random(0)
    alphabet = [*(bytes([b]) for b in "Größe 大小🙂".encode()), b"\xff", b"\xe0", b"\x80", b"a", b"\xf0\x9f", b""]
    for _ in range(500):
        pieces = [draws.choice(alphabet) for _ in range(12)]
        whole, place, offsets = b"".join(pieces), 0, Offsets()
        begun = starts(whole)
        assert len(begun) == len(whole.decode("utf-8", "replace"))
        for piece in pieces:
            offset = offsets.next(piece)
            if piece and whole[place:].decode("utf-8", "replace") and place in begun:
                assert offset == begun.index(place)
            place += len(piece)


def test_two_tokens_of_one_text_are_told_apart():
    class Twins:
        pieces = (b"a", b"a", b"", b"\xe5")

    names = TokenNames(Twins())
    assert names.top(1, -2.0, [(0, -1.0), (3, -3.0)]) == {"a": -2.0, "token_id:0": -1.0, "bytes:\\xe5": -3.0}
    assert [names.name(token) for token in (2, 9)] == ["token_id:2", "token_id:9"]


def test_a_stop_text_in_broken_characters_leaves_no_token_after_it(served):
    for seed in range(6):
        body = {"prompt": "and ", "max_tokens": 40, "temperature": 2, "seed": seed, "logprobs": 1, "stop": ["m", "e"]}
        whole = ask(served, **body)["choices"][0]
        if whole["finish_reason"] == "stop":
            assert all(offset < len(whole["text"]) for offset in whole["logprobs"]["text_offset"])


@pytest.mark.parametrize("seed", range(3))
def test_answers_beside_tools_stream_with_their_log_probabilities(client, seed):
    tools = [{"type": "function", "function": {"name": "look"}}]
    for more in ({}, {"tool_choice": "required"}):
        how = {"model": "talk", "messages": [{"role": "user", "content": "What is 3?"}], "tools": tools, "seed": seed}
        how |= {"max_tokens": 60, "logprobs": True, "top_logprobs": 2, "temperature": 1, "logit_bias": {"0": -100}}
        whole = client.chat.completions.create(**how, **more).choices[0]
        stream = client.chat.completions.create(**how, **more, stream=True)
        chunks = [choice for chunk in stream for choice in chunk.choices]
        assert [w for one in chunks if one.logprobs for w in one.logprobs.content] == whole.logprobs.content
        pieces = [one.delta.content for one in chunks if one.delta.content]
        assert "".join(pieces) == (whole.message.content or "")
        assert len(pieces) > 5 or whole.message.tool_calls or whole.message.content[:1] == "{"


def test_lm_evaluation_harness_over_http_gives_the_librarys_scores(runs):
    api = pytest.importorskip("lm_eval.models.openai_completions")
    instance = pytest.importorskip("lm_eval.api.instance").Instance
    pairs = [("Größe, 大小,", " 🙂 and"), ("and more. ", "Größe"), ("A", "b"), ("and", " more."), ("x y z", ", 大")]
    with Served(runs[1:2]) as one:
        remote = api.LocalCompletionsAPI(
            base_url=one.url + "/v1/completions", model="bytes", tokenizer_backend="remote", tokenized_requests=False,
            max_length=128, batch_size=2,
        )  # fmt: skip
        asked = [instance("loglikelihood", {}, pair, i, metadata=("t", i, 1)) for i, pair in enumerate(pairs)]
        over_http = remote.loglikelihood(asked)
        here = harness_model(runs[1]).loglikelihood(asked)
    for (far, greedy), (near, same) in zip(over_http, here, strict=True):
        assert far == pytest.approx(near, abs=1e-4) and greedy == same


@pytest.mark.parametrize("place", [0, 1], ids=["bpe", "bytes"])
def test_lm_evaluation_harness_over_http_gives_the_librarys_perplexities(runs, place):
    """Whole texts begin after the start token, which the client sends as an id."""
    api = pytest.importorskip("lm_eval.models.openai_completions")
    instance = pytest.importorskip("lm_eval.api.instance").Instance
    texts = ["Größe, 大小, 🙂 and more.", "It is é7.", "x"]
    with Served(runs[place : place + 1]) as one:
        remote = api.LocalCompletionsAPI(
            base_url=one.url + "/v1/completions", model=runs[place].name, tokenizer_backend="remote", max_length=128,
        )  # fmt: skip
        asked = [
            instance("loglikelihood_rolling", {}, (text,), i, metadata=("t", i, 1)) for i, text in enumerate(texts)
        ]
        over_http = remote.loglikelihood_rolling(asked)
    assert over_http == pytest.approx(harness_model(runs[place]).loglikelihood_rolling(asked), abs=1e-4)
