"""LoRA over a parent: its shape, its loss before training, gradients for the change alone, weights that stay."""

import pytest
import torch

from sanbu.config import dump
from sanbu.data.memory import text
from sanbu.files import weights
from sanbu.loop import train
from sanbu.models.model import plain_decoder
from sanbu.models.scorers.scorer import Scorer
from sanbu.models.tokens.gpt import GPT1, GPT2
from sanbu.models.tokens.llama import Llama
from sanbu.models.tokens.lora import LoRA
from sanbu.models.tokens.modern import Modern
from sanbu.models.tokens.opt import OPT
from sanbu.objectives.next_token import next_token, next_token_chunked
from sanbu.recipes.alignment import without_dropout
from sanbu.recipes.text import gpt2
from sanbu.space import Space
from sanbu.testing import build_seeded, fill

SPACE = Space((12,), 23, 0)
SHAPE = {"layers": 2, "heads": 2, "width": 16, "context": 12}
BASES = [GPT1(**SHAPE), GPT2(**SHAPE), Modern(**SHAPE), Llama(**SHAPE), Llama(**SHAPE, tied=True), OPT(**SHAPE)]


def batch():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 23, (3, 13), generator=generator)
    targets = ids[:, 1:].clone()
    targets[:, ::4] = -100
    return {"tokens": ids[:, :-1], "targets": targets}


def gradients(model, objective):
    model.zero_grad()
    loss = objective.loss({"model": model}, batch()).sums["next_token"]
    loss.backward()
    return loss.item(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def adapted(base):
    """A base with filled weights, and a LoRA model that begins from it."""
    plain = build_seeded(lambda: base.build(SPACE))
    fill(plain)
    config = LoRA(base=base, rank=2)
    model = build_seeded(lambda: config.build(SPACE))
    model.load_state_dict(config.begin_from(weights(plain), weights(model)), strict=False)
    return plain.eval(), model.eval()


@pytest.mark.parametrize("base", BASES, ids=lambda base: f"{base.kind}")
def test_it_begins_as_its_parent_and_only_the_change_learns(base):
    plain, model = adapted(base)
    with torch.no_grad():
        assert (
            next_token()
            .loss({"model": plain}, batch())
            .sums["next_token"]
            .equal(next_token().loss({"model": model}, batch()).sums["next_token"])
        )
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    for name, parameter in model.named_parameters():
        assert name.endswith((".lora_down", ".lora_up"))
        parameter.data.add_(0.1)  # with B = 0, the gradient of A would be 0
    whole, expected = gradients(model, next_token())
    for chunk in (1, 5, 1000):
        ours, found = gradients(model, next_token_chunked(chunk))
        assert ours == pytest.approx(whole, rel=1e-6)
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    torch.optim.AdamW(model.parameters(), 0.1).step()
    assert all(tensor.equal(before[name]) for name, tensor in model.named_buffers())


def test_a_head_may_be_frozen_in_part():
    """Only what learns has a gradient, with a frozen bias or a frozen matrix."""
    from sanbu.objectives.next_token import chunked_cross_entropy, cross_entropy

    targets, hidden = torch.tensor([1, -100, 3]), torch.randn(3, 4, requires_grad=True)
    for frozen in ("weight", "bias"):
        head = torch.nn.Linear(4, 5)
        getattr(head, frozen).requires_grad_(False)
        learning = [hidden, *(p for p in head.parameters() if p.requires_grad)]
        ours = torch.autograd.grad(chunked_cross_entropy(head, hidden, targets, 2), learning)
        torch.testing.assert_close(ours, torch.autograd.grad(cross_entropy(head(hidden), targets), learning))


@pytest.mark.parametrize("base", BASES, ids=lambda base: f"{base.kind}")
def test_tied_weights_stay_tied_when_the_model_moves(base):
    _, model = adapted(base)
    names = weights(model).keys()
    assert weights(model.to(torch.float64)).keys() == names == weights(LoRA(base=base, rank=2).build(SPACE)).keys()


@pytest.mark.parametrize(
    "choose",
    [
        lambda recipe: recipe.change("model=lora"),
        lambda recipe: recipe.change(model="lora"),
        lambda recipe: recipe.change(model={"kind": "lora", "rank": 8}),
        lambda recipe: recipe.change('model={"kind": "lora"}'),
        lambda recipe: recipe.change(model=LoRA()),
        lambda recipe: recipe.change("model=lora").change("model=lora"),
    ],
)
def test_by_name_it_takes_the_model_whose_place_it_takes(choose):
    recipe = gpt2().change("model.width=48", "model.heads=2")
    assert choose(recipe).model == LoRA(base=recipe.model)


def test_a_scorer_takes_the_decoder_as_its_trunk():
    recipe = gpt2()
    scoring = recipe.change("model=scorer", "objective=bradley-terry", "strategy=prediction")
    assert scoring.model == Scorer(trunk=recipe.model)
    assert scoring.change("model.trunk=lora").model == Scorer(trunk=LoRA(base=recipe.model))


def test_what_is_given_is_kept():
    recipe = gpt2()
    chosen = recipe.change('model={"kind": "lora", "rank": 3, "base": {"kind": "llama", "width": 32, "heads": 2}}')
    assert chosen.model == LoRA(rank=3, base=Llama(width=32, heads=2))
    assert recipe.change(model=LoRA(base=GPT2(width=64))).model.base.width == 64
    assert recipe.change("model=lora", "model.rank=3").model == LoRA(rank=3, base=recipe.model)
    assert recipe.change("model=lora", "model.base.width=96").model.base == recipe.change("model.width=96").model


def test_a_model_inside_others_is_found():
    base = GPT1(dropout=0.1)
    model = Scorer(trunk=LoRA(base=base))
    assert plain_decoder(model) == base
    assert without_dropout(model) == Scorer(trunk=LoRA(base=base.model_copy(update={"dropout": 0.0})))
    assert dump(without_dropout(Modern())) == dump(Modern())


@pytest.mark.parametrize("chosen", ["next-token", "next-token-chunked"])
def test_training_moves_the_change_alone(tmp_path, chosen):
    data = text(["the quick brown fox jumps over the lazy dog"] * 30, context=12)
    quick = ["schedule.sample_every=0", "schedule.evaluate_every=0", "machine.threads=1", "machine.compile=off"]
    recipe = gpt2().change(*quick, data=data, model=GPT2(**SHAPE), objective=chosen, steps=2, batch=4, micro_batch=2)
    base = train(recipe, tmp_path / "base", watchers=[])
    begun = recipe.change("model=lora", parents={"model": str(base.folder)})
    child = train(begun, tmp_path / "lora", watchers=[])
    again = train(begun.change(parents={"model": str(child.folder)}), tmp_path / "more", watchers=[])
    for run in (child, again):
        now, then = weights(run.model), weights(base.model)
        assert then.keys() < now.keys() and all(now[name].equal(tensor) for name, tensor in then.items())
        assert any(tensor.any() for name, tensor in now.items() if name.endswith("lora_up"))
