"""One rule for labels and pixels, whatever holds them; what is left out is counted and said."""

import gzip
import io
import json
import os
import struct
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sanbu.codecs.images import ImageCodec
from sanbu.config import SanbuError
from sanbu.data import images as in_memory
from sanbu.data.image_rows import Images
from sanbu.data.pictures import open_source
from sanbu.data.pictures.files import readable_suffixes
from sanbu.data.pictures.labels import class_numbers, folder_labels
from sanbu.space import Space


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SANBU_CACHE", str(tmp_path / "cache"))


def drawn(count=6, shape=(4, 5), dtype=np.uint8, high=256):
    return np.random.default_rng(0).integers(0, high, (count, *shape)).astype(dtype)


def encoded(values, kind="PNG"):
    Image.fromarray(values).save(stream := io.BytesIO(), kind)
    return stream.getvalue()


def put(file, content=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded(np.random.default_rng(len(str(file))).integers(0, 256, (8, 8, 3), dtype=np.uint8)))
    if content is not None:
        file.write_bytes(content)


def zipped(file, contents):
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file


def idx(file, array):
    codes = {"uint8": 8, "int16": 11, "int32": 12, "float32": 13, "float64": 14}
    head = bytes([0, 0, codes[array.dtype.name], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = head + array.astype(array.dtype.newbyteorder(">")).tobytes()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return file


# -- every container gives the same pictures and the same classes -----------------------------------------------------


def held(container, place, values, labels, kind="PNG"):
    """Pictures and labels in a container. labels: texts."""
    place.mkdir(parents=True, exist_ok=True)
    files = {
        f"{label}/{n:03d}.{kind.lower()}": encoded(v, kind)
        for n, (v, label) in enumerate(zip(values, labels, strict=True))
    }
    if container == "folder":
        for name, content in files.items():
            put(place / "folder" / name, content)
        return place / "folder"
    if container == "zip":
        return zipped(place / "a.zip", files)
    if container == "zip with dataset.json":
        listed = [[f"{n:03d}.{kind.lower()}", label] for n, label in enumerate(labels)]
        plain = {name.split("/")[1]: content for name, content in files.items()}
        return zipped(place / "b.zip", plain | {"dataset.json": json.dumps({"labels": listed})})
    if container == "npz":
        np.savez(place / "a.npz", images=values, labels=np.array(labels))
        return place / "a.npz"
    if container == "parquet":
        table = pyarrow.table({"image": [{"bytes": content} for content in files.values()], "label": labels})
        pyarrow.parquet.write_table(table, place / "a.parquet")
        return place / "a.parquet"
    idx(place / "labels-idx1-ubyte", np.array(labels).astype(np.uint8))
    return idx(place / "images-idx3-ubyte.gz", values)


DEPTHS = {  # dtype, highest value, format, pixels as bytes
    "8 bits": (np.uint8, 255, "PNG", lambda v: v),
    "16 bits": (np.uint16, 65535, "PNG", lambda v: v >> 8),
    "12 of 16 bits": (np.uint16, 4095, "TIFF", lambda v: v >> 4),
    "31 bits": (np.int32, 2**31 - 1, "TIFF", lambda v: v >> 23),
    "float": (np.float32, 1, "TIFF", lambda v: np.rint(v * 255)),
}
CONTAINERS = ("folder", "zip", "zip with dataset.json", "npz", "parquet", "idx")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(CONTAINERS),
    st.sampled_from(sorted(DEPTHS)),
    st.booleans(),
    st.integers(2, 12),
    st.integers(0, 9**9),
)
def test_any_container_depth_and_colour_gives_the_same(tmp_path_factory, container, depth, colour, classes, seed):
    dtype, high, kind, right = DEPTHS[depth]
    colour = colour and depth == "8 bits"
    draws = np.random.default_rng(seed)
    values = (draws.random((2 * classes, 4, 5, 3) if colour else (2 * classes, 4, 5)) * high).astype(dtype)
    values.flat[0] = high
    if container == "idx" and dtype == np.uint16:
        values = values.astype(np.int32)
    labels = [str(n) for n in sorted([*range(classes), *range(classes)])]
    found = open_source(str(held(container, tmp_path_factory.mktemp("held"), values, labels, kind)))
    if container in ("folder", "zip"):  # whose pictures come in the order of their names: 10/ before 2/
        order = sorted(range(len(labels)), key=lambda n: (labels[n], n))
        values, labels = values[order], [labels[n] for n in order]
    expected = right(values)
    pixels = np.stack(list(found.read(found.shape)))
    assert np.array_equal(pixels, expected.transpose(0, 3, 1, 2) if colour else expected[:, None])
    assert found.classes == classes and found.labels.tolist() == [int(label) for label in labels]


FORMS = {
    "integers": lambda y: y,
    "a column": lambda y: y[:, None],
    "floats": lambda y: y.astype(float),
    "one-hot": lambda y: np.eye(int(y.max()) + 1)[y],
    "one-hot integers": lambda y: np.eye(int(y.max()) + 1, dtype=int)[y],
    "names of digits": lambda y: y.astype(str),
    "bytes": lambda y: y.astype("S"),
    "a list": lambda y: y.tolist(),
    "lists of one": lambda y: y[:, None].tolist(),
    "unsigned": lambda y: y.astype(np.uint64),
}


@given(
    st.sampled_from(sorted(FORMS)),
    st.lists(st.integers(0, 30), min_size=2, max_size=40).filter(lambda y: len(set(y)) > 1),
)
def test_labels_of_any_form_are_the_same_classes(form, values):
    """The classes are the labels in order of value, and keep them as names where they are not 0 .. K - 1."""
    numbers, names = class_numbers("labels", FORMS[form](np.array(values)), len(values))
    found = sorted(set(values))
    assert numbers.tolist() == [found.index(value) for value in values] and numbers.dtype == np.int64
    assert names == (
        tuple(map(str, found)) if found != list(range(len(found))) or "names" in form or form == "bytes" else ()
    )


def test_names_and_truth_values_are_labels():
    assert class_numbers("y", ["fox", "cat", "fox"], 3)[1] == ("cat", "fox")
    assert class_numbers("y", [True, False, True], 3)[0].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ([0, 1], "2 labels for 3 pictures"),
        ([0, None, 1], "picture 1 has no label"),
        ([0, 0.5, 1], "label of picture 1 is 0.5"),
        ([0.0, float("nan"), 1.0], "label of picture 1 is nan"),
        ([-1, 0, 1], "go from -1 to 1"),
        (["a", 1, 2], "different types"),
        (["a", "", "b"], "picture 1 has an empty label"),
        ([[0, 1, 1], [1, 0, 0], [0, 1, 0]], "several labels for each picture"),
        ([[0, 1]] * 3, "the same 2 labels"),
        ([[0], [1, 2], [0]], "different lengths"),
        ([{"a": 1}] * 3, "labels of type object"),
        (np.zeros((3, 2, 2)), "shape"),
        (np.array(["2020-01-01"] * 3, "M8[D]"), "labels of type datetime64"),
    ],
)
def test_labels_that_name_no_class_are_one_line(labels, line):
    with pytest.raises(SanbuError, match=line) as caught:
        class_numbers("labels", labels, 3)
    assert "\n" not in str(caught.value)


