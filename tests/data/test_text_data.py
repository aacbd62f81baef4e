"""Text sources, shards and rows: no token lost, documents not mixed, rows independent of the reading order."""

import gzip
import json
import multiprocessing
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sanbu.codecs.bpe import BPE
from sanbu.codecs.text import TextCodec
from sanbu.codecs.tokenizer import Byte, ByteTokenizer, decode
from sanbu.config import SanbuError
from sanbu.data.order import permute, shuffled
from sanbu.data.reading import SourceError
from sanbu.data.shards import FEW, Shards, write
from sanbu.data.sources import documents, fingerprint
from sanbu.data.text_rows import Text, TextRows

SILENT = lambda done: None


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SANBU_CACHE", str(tmp_path / "cache"))


def shards(folder, texts, held_out=0.0):
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, texts, ByteTokenizer(), 257, held_out, SILENT)
    return Shards.open(folder)


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=40), held_out=st.sampled_from([0.0, 0.3]))
def test_shards_hold_every_document_once_between_ends(tmp_path_factory, texts, held_out):
    found = shards(tmp_path_factory.mktemp("shards"), texts, held_out)
    documents = []
    for stream in (found.train, found.held_out):
        ids = stream.tolist()
        assert held_out == 0 or len(texts) < FEW or not ids or (ids[0] == ids[-1] == 256)
        parts = np.split(np.array(ids), np.flatnonzero(np.array(ids) == 256)) if ids else []
        documents += [decode(ByteTokenizer(), part[part != 256].tolist()) for part in parts if (part != 256).any()]
    if len(texts) >= FEW or held_out == 0:
        assert sorted(documents) == sorted(texts)
    else:  # with few documents the end of the text is held out, so a document, or even a character, may be cut
        both = [bytes(stream[stream != 256].astype(np.uint8)) for stream in (found.train, found.held_out)]
        assert b"".join(both).decode() == "".join(texts)
    assert found.bytes["train"] + found.bytes["held_out"] == sum(len(text.encode()) for text in texts)


@settings(max_examples=50, deadline=None)
@given(
    texts=st.lists(st.text(alphabet="abc", min_size=1, max_size=30), min_size=1, max_size=30),
    context=st.integers(2, 12),
)
def test_rows_lose_no_token_and_keep_documents_apart(tmp_path_factory, texts, context):
    found = shards(tmp_path_factory.mktemp("rows"), texts)
    data = TextRows(found, TextCodec(ByteTokenizer()), context, 257)
    rows = data._rows(found.train, np.arange(data.rows))
    taught = rows["targets"] != -100
    pairs = torch.stack((rows["tokens"][taught], rows["targets"][taught]), 1)
    stream = torch.from_numpy(np.array(found.train, dtype=np.int64))
    # each token of the stream is a target exactly once, given its predecessor
    assert pairs.equal(torch.stack((stream[:-1], stream[1:]), 1))
    assert rows["bytes"].sum() == sum(len(text) for text in texts)
    if len(texts) > 1:
        starts = rows["positions"] == 0
        expected = rows["tokens"] == 256
        expected[:, 0] = True
        assert (starts == expected)[taught].all()
        assert ((rows["positions"][:, 1:] == rows["positions"][:, :-1] + 1) | starts[:, 1:]).all()


@given(rows=st.integers(1, 5000), secret=st.integers(-(2**63), 2**63 - 1))
@settings(deadline=None)
def test_the_order_is_a_permutation(rows, secret):
    assert np.array_equal(np.sort(permute(np.arange(rows), rows, secret)), np.arange(rows))


def test_rows_are_a_pure_function_of_position():
    order = shuffled(np.arange(300), 100, 0)
    assert np.array_equal(
        np.concatenate([shuffled(np.arange(a, a + 7), 100, 0) for a in range(0, 294, 7)]), order[:294]
    )
    assert all(np.array_equal(np.sort(order[e : e + 100]), np.arange(100)) for e in (0, 100, 200))
    assert not np.array_equal(order[:100], order[100:200]) and not np.array_equal(order[:100], np.arange(100))


