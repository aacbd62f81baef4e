"""Few labels: limits of the thresholds, where gradients flow, denominators, averages and thresholds in closed form."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sanbu.loop import train
from sanbu.machine import decide
from sanbu.models.predictors.cnn import CNN
from sanbu.noise import Noise
from sanbu.objectives.few_labels import (
    Augmented,
    FixMatch,
    FreeMatch,
    Means,
    MeanTeacher,
    PseudoLabel,
    beliefs,
    rise,
)
from sanbu.objectives.objective import Round
from sanbu.objectives.reconstruction import Reconstruction
from sanbu.objectives.views import DRAWS, STRONG, WEAK, Change, draws, hide, views
from sanbu.optimizers.gradient import SGD
from sanbu.optimizers.search import Problem
from sanbu.recipes.labels import few_labels
from sanbu.run import Run
from sanbu.space import IGNORED, Space
from sanbu.testing import check_objective
from sanbu.training import Training

B, U, K = 6, 3, 4
SPACE = Space((1, 8, 8), 5, classes=K)
KINDS = [Augmented(), PseudoLabel(threshold=0.3), FixMatch(threshold=0.3, alignment=0.5), FreeMatch(), MeanTeacher()]


def net(seed=0):
    """A classifier whose beliefs are neither sure nor equal."""
    torch.manual_seed(seed)
    model = CNN(width=8, multipliers=(1, 2)).build(SPACE)
    with torch.no_grad():
        model.head.weight.mul_(4)
    return model


def batch(noise="pictures"):
    noise = Noise(noise)
    return {
        "image": noise.uniform(B, 1, 8, 8) * 2 - 1,
        "label": torch.arange(B) % K,
        "unlabelled": noise.uniform(B, U, 1, 8, 8) * 2 - 1,
        "hidden": noise.integers(K, B, U),
    }


def middle(model):
    """A threshold that about half of the guesses reach."""
    return float(beliefs(model, batch()["unlabelled"].flatten(0, 1)).max(1).values.median())


def round_of(config, model, rows, learning=True):
    models = {"model": model, **config.build().attach(model)}
    return Round(models, rows, Noise("round"), learning=learning)


def gradient(model, objective, models, rows, micro=None):
    """The gradient of a turn by name, over micro-batches."""
    turn = next(iter(objective.draw_turns(Round(models, rows, Noise("turns")))))
    Problem(models, turn, {"model": model}, Noise("search"), micro).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def learnt(config, model, rows=None, micro=None):
    """The gradient of one round."""
    objective, given = config.build(), round_of(config, model, rows or batch())
    return gradient(model, objective, given.models, objective.experience(given), micro)


@pytest.mark.parametrize("config", [*KINDS, Reconstruction()], ids=lambda config: config.kind)
def test_conformance(config):
    model = CNN(width=8, multipliers=(1, 2)).build(SPACE)
    if config.kind == "reconstruction":
        model = nn.Conv2d(1, 1, 3, padding=1)
    check_objective(config, model, batch())


# -- limits ------------------------------------------------------------------------------------------------------------


def test_with_threshold_0_it_is_cross_entropy_to_the_argmax():
    model, config, rows = net(), FixMatch(threshold=0.0), batch()
    given = round_of(config, model, rows)
    made = config.build().experience(given)
    noise = Noise("round")  # the same draws, in the same order
    draws(noise, B)
    flat = rows["unlabelled"].flatten(0, 1)
    guess = beliefs(model, views(WEAK, flat, draws(noise, B, U))).argmax(1)
    strong = views(STRONG, flat, draws(noise, B, U))
    assert made["guess"].flatten().equal(guess) and made["view"].flatten(0, 1).equal(strong)
    model.zero_grad()
    labelled = F.cross_entropy(model(made["image"]), rows["label"])
    (labelled + F.cross_entropy(model(strong), guess)).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    found = gradient(model, config.build(), given.models, made)
    for name, each in expected.items():
        torch.testing.assert_close(found[name], each, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [FixMatch, PseudoLabel])
def test_with_threshold_1_it_is_the_supervised_gradient_bit_for_bit(kind):
    model = net()
    with torch.no_grad():
        model.head.weight.mul_(1000)  # probabilities of exactly 1
    assert (beliefs(model, batch()["unlabelled"].flatten(0, 1)).max(1).values == 1).any()
    ours, theirs = learnt(kind(threshold=1.0), model), learnt(Augmented(), model)
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_the_denominator_is_all_unlabelled_pictures():
    model = net()
    config = FixMatch(threshold=middle(model))
    given, objective = round_of(config, model, batch()), config.build()
    made = objective.experience(given)
    sure = made["guess"] != IGNORED
    assert 0 < int(sure.sum()) < B * U
    assert objective.count(made) == {"labelled": B, "unlabelled": B * U}
    turn = next(iter(objective.draw_turns(Round(given.models, made, Noise("turns")))))
    reported = Problem(given.models, turn, {"model": model}, Noise("search")).backward()
    total = F.cross_entropy(model(made["view"][sure]), made["guess"][sure], reduction="sum")
    assert reported["unlabelled"] == pytest.approx(float(total.detach()) / (B * U), rel=1e-5)
    assert reported["sure"] == pytest.approx(float(sure.float().mean()))


def test_what_is_not_sure_has_no_strong_view_and_no_effect():
    model = net()
    config = FixMatch(threshold=middle(model))
    given, objective = round_of(config, model, batch()), config.build()
    made = objective.experience(given)
    unsure = made["guess"] == IGNORED
    assert made["view"][unsure].equal(batch()["unlabelled"][unsure])
    before = gradient(model, objective, given.models, made)
    made["view"][unsure] = torch.nan
    after = gradient(model, objective, given.models, made)
    assert all(before[name].equal(after[name]) for name in before)


@pytest.mark.parametrize("config", KINDS, ids=lambda config: config.kind)
def test_hidden_labels_teach_nothing(config):
    rows = batch()
    before = learnt(config, net(), rows)
    after = learnt(config, net(), rows | {"hidden": (rows["hidden"] + 1) % K})
    assert all(before[name].equal(after[name]) for name in before)


@pytest.mark.parametrize("config", KINDS, ids=lambda config: config.kind)
@pytest.mark.parametrize("micro", [1, 4])
def test_micro_batches_are_the_whole_batch(config, micro):
    whole, parts = learnt(config, net()), learnt(config, net(), micro=micro)
    for name, each in whole.items():
        torch.testing.assert_close(parts[name], each, rtol=1e-4, atol=1e-6)


# -- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", KINDS[1:], ids=lambda config: config.kind)
def test_gradient_flows_through_what_the_model_sees_and_not_through_its_guesses(config):
    """The term of the unlabelled pictures has a gradient at the view; experience builds no graph."""
    model = net().requires_grad_(True)
    given, objective = round_of(config, model, batch()), config.build()
    if "teacher" in given.models:
        given.models["teacher"].module.head.weight.data *= 0.5  # else both agree where both views are the same
    made = objective.experience(given)
    assert not any(tensor.requires_grad for tensor in made.values())
    made["view"] = made["view"].detach().clone().requires_grad_(True)
    objective.loss(given.models, made).sums["unlabelled"].backward()
    reached = made["view"].grad.flatten(2).abs().sum(2) > 0
    taught = made["guess"] != IGNORED if "guess" in made else torch.ones(B, U, dtype=torch.bool)
    assert reached.equal(taught) and taught.any()
    assert float(model.head.weight.grad.abs().sum()) > 0


def test_the_teacher_gets_no_gradient_and_its_guesses_drop_no_units():
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(64, K)

        def forward(self, x):
            return self.head(F.dropout(x.flatten(1), 0.5, self.training))

    model, config = Dropping(), MeanTeacher(weak=Change())
    given = round_of(config, model, batch())
    for module in given.models.values():
        module.train()
    made = config.build().experience(given)
    expected = given.models["teacher"].module.eval()(batch()["unlabelled"].flatten(0, 1)).softmax(1)
    torch.testing.assert_close(made["belief"].flatten(0, 1), expected)
    assert model.training and given.models["teacher"].training
    config.build().loss(given.models, made).sums["unlabelled"].backward()
    assert model.head.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in given.models["teacher"].parameters())


# -- state -------------------------------------------------------------------------------------------------------------


def test_freematch_thresholds_by_hand():
    """t <- m t + (1 - m) mean max q; p <- m p + (1 - m) mean q; threshold of c: t p_c / max p."""
    config, model = FreeMatch(momentum=0.3, weak=Change()), net()
    objective = config.build()
    models = {"model": model, **objective.attach(model)}
    sure, share = 1 / K, torch.full((K,), 1 / K)
    for step in range(3):
        rows = batch(f"step {step}")
        q = beliefs(model, rows["unlabelled"].flatten(0, 1))
        sure = 0.3 * sure + 0.7 * float(q.max(1).values.mean())
        share = 0.3 * share + 0.7 * q.mean(0)
        made = objective.experience(Round(models, rows, Noise("r", step)))
        needed = sure * share / share.max()
        expected = q.argmax(1).where(q.max(1).values > needed[q.argmax(1)], torch.tensor(IGNORED))
        torch.testing.assert_close(models["means"].thresholds(), needed)
        assert made["guess"].flatten().equal(expected)
    assert 0 < float((made["guess"] != IGNORED).float().mean()) < 1


@pytest.mark.parametrize("config", KINDS, ids=lambda config: config.kind)
def test_evaluation_changes_nothing_and_sees_the_pictures_as_they_are(config):
    model = net()
    given = round_of(config, model, batch(), learning=False)
    before = {name: t.clone() for module in given.models.values() for name, t in module.state_dict().items()}
    held_out = {name: tensor for name, tensor in batch().items() if name in ("image", "label")}
    made = config.build().experience(Round(given.models, held_out, Noise("r"), learning=False))
    assert made.keys() == held_out.keys() and made["image"].equal(held_out["image"])
    found = config.build().loss(given.models, made)
    alone = F.cross_entropy(model(made["image"]), made["label"], reduction="sum").detach()
    assert float(found.sums["labelled"].detach()) == pytest.approx(float(alone))
    config.build().experience(given)
    after = {name: t for module in given.models.values() for name, t in module.state_dict().items()}
    assert all(before[name].equal(after[name]) for name in before)


def test_alignment_divides_by_how_frequent_classes_are():
    means = Means(3, momentum=0.5)
    means.follow_beliefs(torch.tensor([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1]]))
    share = torch.tensor([0.5 * (1 / 3 + 0.7), 0.5 * (1 / 3 + 0.2), 0.5 * (1 / 3 + 0.1)])
    torch.testing.assert_close(means.share, share)
    law = torch.tensor([[0.5, 0.3, 0.2]])
    torch.testing.assert_close(means.aligned(law, 1.0), (law / share) / (law / share).sum())
    torch.testing.assert_close(means.aligned(law, 0.0), law)


def tiny(method, steps=5, **fields):
    recipe = few_labels(labels="20", method=method).change("model.width=8", "objective.momentum=0.9") if method in (
        "fixmatch", "freematch", "pseudo-label"
    ) else few_labels(labels="20", method=method).change("model.width=8")  # fmt: skip
    return recipe.change("machine.device=cpu", "machine.threads=1", steps=steps, batch=4, evaluate_every=0, **fields)


def test_the_teacher_after_k_rounds_is_the_closed_form_of_the_average():
    """decay d, warmed up as 1 - 1 / (t + 1): w'_t = f_t w'_(t-1) + (1 - f_t) w_t, f_t = min(d, t / (t + 1))."""
    recipe = tiny("mean-teacher", optimizer=SGD(learning_rate=0.1)).change("objective.decay=0.6").resolve()
    training = Training(recipe, decide(recipe.machine))
    name = "head.weight"
    seen = [training.models["model"].state_dict()[name].clone()]
    for _ in range(4):
        training.advance()
        seen.append(training.models["model"].state_dict()[name].clone())
    factors = [min(0.6, t / (t + 1)) for t in range(1, 5)]
    expected, left = torch.zeros_like(seen[0]), 1.0
    for factor, weight in zip(reversed(factors), reversed(seen[1:]), strict=True):
        expected += left * (1 - factor) * weight
        left *= factor
    expected += left * seen[0]
    torch.testing.assert_close(training.models["teacher"].module.state_dict()[name], expected)
    assert not seen[0].equal(seen[-1])


@pytest.mark.parametrize("method", ["mean-teacher", "freematch"])
def test_resumes_bitwise(method, tmp_path):
    recipe = tiny(method, steps=6, checkpoint_every=3)
    whole = train(recipe, tmp_path / "whole", watchers=[])

    class Stop:
        def __getattr__(self, name):
            return lambda *inputs: None

        def step(self, row):
            return "stop" if row["step"] == 3 else None

    train(recipe, tmp_path / "parts", watchers=[Stop()])
    (tmp_path / "parts" / "finished.json").unlink(missing_ok=True)
    parts = train(recipe, tmp_path / "parts", resume=True, watchers=[])
    ours, theirs = (
        [{k: v for k, v in row.items() if "time" not in k} for row in run.metrics()] for run in (whole, parts)
    )
    assert ours == theirs and len(ours) == 6
    for name, tensor in Run.open(whole.folder).model.state_dict().items():
        assert tensor.equal(Run.open(parts.folder).model.state_dict()[name])


def test_a_ramp():
    assert rise(0, 10) == pytest.approx(torch.exp(torch.tensor(-5.0)).item())
    assert rise(5, 10) == pytest.approx(torch.exp(torch.tensor(-1.25)).item()) and rise(10, 10) == rise(0, 0) == 1


# -- views -------------------------------------------------------------------------------------------------------------


def test_a_view_of_whole_pixels_moves_the_picture():
    picture = torch.arange(64.0).view(1, 1, 8, 8) / 32 - 1
    chance = torch.full((1, DRAWS), 0.5)
    chance[0, 1], chance[0, 2] = 0.99, 0.01  # one row down in the picture, one column left
    moved = views(Change(shift=0.125), picture, chance)
    padded = F.pad(picture, (1, 1, 1, 1), mode="replicate")
    torch.testing.assert_close(moved, padded[:, :, 2:, :-2], rtol=0, atol=1e-5)
    chance[0, 0] = 0.1
    torch.testing.assert_close(views(Change(flip=True), picture, chance), picture.flip(3), rtol=0, atol=1e-5)


def test_a_turn_of_a_right_angle():
    picture = Noise("turn").uniform(2, 1, 6, 6)
    chance = torch.full((2, DRAWS), 0.5)
    chance[:, 3] = 1.0
    turned = views(Change(turn=90.0), picture, chance)
    torch.testing.assert_close(turned, picture.rot90(1, (2, 3)), rtol=0, atol=1e-5)


def test_a_hole_hides_a_square_and_light_changes_all():
    picture = Noise("hole").uniform(1, 2, 8, 8)
    hidden = hide(picture, 0.5, torch.tensor([0.5]), torch.tensor([0.5]))
    changed = (hidden != picture).all(1)[0]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:6, 2:6] = True
    assert changed.equal(expected)
    torch.testing.assert_close(hidden[0, :, 3, 3], picture.mean((2, 3))[0])
    chance = torch.full((1, DRAWS), 0.5)
    chance[0, 8] = 1.0
    torch.testing.assert_close(views(Change(brightness=0.1), picture / 2, chance), picture / 2 + 0.2)


def test_a_view_is_the_same_alone_and_in_a_batch():
    pictures, chance = Noise("alone").uniform(5, 3, 8, 6) * 2 - 1, Noise("chance").uniform(5, DRAWS)
    whole = views(STRONG, pictures, chance)
    for row in range(5):
        torch.testing.assert_close(views(STRONG, pictures[row : row + 1], chance[row : row + 1])[0], whole[row])
    assert views(Change(), pictures, chance) is pictures
    assert not whole[0].equal(pictures[0])
