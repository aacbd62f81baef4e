"""Files of records are read by what they contain, whatever their suffix says; what is not a record is one line."""

import gzip
import json
from collections import Counter

import pytest

from sanbu.codecs.tokenizer import Byte
from sanbu.config import SanbuError
from sanbu.data import labelled
from sanbu.data.chat import Chat, Prompts
from sanbu.data.conversations import full_names, records, split_paths
from sanbu.data.labelled import Labelled, check_records
from sanbu.data.preferences import Pairs
from sanbu.data.reading import SourceError
from sanbu.data.sources import documents, fingerprint
from sanbu.data.text_rows import Text

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS = [{"text": "one"}, {"text": "two"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CONTENTS = {
    "lines": LINES,
    "lines of Windows": LINES.replace("\n", "\r\n"),
    "after a mark and blank lines": "\ufeff\n \n" + LINES.replace("\n", "\n\n"),
    "no last line end": LINES.strip(),
    "array": json.dumps(ROWS),
    "array over lines": "\n" + json.dumps(ROWS, indent=2),
    "objects over lines": "\n".join(json.dumps(row, indent=1) for row in ROWS),
    "one after another": "".join(map(json.dumps, ROWS)),
    "arrays": "".join(json.dumps([row]) + "\n" for row in ROWS),
}
QUICK = {"tokenizer": Byte(), "context": 64, "validation": 0.0}


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".jsonlines", ".ndjson", ".jl", ".JSON", ".jsonl.gz"])
@pytest.mark.parametrize("name", CONTENTS)
def test_json_is_read_by_what_it_contains(tmp_path, name, suffix):
    content = CONTENTS[name].encode()
    file = tmp_path / f"a{suffix}"
    file.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    assert list(documents(str(file))) == ["one", "two"]


def table(file, **columns):
    parquet.write_table(pyarrow.table(columns), file)
    return str(file)


def lines(file, *rows):
    file.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_tables(tmp_path):
    long = "x" * 200_000  # beyond the limit of the csv module
    (tmp_path / "a.csv").write_text(f'n,text\n1,"one, or\n""two"""\n2,{long}\n')
    (tmp_path / "b.tsv").write_text('text\tn\nsay "hi"\t1\n')
    table(tmp_path / "c.parquet", text=pyarrow.array([b"one", None, "é".encode()]), n=[1, 2, 3])
    left_out = Counter()
    found = ['one, or\n"two"', long, 'say "hi"', "one", "é"]
    assert list(documents(str(tmp_path), left_out=left_out)) == found and left_out == {"records without text": 1}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", '{"text": "x"}\n{"text": }\n', "a.json, line 2: not JSON"),
        ("a.json", '[{"text": "x"},\n{"text": }]\n', "a.json, line 2: not JSON"),
        ("a.json", '[{"text": "x"},\n', "a.json, line 2: not JSON"),
        ("a.json", '{"data": [{"text": "x"}]}', "line 1: no text field 'text'; fields: data"),
        ("a.json", '{"text": ["x", "y"]}', "line 1: the field 'text' is of type list, but must be text"),
        ("a.jsonl", '["x", "y"]\n', "record 1: a JSON object is needed, not str"),
        ("a.jsonl", '{"text": 1}\n', "line 1: the field 'text' is of type int"),
        ("a.jsonl", '{"text": {"a": 1}}\n', "line 1: the field 'text' is of type dict"),
        ("a.jsonl", '{"text": "x"}\n' + "[" * 100_000, "line 2: not JSON that can be read: nested too deeply"),
        ("a.jsonl", "[" * 100_000, "line 1: not JSON that can be read: nested too deeply"),
        ("a.jsonl", '{"text": "x"}\n"\udcff"\n', "line 2 is not UTF-8 text: byte 1 is 0xff"),
        ("a.csv", "txet,n\nx,1\n", "line 2: no text field 'text'; fields: txet, n; did you mean 'txet'"),
        ("a.csv", "text,n\nx,1,2\n", "line 2: more than 2 cells"),
        ("a.csv", "text,text\nx,1\n", "two columns are called 'text'"),
    ],
)
def test_what_is_not_a_record_is_one_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(SourceError) as error:
        list(documents(str(tmp_path / name)))
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ([1, 2], "of type int"), ([1.5], "of type float"), ([["x"]], "of type list"), ([True], "of type bool"),
        ([{"a": "x"}], "of type dict"), (pyarrow.array([b"\xff"]), "bytes that are not UTF-8"),
        (pyarrow.array([1], pyarrow.timestamp("s")), "of type datetime"),
    ],
)  # fmt: skip
def test_odd_cells_in_parquet_are_one_line(tmp_path, column, said):
    with pytest.raises(SourceError, match=f"a.parquet, row 1: the field 'text' is {said}"):
        list(documents(table(tmp_path / "a.parquet", text=column)))


