"""Sampling and beam search against enumeration, closed forms and invariances."""

import itertools

import pytest
import torch

from sanbu.config import ConfigError
from sanbu.models.tokens.gpt import GPT2
from sanbu.models.tokens.llama import Llama
from sanbu.models.tokens.modern import Modern
from sanbu.noise import uniform_at
from sanbu.space import Space
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.strategies.beam import BeamSearch
from sanbu.strategies.filters import draw, min_p, repetition_penalty, top_k, top_p
from sanbu.strategies.strategy import draw as draw_all
from sanbu.strategies.strategy import generate, last
from sanbu.testing import build_seeded, fill

SPACE = Space((24,), 20, 0)
UNSEEN = torch.zeros(1, 4, dtype=torch.bool)


@pytest.fixture(scope="module", params=[GPT2, Llama, Modern], ids=lambda kind: kind.__name__)
def model(request):
    config = request.param(layers=2, heads=2, width=32, context=48)
    built = build_seeded(lambda: config.build(SPACE)).eval().requires_grad_(False)
    fill(built)
    return built


def condition(*rows):
    longest = max(map(len, rows))
    return {
        "tokens": torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows]),
        "length": torch.tensor([len(row) for row in rows]),
    }


def run(model, config, rows, seeds=None, space=SPACE):
    return last(
        generate(
            config.build(space),
            {"model": model},
            condition(*rows),
            torch.arange(len(rows)) if seeds is None else torch.tensor(seeds),
        )
    )


def texts(draft):
    return [row[kept].tolist() for row, kept in zip(draft.sample, draft.committed, strict=True)]


