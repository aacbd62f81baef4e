"""Few-shot evaluation: likelihoods computed by hand, prompt text, and the same scores as lm-evaluation-harness."""

import json
import os

import pytest
import torch

from sanbu.checkpoints import Writer
from sanbu.codecs.bpe import TokenizerFile, train_chat
from sanbu.codecs.tokenizer import Byte, decode, encode
from sanbu.config import SanbuError
from sanbu.data.text_rows import Text
from sanbu.evaluation.few_shot import evaluate_tasks
from sanbu.evaluation.likelihood import loglikelihoods, split
from sanbu.evaluation.questions import TASKS, find
from sanbu.interop.harness import harness_model, rolling, windows
from sanbu.models.tokens.gpt import GPT2
from sanbu.objectives.next_token import NextToken
from sanbu.optimizers.gradient import AdamW
from sanbu.recipe import Recipe
from sanbu.run import Run
from sanbu.strategies.autoregressive import Autoregressive

ROWS = [
    {
        "question": f"What comes after {n}?",
        "choices": [f"it is {n + 1}", f"it is surely not {n}", "no"],
        "answer": n % 3,
    }
    for n in range(24)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run with random weights, and a data file."""
    folder = tmp_path_factory.mktemp("few")
    tokenizer = train_chat(["What comes after it is surely not 12? Question: Answer: no " * 30], 320)
    tokenizer.save(folder)
    recipe = Recipe(
        name="random", data=Text(tokenizer=TokenizerFile(path=str(folder)), context=64), objective=NextToken(),
        model=GPT2(layers=2, heads=2, width=32, context=64), optimizer=AdamW(), strategy=Autoregressive(),
    ).resolve()  # fmt: skip
    run = Writer.create(folder / "run", recipe, tokenizer.save)
    torch.manual_seed(0)
    model = recipe.model.build(recipe.data.space())
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    run.save_model(model)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    task = {"name": "after", "kind": "choice", "file": "rows.jsonl", "prompt": "Question: {question}\nAnswer:"}
    (folder / "after.json").write_text(json.dumps(task), encoding="utf-8")
    return folder


def test_likelihoods_by_hand(place):
    run = Run.open(place / "run")
    texts = [("Question: What", " comes after"), ("It", " is no"), ("What? ", "12"), ("a" * 90, " no no")]
    pairs = [split(run, *text) for text in texts]
    for (context, continuation), (before, after) in zip(texts, pairs, strict=True):
        assert before[0] == 0 and before[1:] + after == encode(run.codec.tokenizer, context + continuation)
    for (before, after), (value, greedy) in zip(pairs, loglikelihoods(run, pairs), strict=True):
        whole = (before + after)[-65:]
        logits = run.model(torch.tensor([whole[:-1]]))[0].log_softmax(-1)
        asked = list(range(len(whole) - 1 - len(after), len(whole) - 1))
        assert value == pytest.approx(sum(float(logits[t, whole[t + 1]]) for t in asked), abs=1e-4)
        assert greedy == all(int(logits[t].argmax()) == whole[t + 1] for t in asked)
    assert pairs[2][1] == encode(run.codec.tokenizer, " 12")  # the space belongs to the continuation


def test_prompts_and_shots(place):
    run = Run.open(place / "run")
    found = evaluate_tasks(run, [str(place / "after.json")], [0, 2], place, 12)
    zero, two = found["rows"]
    assert (zero["asked"], two["asked"], zero["questions"]) == (0, 2, 12) and zero["chance"] == pytest.approx(1 / 3)
    prompt = found["prompts"]["after"]
    assert (
        prompt.count("Question:") == 3
        and prompt.count("\n\n") == 2
        and prompt.endswith("What comes after 0?\nAnswer: it is 1")
    )
    worked = prompt.split("\n\n")[:2]
    assert all("after 0?" not in example for example in worked)
    for example in worked:
        row = next(row for row in ROWS if row["question"] in example)
        assert example.endswith(row["choices"][row["answer"]])


def test_pairs_and_last_words(place):
    (place / "pairs.jsonl").write_text(json.dumps({"good": "it is no", "bad": "no it is surely not"}), encoding="utf-8")
    (place / "words.jsonl").write_text(json.dumps({"text": "What comes after it"}), encoding="utf-8")
    for name, kind in (("pairs", "pair"), ("words", "text")):
        (place / f"{name}.json").write_text(
            json.dumps({"name": name, "kind": kind, "file": f"{name}.jsonl"}), encoding="utf-8"
        )
    run = Run.open(place / "run")
    rows = evaluate_tasks(run, [str(place / "pairs.json"), str(place / "words.json")], [0], place, 9)["rows"]
    sums = [
        value
        for value, _ in loglikelihoods(run, [split(run, "", text) for text in ("it is no", "no it is surely not")])
    ]
    assert rows[0]["accuracy"] == float(sums[0] > sums[1]) and rows[0]["chance"] == 0.5
    assert rows[1]["accuracy"] == float(loglikelihoods(run, [split(run, "What comes after", " it")])[0][1])


def test_bad_tasks_are_refused_in_one_line(place):
    with pytest.raises(SanbuError, match="unknown task 'arc-esy'.*did you mean 'arc-easy'"):
        find("arc-esy")
    with pytest.raises(SanbuError, match="which is not there; set --folder"):
        evaluate_tasks(Run.open(place / "run"), ["lambada"], [0], place, 4)


def test_the_shots_are_those_that_the_model_saw(place):
    """In a context of 64 tokens no more than 4 worked examples of about 14 tokens fit before a question."""
    run, task = Run.open(place / "run"), str(place / "after.json")
    found = evaluate_tasks(run, [task], [0, 1, 8], place, 12)
    none, one, eight = found["rows"]
    assert (none["asked"], none["shots"], one["asked"], one["shots"], eight["asked"]) == (0, 0, 1, 1, 8)
    prompt = found["prompts"]["after"]
    assert 1 < eight["shots"] < 4 and prompt.count("\n\n") in (int(eight["shots"]), int(eight["shots"]) + 1)
    assert not any(row["cut"] for row in found["rows"])
    asked = prompt.removesuffix(" it is 1")
    longest = max(sum(map(len, split(run, asked, option))) for option in (" it is surely not 0", " it is 1", " no"))
    assert longest <= 65 < longest + 26  # one more example would not have fitted
    # the examples that remain are the last ones, next to the question
    assert (
        evaluate_tasks(run, [task], [23], place, 12)["prompts"]["after"].split("\n\n")[-1] == prompt.split("\n\n")[-1]
    )
    for wrong in (24, -1):
        with pytest.raises(SanbuError, match=f"--shots: given {wrong}, allowed for after: 0 to 23"):
            evaluate_tasks(run, [task], [wrong], place, 12)


def test_questions_that_do_not_fit(place):
    run = Run.open(place / "run")
    rows = [ROWS[0] | {"question": "What comes after " * 60}, ROWS[1]]
    (place / "long.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = {"name": "long", "kind": "choice", "file": "long.jsonl", "prompt": "Question: {question}\nAnswer:"}
    (place / "long.json").write_text(json.dumps(task), encoding="utf-8")
    row = evaluate_tasks(run, [str(place / "long.json")], [1], place, 9)["rows"][0]
    assert (row["asked"], row["shots"], row["cut"]) == (1, 0, 1)
    (place / "long.jsonl").write_text(json.dumps(ROWS[0] | {"choices": ["a " * 99, "b", "c"]}), encoding="utf-8")
    with pytest.raises(SanbuError, match="an option of .* tokens is longer than the model's context of 64"):
        evaluate_tasks(run, [str(place / "long.json")], [0], place, 9)


def test_a_token_across_prompt_and_option_belongs_to_the_option(place):
    run = Run.open(place / "run")
    before, after = split(run, "What comes aft", "er it")
    tokenizer = run.codec.tokenizer
    assert before[1:] + after == encode(tokenizer, "What comes after it") and decode(tokenizer, after) == " after it"


def test_every_task_reads(place):
    assert {path.stem for path in TASKS.glob("*.json")} == {find(path.stem).name for path in TASKS.glob("*.json")}


def test_the_same_scores_as_lm_evaluation_harness(place):
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    lm_eval = pytest.importorskip("lm_eval")
    task = {
        "task": "after", "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(place / "rows.jsonl")}},
        "validation_split": "validation", "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}", "num_fewshot": 0,
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }  # fmt: skip
    theirs = lm_eval.simple_evaluate(model=harness_model(place / "run"), tasks=[task], bootstrap_iters=0)["results"][
        "after"
    ]
    ours = evaluate_tasks(Run.open(place / "run"), [str(place / "after.json")], [0], place, 99)["rows"][0]
    assert ours["accuracy"] == pytest.approx(theirs["acc,none"]) and ours["normalised"] == pytest.approx(
        theirs["acc_norm,none"]
    )
    assert 0 < ours["accuracy"] < 1


@pytest.mark.parametrize("words", [0, 1, 10, 16, 40])
def test_rolling_likelihood_scores_each_token_once(place, words):
    """By brute force: token by token, each with its own forward pass over its window."""
    run = Run.open(place / "run")
    text = "What comes after it is surely not 12? " * words
    ids = [0, *encode(run.codec.tokenizer, text)]
    total = 0.0
    for number in range(1, len(ids)):
        end = min((number + 63) // 64 * 64 + 1, len(ids))  # one after the last token of the window
        before = ids[max(0, end - 65) : number]
        total += float(run.model(torch.tensor([before]))[0, -1].log_softmax(-1)[ids[number]])
    assert rolling(run, text) == pytest.approx(total, rel=1e-5)
    assert words < 16 or len(ids) > 130


@pytest.mark.parametrize("count", [*range(12), 31, 32, 33, 64, 65, 100])
@pytest.mark.parametrize("context", [1, 2, 5, 32])
def test_the_windows_of_lm_evaluation_harness(count, context):
    lm_eval = pytest.importorskip("lm_eval.utils")
    ids = list(range(100, 100 + count))
    theirs = map(lm_eval.make_disjoint_window, lm_eval.get_rolling_token_windows(ids, 0, context, 1))
    assert windows([0, *ids], context) == [tuple(map(list, pair)) for pair in theirs]


def test_rolling_likelihood_of_a_known_text(place):
    """The figure of lm-evaluation-harness for 52 bytes in windows of 32."""
    recipe = Recipe(
        name="x", data=Text(tokenizer=Byte(), context=32), objective=NextToken(),
        model=GPT2(layers=1, heads=1, width=16, context=32), optimizer=AdamW(), strategy=Autoregressive(),
    ).resolve()  # fmt: skip
    run = Writer.create(place / "known", recipe, lambda folder: None)
    torch.manual_seed(0)
    model = recipe.model.build(recipe.data.space())
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    run.save_model(model)
    text = "the quick brown fox jumps over the lazy dog, and on."
    assert rolling(Run.open(place / "known"), text) == pytest.approx(-386.77, abs=0.01)


def test_answers_end_at_stop_texts(place):
    run = Run.open(place / "run")
    from sanbu.interop.harness import generate_to_stop

    whole = generate_to_stop(run, "What comes", {"until": [], "max_gen_toks": 12})
    assert whole == run.generate("What comes", seed=5, max_tokens=12, temperature=0)
    stopped = generate_to_stop(run, "What comes", {"until": [whole[3:5]], "max_gen_toks": 12})
    assert whole.startswith(stopped) and whole[3:5] not in stopped