def test_what_has_no_text_is_counted_and_said(tmp_path, monkeypatch):
    monkeypatch.setenv("SANBU_CACHE", str(tmp_path / "cache"))
    path = lines(tmp_path / "a.jsonl", {"text": None}, {"text": "x" * 400}, {"text": ""}, {"text": None})
    for _ in range(2):  # the second time from the cache
        about = Text(path=path, **QUICK).build().describe()
        assert about.endswith(", 2 left out: records without text, 1 left out: empty texts")


def test_notes_beside_records_are_not_data(tmp_path):
    """README.md and the like, but only beside records: a folder of texts may well have one."""
    good = {"prompt": "Q", "completion": "A"}
    for name in ("README.md", "LICENSE", "dataset_infos.json", "notes.txt"):
        (tmp_path / name).write_text("# about")
    assert sorted(documents(str(tmp_path / "README.md"))) == ["# about"]
    lines(tmp_path / "a.jsonl", good)
    (tmp_path / "sub").mkdir()
    lines(tmp_path / "sub" / "b.json", good)
    left_out = Counter()
    assert len(list(records(str(tmp_path), left_out))) == 2
    assert left_out == {"files about the data": 3, "files without records by their suffix": 1}
    assert ", 3 left out: files about the data" in Chat(path=str(tmp_path), **QUICK).build().describe()
    assert list(documents(str(tmp_path), "prompt")) == ["Q", "# about", "Q"]
    before = fingerprint(str(tmp_path))
    (tmp_path / "README.md").write_text("# other")
    assert fingerprint(str(tmp_path)) == before
    (tmp_path / "sub" / "README.md").write_text("# text")
    (tmp_path / "sub" / "b.json").unlink()
    assert list(documents(str(tmp_path), "prompt")) == ["Q", "# about", "# text"]


