"""Overrides: applied once, strictly typed, and rejected with a helpful one-line error."""

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanbu import recipes
from sanbu.config import ConfigError, dump, load, override
from sanbu.files import nearest_file
from sanbu.models.tokens.llama import Llama
from sanbu.recipe import Recipe, auto_learning_rate, walk
from sanbu.run import Run, RunError

GPT2 = recipes.gpt2()


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("schedule.steps=abc", "schedule.steps: given \"abc\", but input should be a valid integer"),
        ("schedule.batch=big", "schedule.batch: given \"big\", but input should be a valid integer or 'auto'"),
        ("machine.threads=0", "machine.threads: given 0, but input should be greater than or equal to 1 or 'auto'"),
        ("schedule.steps=true", "schedule.steps: given true, but input should be a valid integer"),
        ("schedule.steps=\"64\"", "schedule.steps: given \"64\", but input should be a valid integer"),
        ("schedule.stepz=5", "schedule.stepz: no field 'stepz' here; fields: steps, batch"),
        ("schedule.stepz=5", "did you mean 'steps'?"),
        ("model.widht=5", "did you mean 'width'?"),
        ("model=gpt22", "model: unknown kind 'gpt22'; allowed: autoencoder, "),
        ("model.width=70", "model.width: given 70, but it must be a multiple of model.heads, 3"),
        ("data.context=100000", "data.context: given 100000, but the longest sequence of the model is 128"),
        ("schedule.steps.more=1", "schedule.steps.more: steps is 900, which has no fields"),
        ("name", "'name' is not an override"),
        ("strategy.top_p=1.5", "strategy.top_p: given 1.5, but input should be less than or equal to 1"),
        ("optimizer.rest.betas=[0.9]", "optimizer.rest.betas"),
        ("machine.device=gpu", "machine.device: given \"gpu\", but input should be 'auto', 'cpu', 'cuda' or 'mps'"),
        ("players.critic.kindd=1", "players.critic.kindd"),
    ],
)  # fmt: skip
def test_one_line(assignment, line):
    with pytest.raises(ConfigError) as error:
        override(GPT2, [assignment])
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_list_of_words_needs_no_quotes():
    data = recipes.recogniser()
    assert override(data, ["data.held_out=[ada, bob]"]).data.held_out == ("ada", "bob")
    assert override(data, ['data.held_out=["ada"]']).data.held_out == ("ada",)
    with pytest.raises(ConfigError, match='given "a", but input should be a valid number'):
        override(GPT2, ["optimizer.rest.betas=[a,b]"])
    assert override(data, ["data.path=[ada,bob]"]).data.path == "[ada,bob]"


def test_switching_a_kind_takes_its_defaults_and_then_fields_whatever_the_order():
    changed = override(
        GPT2, ["model.width=64", "model=llama", "model.heads=2", "model.context=128", "data.context=128"]
    )
    assert changed.model == Llama(width=64, heads=2, context=128)
    assert override(GPT2, ["model=gpt2"]).model == GPT2.model  # the same kind keeps its fields


def test_a_new_kind_has_its_nested_defaults_at_once():
    changed = override(
        GPT2,
        [
            "optimizer=adamw",
            "optimizer.rate.warmup=0.25",
            "data.tokenizer=file",
            "data.tokenizer.path=x",
            "data.tokenizer.vocabulary=9",
            "data.tokenizer.end_id=1",
        ],
    )
    assert (
        changed.optimizer.rate.warmup == 0.25
        and changed.optimizer.rate.final == 0.1
        and changed.data.tokenizer.path == "x"
    )


def test_values():
    changed = override(
        GPT2,
        ["average=exponential", "average.decay=0.5", 'strategy.stop=["a","b"]', "name=12", "optimizer.rest.clip=none"],
    )
    assert changed.average.decay == 0.5 and changed.strategy.stop == ("a", "b") and changed.name == "12"
    assert changed.optimizer.rest.clip is None
    assert override(changed, ["average=none"]).average is None
    python = override(GPT2, ["model=llama", "model.tied=True", "optimizer.rest.clip=None"])
    assert python.model.tied is True and python.optimizer.rest.clip is None


@given(st.integers(1, 10**6), st.floats(1e-6, 1, exclude_min=True), st.integers(0, 1000))
def test_what_show_prints_can_be_pasted_back(steps, rate, seed):
    changed = override(GPT2, [f"schedule.steps={steps}", f"optimizer.learning_rate={rate}", f"schedule.seed={seed}"])
    assert changed.schedule.steps == steps and changed.optimizer.learning_rate == rate
    assert load(Recipe, dump(changed)) == changed


@pytest.mark.parametrize("name", recipes.RECIPES)
@pytest.mark.parametrize("size", ["nano", "paper"])
def test_every_recipe_survives_json_and_its_own_listing(name, size):
    function = recipes.find(name)
    recipe = function(size=size) if "size" in inspect.signature(function).parameters else function()
    assert load(Recipe, dump(recipe)) == recipe
    assert recipe.resolve().resolve() == recipe.resolve()
    paths = [path for path, value, _, _ in walk(recipe)]
    wide = any(path.startswith("model.") and path.endswith(".width") for path in paths)
    assert wide or recipe.model.searches  # what has no gradient has no dial
    assert len(set(paths)) == len(paths)


def test_auto_follows_the_width_until_it_is_given():
    recipe = recipes.modern(size="d12")
    assert recipe.resolve().optimizer.rest.learning_rate == auto_learning_rate(768) == 6e-4
    assert override(recipe, ["model.width=1536"]).resolve().schedule.batch > recipe.resolve().schedule.batch
    assert override(recipe, ["optimizer.rest.learning_rate=0.5"]).resolve().optimizer.rest.learning_rate == 0.5


def test_unknown_recipe_and_size():
    with pytest.raises(ConfigError, match="unknown recipe 'gtp2'.*did you mean 'gpt2'"):
        recipes.make("gtp2", [])
    with pytest.raises(ConfigError, match="size: given '124', allowed: nano, 124m.*did you mean '124m'"):
        recipes.make("gpt2", ["size=124"])


def test_the_nearest_file_stands_beside_the_one_that_is_missing(tmp_path):
    for name in ("voice", "vocoder", ".voicf"):
        (tmp_path / name).mkdir()
    assert nearest_file(tmp_path / "voic") == f"; did you mean {str(tmp_path / 'voice')!r}?"
    assert nearest_file(str(tmp_path / "quite different")) == nearest_file(tmp_path / "none" / "voice") == ""
    assert nearest_file(tmp_path / "voice") == ""  # it is there
    assert nearest_file("spokn", ["spoken"]) == "; did you mean 'spoken'?"
    with pytest.raises(RunError, match="is not a run: it has no recipe.json; did you mean '.*voice'?"):
        Run.open(tmp_path / "voic")