X, Y = drawn(6, (8, 8, 3)), np.arange(6) % 3
NPZ = {  # arrays -> classes
    "a column": ({"x": X, "y": Y[:, None]}, 3),
    "ids first": ({"ids": np.arange(6), "x": X, "labels": Y}, 3),
    "ids alone": ({"x": X, "image_id": np.arange(6)}, 0),
    "without names": ({"arr_0": X, "arr_1": Y}, 3),
    "another name": ({"pixels": X, "species": np.array(["cat", "dog"] * 3)}, 2),
    "fine and coarse": ({"x": X, "coarse_labels": Y % 2, "fine_labels": Y}, 3),
    "Keras": ({"x_train": X, "y_train": Y, "x_test": X[:2], "y_test": Y[:2]}, 3),
    "MedMNIST": ({f"{s}_{k}": a for s in ("train", "val") for k, a in (("images", X), ("labels", Y[:, None]))}, 3),
    "names of classes beside": ({"x": X, "y": Y, "class_names": np.array(["a", "b", "c"])}, 3),
    "a mask beside": ({"images": X, "mask": X[..., 0] > 9, "label": Y}, 3),
}


@pytest.mark.parametrize("name", NPZ)
def test_labels_of_an_npz(name, tmp_path):
    arrays, classes = NPZ[name]
    np.savez(tmp_path / "a.npz", **arrays)
    found = open_source(str(tmp_path / "a.npz"))
    assert found.classes == classes
    assert found.count == sum(len(a) for a in arrays.values() if a.ndim == 4)


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"x": X, "y": Y[:-1]}, "5 labels for 6 pictures"),
        ({"arr_0": X, "arr_1": Y[:-1]}, "5 labels for 6 pictures"),
        ({"x": X, "y": X[..., 0]}, "labels of type uint8 and shape"),
        ({"pixels": X, "age": Y, "kind": Y}, "age or kind may be the labels"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "differ in shape or labels"),
        ({"x_train": X, "y_train": np.eye(3)[Y], "x_test": X, "y_test": np.eye(4)[Y]}, "differ in shape or labels"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y.astype(str)}, "differ in shape or labels"),
        ({"x": np.zeros((6, 8, 8, 4), np.uint8)}, "neither 1 nor 3 channels"),
        ({"x": X.astype(float) - 1}, "values from -1 to"),
        ({"x": X, "y": Y + 0.5}, "label of picture 0 is 0.5"),
    ],
)
def test_an_npz_that_cannot_be_read_is_one_line(arrays, line, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(SanbuError, match=line):
        open_source(str(tmp_path / "a.npz"))


# -- folders and archives ---------------------------------------------------------------------------------------------

TREES = {  # files -> (pictures, classes, names)
    "folders in class folders": (["cat/2019/a", "cat/2020/b", "dog/2019/c", "dog/d"], (4, 2, ("cat", "dog"))),
    "splits": (["train/cat/a", "train/dog/b", "val/cat/c", "test/dog/d"], (4, 2, ("cat", "dog"))),
    "splits in a folder": (["data/Train/cat/a", "data/Train/dog/b", "data/Test/cat/c"], (3, 2, ("cat", "dog"))),
    "splits without classes": (["train/a", "train/b", "val/c"], (3, 0, ())),
    "a folder around": (["photos/cat/a", "photos/dog/b"], (2, 2, ("cat", "dog"))),
    "numbers": ([f"{n}/a" for n in range(12)], (12, 12, tuple(map(str, range(12))))),
    "numbers with zeros": ([f"{n:05d}/a" for n in range(12)], (12, 12, tuple(f"{n:05d}" for n in range(12)))),
    "some outside": (["cat/a", "dog/b", "c"], (3, 0, ())),
    "one folder": (["cat/a", "cat/b"], (2, 0, ())),
    "no folder": (["a", "b"], (2, 0, ())),
    "macOS": (["cat/a", "dog/b", "__MACOSX/cat/._a", "__MACOSX/fox/b", "cat/._a", ".hidden/c"], (2, 2, ("cat", "dog"))),
}


@pytest.mark.parametrize("container", ["folder", "zip"])
@pytest.mark.parametrize("name", TREES)
def test_classes_are_the_first_folders(name, container, tmp_path):
    names, (count, classes, right) = TREES[name]
    contents = {f"{file}.png": b"\0\5\x16\7" if "._" in file else encoded(X[0]) for file in names}
    path = tmp_path / "tree"
    for file, content in contents.items():
        put(path / file, content)
    found = open_source(str(path if container == "folder" else zipped(tmp_path / "tree.zip", contents)))
    assert (found.count, found.classes, found.names) == (count, classes, right)
    if name in ("splits", "some outside", "macOS"):
        assert found.remarks


def test_backslashes_in_a_zip_are_folders(tmp_path):
    names = {"cat\\a.png": encoded(X[0]), "dog\\b.png": encoded(X[1])}
    assert open_source(str(zipped(tmp_path / "windows.zip", names))).names == ("cat", "dog")
    assert folder_labels(["a.png"]) == (None, ())


def test_links_to_folders_are_followed_once_and_loops_are_not(tmp_path):
    for file in ("elsewhere/a.png", "elsewhere/deep/b.png", "data/dog/a.png"):
        put(tmp_path / file)
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data" / "dog")
    (tmp_path / "data" / "dog" / "up").symlink_to(tmp_path)
    (tmp_path / "elsewhere" / "deep" / "loop").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "dog" / "broken.png").symlink_to("nowhere")
    found = open_source(str(tmp_path / "data"))
    assert (found.count, found.names, found.labels.tolist()) == (3, ("cat", "dog"), [0, 0, 1])
    assert found.remarks == ("4 files skipped (broken links or no files 1, links to folders read already 3)",)