def test_a_folder_without_records_says_what_it_has(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(SourceError, match=r"no file in .* has records \(a.txt\); allowed: .json, .jsonl, "):
        list(records(str(tmp_path)))


def test_conversations_in_every_format(tmp_path):
    talk = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    weighed = [talk[0], {**talk[1], "weight": 1}]  # a column of structures has null where a field is not given
    rows = [{"messages": talk}, {"messages": weighed}, {"prompt": "Q", "completion": "A"}]
    table(tmp_path / "a.parquet", messages=[talk, weighed])
    fields = dict.fromkeys(("messages", "prompt", "completion"))
    parquet.write_table(pyarrow.Table.from_pylist([fields | row for row in rows]), tmp_path / "b.parquet")
    (tmp_path / "c.csv").write_text("prompt,completion\nQ,A\n")
    lines(tmp_path / "d.ndjson", *rows)
    for name, count in (("a.parquet", 2), ("b.parquet", 3), ("c.csv", 1), ("d.ndjson", 3)):
        found = list(records(str(tmp_path / name)))
        assert len(found) == count and all(r.prompt[-1]["content"] == "Q" and r.answers == ("A",) for r in found), name


def test_commas_in_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.jsonl", "c.jsonl", "a, d, e.jsonl"):
        lines(tmp_path / name, {"prompt": name, "completion": "A"})
    for path, count in (("a,b.jsonl", 1), ("a,b.jsonl,c.jsonl", 2), ("c.jsonl, a,b.jsonl, a, d, e.jsonl", 3)):
        found = list(records(path))
        assert len(found) == count == len(split_paths(path))
        Chat(path=path, **QUICK).build()
    with pytest.raises(SourceError, match="no file or folder 'x'"):
        list(records("c.jsonl,x,y"))


@pytest.mark.slow
@pytest.mark.parametrize("folder", [False, True])
def test_built_in_names_and_files_of_the_same_name(tmp_path, monkeypatch, folder):
    """A file of that name is read where it is named; what is built in is still there as builtin:NAME, the default."""
    monkeypatch.chdir(tmp_path)
    here = list(documents("python"))
    for name, content in (("python", "my own text"), ("skills", json.dumps({"prompt": "Q", "completion": "A"}))):
        place = tmp_path / name
        if folder:
            place.mkdir()
            place = place / ("a.txt" if name == "python" else "a.jsonl")
        place.write_text(content)
    assert list(documents("python")) == ["my own text"] and len(list(records("skills"))) == 1
    assert list(documents("builtin:python")) == here and list(documents(Text().path)) == here
    for config in (Chat(), Pairs(), Prompts(), Labelled()):
        assert config.path == "builtin:skills"
    assert len(list(records("builtin:skills,skills"))) > 1000 and Labelled().names()
    assert fingerprint("python") != fingerprint("builtin:python")


def test_a_run_keeps_the_full_name(tmp_path, monkeypatch):
    """So that a file that comes later does not change what the run was trained on."""
    monkeypatch.chdir(tmp_path)
    assert Text(path="python").resolve().path == "builtin:python"
    assert (
        Chat(path="skills,a.jsonl").resolve().path == "builtin:skills,a.jsonl" == full_names("builtin:skills,a.jsonl")
    )
    with pytest.raises(SourceError, match="data.path: given 'builtin:pyton', allowed: builtin:python"):
        list(documents("builtin:pyton"))


# -- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": "a", "label": "x"}, {"text": "b"}], "line 2: the label is missing"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": None}], "line 2: the label is missing"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": " "}], "line 2: the label is missing"),
        ([{"text": "a", "label": "x"}, '{"text": "b", "label": NaN}\n'], "line 2: the label is missing"),
        ([{"text": "a", "label": ["x"]}], "line 1: the label is of type list; allowed: a name or a number"),
        ([{"text": "a", "label": {"x": 1}}], "line 1: the label is of type dict"),
        ([{"text": "a", "label": 1}, {"text": "b", "label": True}], "line 2: label True, but other records"),
        ([{"text": "a", "label": "x"}, {"text": None, "label": "x"}], "line 2: the field 'text' is null"),
        ([{"text": "a", "label": "x"}, {"text": 5, "label": "x"}], "line 2: the field 'text' is of type int"),
        ([], "has no record"),
    ],
)
def test_bad_labels_are_one_line_with_their_row(tmp_path, rows, said):
    path = lines(tmp_path / "a.jsonl", *rows)
    with pytest.raises(SanbuError, match=said) as error:
        read_labelled(Labelled(path=path))
    assert "\n" not in str(error.value)


def read_labelled(config):
    """What building does before it needs a tokenizer with the tokens of tasks."""
    names = config.names()
    check_records(labelled.records(config.path), config)
    return names


@pytest.mark.parametrize("blank", ["b,", "b", "b, ", 'b,""'])
def test_blank_labels_of_tables(tmp_path, blank):
    (tmp_path / "a.csv").write_text(f"text,label\na,pos\n\n{blank}\nc,neg\n")
    with pytest.raises(SanbuError, match="a.csv, line 4: the label is missing or empty"):
        Labelled(path=str(tmp_path / "a.csv")).names()


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([1, 1.0, "1", " 1.0 ", "0."], ["0", "1"]),
        (["01", "1", 0.5, -2.0], ["-2", "0.5", "01", "1"]),
        ([True, False], ["False", "True"]),
        (["None", "nan"], ["None", "nan"]),  # words that somebody wrote
    ],
)
def test_a_label_names_one_class_however_it_is_written(tmp_path, labels, names):
    path = lines(tmp_path / "a.jsonl", *({"text": "x", "label": label} for label in labels))
    assert Labelled(path=path).names() == names
    assert read_labelled(Labelled(path=path, labels=tuple(names))) == names


