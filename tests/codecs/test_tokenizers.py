"""Tokenizers: lossless round trips, correct byte counts per token, complete streaming, stop texts removed."""

import itertools
import random
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from sanbu.codecs.bpe import BYTES, FileTokenizer, byte_file_tokenizer, train
from sanbu.codecs.text import Reader, TextCodec
from sanbu.codecs.tokenizer import END, ByteTokenizer, CharacterTokenizer, TokenizerError, decode, encode, piece_lengths
from sanbu.data.shards import Shards, write
from sanbu.data.text_rows import TextRows
from sanbu.space import Draft

BPE = train(["the theme of them all, then\n", "三步三步 α → β, naïve café 👍🏽\n"] * 20, 320)
TOKENIZERS = [ByteTokenizer(), BPE, byte_file_tokenizer()]
TEXT = st.text(max_size=200) | st.text(alphabet="the \n三步👍🏽é<|endoftext|>", max_size=80)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["byte", "bpe", "byte as file"])
@given(text=TEXT)
def test_round_trip_and_bytes(tokenizer, text):
    ids = encode(tokenizer, text)
    assert decode(tokenizer, ids) == text
    assert piece_lengths(tokenizer, 400)[ids].sum() == len(text.encode())
    assert tokenizer.end not in ids  # an end token spelled in a document stays plain text


@given(text=TEXT)
def test_bytes_as_a_file_are_the_same_ids(text):
    assert encode(TOKENIZERS[2], text) == encode(TOKENIZERS[0], text)


@given(st.text(alphabet="abc ☃\n", max_size=50))
def test_characters_round_trip(text):
    tokenizer = CharacterTokenizer("abc ☃\n")
    assert decode(tokenizer, encode(tokenizer, text)) == text
    assert piece_lengths(tokenizer, 7)[encode(tokenizer, text)].sum() == len(text.encode())


@pytest.mark.parametrize("strange", ["d", "é", "𝄞", "\x00"])
def test_characters_refuse_what_they_do_not_know(strange):
    with pytest.raises(TokenizerError, match="is not in the alphabet of 3; add it to data.tokenizer.alphabet"):
        encode(CharacterTokenizer("abc"), "ab" + strange)


def test_bpe_saves_and_compresses(tmp_path):
    BPE.save(tmp_path)
    back = FileTokenizer.load(tmp_path / "tokenizer.json", 0, 0)
    text = "the theme of them all, then 三步"
    assert encode(back, text) == encode(BPE, text) and back.pieces == BPE.pieces
    assert len(encode(BPE, text)) < len(text.encode()) / 2
    assert BPE.pieces[0] == b"" and sorted(BPE.pieces[1:257]) == [bytes([i]) for i in range(256)]


def trained_plainly(documents, vocabulary):
    """What the library alone makes of the documents."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        documents,
        trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return made


@settings(max_examples=30, deadline=None)
@given(st.lists(TEXT | st.just("=" * 3000 + "三步" * 500), min_size=1, max_size=5))
def test_training_gives_the_tokenizer_of_the_library(texts):
    """Words of up to 4,096 bytes are counted as they are."""
    made = trained_plainly(texts, 400)
    made.encode_special_tokens = True
    assert train(texts, 400).tokenizer.to_str() == made.to_str()


@pytest.mark.parametrize("alphabet", [range(0x4E00, 0x9FA5), range(97, 123), range(48, 58), [32], b"=-+#"])
def test_training_time_grows_with_the_text_and_not_with_its_square(alphabet):
    """A line of Chinese without punctuation is one word: 4 times the text took 24 times the time."""
    draws = random.Random(0)

    def seconds(size):
        text = "".join(map(chr, draws.choices(alphabet, k=size)))
        begun = time.process_time()
        train([text], 300)
        return time.process_time() - begun

    assert seconds(240_000) < 8 * max(seconds(60_000), 0.05)


def test_an_error_of_the_documents_comes_through():
    def documents():
        yield "one"
        raise TokenizerError("the second is bad")

    with pytest.raises(TokenizerError, match="the second is bad"):
        train(documents(), 300)


def test_a_sentencepiece_like_file():
    """The low line U+2581 stands for a space and <0x..> for one byte, so the byte count of each token is exact."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    vocabulary = {"<unk>": 0, **{f"<0x{i:02X}>": i + 1 for i in range(256)}, "▁": 257, "a": 258, "b": 259, "▁a": 260}
    made = tokenizers.Tokenizer(models.BPE(vocabulary, [("▁", "a")], byte_fallback=True, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never")])
    tokenizer = FileTokenizer(made, None, None)
    for text in ("a ab ba", " é三 a", "b\nb"):
        ids = encode(tokenizer, text)
        assert decode(tokenizer, ids) == text
        assert piece_lengths(tokenizer, 261)[ids].sum() == len(text.encode())


@given(text=TEXT, cuts=st.lists(st.integers(0, 200)))
def test_streaming_gives_the_whole_text_at_any_cut(text, cuts):
    ids = encode(BPE, text)
    places = sorted({0, len(ids), *(cut % (len(ids) + 1) for cut in cuts)})
    reader = Reader(BPE)
    parts = [reader.feed(ids[a:b]) for a, b in itertools.pairwise(places)]
    parts.append(reader.feed([], final=True))
    assert "".join(parts) == text
    assert all("\ufffd" not in part for part in parts) or "\ufffd" in text


@settings(max_examples=300)
@given(
    text=st.text(alphabet="ab\n步", max_size=30),
    stops=st.lists(st.text(alphabet="ab\n步", min_size=1, max_size=4), max_size=3),
    size=st.integers(1, 5),
)
def test_stop_texts_never_leak_and_the_earliest_wins(text, stops, size):
    ids = encode(ByteTokenizer(), text)
    reader = Reader(ByteTokenizer(), stops)
    shown = ""
    ended = [text.find(stop) + len(stop) for stop in stops if stop in text]
    for start in range(0, len(ids), size):
        shown += reader.feed(ids[start : start + size])
        assert not any(stop in shown for stop in stops)
        if reader.stopped:
            break
    shown += reader.feed([], final=True)
    assert reader.stopped == bool(ended)
    assert text.startswith(shown) and reader.text == shown
    if size == 1 and not ended:
        assert shown == text
    if ended:  # the output ends where a stop text begins, and contains none
        assert any(text.startswith(stop, len(shown)) for stop in stops)
        assert not any(stop in text[: len(shown)] for stop in stops)


def test_a_document_may_begin_with_a_token_of_its_own(tmp_path):
    """LLaMA encloses a document in <s> and </s>; in GPT-2 the end token of the previous document separates."""
    import tokenizers
    from tokenizers import models

    from sanbu.codecs.bpe import TokenizerFile

    for names, start, end in ((["<unk>", "<s>", "</s>", "a"], 1, 2), (["a", "<|endoftext|>"], 1, 1)):
        tokenizers.Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, "<unk>")).save(
            str(tmp_path / "tokenizer.json")
        )
        config = TokenizerFile(path=str(tmp_path))
        assert (config.start(), config.end(), config.size()) == (start, end, len(names))
        assert TextCodec(config.load(tmp_path)).begin("a") == [start, names.index("a")]