DATASETS = {  # dataset.json -> classes, or what is said
    "numbers": ({"labels": [["0/a.png", 0], ["0/b.png", 1]]}, 2),
    "names": ({"labels": [["0/a.png", "cat"], ["0/b.png", "dog"]]}, 2),
    "a dict": ({"labels": {"0/a.png": 1, "0/b.png": 2}}, 2),
    "one-hot": ({"labels": [["0/a.png", [0, 1]], ["0/b.png", [1, 0]]]}, 2),
    "floats": ({"labels": [["./0/a.png", 0.0], ["0\\b.png", 1.0]]}, 2),
    "none": ({"labels": None}, 0),
    "empty": ({"labels": []}, 0),
    "no word of labels": ({"about": "x"}, 0),
    "one missing": ({"labels": [["0/a.png", 0]]}, "has no label for '0/b.png'"),
    "a list": ([], "dataset.json must be"),
    "a text": ("x", "dataset.json must be"),
    "odd pairs": ({"labels": [1, 2]}, "dataset.json must be"),
    "a number": ({"labels": 3}, "dataset.json must be"),
    "two for one": ({"labels": [["0/a.png", 0], ["0/a.png", 1]]}, "two labels for '0/a.png'"),
    "null": ({"labels": [["0/a.png", 0], ["0/b.png", None]]}, "picture 1 has no label"),
}


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_json_says_the_labels(name, tmp_path):
    value, right = DATASETS[name]
    path = str(
        zipped(
            tmp_path / "a.zip", {"0/a.png": encoded(X[0]), "0/b.png": encoded(X[1]), "dataset.json": json.dumps(value)}
        )
    )
    if isinstance(right, int):
        assert open_source(path).classes == right
    else:
        with pytest.raises(SanbuError, match=right) as caught:
            open_source(path)
        assert "\n" not in str(caught.value)