# -- conversations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        '{"prompt": "Q \\ud83d", "completion": "A"}\n',
        '{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "\\uDFFF"}]}\n',
        '{"prompt": "\\ud83d\\ude00", "completion": "A", "\\ud800": 1}\n',
    ],
)
def test_lone_surrogates_are_replaced(tmp_path, row):
    data = Chat(path=lines(tmp_path / "a.jsonl", row), **QUICK).build()
    said = json.dumps(data.train[0].prompt + data.train[0].answers, ensure_ascii=False)
    assert said.encode() and ("?" in said) != ("😀" in said)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "Q", "chosen": "a", "rejected": 5}, "must each be a text"),
        ({"prompt": "Q", "chosen": "a", "rejected": None}, "rejected is missing"),
        ({"prompt": "Q", "chosen": "a"}, "rejected is missing"),
        ({"prompt": "Q", "rejected": "a"}, "chosen is missing"),
        ({"prompt": "Q", "chosen": "a", "rejected": "b", "margin": []}, r"margin: given \[\]"),
        ({"prompt": "Q", "chosen": "a", "rejected": "b", "margin": "2"}, "margin: given '2'"),
        ({"prompt": "Q", "answers": ["a", "b"], "ranks": 1}, "ranks must be a list of 2 numbers"),
        ({"prompt": "Q", "answers": ["a", "b"], "ranks": ["best", "worst"]}, "ranks: given 'best'"),
        ({"prompt": "Q", "answers": ["a", "b"], "ranks": [0, None]}, "ranks: given None"),
        ({"prompt": "Q", "answers": [["a"], ["b"]]}, "at least two texts"),
        ({"prompt": "Q", "answers": "a"}, "at least two texts"),
        ({"prompt": "Q", "answers": None}, "no better and worse answer"),
        ({"prompt": 5, "chosen": "a", "rejected": "b"}, "the content is int"),
    ],
)
def test_bad_preferences_are_one_line(tmp_path, row, said):
    with pytest.raises(SanbuError, match=f"line 1.*{said}") as error:
        Pairs(path=lines(tmp_path / "a.jsonl", row), **QUICK).build()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "ends"),
    [
        ({"prompt": "Q", "completion": ""}, 1),
        ({"instruction": "Q", "output": ""}, 1),
        ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": ""}]}, 1),
        ({"instruction": "Q2", "output": "", "history": [["Q", "A"]]}, 2),
        ({"instruction": "Q2", "output": "A", "history": [["Q", ""]]}, 2),
        ({"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": ""}]}, 1),
    ],
)
def test_an_empty_answer_is_taught_as_an_end(tmp_path, row, ends):
    data = Chat(path=lines(tmp_path / "a.jsonl", row), **QUICK).build()
    assert data.batch(0, 1)["targets"][0].tolist().count(256) == ends


def test_an_empty_answer_may_be_the_better_or_the_worse(tmp_path):
    rows = [{"prompt": "Q", "chosen": "", "rejected": "b"}, {"prompt": "R", "chosen": "a", "rejected": ""}]
    batch = Pairs(path=lines(tmp_path / "a.jsonl", *rows), **QUICK).build().batch(0, 2)
    assert batch["rank"].tolist() == [[0, 1], [0, 1]] and batch["targets"].eq(256).sum() == 4


def test_the_hub_gives_conversations_too(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    lines(tmp_path / "set" / "train.jsonl", {"prompt": "Q", "completion": "A"})
    (found,) = records(f"hub:{tmp_path}/set")
    assert found.answers == ("A",)
