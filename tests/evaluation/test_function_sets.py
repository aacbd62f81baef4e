"""The contest of function sets: the same tokens, the same time, and the figures of each."""

import pytest

from sanbu.config import ConfigError, SanbuError
from sanbu.evaluation.figures import Entry
from sanbu.evaluation.function_sets import Competitor, advice, compete, job_of
from sanbu.recipes import contests
from sanbu.recipes.contests.functions import SHAPES, competitors


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "my.txt"
    path.write_text("".join(f"row {number} of {number * 7 % 13} words.\n" for number in range(600)))
    return str(path)


def test_all_read_the_same_number_of_tokens(text):
    found = competitors(text, "", 6_000)
    assert [each.name for each in found] == ["ngram", "trees", *SHAPES]
    for each in found:
        schedule = each.by_tokens.schedule
        read = schedule.steps * schedule.batch * each.by_tokens.data.space().shape[0]
        longest = max(each.by_tokens.data.space().shape[0], schedule.batch * 64)
        assert 6_000 - longest < read <= 6_000
    assert [each.name for each in found if each.counted] == ["ngram", "trees"]


def test_networks_have_about_the_same_size(text):
    sizes = []
    for each in competitors(text, "\n" + "".join(map(chr, range(32, 127))), 6_000)[2:]:
        model = each.by_time.model.build(each.by_time.data.space())
        sizes.append(sum(parameter.numel() for parameter in model.parameters()))
    assert max(sizes) < 1.1 * min(sizes) and min(sizes) > 700_000


@pytest.mark.slow
def test_a_contest(tmp_path, text):
    chosen = [each for each in competitors(text, "", 6_000) if each.name in ("ngram", "lstm", "transformer")]
    small = [
        each
        if each.counted
        else Competitor(each.name, each.by_tokens.change("model.width=16"), each.by_time.change("model.width=16"))
        for each in chosen
    ]
    content = compete(small, tmp_path, 2.0, 1, "functions").write(tmp_path)
    rows = {row["name"]: row for row in content["rows"]}
    assert rows.keys() == {"ngram", "lstm", "transformer"}
    assert all(row["loss_equal_tokens"] > 0 and row["generate_per_second"] > 0 for row in rows.values())
    assert "Equal time" in content["advice"][1] and len(content["curves"]) == 2
    with pytest.raises(SanbuError, match="trained with other settings; give another --run"):
        compete(small, tmp_path, 3.0, 1, "functions")


def test_other_settings_in_the_same_folder_are_refused(tmp_path, text):
    from sanbu.files import write_json

    recipe = competitors(text, "", 6_000)[0].by_tokens
    job = job_of("ngram-tokens-0", recipe, 0.0, 0, tmp_path)
    job.made.parent.mkdir(parents=True)
    write_json(job.made, {"asked": job.arguments[0]})
    assert job_of("ngram-tokens-0", recipe, 0.0, 0, tmp_path) == job
    with pytest.raises(SanbuError, match="trained with other settings"):
        job_of("ngram-tokens-0", recipe, 1.0, 0, tmp_path)


def test_sentences_and_settings():
    row = {"loss_equal_tokens": 2.0, "loss_equal_time": 1.5, "generate_per_second": 10.0}
    rows = [row | {"name": "ngram"}, row | {"name": "lstm", "loss_equal_time": 1.4, "generate_per_second": 20.0}]
    assert advice(rows)[1:] == [
        "Equal time: lstm has the lowest loss (1.400).",
        "Drawing 1,000 tokens: lstm is the fastest (20 per second).",
        "Better than n-grams at equal time: lstm.",
    ]
    with pytest.raises(ConfigError, match="given 'pth=x', allowed: path=FILE, tokens=N; did you mean 'path'"):
        contests.compete("functions", Entry(None, settings=("pth=x",)))
    with pytest.raises(ConfigError, match="tokens: given 'many', but a number of tokens is needed"):
        contests.compete("functions", Entry(None, settings=("tokens=many",)))