def test_a_prompt_begins_a_document():
    codec = TextCodec(BPE)
    condition = codec.condition(["the", "them all"], 2)
    assert condition["length"].tolist() == [2, 2, 3, 3] or condition["length"][0] < condition["length"][2]
    assert (condition["tokens"][:, 0] == 0).all()
    nothing = codec.condition(None, 3)
    assert nothing["tokens"].tolist() == [[0]] * 3


def spaced(kind):
    """A tokenizer of letters and bytes that puts a space before (or, as GPT-1's, after) what it encodes."""
    if kind == "byte-level":
        made = Tokenizer(models.BPE(dict(BYTES), []))
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
        made.add_special_tokens(["<|endoftext|>"])
        return FileTokenizer(made, 256, 256)
    letters = {letter: number for number, letter in enumerate("abcd", 258)}
    bytes_ = {f"<0x{i:02X}>": i + 1 for i in range(256)}
    if kind == "word-end":
        ends = {f"{letter}</w>": number for number, letter in enumerate("abcd", 262)}
        made = Tokenizer(models.BPE({"</s>": 0, **letters, **ends}, [], end_of_word_suffix="</w>"))
        made.pre_tokenizer, made.decoder = pre_tokenizers.WhitespaceSplit(), decoders.BPEDecoder("</w>")
    else:
        made = Tokenizer(models.BPE({"</s>": 0, **bytes_, "▁": 257, **letters}, [], byte_fallback=True))
        if kind == "prepend":
            made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        else:
            made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind)
    made.add_special_tokens(["</s>"])
    return FileTokenizer(made, 0, 0)


@pytest.mark.parametrize("kind", ["byte-level", "prepend", "always", "first", "word-end"])
@pytest.mark.parametrize("texts", [["abcd"] * 30, ["a", "ab ba", "d", "cd d"], ["ab é三 a", "é"]])
def test_a_space_that_the_tokenizer_adds_is_not_text(tmp_path, kind, texts):
    """Not in what is read back, in the bytes of a corpus and of its rows, or at the beginning of what is drawn."""
    tokenizer = spaced(kind)
    texts = texts if kind != "word-end" else [text.replace("é", "a").replace("三", "b") for text in texts]
    for text in texts:
        assert decode(tokenizer, encode(tokenizer, text)) == text
    write(tmp_path, texts, tokenizer, 300, 0.0, lambda done: None)
    found = Shards.open(tmp_path)
    size = sum(len(text.encode()) for text in texts)
    data = TextRows(found, TextCodec(tokenizer), 4, 300)
    rows = data._rows(found.train, np.arange(data.rows))
    assert found.bytes == {"train": size, "held_out": 0} and int(rows["bytes"].sum()) == size
    if kind != "word-end":
        ids = torch.tensor([[tokenizer.start, *encode(tokenizer, texts[0])]])
        for start, expected in ((1, texts[0]), (2, texts[0])):
            follower = TextCodec(tokenizer).follow()
            all_of_it = torch.ones_like(ids, dtype=torch.bool)
            draft = Draft(ids, all_of_it, all_of_it.any(1), torch.ones(1), record={"start": torch.tensor([start])})
            follower.update(draft)
            drawn = follower.results()[0]
            given = decode(tokenizer, ids[0, :start].tolist())
            assert given + drawn == expected


def test_a_space_of_the_text_itself_is_kept():
    """Where the file encodes it apart from the added one; ByteLevel and Metaspace do not tell them apart."""
    tokenizer = spaced("prepend")
    assert decode(tokenizer, encode(tokenizer, "  a ")) == "  a "
    assert BPE.added == ByteTokenizer().added == (b"", b"")
