"""A small assistant pipeline: each stage trains, resumes bitwise after kill -9, and is used from the command line."""

import json
import multiprocessing
import os
import signal

import pytest
import torch

from sanbu import training
from sanbu.checkpoints import PIPELINE, Writer
from sanbu.config import ConfigError, SanbuError, override
from sanbu.display.health import diagnose, overoptimisation, panel
from sanbu.files import read_tensors
from sanbu.loop import train
from sanbu.noise import Noise
from sanbu.objectives.objective import Round
from sanbu.optimizers.gradient import SGD
from sanbu.recipes import make as recipe_of
from sanbu.recipes import pipelines
from sanbu.recipes.stages import Stage, train_stages
from sanbu.run import Run
from tests.command_line import sanbu
from tests.tenants.crash import after

PAIRS = [
    {
        "prompt": f"What is {a} + {b}?",
        "chosen": f"It is {a + b}.",
        "rejected": f"It is {a + b + 1}.",
        "answer": f"It is {a + b}.",
    }
    for a in range(12)
    for b in range(12)
]
SMALL = [
    "base.data.tokenizer.vocabulary=300", "base.model.layers=1", "base.model.heads=2", "base.model.width=16",
    "base.schedule.steps=4",
    "sft.schedule.steps=12", "reward.schedule.steps=6", "ppo.schedule.steps=6", "dpo.schedule.steps=6",
    "reward.schedule.batch=8", "ppo.schedule.batch=8", "dpo.schedule.batch=8", "ppo.schedule.evaluate_rows=8",
    "ppo.objective.epochs=2",
    "ppo.schedule.checkpoint_every=2", "ppo.strategy.max_tokens=8", "ppo.data.answer=8",
]  # fmt: skip
EVERY = [
    f"{stage}.machine.{field}"
    for stage in ("base", "sft", "reward", "ppo", "dpo")
    for field in ("threads=1", "precision=float32")
]


def begun(folder):
    """The stages of a pipeline in a folder, on a small file of preferences."""
    folder.mkdir(exist_ok=True)
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, PAIRS)), encoding="utf-8")
    (folder / "text.txt").write_text("What is it? It is 1 + 2 = 3. " * 200, encoding="utf-8")
    return pipelines.make(
        "assistant", [f"path={folder / 'pairs.jsonl'}", f"text={folder / 'text.txt'}", *SMALL, *EVERY]
    )


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place") / "pipeline"
    stages, rest = begun(folder)
    train_stages(stages, folder, rest, [])
    return folder


def test_each_stage_is_a_run_that_names_its_parents(pipeline):
    parents = {stage: Run.open(pipeline / stage).recipe.parents for stage in ("base", "sft", "reward", "ppo", "dpo")}
    sft, reward = str(pipeline / "sft"), str(pipeline / "reward")
    assert (
        parents["base"] == {}
        and parents["sft"] == {"model": str(pipeline / "base")}
        and parents["reward"] == {"model": sft}
    )
    assert parents["ppo"] == {"model": sft, "reference": sft, "reward": reward}
    assert parents["dpo"] == {"model": sft, "reference": sft}
    assert Run.open(pipeline / "ppo").codec.tokenizer.pieces == Run.open(pipeline / "base").codec.tokenizer.pieces


def test_a_pipeline_whose_first_stage_is_refused_leaves_no_folder(tmp_path):
    def refuse(folder):
        raise ConfigError("no such data")

    with pytest.raises(ConfigError, match="no such data"):
        train_stages([Stage("one", refuse)], tmp_path / "new", [])
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with pytest.raises(ConfigError, match="no such data"):
        train_stages([Stage("one", refuse)], tmp_path / "old", [])
    assert (tmp_path / "old" / "pipeline.json").exists()


def test_a_pipeline_goes_on_with_what_it_was_started_with(tmp_path):
    folder, given = tmp_path / "run", ["path=mine/", "voice.schedule.steps=5", "language=de"]
    assert pipelines.continued("tts", given, folder) == given  # a new folder
    folder.mkdir()
    (folder / PIPELINE).write_text(json.dumps({"stages": ["voice"], "given": given}))
    assert pipelines.continued("tts", [], folder) == given
    assert pipelines.continued("tts", ["path=mine/", "size=nano"], folder) == [*given, "size=nano"]
    assert "voice.schedule.steps=9" in pipelines.continued("tts", ["voice.schedule.steps=9"], folder)
    for other in ("path=yours/", "size=paper"):
        with pytest.raises(ConfigError, match=f"{other}: given, but .*run was started with another"):
            pipelines.continued("tts", [other], folder)
    (folder / PIPELINE).write_text(json.dumps({"stages": ["voice"]}))  # as it was written before
    assert pipelines.continued("tts", ["path=yours/"], folder) == ["path=yours/"]


