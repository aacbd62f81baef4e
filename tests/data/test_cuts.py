"""Long documents are cut for tokenizing where this changes no token, whatever the tokenizer does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from sanbu.codecs.bpe import FileTokenizer, train, train_chat
from sanbu.codecs.tokenizer import ByteTokenizer, CharacterTokenizer
from sanbu.data.shards import batches, cut

LEFT = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
RIGHT = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
ENDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "cl100k": ENDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+" + REST.replace("/", ""),
    "qwen2": ENDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST.replace("/", ""),
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?{LEFT}*{RIGHT}+{ENDS}?|[^\r\n\p{{L}}\p{{N}}]?{LEFT}+{RIGHT}*{ENDS}?" + REST,
    "digits from the right": r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))|[^\p{N}]+",
    "lines": r"[^\n]*\n|[^\n]+",
    "words with what follows": r"\w+\W*|\W+",
    "pairs of words": r"\w+ \w+|\s|.",
}
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
SPLITS = {
    name: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), BYTES])
    for name, pattern in PATTERNS.items()
} | {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "prefix space": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "deepseek": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\r\n]"), "isolated"),
            pre_tokenizers.Split(Regex(r"\s?\p{L}+"), "isolated"),
            pre_tokenizers.Split(Regex(r"\s?\p{P}+"), "isolated"),
            pre_tokenizers.Split(Regex(r"[\u4e00-\u9fa5]+"), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            BYTES,
        ]
    ),
    "starcoder": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)]),
    "no words": BYTES,
    "metaspace": pre_tokenizers.Metaspace(prepend_scheme="always"),
    "metaspace, first": pre_tokenizers.Metaspace(prepend_scheme="first"),
    "metaspace, whole": pre_tokenizers.Metaspace(prepend_scheme="never", split=False),
    "bert": pre_tokenizers.BertPreTokenizer(),
    "whitespace": pre_tokenizers.Whitespace(),
    "scripts": pre_tokenizers.Sequence([pre_tokenizers.UnicodeScripts(), BYTES]),
    "punctuation": pre_tokenizers.Sequence([pre_tokenizers.Punctuation("merged_with_next"), BYTES]),
}
SAMPLE = "ab ba aB;\n//b a1 123456 a's\n\n  b_ a\nb\taé三步\r\n" * 9
ALPHABET = "abB1 \n\r\t;/.'_三é\u0301"
UNCUT = {"no words", "metaspace, whole", "llama2", "strip", "words with what follows", "lines", "digits from the right"}
UNCUT |= {"pairs of words", "scripts", "punctuation"}


def made(split, normalizer=None):
    tokenizer = Tokenizer(models.BPE(unk_token="?"))
    tokenizer.pre_tokenizer, tokenizer.normalizer = split, normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["?"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([SAMPLE], trainer)
    return tokenizer


def counting(length):
    """A tokenizer whose words are counted from the beginning of the text."""
    return made(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(rf"[\s\S]{{{length}}}"), "isolated"), BYTES]))


TOKENIZERS = {name: FileTokenizer(made(split), None, None) for name, split in SPLITS.items()} | {
    "trained": train([SAMPLE], 300),
    "chat": train_chat([SAMPLE], 300),
    "nfc": FileTokenizer(made(SPLITS["gpt2"], normalizers.NFC()), None, None),
    "strip": FileTokenizer(made(SPLITS["gpt2"], normalizers.Strip()), None, None),
    "llama2": FileTokenizer(
        made(None, normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])), None, None
    ),
    **{f"every {length}": FileTokenizer(counting(length), None, None) for length in (2, 5, 61)},
}


def check(tokenizer, text, size):
    parts = list(cut(text, tokenizer, size))
    assert "".join(parts) == text
    ids = [number for part in tokenizer.encode_batch(parts) for number in part.tolist()]
    assert ids == tokenizer.encode_batch([text])[0].tolist()
    return parts


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, max_examples=60)
@given(
    text=st.text(alphabet=ALPHABET, max_size=300) | st.text(alphabet="ab \n;", max_size=300), size=st.integers(1, 20)
)
def test_the_tokens_of_the_parts_are_those_of_the_whole(name, text, size):
    check(TOKENIZERS[name], text, size)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ordinary_text_is_cut(name):
    """Text with spaces is cut for every tokenizer that divides it there; for the others it may remain whole."""
    text = "".join(f"x{i} = f({i});\n//note on a b\n" for i in range(300))
    parts = check(TOKENIZERS[name], text, 200)
    whole = name in UNCUT or name.startswith("every ")
    assert whole or (len(parts) > 20 and max(map(len, parts)) < 900)


def test_added_tokens_are_not_cut():
    tokenizer = made(SPLITS["gpt2"])
    tokenizer.add_tokens(["a b", "b\na"])
    check(FileTokenizer(tokenizer, None, None), "a b\na b a b\na\nb b a" * 40, 7)


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), CharacterTokenizer("ab \n")])
def test_bytes_and_characters_are_cut_anywhere(tokenizer):
    assert len(check(tokenizer, "ab ba\nab" * 100, 10)) > 30


def test_long_documents_come_in_parts_of_batches():
    text = "some words and more\n" * 100_000
    found = list(batches([text, "b"], TOKENIZERS["prefix space"]))
    parts = [part for batch in found for part in batch]
    assert "".join(part.text for part in parts) == text + "b" and len(found) == 2
    assert [part.first for part in parts] == [True, *[False] * (len(parts) - 2), True]
    assert len({part.chance for part in parts}) == 2 and max(len(part.text) for part in parts) < 1 << 15
