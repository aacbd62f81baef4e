"""Which labels are kept, what a row holds, further pictures without labels, and the codec that answers with a label."""

import numpy as np
import pytest
import torch
from PIL import Image

from sanbu import recipes
from sanbu.config import ConfigError, SanbuError
from sanbu.data.few_labels import FewLabels, shares
from sanbu.data.memory import images
from sanbu.loop import train
from sanbu.memory.training import estimate
from sanbu.space import IGNORED, Space

DIGITS = FewLabels().build()


def test_labels_are_balanced_fixed_and_of_training_rows_alone():
    labels = DIGITS.pictures.labels[DIGITS.known]
    assert len(DIGITS.known) == 40 and set(np.bincount(labels)) == {4}
    assert set(DIGITS.known) <= set(DIGITS.pictures.places["train"])
    assert set(DIGITS.known).isdisjoint(DIGITS.hidden)
    assert len(DIGITS.known) + len(DIGITS.hidden) == len(DIGITS.pictures.places["train"])
    again, other = FewLabels().build(), FewLabels(draw=1).build()
    assert again.known.tolist() == DIGITS.known.tolist() and again.fingerprint == DIGITS.fingerprint
    assert len(set(other.known) & set(DIGITS.known)) < 10 and other.fingerprint != DIGITS.fingerprint


def test_more_labels_of_one_draw_hold_the_fewer():
    assert set(DIGITS.known) < set(FewLabels(labels=100).build().known)


def test_a_remainder_and_classes_with_few_pictures():
    assert sorted(shares(13, [9, 9, 9], draw=0)) == [4, 4, 5]
    assert shares(12, [9, 2, 9], draw=0) == [5, 2, 5]


def test_a_row_is_a_function_of_its_position():
    whole = DIGITS.batch(4, 6)
    assert whole["image"].shape == (6, 1, 8, 8) and whole["unlabelled"].shape == (6, 2, 1, 8, 8)
    part = DIGITS.batch(7, 2)
    assert all(tensor[3:5].equal(part[name]) for name, tensor in whole.items())
    example = FewLabels().example(6)
    assert {name: (t.shape, t.dtype) for name, t in example.items()} == {
        name: (t.shape, t.dtype) for name, t in whole.items()
    }


def test_an_epoch_has_every_picture_once_and_every_hidden_label_is_that_of_its_picture():
    labelled = DIGITS.batch(0, 40)
    assert sorted(labelled["label"].tolist()) == sorted(DIGITS.pictures.labels[DIGITS.known].tolist())
    assert len({row.numpy().tobytes() for row in labelled["image"]}) == 40
    rows = DIGITS.batch(0, DIGITS.pool // 2)
    seen = rows["unlabelled"].flatten(0, 1)
    truth = {
        picture.numpy().tobytes(): int(label)
        for picture, label in zip(*(DIGITS.part("train")[name] for name in ("image", "label")), strict=True)
    }
    assert len({row.numpy().tobytes() for row in seen}) >= DIGITS.pool - 3  # copies, and one row of an odd number
    found = [truth[row.numpy().tobytes()] for row in seen]
    assert found == rows["hidden"].flatten().tolist()


def test_without_unlabelled_pictures():
    batch = FewLabels(ratio=0).build().batch(0, 3)
    assert "unlabelled" not in batch and "hidden" not in batch
    with pytest.raises(SanbuError, match=r"needs unlabelled pictures; set data=few-labels, data.ratio=1"):
        train(recipes.few_labels().change("data.ratio=0"), "/nowhere", watchers=[], steps=1)


def drawn(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8), dtype=np.uint8)


def test_further_pictures_join_the_pool_without_labels():
    own = images(drawn(60, 0), np.arange(60) % 3)
    more = images(drawn(50, 1), np.arange(50) % 5)
    rows = FewLabels(path=own.path, labels=6, unlabelled=more.path).build()
    assert rows.pool == len(rows.pictures.places["train"]) - 6 + 50
    pictures, hidden = rows.take_unlabelled(np.arange(rows.pool)[::-1].copy())
    assert hidden[:50].eq(IGNORED).all() and not hidden[50:].eq(IGNORED).any()
    first = torch.from_numpy(drawn(50, 1)[-1]).float() / 127.5 - 1
    torch.testing.assert_close(pictures[0, 0], first, rtol=0, atol=1e-6)
    whole = FewLabels(path=own.path, labels=0, unlabelled=more.path).build()
    assert whole.rows == len(whole.pictures.places["train"]) and whole.pool == 50
    assert rows.held_out_rows == len(rows.held_out(0, 1000)["label"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": 9}, r"given 9, allowed: 10 \(one per class\) to 14\d\d, or 0 for all"),
        ({"labels": 99999}, r"given 99999, allowed: 10"),
        ({"labels": 0}, r"none is left without label; lower it, or give data.unlabelled=FOLDER"),
        ({"classes": 0}, r"'digits' has no labels of at least 2 classes; put pictures into a folder per class"),
    ],
)
def test_bad_numbers_of_labels(fields, message):
    with pytest.raises(SanbuError, match=message):
        FewLabels(**fields).build()


def test_bad_settings():
    with pytest.raises(ConfigError, match=r"labels: given 'many', but a number"):
        recipes.few_labels(labels="many")
    with pytest.raises(ConfigError, match=r"method: given 'fixmach', allowed: .*did you mean 'fixmatch'"):
        recipes.few_labels(method="fixmach")
    with pytest.raises(ConfigError, match=r"validation \+ test must be less than 1"):
        recipes.few_labels().change("data.validation=0.9", "data.test=0.5")
    with pytest.raises(ConfigError, match=r"levels: given 1"):
        recipes.few_labels().change("data.levels=1")


def test_a_run_answers_with_a_label(tmp_path):
    run = train(recipes.few_labels().change("model.width=8"), tmp_path / "run", watchers=[], steps=2, batch=4)
    levels = DIGITS.held_out(3, 1)["levels"][0]
    Image.fromarray((levels[0].numpy() * (255 / 16)).round().astype(np.uint8)).save(tmp_path / "digit.png")
    expected = str(int(run.model(DIGITS.held_out(3, 1)["image"]).argmax()))
    assert run.generate(str(tmp_path / "digit.png")) == run.generate(levels.numpy()) == expected
    assert run.generate([levels.numpy()] * 2) == [expected] * 2
    with pytest.raises(SanbuError, match=r"draws nothing; give a picture.*sanbu evaluate"):
        run.generate()
    with pytest.raises(SanbuError, match=r"cannot be read as a picture"):
        run.generate(str(tmp_path / "none.png"))
    with pytest.raises(SanbuError, match=r"given \[2, 2\], but this run reads \[1, 8, 8\]"):
        run.generate(np.zeros((2, 2)))
    found = run.evaluate()
    assert found["rows"] == 169 and 0 <= found["accuracy"] <= 1


def test_memory_is_counted():
    recipe = recipes.few_labels().change("machine.device=cpu").resolve()
    assert estimate(recipe).activations


def test_the_space_has_no_unlabelled_label():
    assert FewLabels().space() == Space((1, 8, 8), 17, classes=10, unlabelled=False)