def test_what_was_given_is_kept_in_the_folder(pipeline):
    stages, rest = begun(pipeline)
    train_stages(stages, pipeline, rest, [], ["path=x"])
    assert json.loads((pipeline / PIPELINE).read_text())["given"] == ["path=x"]


def test_a_pipeline_goes_on_where_it_stopped(pipeline):
    before = {path: path.stat().st_mtime_ns for path in pipeline.rglob("*.safetensors")}
    stages, rest = begun(pipeline)
    train_stages(stages, pipeline, rest, [])
    assert before == {path: path.stat().st_mtime_ns for path in pipeline.rglob("*.safetensors")}
    with pytest.raises(ConfigError, match=r"does not name a stage.*did you mean 'reward'"):
        train_stages(stages, pipeline, ["rewrad.schedule.steps=3"], [])
    with pytest.raises(ConfigError, match=r"sft\.schedule\.steps=7: given, but .*sft was started with another setting"):
        train_stages(stages, pipeline, ["sft.schedule.steps=7"], [])


def test_a_pipeline_can_be_moved(pipeline, tmp_path):
    import shutil

    moved = shutil.copytree(pipeline, tmp_path / "elsewhere")
    shutil.move(pipeline, pipeline.with_name("away"))
    try:
        assert set(Run.open(moved / "ppo").models) == {"model", "reference", "reward"}
    finally:
        shutil.move(pipeline.with_name("away"), pipeline)


def child(folder, recipe_folder, where):
    torch.set_num_threads(1)
    if where:
        training.Training.advance = after(where, training.Training.advance)
    recipe = Run.open(recipe_folder).recipe
    train(recipe, folder, resume=os.path.exists(os.path.join(folder, "recipe.json")))


def run(*arguments):
    process = multiprocessing.get_context("fork").Process(target=child, args=arguments)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("stage", ["ppo", "dpo", "sft", "reward"])