def test_null_labels_beside_folders_mean_no_labels(tmp_path):
    files = {f"{n // 2:05d}/{n}.png": encoded(X[n]) for n in range(6)}
    found = open_source(str(zipped(tmp_path / "tool.zip", files | {"dataset.json": '{"labels": null}'})))
    assert (found.count, found.classes) == (6, 0) and "says that there are none" in found.remarks[0]


def test_damaged_and_locked_archives_are_one_line(tmp_path):
    content = bytearray(zipped(tmp_path / "a.zip", {f"{n}.png": encoded(X[n]) for n in range(3)}).read_bytes())
    (tmp_path / "cut.zip").write_bytes(content[:-30])
    locked = bytearray(content)
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        for place in [n for n in range(len(locked)) if locked[n : n + 4] == mark]:
            locked[place + offset] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    for name, line in {"cut": "is not a ZIP file, or is damaged", "locked": "0.png is encrypted"}.items():
        with pytest.raises(SanbuError, match=line):
            open_source(str(tmp_path / f"{name}.zip"))


def test_every_suffix_that_pillow_reads_is_read_and_the_rest_is_counted(tmp_path):
    assert {".jfif", ".jpe", ".jpg", ".png", ".pbm", ".webp"} <= readable_suffixes()
    (tmp_path / "p").mkdir()
    kinds = {".jfif": "JPEG", ".JPE": "JPEG", ".dib": "BMP", ".png": "PNG", ".avif": "AVIF"}
    kinds = {suffix: kind for suffix, kind in kinds.items() if suffix.lower() in readable_suffixes()}
    for suffix, kind in kinds.items():
        put(tmp_path / "p" / f"a{suffix}", encoded(X[0], kind))
    for name in ("b.jxl", "c.jxl", "notes.txt", "none", ".secret.png"):
        put(tmp_path / "p" / name, b"x")
    found = open_source(str(tmp_path / "p"))
    assert found.count == len(kinds)
    expected = "5 files skipped (.jxl: Pillow cannot read it here; 2, .txt 1, hidden 1, no suffix 1)"
    assert ".jxl" in readable_suffixes() or found.remarks == (expected,)
    data = Images(path=str(tmp_path / "p"), validation=0.0, test=0.0).resolve().build()
    assert "files skipped" in data.describe()
    put(tmp_path / "only" / "a.jxl", b"x")
    with pytest.raises(SanbuError, match="has no picture .*1 files skipped"):
        open_source(str(tmp_path / "only"))


# -- records and IDX --------------------------------------------------------------------------------------------------

