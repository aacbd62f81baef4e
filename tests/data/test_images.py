"""Pictures from every kind of source: the split by content, and a one-line error for invalid data."""

import gzip
import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from sanbu.codecs.images import ImageCodec, grid
from sanbu.config import ConfigError, SanbuError, load, override
from sanbu.data.image_rows import Images, shifted
from sanbu.recipes import gpt2
from sanbu.recipes import images as recipes
from sanbu.space import Space


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SANBU_CACHE", str(tmp_path / "cache"))


def made(count=40, shape=(6, 5), colour=True, seed=0):
    draws = np.random.default_rng(seed)
    return draws.integers(0, 256, (count, *shape, 3) if colour else (count, *shape), dtype=np.uint8)


def all_rows(data):
    batch = {
        name: torch.cat([data.part(part)[name] for part in ("train", "validation", "test")])
        for name in ("levels", "label")
    }
    order = np.concatenate([data.places[part] for part in ("train", "validation", "test")]).argsort()
    return batch["levels"][order], batch["label"][order]


def write_folder(place, values, labels=None):
    for number, value in enumerate(values):
        folder = place / (f"class-{labels[number]}" if labels is not None else "")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(value).save(folder / f"{number:03d}.png")


@pytest.mark.parametrize("colour", [True, False], ids=["colour", "grey"])
@pytest.mark.parametrize("source", ["folder", "zip", "npz", "idx", "parquet"])
def test_every_source_gives_the_same_pictures(source, colour, tmp_path):
    values, labels = made(colour=colour), np.arange(40) % 3
    if source == "folder":
        path = tmp_path / "pictures"
        write_folder(path, values, labels)
    elif source == "zip":
        path = tmp_path / "pictures.zip"
        write_folder(tmp_path / "raw", values)
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted((tmp_path / "raw").iterdir()):
                archive.write(file, file.name)
            archive.writestr(
                "dataset.json", json.dumps({"labels": [[f"{i:03d}.png", int(y)] for i, y in enumerate(labels)]})
            )
    elif source == "npz":
        path = tmp_path / "pictures.npz"
        np.savez(path, x=values, y=labels)
    elif source == "idx":
        path = tmp_path / ("train-images-idx4-ubyte.gz" if colour else "train-images-idx3-ubyte.gz")
        header = b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
        path.write_bytes(gzip.compress(header + values.tobytes()))
        beside = tmp_path / "train-labels-idx1-ubyte.gz"
        beside.write_bytes(gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 40) + labels.astype(np.uint8).tobytes()))
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        import io

        import pyarrow

        contents = []
        for value in values:
            Image.fromarray(value).save(stream := io.BytesIO(), format="PNG")
            contents.append({"bytes": stream.getvalue()})
        path = tmp_path / "pictures.parquet"
        parquet.write_table(pyarrow.table({"image": contents, "label": labels.tolist()}), path)
    config = Images(path=str(path))
    assert config.space() == Space((3 if colour else 1, 6, 5), 256, classes=3, unlabelled=False)
    data = config.resolve().build()
    levels, label = all_rows(data)
    expected = values.transpose(0, 3, 1, 2) if colour else values[:, None]
    if source == "folder":  # sorted by name, and so by class
        order = np.lexsort((np.arange(40), labels))
        expected, labels = expected[order], labels[order]
    assert np.array_equal(levels.numpy(), expected) and np.array_equal(label.numpy(), labels)
    again = config.resolve().build()
    assert all_rows(again)[0].equal(levels) and again.fingerprint == data.fingerprint


def test_the_split_is_fixed_by_content_and_copies_stay_together(tmp_path):
    values = made(300, colour=False)
    np.savez(tmp_path / "a.npz", x=values)
    np.savez(tmp_path / "b.npz", x=np.concatenate((values[::-1], values[:50])))
    config = lambda name: Images(path=str(tmp_path / name), validation=0.2, test=0.2).resolve().build()
    sets = [
        {part: {p.numpy().tobytes() for p in data.part(part)["levels"]} for part in data.places}
        for data in (config("a.npz"), config("b.npz"))
    ]
    assert sets[0] == sets[1]
    assert all(35 < len(sets[0][part]) < 85 for part in ("validation", "test"))
    assert not sets[0]["train"] & sets[0]["test"]


