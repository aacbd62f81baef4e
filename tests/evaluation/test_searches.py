"""The recipe that any search can train, the contest of searches, and what they refuse."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from sanbu.config import ConfigError, SanbuError
from sanbu.evaluation.contest import Contestant
from sanbu.evaluation.figures import Entry
from sanbu.evaluation.searches import compete, curve, row_of
from sanbu.loop import train
from sanbu.objectives.supervised import negative_log
from sanbu.optimizers.search import WITHOUT_GRADIENT
from sanbu.recipes import contests
from sanbu.recipes.classifiers import digits_classify
from sanbu.recipes.contests.searches import VALUES, contestants
from sanbu.watcher import STOP, Watcher


@pytest.mark.parametrize("kind", ["genetic", "evolution", "snes", "diagonal-cma"])
def test_one_override_is_another_search_and_a_resumed_run_is_the_same(kind, tmp_path):
    recipe = digits_classify().change(f"optimizer={kind}", "optimizer.population=32", steps=12, batch=32)
    whole = train(recipe, tmp_path / "whole", watchers=[], checkpoint_every=7)
    again = tmp_path / "again"
    state = tmp_path / "whole" / "checkpoints" / "step-00000007"
    stopped = train(recipe, again, watchers=[Stop(7)], checkpoint_every=7)
    assert state.exists() and stopped.metrics()[-1]["step"] == 7
    resumed = train(stopped.recipe, again, resume=True, watchers=[])
    ours, theirs = (run.model.state_dict() for run in (whole, resumed))
    assert all(ours[name].equal(theirs[name]) for name in ours)
    strip = lambda run: [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.metrics()]
    assert strip(whole) == strip(resumed) and strip(whole)[-1]["held_out/loss"] < strip(whole)[0]["loss"]


class Stop(Watcher):
    """Ends a run after so many steps."""

    def __init__(self, step):
        self.last = step

    def step(self, row):
        return STOP if row["step"] == self.last else None


@pytest.mark.slow
def test_the_accuracy_takes_the_names_of_the_objective_before_it_and_has_no_gradient(tmp_path):
    recipe = digits_classify().change("objective=accuracy", steps=2, batch=16)
    assert (recipe.objective.input, recipe.objective.target) == ("image", "label")
    with pytest.raises(SanbuError, match=f"the objective has no gradient; allowed: {', '.join(WITHOUT_GRADIENT)}"):
        train(recipe, tmp_path / "refused", watchers=[])
    assert not (tmp_path / "refused").exists()
    run = train(recipe.change("optimizer=snes", "optimizer.population=8"), tmp_path / "run", watchers=[])
    found = run.evaluate()
    assert found["rows"] == 340 and 0 <= found["accuracy"] <= 1
    with pytest.raises(SanbuError, match="prediction gives scores of an input, not samples; use `sanbu evaluate`"):
        run.generate()
    with pytest.raises(SanbuError, match="objective.input: given 'x', allowed here: image, levels, label"):
        train(recipe.change("objective.input=x"), tmp_path / "x", watchers=[])


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_cross_entropy_without_a_gradient_is_the_same_along_columns(weight):
    scores, labels = torch.randn(40, 3), torch.arange(40) % 3
    with torch.no_grad():
        found = negative_log(scores, labels, weight)
    torch.testing.assert_close(found, cross_entropy(scores, labels, weight, reduction="sum"), rtol=1e-6, atol=1e-5)


def test_rows_and_curves(tmp_path):
    recipe = digits_classify().change("optimizer=evolution", "optimizer.population=8", steps=6, batch=16)
    run = train(recipe, tmp_path / "run", watchers=[], evaluate_every=3)
    points = curve(run)
    assert [point["steps"] for point in points] == [3, 6] and [p["evaluations"] for p in points] == [27, 54]
    assert points[0]["seconds"] < points[1]["seconds"] == sum(row["time/cpu_seconds"] for row in run.metrics())
    row = row_of("evolution", [run])
    assert row["accuracy"] == run.metrics()[-1]["held_out/accuracy"] and row["parameters"] == 2410


def test_every_search_and_the_accuracy_for_those_that_can():
    found = contestants(digits_classify())
    assert [each.name for each in found if each.name.endswith("accuracy")] == [f"{name} on accuracy" for name in VALUES]
    assert {each.recipe.schedule.batch for each in found} == {128}
    with pytest.raises(ConfigError, match="compare searches: given 'pth=x', allowed: path=PICTURES; did you mean"):
        contests.compete("searches", Entry(None, settings=("pth=x",)))


@pytest.mark.slow
def test_a_contest(tmp_path):
    chosen = [each for each in contestants(digits_classify()) if each.name in ("adamw", "snes", "snes on accuracy")]
    quick = [Contestant(each.name, each.recipe, divided=each.divided) for each in chosen]
    content = compete(quick, tmp_path, 1.0, 2, "searches").write(tmp_path)
    rows = {row["name"]: row for row in content["rows"]}
    assert rows.keys() == {"adamw", "snes", "snes on accuracy"} and len(content["curves"]) == 3
    assert rows["snes"]["evaluations"] == 257 * rows["snes"]["steps"] > rows["adamw"]["evaluations"]
    assert rows["snes on accuracy"]["loss"] == pytest.approx(1 - rows["snes on accuracy"]["accuracy"])
    assert "By values alone: snes" in content["advice"][1]