CONTENTS = [{"bytes": encoded(value)} for value in X]
COLUMNS = {  # column -> classes, or what is said
    "names": (["cat", "dog"] * 3, 2),
    "truth values": ([True, False] * 3, 2),
    "floats": ([0.0, 1.0] * 3, 2),
    "from 1": ([1, 2, 3] * 2, 3),
    "lists of one": ([[0], [1]] * 3, 2),
    "small integers": (pyarrow.array([0, 1] * 3, pyarrow.int8()), 2),
    "a dictionary": (pyarrow.array(["cat", "dog"] * 3).dictionary_encode(), 2),
    "null": ([0, 1, 0, 1, 0, None], "picture 5 has no label"),
    "several": ([[0, 1]] * 6, "the same 2 labels"),
    "records": ([{"id": 1}] * 6, "labels of type object"),
    "halves": ([0.5] * 6, "label of picture 0 is 0.5"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_labels_of_parquet(name, tmp_path):
    column, right = COLUMNS[name]
    pyarrow.parquet.write_table(pyarrow.table({"image": CONTENTS, "label": column}), tmp_path / "a.parquet")
    if isinstance(right, int):
        assert open_source(str(tmp_path / "a.parquet")).classes == right
    else:
        with pytest.raises(SanbuError, match=right):
            open_source(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("image", "line"),
    [
        (["a.png"] * 2, "record 0 has the path 'a.png'"),
        ([{"bytes": None, "path": "a.png"}] * 2, "record 0 has the path 'a.png'"),
        ([CONTENTS[0], None], "record 1 has nothing"),
        ([[1, 2]] * 2, "record 0 has list"),
        ([], "has no record"),
    ],
)
def test_records_without_pictures_are_one_line(image, line, tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"image": image}), tmp_path / "a.parquet")
    with pytest.raises(SanbuError, match=line):
        open_source(str(tmp_path / "a.parquet"))


