"""The contest of few labels: every method within its time, its figures, and what it refuses."""

import json

import pytest

from sanbu.config import ConfigError, SanbuError
from sanbu.evaluation.few_labels import Learner, advice, compete, figures_of, steps_for
from sanbu.evaluation.figures import Entry
from sanbu.loop import train
from sanbu.objectives.few_labels import Augmented, FixMatch
from sanbu.recipes import contests
from sanbu.recipes.contests.few_labels import chosen, learners
from sanbu.recipes.labels import METHODS


def test_all_methods_on_the_same_split_and_the_baseline_first():
    found = learners("digits", 20)
    assert [each.name for each in found] == [*METHODS, "pretrained"]
    assert isinstance(found[0].recipe.objective, Augmented) and found[0].recipe.data.ratio == 0
    assert len({(each.recipe.data.test, each.recipe.data.labels) for each in found}) == 1
    assert found[-1].first.data.classes == 0 and found[-1].first.data.test == found[0].recipe.data.test


def test_steps_are_fewer_where_guesses_are_expected_to_be_sure():
    recipe = next(each.recipe for each in learners("digits", 20) if each.name == "fixmatch")
    none = recipe.change(objective=Augmented()).change("data.ratio=0")
    assert 0 < steps_for(recipe, 0.5) < steps_for(none, 0.5)


@pytest.mark.slow
def test_a_contest(tmp_path):
    small = ("model.width=8", "schedule.batch=8")
    chosen = [each for each in learners("digits", 20) if each.name in ("supervised", "freematch", "pretrained")]
    entries = [
        Learner(each.name, each.recipe.change(*small), each.first.change(*small) if each.first else None)
        for each in chosen
    ]
    content = compete(entries, tmp_path, 1.0, 2, "few").write(tmp_path)
    rows = {row["name"]: row for row in content["rows"]}
    assert set(rows) == {"supervised", "freematch", "pretrained"}
    assert all(len(row["each"]) == 2 and 0.05 < row["accuracy"] <= 1 and row["steps"] > 0 for row in rows.values())
    assert rows["freematch"]["sure"] is not None and rows["supervised"]["sure"] is None
    assert content["curves"][0]["lines"].keys() == rows.keys()
    with pytest.raises(SanbuError, match="was trained for 1 CPU seconds, not 2; give another --run"):
        compete(entries, tmp_path, 2.0, 2, "few")
    assert json.loads((tmp_path / "compare.json").read_text())["title"] == "few"


def test_figures_of_a_run(tmp_path):
    recipe = learners("digits", 20)[3].recipe.change("model.width=8", objective=FixMatch(threshold=0.0))
    run = train(recipe, tmp_path / "run", watchers=[], steps=4, batch=4, evaluate_every=2)
    found = figures_of(run, 100.0)
    assert found["steps"] == 4 and found["sure"] == 1.0 and 0 <= found["right"] <= 1
    assert [round(seconds) for seconds, _ in found["curve"]] == [100, 100] and len(found["curve"]) == 2


def test_sentences():
    rows = [{"name": "supervised", "accuracy": 0.8}, {"name": "freematch", "accuracy": 0.9}]
    assert "freematch finds 90.0% of the labels, 10.0 points more than supervised" in advice(rows)[0]
    assert advice(rows[:1])[0].startswith("No method is better than supervised")


def test_settings():
    with pytest.raises(ConfigError, match=r"given 'lables=20', allowed: path=PICTURES, .*did you mean 'labels'"):
        contests.compete("few-labels", Entry(None, settings=("lables=20",)))
    with pytest.raises(ConfigError, match=r"methods: given 'mean', allowed: .*did you mean 'mean-teacher'"):
        chosen(learners("digits", 20), "fixmatch,mean")
    assert [each.name for each in chosen(learners("digits", 20), "freematch,supervised")] == ["freematch", "supervised"]
    with pytest.raises(ConfigError, match=r"labels: given 'ten', but a whole number"):
        contests.compete("few-labels", Entry(None, settings=("labels=ten",)))
