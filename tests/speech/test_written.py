"""Text normalisation: a table of cases, properties, tables of the user, the lexicon, long texts."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanbu.codecs.speech.cutting import parts_of
from sanbu.codecs.speech.number_words import cardinal, ordinal, spoken_number
from sanbu.codecs.speech.symbols import IDS, INLINE, LETTERS, MARKS, PHONEMES, SYMBOLS, ids_of
from sanbu.codecs.speech.tables import Tables, read_lexicon
from sanbu.codecs.speech.written import normalise
from sanbu.config import SanbuError

LINES = (Path(__file__).parent / "spoken_cases.txt").read_text(encoding="utf-8").splitlines()
CASES = [line.split("|") for line in LINES]


def test_the_table_has_200_different_cases():
    assert len({written for written, _ in CASES}) == len(CASES) >= 200


@pytest.mark.parametrize(("written", "spoken"), CASES)
def test_case(written, spoken):
    assert normalise(written) == spoken


def check_speakable(spoken):
    """Letters and marks outside [[...]], phonemes and marks inside, and an id for each."""
    for number, part in enumerate(INLINE.split(spoken)):
        assert set(part) <= set(PHONEMES + MARKS if number % 2 else LETTERS + MARKS)
    plain = INLINE.sub(lambda found: found[1], spoken)
    assert len(ids_of(spoken)) == len(plain)
    assert not spoken or any(symbol.isalpha() for symbol in spoken)


TYPED = st.text(st.sampled_from("0123456789.,:/-$€£%°[] \n'aAbBpPmMsStThkKU.S½²٣Ⅷ"), max_size=60)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), TYPED))
def test_never_raises_and_is_speakable(text):
    check_speakable(normalise(text))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**15 - 1))
def test_cardinals_name_their_number(number):
    values = {cardinal(n): n for n in range(100)}
    scales = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
    total = part = 0
    for word in cardinal(number).split():
        if word in scales:
            total, part = total + part * scales[word], 0
        else:
            part = part * 100 if word == "hundred" else part + values[word]
    assert total + part == number
    assert spoken_number(f"{number:,}") == cardinal(number)


def test_ordinals_are_different():
    assert len({ordinal(number) for number in range(2000)}) == 2000


@pytest.mark.parametrize("text", ["9" * 99_999, "$" + "1" * 9_000, "a." * 50_000 + "aa", "1," * 50_000, "[[" * 50_000])
def test_long_texts_take_seconds_at_most(text):
    start = time.process_time()
    check_speakable(normalise(text))
    assert time.process_time() - start < 5


def test_tables_of_the_user():
    tables = Tables().extend(abbreviations={"dist": "district"}, units={"pc": "parsec"}, symbols={"~": "about"})
    assert normalise("Dist. 9, ~3 pc", tables) == "district nine, about three parsecs"
    assert "dist" not in Tables().abbreviations


def test_lexicon(tmp_path):
    path = tmp_path / "lexicon.tsv"
    path.write_text("# names\n\ngnu\tɡnˈuː\n", encoding="utf-8")
    tables = Tables().extend(lexicon=read_lexicon(path))
    spoken = normalise("The GNU's gnu.", tables)
    assert spoken.endswith("[[ɡnˈuː]].")
    assert ids_of("[[a]]") == [IDS["/a"]] != ids_of("a")
    path.write_text("gnu ɡnˈuː\n", encoding="utf-8")
    with pytest.raises(SanbuError, match="line 1: given 'gnu"):
        read_lexicon(path)
    with pytest.raises(SanbuError, match="cannot be read as a lexicon"):
        read_lexicon(tmp_path / "none.tsv")


def test_symbols_have_one_id_each():
    assert len(IDS) == len(SYMBOLS)


def test_one_word_and_5000_words():
    assert parts_of("Yes") == ["yes"]
    words = " ".join(["word"] * 5000)
    for text in (words, words.replace("word word word", "word word. Word")):
        parts = parts_of(text)
        assert " ".join(parts) == normalise(text)
        assert max(map(len, parts)) <= 300
    assert parts_of("One. Two! Three") == ["one.", "two!", "three"]


@pytest.mark.parametrize(
    ("text", "said"), [("?!", "no letter"), ("", "no letter"), ("a" * 100_000, "given 100,000 characters")]
)
def test_what_cannot_be_spoken_is_refused(text, said):
    with pytest.raises(SanbuError, match=said) as error:
        parts_of(text)
    assert "\n" not in str(error.value)