def test_parquet_keeps_the_names_that_datasets_wrote(tmp_path):
    about = {"info": {"features": {"label": {"names": ["cat", "dog", "fox"], "_type": "ClassLabel"}}}}
    table = pyarrow.table({"image": CONTENTS[:3], "label": [2, 0, 2]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = open_source(str(tmp_path / "a.parquet"))
    assert (found.labels.tolist(), found.names) == ([2, 0, 2], ("cat", "dog", "fox"))


@pytest.mark.parametrize("images", ["t10k-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"])
@pytest.mark.parametrize("packed", [True, False])
def test_labels_beside_an_idx_are_found_packed_or_not(images, packed, tmp_path):
    idx(tmp_path / images, drawn())
    name = images.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    idx(tmp_path / (name + ".gz" * packed), (np.arange(6) % 3 + 1).astype(np.uint8))
    found = open_source(str(tmp_path / images))
    assert (found.classes, found.names) == (3, ("1", "2", "3"))
    (tmp_path / (name + ".gz" * packed)).unlink()
    assert open_source(str(tmp_path / images)).classes == 0


# -- what a label names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "label", "number"),
    [
        (tuple(map(str, range(12))), "2", 2),
        (tuple(sorted(map(str, range(12)))), 2, 4),  # a run of an older version, its folders in order of letters
        (tuple(sorted(map(str, range(12)))), "2", 4),
        (("1", "2", "3"), 1, 0),
        (("1", "2", "3"), "3", 2),
        (("00000", "00001"), 1, 1),
        (("cat", "dog"), 1, 1),
        (("cat", "dog"), "dog", 1),
        ((), "1", 1),
    ],
)
def test_text_and_number_name_the_same_class(names, label, number):
    codec = ImageCodec(Space((1, 8, 8), 256, classes=len(names) or 2), names)
    assert codec.label_number(label) == number
    assert codec.label_number(codec.label_name(number)) == number
    for wrong in (99, "99", "x"):
        with pytest.raises(SanbuError, match="allowed"):
            codec.label_number(wrong)


def test_labels_in_memory_take_every_form():
    for form in ("a column", "floats", "one-hot", "a list", "lists of one"):
        assert in_memory(X, FORMS[form](Y)).resolve().classes == 3, form
    named = in_memory(X, ["cat", "dog"] * 3)
    assert named.resolve().build().names == ("cat", "dog")


# -- shapes, changes, what is said ------------------------------------------------------------------------------------

SIZES = {
    "the first fits": [(16, 16, 3), (40, 30, 3), (40, 30, 3)],
    "the first does not": [(40, 30, 3), (16, 16, 3), (16, 16, 3)],
    "one grey": [(16, 16, 3), (16, 16, 3), (16, 16)],
    "the first grey": [(16, 16), (16, 16, 3), (16, 16, 3)],
}


@pytest.mark.parametrize("name", SIZES)
def test_a_given_shape_holds_for_all_and_auto_wants_one(name, tmp_path):
    for number, size in enumerate(SIZES[name]):
        put(tmp_path / "p" / f"{number}.png", encoded(np.full(size, 40 * number + 9, np.uint8)))
    config = Images(path=str(tmp_path / "p"), shape=(3, 16, 16), validation=0.0, test=0.0)
    data = config.resolve().build()
    assert tuple(data.part("train")["levels"].shape) == (3, 3, 16, 16)
    assert "1 grey, as colour" in data.describe() if "grey" in name else "resized" in data.describe()
    with pytest.raises(SanbuError, match="all must have the same .*data.shape=\\[3,") as caught:
        Images(path=str(tmp_path / "p")).resolve()
    proposal = str(caught.value).split("data.shape=")[1].split("]")[0] + "]"
    Images(path=str(tmp_path / "p"), shape=tuple(json.loads(proposal)), validation=0.0, test=0.0).resolve().build()


def test_digits_enlarged_keep_their_levels():
    batch = Images(shape=(1, 16, 16)).resolve().build().part("train")
    assert int(batch["levels"].max()) == 16 and float(batch["image"].max()) <= 1


def test_pictures_added_changed_and_labelled_anew_while_python_runs_are_noticed(tmp_path):
    build = lambda: Images(path=str(tmp_path / "p"), validation=0.0, test=0.0).resolve().build()
    for name in ("cat/a.png", "dog/b.png", "dog/c.png"):
        put(tmp_path / "p" / name, encoded(drawn(1, (8, 8))[0] + np.uint8(len(name) + ord(name[-5]))))
    first = build()
    put(tmp_path / "p" / "fox" / "d.png", encoded(drawn(1, (8, 8))[0]))
    second = build()
    assert (len(first.images), len(second.images), second.space.classes) == (3, 4, 3)
    os.replace(tmp_path / "p" / "fox", tmp_path / "p" / "emu")  # the same files, but other classes
    third = build()
    assert third.names == ("cat", "dog", "emu") and len({data.fingerprint for data in (first, second, third)}) == 3


def test_what_was_done_is_counted_also_from_the_cache(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "p").mkdir()
    Image.new("RGB", (8, 6), (9, 9, 9)).save(tmp_path / "p" / "a.png", exif=exif)
    Image.new("RGBA", (6, 8), (0, 0, 0, 9)).save(tmp_path / "p" / "b.png")
    for _ in range(2):
        said = Images(path=str(tmp_path / "p"), validation=0.0, test=0.0).resolve().build().describe()
        assert "1 turned upright (EXIF)" in said and "1 transparent, on white" in said


def test_dark_data_is_noticed(tmp_path):
    np.savez(tmp_path / "a.npz", x=drawn(high=16))
    said = Images(path=str(tmp_path / "a.npz"), validation=0.0, test=0.0).resolve().build().describe()
    assert "none brighter than level 15 of 255" in said


def test_a_prompt_is_read_by_the_same_rules(tmp_path):
    codec = ImageCodec(Space((3, 8, 6), 256))
    exif = Image.Exif()
    exif[0x0112] = 6
    half = np.zeros((6, 8, 4), np.uint8)
    half[:3] = (10, 20, 30, 255)
    Image.fromarray(half).save(tmp_path / "turned.png", exif=exif)
    levels, seen = codec.known_pixels(tmp_path / "turned.png")
    assert seen[0].all(0).tolist() == [False] * 3 + [True] * 3 and levels[:, 0, 5].tolist() == [10, 20, 30]
    Image.new("RGB", (6, 8)).save(tmp_path / "whole.png")
    for opaque in (tmp_path / "whole.png", str(tmp_path / "whole.png"), np.zeros((3, 8, 6), int)):
        with pytest.raises(SanbuError, match="has no pixel to draw"):
            codec.known_pixels(opaque)


def test_other_labels_beside_the_same_pictures_are_other_data(tmp_path):
    idx(tmp_path / "a-images-idx3-ubyte", drawn(9))
    found = set()
    for labels in ([0, 1, 2] * 3, [2, 1, 0] * 3, [1, 2, 3] * 3):
        idx(tmp_path / "a-labels-idx1-ubyte", np.array(labels, np.uint8))
        data = Images(path=str(tmp_path / "a-images-idx3-ubyte"), validation=0.0, test=0.0).resolve().build()
        found.add(data.fingerprint)
    assert len(found) == 3