def test_every_kind_of_source(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    texts = ["eins 三", "zwei", "drei"]
    (tmp_path / "a.txt").write_text(texts[0], encoding="utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(
        gzip.compress("\n".join(json.dumps({"text": t, "n": 1}) for t in texts).encode())
    )
    parquet.write_table(pa.table({"text": texts, "n": [1, 2, 3]}), tmp_path / "c.parquet")
    (tmp_path / "d.md.gz").write_bytes(gzip.compress(texts[1].encode()))
    (tmp_path / ".hidden").write_bytes(b"\xff\xff")
    assert list(documents(str(tmp_path))) == [texts[0], *texts, *texts, texts[1]]
    before = fingerprint(str(tmp_path))
    (tmp_path / "a.txt").write_text("other")
    assert fingerprint(str(tmp_path)) != before


def test_a_data_set_by_name(tmp_path, monkeypatch):
    """The datasets library reads a local folder through the same code as a data set on the hub."""
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)  # else it asks the network again and again
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in ("eins", "zwei")))
    assert list(documents(f"hub:{tmp_path}/set")) == ["eins", "zwei"]
    with pytest.raises(SourceError, match="no text field 'txet'; fields: text; did you mean 'text'"):
        list(documents(f"hub:{tmp_path}/set", "txet"))
    with pytest.raises(SourceError, match="cannot load the data set"):
        list(documents("hub:no/such-set-anywhere"))


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.txt", b"\xff\xfe\x00text", "is not UTF-8 text: byte 0 is 0xff"),
        ("a.txt", b"ab\0c", "is not text: byte 2 is zero"),
        ("a.jsonl", b'{"text": "x"}\n{nonsense\n', "a.jsonl, line 2: not JSON"),
        (
            "a.jsonl",
            b'{"txet": "x"}\n',
            "a.jsonl, line 1: no text field 'text'; fields: txet; did you mean 'txet'?; set data.field",
        ),
        ("a.jsonl", b"[1]\n", "a.jsonl, record 1: a JSON object is needed, not int"),
        ("a.txt.gz", b"\x1f\x8b\x08nonsense", "is damaged or not supported"),
        ("a.txt.gz", gzip.compress(b"x" * 10000, mtime=0)[:-20], "is damaged or not supported"),
        ("a.parquet", b"nonsense", "is not Parquet"),
    ],
)
def test_bad_sources_are_refused_in_one_line(tmp_path, name, content, line):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError) as error:
        list(documents(str(tmp_path / name)))
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "x", "too short"])
def test_too_little_text(tmp_path, content):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(
        SanbuError, match=f"has {len(content)} bytes of text, .* at least one row of data.context=64 is needed"
    ):
        Text(path=str(tmp_path / "a.txt"), tokenizer=Byte(), context=64).build()


def test_the_installed_python_is_real_text():
    texts = list(documents("python"))
    assert len(texts) > 3000 and sum(map(len, texts)) > 1_500_000
    assert any(text.startswith("shutil.copytree(") for text in texts) and len(set(texts)) == len(texts)


def build_at_once(path, folder, barrier, queue):
    os.environ["SANBU_CACHE"] = folder
    barrier.wait()
    rows = Text(path=path, tokenizer=BPE(vocabulary=300), context=16, validation=0.1).build()
    queue.put((rows.rows, rows.batch(0, 2)["tokens"].tolist()))


def test_two_processes_at_once_make_it_once(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"line {i} and more\n" for i in range(3000)))
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(3), context.Queue()
    children = [
        context.Process(target=build_at_once, args=(str(tmp_path / "a.txt"), str(tmp_path / "both"), barrier, queue))
        for _ in range(3)
    ]
    for child in children:
        child.start()
    results = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert results[0] == results[1] == results[2]
    assert len([path for path in (tmp_path / "both").iterdir() if path.is_dir()]) == 1


def test_the_held_out_part_of_one_document_is_its_end(tmp_path):
    text = "".join(chr(97 + i % 26) for i in range(1000))
    found = shards(tmp_path / "one", [text], held_out=0.1)
    assert decode(ByteTokenizer(), found.train.tolist()) + decode(ByteTokenizer(), found.held_out.tolist()) == text
    assert abs(len(found.held_out) - 100) < 3