def test_rows_are_a_function_of_position(tmp_path):
    np.savez(tmp_path / "a.npz", x=made(100, (8, 8)), y=np.arange(100) % 4)
    config = Images(path=str(tmp_path / "a.npz"), flip=True, shift=2, drop_label=0.3)
    data = config.resolve().build()
    whole = data.batch(0, 60)
    for start, size in ((0, 7), (7, 20), (27, 33)):
        part = data.batch(start, size)
        assert all(part[name].equal(whole[name][start : start + size]) for name in whole)
    assert 8 < int((whole["label"] == 4).sum()) < 30
    assert whole["image"].min() >= -1 and whole["image"].max() <= 1
    originals = {picture.numpy().tobytes() for picture in data.part("train")["levels"]}
    moved = sum(picture.numpy().tobytes() not in originals for picture in whole["levels"])
    assert 40 < moved < 60


def test_shifting_moves_by_what_it_says():
    x = torch.arange(9).view(1, 1, 3, 3)
    moved = shifted(x.expand(3, 1, 3, 3), 1, torch.tensor([[0, 1], [1, 1], [2, 0]]))
    assert moved[:, 0].flatten(1).tolist() == [[0, 1, 2, 0, 1, 2, 3, 4, 5], list(range(9)), [3, 3, 4, 6, 6, 7, 6, 6, 7]]


def test_levels_are_quantised_or_drawn(tmp_path):
    values = np.repeat(np.array([[0, 64, 128, 255]], np.uint8), 400, 0).reshape(400, 2, 2)
    values = np.concatenate((values, made(4, (2, 2), colour=False)))
    np.savez(tmp_path / "a.npz", x=values)
    build = lambda levels: (
        Images(path=str(tmp_path / "a.npz"), levels=levels, validation=0.0, test=0.0).resolve().build()
    )
    assert build(4).part("train")["levels"][0].flatten().tolist() == [0, 1, 2, 3]
    drawn = build(2).part("train")["levels"][:400].float().mean(0).flatten()
    torch.testing.assert_close(drawn, torch.tensor([0.0, 64 / 255, 128 / 255, 1.0]), rtol=0, atol=0.09)
    assert build(2).part("train")["levels"].equal(build(2).part("train")["levels"])


def test_pictures_are_brought_to_one_shape_where_one_is_given(tmp_path):
    write_folder(tmp_path / "p", made(3, (20, 10)))
    write_folder(tmp_path / "p" / "more", [made(1, (16, 16), colour=False)[0]] * 2)
    data = Images(path=str(tmp_path / "p"), shape=(1, 4, 4), validation=0.0, test=0.0).resolve().build()
    assert data.part("train")["levels"].shape == (5, 1, 4, 4)


WRONG = {
    "sizes": ("all must have the same size", lambda p: write_folder(p / "d", [*made(2), made(1, (7, 7))[0]])),
    "channels": ("grey and colour mixed", lambda p: write_folder(p / "d", [*made(2), made(1, colour=False)[0]])),
    "corrupt": (
        "002.png cannot be read as a picture",
        lambda p: (write_folder(p / "d", made(2)), (p / "d" / "002.png").write_bytes(b"\x89PNG broken")),
    ),
    "cut": (
        "001.png cannot be read as a picture",
        lambda p: (write_folder(p / "d", made(2)), cut(p / "d" / "001.png")),
    ),
    "one": ("has 1 pictures, 1 of them for training; at least 2 are needed", lambda p: write_folder(p / "d", made(1))),
    "none": ("has no picture", lambda p: ((p / "d").mkdir(), (p / "d" / "a.txt").write_text("x"))),
}


def cut(file):
    file.write_bytes(file.read_bytes()[:-30])


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_pictures_is_said_in_one_line(name, tmp_path):
    line, make = WRONG[name]
    make(tmp_path)
    with pytest.raises(SanbuError, match=line) as caught:
        Images(path=str(tmp_path / "d"), validation=0.0, test=0.0).resolve().build()
    assert "\n" not in str(caught.value)