def test_kill_9_inside_a_round_and_resume_is_the_same_run(pipeline, tmp_path, stage):
    where = 10 if stage == "ppo" else 5  # a PPO round has 4 turns: turn 10 lies in the third round's second epoch
    assert run(str(tmp_path / "killed"), str(pipeline / stage), where) == -signal.SIGKILL
    assert run(str(tmp_path / "killed"), str(pipeline / stage), 0) == 0
    ours, theirs = (read_tensors(folder / "model.safetensors") for folder in (tmp_path / "killed", pipeline / stage))
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
    told = [
        [{k: v for k, v in row.items() if not k.startswith("time/")} for row in Run.open(f).metrics()]
        for f in (tmp_path / "killed", pipeline / stage)
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo", "dpo"])
def test_micro_batches_train_as_one_batch(pipeline, stage):
    """Under plain SGD, where a wrong denominator changes the step."""
    found = []
    for micro in (8, 3):
        recipe = Run.open(pipeline / stage).recipe
        schedule = recipe.schedule.model_copy(update={"batch": 8, "micro_batch": micro, "steps": 2})
        recipe = recipe.model_copy(update={"optimizer": SGD(learning_rate=0.05), "schedule": schedule})
        state = training.Training(recipe, training.Machine(torch.device("cpu"), torch.float32, False, 1))
        while state.step < 2:
            state.advance()
        found.append(state.models["model"].state_dict())
    assert all(torch.allclose(found[0][name], found[1][name], rtol=1e-5, atol=1e-6) for name in found[0])


def test_what_is_fixed_is_computed_once_and_trains_alike(pipeline):
    """With few rows the log-probabilities of the reference are cached; the training steps do not change."""
    recipe = Run.open(pipeline / "dpo").recipe
    found = []
    for steps in (60, 2):  # 60 steps of 8 rows use the 100 or so rows more than once
        recipe = recipe.model_copy(
            update={
                "optimizer": SGD(learning_rate=0.5),
                "schedule": recipe.schedule.model_copy(update={"steps": steps}),
            }
        )
        state = training.Training(recipe, training.Machine(torch.device("cpu"), torch.float32, False, 1))
        assert bool(state.known) == (steps == 60) and (
            not state.known or len(state.known["reference"]) == state.data.rows
        )
        while state.step < 2:
            state.advance()
        found.append(state.models["model"].state_dict())
    assert all(torch.allclose(found[0][name], found[1][name], rtol=1e-5, atol=1e-6) for name in found[0])


def test_recomputation_gives_the_same_gradients(pipeline):
    found = []
    for recompute in (False, True):
        machine = training.Machine(torch.device("cpu"), torch.float32, False, 1, "", recompute)
        state = training.Training(Run.open(pipeline / "sft").recipe, machine)
        calls = []
        state.models["model"].blocks["0"].mlp.register_forward_pre_hook(lambda *given, calls=calls: calls.append(1))
        state.advance()
        found.append((len(calls), state.models["model"].state_dict()))
    assert found[1][0] == 2 * found[0][0]  # once in the forward and once in the backward pass
    assert all(tensor.equal(found[1][1][name]) for name, tensor in found[0][1].items())


def test_chat_is_greedy_and_policies_learn_from_samples_at_temperature_1(pipeline):
    """The temperature of the recipe is for those who talk to the run; PPO's answers to one question differ."""
    recipe = Run.open(pipeline / "ppo").recipe
    assert {Run.open(pipeline / stage).recipe.strategy.temperature for stage in ("sft", "ppo", "dpo")} == {0}
    state = training.Training(recipe, training.Machine(torch.device("cpu"), torch.float32, False, 1))
    batch = {name: tensor.expand(16, *tensor.shape[1:]) for name, tensor in state.data.batch(0, 1).items()}
    drawn = state._round(batch, "experience").draw({n: batch[n] for n in ("tokens", "length")}, torch.arange(16))
    assert len({tuple(row.tolist()) for row in drawn.sample}) > 8
    looked = state._held_out_round(state.models["model"], 0, 4)
    drawn = looked.draw({n: batch[n] for n in ("tokens", "length")}, torch.arange(16))
    assert len({tuple(row.tolist()) for row in drawn.sample}) > 8


def test_chat_uses_the_temperature_of_the_run(pipeline):
    """Without other wishes all seeds give one answer; strategy.temperature=1 gives several."""
    from sanbu.cli.talk import Speaker

    def answers(*overrides):
        return {"".join(Speaker.open(pipeline / "sft", overrides).answer("What is 1 + 2?", seed)) for seed in range(6)}

    assert len(answers()) == 1 and answers() == answers("strategy.temperature=0")
    assert len(answers("strategy.temperature=1")) > 1


def test_held_out_looks_change_nothing(pipeline):
    recipe = Run.open(pipeline / "ppo").recipe
    recipe = recipe.model_copy(update={"objective": recipe.objective.model_copy(update={"kl_target": 0.1})})
    state = training.Training(recipe, training.Machine(torch.device("cpu"), torch.float32, False, 1))
    before = {name: tensor.clone() for name, tensor in state.models["kl"].state_dict().items()}
    first, second = state.evaluate(), state.evaluate()
    assert first == second and {"exact", "reward", "kl", "ratio", "explained_variance"} <= first.keys()
    assert state.models["kl"].state_dict()["value"].equal(before["value"]) and state.models["model"].training


# -- the command line -------------------------------------------------------------------------------------------------


def test_evaluate(pipeline):
    done = sanbu("evaluate", pipeline / "sft", pipeline / "ppo", pipeline / "dpo", "--questions", 5, "--json")
    found = json.loads(done.stdout.splitlines()[-1])["runs"]
    assert list(found) == [str(pipeline / stage) for stage in ("sft", "ppo", "dpo")]
    for row in found.values():
        assert {"exact_match", "reward", "kl", "win_rate_vs_sft", "best_of_8", "pass_at_8"} <= row.keys()
        assert row["chat"] == row["greedy"] == row["chat_first_turn"] and "chat_second_turn" not in row
    assert (
        found[str(pipeline / "sft")]["kl"] == pytest.approx(0, abs=1e-4)
        and found[str(pipeline / "sft")]["win_rate_vs_sft"] == 0.5
    )
    reward = json.loads(sanbu("evaluate", pipeline / "reward", "--json").stdout)
    assert {"accuracy", "confidence", "longer", "longer_is_better"} <= reward.keys()


def test_chat(pipeline):
    asked = ("chat", pipeline / "sft", pipeline / "ppo", "--prompt", "What is 1 + 2?", "--json")
    found = json.loads(sanbu(*asked).stdout)
    assert list(found["answers"]) == [str(pipeline / "sft"), str(pipeline / "ppo")] and found == json.loads(
        sanbu(*asked).stdout
    )
    said = sanbu("chat", pipeline / "base", pipeline / "sft", given="What is 1 + 2?\nAnd 3 + 4?\n\n")
    assert said.returncode == 0 and "sft" in said.stdout
    wrong = sanbu("chat", pipeline / "reward", "--prompt", "Hi")
    assert wrong.returncode == 2 and "does not write text" in wrong.stderr


@pytest.mark.slow
def test_what_the_demo_does_without_a_terminal(pipeline, tmp_path):
    """The same code as `make demo`, on shortened runs."""
    import shutil

    shutil.copytree(pipeline, tmp_path / "run")
    done = sanbu("demo", "--run", tmp_path / "run", "--seconds", 1, "--no-page")
    assert done.returncode == 0, done.stderr
    assert (
        "compare.html" in done.stdout
        and "sanbu serve" in done.stdout
        and "policy.png" in done.stdout
        and "exact match" in done.stdout
        and "> What is 12 + 7?" in done.stdout
    )


def test_a_long_conversation_forgets_its_oldest_turns(pipeline):
    from sanbu.cli.talk import Speaker, answer_all

    speaker = Speaker.open(pipeline / "sft", ("strategy.max_tokens=4",), "Be short.")
    for turn in range(12):
        answer_all([speaker], f"What is {turn} + 1, and why is it so?", turn, quiet=True)
    assert (
        speaker.said[0]["role"] == "system"
        and speaker.said[1]["role"] == "user"
        and speaker.said[1]["content"] != "What is 0 + 1?"
    )


def test_preview(pipeline):
    rows = json.loads(sanbu("preview", pipeline / "sft", "--rows", 1, "--json").stdout)["rows"]
    taught = "".join(token["piece"] for token in rows[0] if token["state"] == "taught")
    assert taught.startswith("It is ") and "What" not in taught and taught.endswith("<|endoftext|>")
    assert {token["state"] for token in rows[0] if token["piece"] == "<|pad|>"} <= {"padding"}
    shown = sanbu("preview", pipeline / "dpo", "--rows", 1).stdout
    assert "«It is" in shown and "taught" in shown


def test_rank_and_what_learns_from_it(pipeline, tmp_path):
    done = sanbu("rank", pipeline / "sft", "--out", tmp_path / "r.jsonl", "--questions", 20, "-n", 2, "--json")
    assert json.loads(done.stdout)["questions"] >= 21
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    for row in rows:
        assert row["answers"][0] == row["answer"] and row["ranks"][0] == 0 and min(row["ranks"][1:]) > 0
        assert len(set(row["answers"])) == len(row["answers"]) == len(row["ranks"])
    recipe, rest = recipe_of("dpo", [f"sft={pipeline / 'sft'}", f"path={tmp_path / 'r.jsonl'}"])
    assert override(recipe, rest).data.build().rows > 20


def test_a_reward_model_of_another_vocabulary_is_refused(pipeline, tmp_path):
    recipe = Run.open(pipeline / "reward").recipe
    other = override(recipe, ["data.tokenizer=byte", "schedule.steps=0", "parents={}"])
    train(other, tmp_path / "other")
    ppo = Run.open(pipeline / "ppo").recipe
    wrong = ppo.model_copy(update={"parents": {**ppo.parents, "reward": str(tmp_path / "other")}})
    with pytest.raises(SanbuError, match="parents.reward: .*another vocabulary"):
        train(wrong, tmp_path / "ppo")
    assert not (tmp_path / "ppo").exists()


def test_a_parent_that_is_missing_is_named(pipeline, tmp_path):
    recipe, _ = recipe_of("ppo", [f"sft={pipeline / 'sft'}", f"path={pipeline / 'pairs.jsonl'}"])
    recipe = override(recipe, ['objective.rewards=[{"kind":"learned"}]'])
    with pytest.raises(SanbuError, match=r"parents.reward"):
        train(recipe, tmp_path / "ppo")


def test_lora_merges_into_the_same_function_and_learns_little(pipeline, tmp_path):
    from sanbu.interop.merge import merge_run
    from sanbu.models.tokens.lora import LoRA

    recipe = Run.open(pipeline / "dpo").recipe
    recipe = recipe.model_copy(update={"model": LoRA(base=recipe.model, rank=2)})
    begun = training.Training(recipe, training.Machine(torch.device("cpu"), torch.float32, False, 1))
    batch = begun.objective.experience(Round(begun.models, begun.data.batch(0, 4), Noise("test")))
    # LoRA starts as the unchanged model
    assert float(begun.objective.loss(begun.models, batch).metrics["margin"][0]) == 0
    names = {name for name, _ in begun.models["model"].named_parameters()}
    assert names and all(name.endswith(("lora_down", "lora_up")) for name in names)
    made = train(recipe, tmp_path / "lora")
    assert (
        read_tensors(made.folder / "model.safetensors")["embedding.tokens.weight"]
        == read_tensors(pipeline / "sft" / "model.safetensors")["embedding.tokens.weight"]
    ).all()
    plain = merge_run(made, tmp_path / "plain")
    tokens = torch.arange(3, 43)[None]
    torch.testing.assert_close(plain.model(tokens), made.model(tokens), rtol=1e-4, atol=1e-5)
    assert not torch.equal(plain.model(tokens), Run.open(pipeline / "sft").model(tokens))
    assert plain.recipe.model == recipe.model.base and plain.generate("What is 1 + 2?") is not None
    with pytest.raises(SanbuError, match="nothing to merge"):
        merge_run(plain, tmp_path / "again")


# -- health ------------------------------------------------------------------------------------------------------------

WELL = {
    "step": 1,
    "kl": 0.5,
    "clip_fraction": 0.1,
    "ratio": 1.0,
    "entropy": 0.3,
    "end_rate": 1.0,
    "explained_variance": 0.4,
    "update_kl": 0.01,
}


def test_diagnosis_in_plain_words():
    assert diagnose([WELL]) == []
    for change, word in [
        ({"kl": -1.0}, "not sampled from the policy"), ({"kl": 20.0}, "far from its reference"),
        ({"end_rate": 0.2}, "cut off"),
        ({"clip_fraction": 0.6}, "clipped away"), ({"explained_variance": -0.5}, "worse than a constant"),
        ({"ratio": 1.4}, "too far"),
    ]:  # fmt: skip
        (said,) = diagnose([WELL | change])
        assert word in said
    assert len(panel([WELL]).rows) == 7


def test_overoptimisation_is_seen():
    look = lambda step, exact, reward: WELL | {"step": step, "held_out/exact": exact, "held_out/reward": reward}
    rising = [look(1, 0.6, 0.0), look(2, 0.65, 1.0)]
    assert overoptimisation(rising) == ""
    said = overoptimisation([*rising, look(3, 0.55, 2.0)])
    assert "over-optimisation: since step 2 the reward rose by 1.00 while right answers fell from 0.65 to 0.55" in said
    # the reward fell too, so this is not over-optimisation
    assert overoptimisation([*rising, look(3, 0.55, 0.5)]) == ""


def test_patience_keeps_the_best_weights(tmp_path):
    (tmp_path / "t.txt").write_text("abcdefgh " * 300, encoding="utf-8")
    recipe, _ = recipe_of("shakespeare", [f"path={tmp_path / 't.txt'}"])
    small = [
        "model.layers=1",
        "model.width=16",
        "data.context=16",
        "schedule.batch=2",
        "schedule.steps=60",
        "schedule.evaluate_every=2",
    ]
    wild = [
        "optimizer=sgd",
        "optimizer.learning_rate=300",
        "schedule.patience=3",
        "machine.threads=1",
        "machine.precision=float32",
    ]
    made = train(override(recipe, small + wild), tmp_path / "run")
    looks = [(row["held_out/loss"], row["step"]) for row in made.metrics() if "held_out/loss" in row]
    best = min(looks)
    assert looks[-1][1] == best[1] + 6 < 60 and (made.folder / "finished.json").exists()
    state, _ = Writer(made.folder).load_checkpoint(made.folder / "checkpoints" / f"step-{best[1]:08d}")
    assert all(
        tensor.equal(state["models"]["model"][name])
        for name, tensor in read_tensors(made.folder / "model.safetensors").items()
    )