ROWS = ([1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [1, 2, 3])


def test_logits_are_probabilities_and_the_law_is_theirs():
    """The inverse CDF on a grid of uniforms gives each token in proportion to its probability, in order of ids."""
    logits = torch.tensor([0.3, -1.0, 2.0, 0.5])
    grid = (torch.arange(10000, dtype=torch.float64) + 0.5) / 10000
    tokens = draw(logits.expand(10000, 4), grid)
    assert (tokens.sort().values == tokens).all()
    assert (torch.bincount(tokens, minlength=4) / 10000 - logits.softmax(0)).abs().max() < 2e-4


def test_a_token_of_no_probability_is_never_drawn():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    for u in (1e-300, 0.25, 0.5, 0.75, 1 - 1e-16):
        assert draw(logits, torch.tensor([u], dtype=torch.float64)).item() in (1, 3)


def test_filters_by_hand():
    logits = torch.tensor([[0.5, 0.2, 0.2, 0.1]]).log()
    kept = lambda filtered: filtered[0].isfinite().tolist()
    assert kept(top_k(1)(logits, UNSEEN)) == [True, False, False, False]
    assert kept(top_k(2)(logits, UNSEEN)) == [True, True, False, False]  # ties go to the lowest id
    assert kept(top_p(0.5)(logits, UNSEEN)) == [True, False, False, False]
    # top-p is reached exactly, so no third token
    assert kept(top_p(0.5)(torch.zeros(1, 4), UNSEEN)) == [True, True, False, False]
    assert kept(top_p(0.51)(logits, UNSEEN)) == [True, True, False, False]
    assert kept(top_p(0.95)(logits, UNSEEN)) == [True, True, True, True]
    assert kept(min_p(0.3)(logits, UNSEEN)) == [True, True, True, False]
    seen = torch.tensor([[True, False, False, True]])
    assert repetition_penalty(2.0)(torch.tensor([[1.0, 1.0, -1.0, -1.0]]), seen).tolist() == [[0.5, 1.0, -1.0, -2.0]]


def test_greedy_in_many_ways(model):
    greedy = texts(run(model, Autoregressive(temperature=0, max_tokens=20), ROWS))
    assert texts(run(model, Autoregressive(top_k=1, max_tokens=20), ROWS)) == greedy
    assert texts(run(model, Autoregressive(temperature=1e-4, max_tokens=20), ROWS)) == greedy
    assert texts(run(model, Autoregressive(temperature=0, max_tokens=20, prefill=2), ROWS)) == greedy
    assert texts(run(model, BeamSearch(beams=1, max_tokens=20), ROWS)) == greedy
    by_hand = list(ROWS[0])  # without a cache, by a forward pass over the whole prefix
    while len(by_hand) < 23 and (token := model(torch.tensor([by_hand]))[0, -1].argmax().item()) != 0:
        by_hand.append(token)
    assert greedy[0] == by_hand


def test_a_row_is_the_same_alone_and_in_any_batch(model):
    config = Autoregressive(max_tokens=25, temperature=1.3, top_p=0.9)
    together = run(model, config, ROWS, [7, 8, 9, 10])
    for row in range(4):
        alone = run(model, config, [ROWS[row]], [7 + row])
        assert texts(alone)[0] == texts(together)[row]
        width = min(alone.record["logprobs"].shape[1], together.record["logprobs"].shape[1])
        torch.testing.assert_close(
            alone.record["logprobs"][0, :width], together.record["logprobs"][row, :width], atol=1e-5, rtol=1e-5
        )
    assert texts(together)[0] != texts(together)[3]  # the same prompt with two seeds


def test_rows_that_are_done_leave_the_batch(model):
    """The last draft is the same in every tensor, and fewer rows are computed."""
    rows = [ROWS[number % 4] for number in range(24)]
    config, computed = Autoregressive(max_tokens=30), []
    hook = model.register_forward_pre_hook(lambda module, given: computed.append(len(given[0])))
    whole = run(model, config, rows)
    steps, before = len(computed), sum(computed)
    fewer = draw_all(config.build(SPACE), {"model": model}, condition(*rows), torch.arange(len(rows)))
    hook.remove()
    assert len(computed) == 2 * steps and sum(computed) - before < 0.95 * before
    for name in ("sample", "committed", "done", "evaluations"):
        assert getattr(fewer, name).equal(getattr(whole, name)), name
    assert fewer.record.keys() == whole.record.keys()
    for name, tensor in whole.record.items():
        torch.testing.assert_close(fewer.record[name], tensor, rtol=1e-4, atol=1e-5)


def test_what_changes_the_distribution_is_left_out_for_those_who_learn_from_samples():
    given = Autoregressive(
        max_tokens=7, stop=("x",), temperature=0, top_k=3, top_p=0.5, min_p=0.1, repetition_penalty=2
    )
    assert given.unfiltered() == Autoregressive(max_tokens=7, stop=("x",))
    assert BeamSearch(beams=3).unfiltered() == BeamSearch(beams=3)


def test_logprobs_are_those_of_a_teacher_forced_pass(model):
    draft = run(model, Autoregressive(max_tokens=25, temperature=0.7, top_k=5, repetition_penalty=1.2), ROWS)
    for row, (tokens, start) in enumerate(zip(texts(draft), draft.record["start"].tolist(), strict=True)):
        expected = model(torch.tensor([tokens])).log_softmax(-1)[0]
        for place in range(start, len(tokens)):
            assert draft.record["logprobs"][row, place].item() == pytest.approx(
                expected[place - 1, tokens[place]].item(), abs=1e-4
            )


def test_one_uniform_a_position(model):
    draft = run(model, Autoregressive(max_tokens=10), [[3, 4]], [42])
    tokens = texts(draft)[0]
    for place in range(2, len(tokens)):
        uniform = uniform_at(torch.tensor([42]), torch.tensor([place - 2]))
        assert draw(model(torch.tensor([tokens[:place]]))[:, -1], uniform).item() == tokens[place]


def test_the_context_ends_a_row(model):
    draft = run(model, Autoregressive(max_tokens=1000), [[1] * 40], space=Space((24,), 20, None))
    assert draft.done.all() and len(texts(draft)[0]) == 48
    from sanbu.config import SanbuError

    with pytest.raises(SanbuError, match="the prompt has 48 tokens, but the longest sequence of this model is 48"):
        run(model, Autoregressive(), [[1] * 48])


def all_scores(model, prompt, length, end):
    """The log-probability of every continuation of at most `length` tokens, ended by an end token."""
    found = {}
    for ids in itertools.product(range(4), repeat=length):
        cut = ids.index(end) + 1 if end in ids else length
        found[ids[:cut]] = None
    for ids in found:
        logprobs = model(torch.tensor([[*prompt, *ids]])).double().log_softmax(-1)[0]
        found[ids] = sum(logprobs[len(prompt) + i - 1, token].item() for i, token in enumerate(ids))
    return found


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_beams_wide_enough_find_the_best_of_all(penalty):
    model = build_seeded(lambda: GPT2(layers=2, heads=2, width=16, context=16).build(Space((8,), 4, 3))).eval()
    fill(model)
    best = all_scores(model, [1, 2], 4, 3)
    ids = max(best, key=lambda ids: best[ids] / len(ids) ** penalty)
    draft = run(model, BeamSearch(beams=256, max_tokens=4, length_penalty=penalty), [[1, 2]], space=Space((8,), 4, 3))
    assert texts(draft)[0][2:] == [token for token in ids if token != 3]
    assert draft.record["score"][0].item() == pytest.approx(best[ids], abs=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("others", [(), (2,)])
def test_rows_of_one_prompt_are_its_best_hypotheses_in_order(penalty, others):
    """By enumeration: no text twice, also where two end tokens end the same one. Other prompts do not disturb it."""
    space = Space((8,), 4, 3, other_ends=others)
    model = build_seeded(lambda: GPT2(layers=2, heads=2, width=16, context=16).build(space)).eval()
    fill(model)
    known = all_texts(model, [1, 2], 4, space.ends)
    best = sorted(known, key=lambda ids: -known[ids] / max(1, len(ids)) ** penalty)[:5]
    draft = run(
        model, BeamSearch(beams=256, max_tokens=4, length_penalty=penalty), [[1, 2], [1], *[[1, 2]] * 4], space=space
    )
    found = texts(draft)
    assert [tuple(found[row][2:]) for row in (0, 2, 3, 4, 5)] == best
    assert draft.record["score"][[0, 2, 3, 4, 5]].tolist() == pytest.approx([known[ids] for ids in best], abs=1e-5)
    alone = run(model, BeamSearch(beams=256, max_tokens=4, length_penalty=penalty), [[1]], space=space)
    assert texts(alone)[0] == found[1]


def all_texts(model, prompt, length, ends):
    """The log-probability of every text of at most `length` tokens, whichever token ends it."""
    found = {}
    for size in range(length + 1):
        for ids in itertools.product([token for token in range(4) if token not in ends], repeat=size):
            logprobs = model(torch.tensor([[*prompt, *ids]])).double().log_softmax(-1)[0]
            total = sum(logprobs[len(prompt) + i - 1, token].item() for i, token in enumerate(ids))
            ended = logprobs[-1, list(ends)].logsumexp(0).item() if size < length else 0.0
            found[ids] = total + ended
    return found


def test_fewer_beams_than_samples_are_refused():
    with pytest.raises(ConfigError, match="beams: given 2, but 3 samples of one prompt"):
        BeamSearch(beams=2).check_samples(3)


@pytest.mark.parametrize("temperature", [1e-40, 1e-38, 1e-30, 5e-324])
def test_no_temperature_is_too_low(model, temperature):
    """Also with filters after it; softmax of an overflow would be NaN."""
    greedy = texts(run(model, Autoregressive(temperature=0, max_tokens=20), ROWS))
    for more in ({}, {"top_p": 0.9}, {"min_p": 0.1}, {"top_k": 3}):
        assert texts(run(model, Autoregressive(temperature=temperature, max_tokens=20, **more), ROWS)) == greedy


def test_more_beams_find_no_worse(model):
    score = lambda beams: run(model, BeamSearch(beams=beams, max_tokens=6), [[2, 5]]).record["score"][0].item()
    assert score(1) <= score(400) + 1e-6


@pytest.mark.slow
def test_compiled_decoding_draws_the_same_tokens():
    import shutil

    if not shutil.which("g++"):
        pytest.skip("needs a C++ compiler")
    model = (
        build_seeded(lambda: GPT2(layers=1, heads=1, width=16, context=64).build(SPACE)).eval().requires_grad_(False)
    )
    config = Autoregressive(max_tokens=30, temperature=1.1)
    compiled = last(generate(config.build(SPACE).compile(), {"model": model}, condition(*ROWS), torch.arange(4)))
    assert texts(compiled) == texts(run(model, config, ROWS))