def test_wrong_arrays_and_labels(tmp_path):
    np.savez(tmp_path / "two.npz", a=made(3), b=made(3))
    np.savez(tmp_path / "negative.npz", x=made(3), y=np.array([0, -1, 2]))
    np.savez(tmp_path / "pickle.npz", x=np.array([{}, 1], dtype=object))
    np.savez(tmp_path / "fine.npz", x=made(30), y=np.arange(30))
    (tmp_path / "x-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", 5, 2, 2) + b"123")
    lines = {
        "two.npz": "one uint8 array",
        "negative.npz": "labels go from -1 to 2",
        "pickle.npz": "not an .npz of plain arrays",
        "x-idx3-ubyte": "but 3 bytes follow",
        "nothing.npz": "there is no file or folder",
    }
    for name, line in lines.items():
        with pytest.raises(SanbuError, match=line):
            Images(path=str(tmp_path / name)).resolve()
    with pytest.raises(SanbuError, match="data.classes: given 5, but .* has labels up to 29"):
        Images(path=str(tmp_path / "fine.npz"), classes=5).resolve().build()


def test_configs_refuse_what_cannot_be():
    for changes, line in {
        ("data.levels=1",): "levels must be between 2 and 256",
        ("data.shape=[2,8,8]",): "channels must be 1 or 3",
        ("data.validation=0.6", "data.test=0.6"): "must be less than 1",
        ("model=gpt2",): "needs one of: next-token",
    }.items():
        with pytest.raises(ConfigError, match=line):
            override(recipes.vae(), changes)
    with pytest.raises(ConfigError, match="draws pictures"):
        override(gpt2(), ["model=perceptron-vae"])
    assert load(Images, {"kind": "images", "shape": [1, 4, 4]}).space().shape == (1, 4, 4)


def test_labels_by_number_and_name_and_pictures_to_complete(tmp_path):
    codec = ImageCodec(Space((1, 2, 2), 17, classes=2, unlabelled=True), ("cat", "dog"))
    codec.save(tmp_path)
    codec = ImageCodec.load(tmp_path, codec.space)
    assert codec.condition(None, 3)["label"].tolist() == [0, 1, 0]
    assert codec.condition("dog", 2)["label"].tolist() == [1, 1] and codec.condition(0, 1)["label"].tolist() == [0]
    assert codec.condition({"label": "none"}, 1)["label"].tolist() == [2]
    for wrong in ("dgo", 2, -1):
        with pytest.raises(SanbuError, match="allowed: 0 to 1, or cat, dog"):
            codec.condition({"label": wrong}, 1)
    with pytest.raises(SanbuError, match="did you mean 'dog'"):
        codec.condition("dgo", 1)
    with pytest.raises(SanbuError, match="trained without labels"):
        ImageCodec(Space((1, 2, 2), 17)).condition(1, 1)
    pixels = np.array([[[0, 0, 0, 255], [255, 255, 255, 255]], [[9, 9, 9, 0], [9, 9, 9, 0]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "half.png")
    found = codec.condition({"picture": tmp_path / "half.png"}, 2)
    assert found["mask"][1, 0].tolist() == [[True, True], [False, False]] and found["known"][0, 0, 0].tolist() == [
        0,
        16,
    ]
    with pytest.raises(SanbuError, match="but this run draws 3 x 3"):
        ImageCodec(Space((1, 3, 3), 17)).condition({"picture": tmp_path / "half.png"}, 1)


def test_levels_and_pictures_go_both_ways():
    codec = ImageCodec(Space((3, 2, 2), 256))
    levels = torch.randint(0, 256, (3, 2, 2))
    assert np.array_equal(codec.read(levels), levels.permute(1, 2, 0).numpy())
    assert np.array_equal(codec.read(levels.float() / 127.5 - 1), codec.read(levels))
    assert grid([np.zeros((2, 3), np.uint8)] * 5).shape == (5, 11)
