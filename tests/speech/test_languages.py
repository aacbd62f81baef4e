"""Texts of other languages than English."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanbu.codecs.speech.cutting import parts_of
from sanbu.codecs.speech.espeak import check_language
from sanbu.codecs.speech.languages import spoken_text, written_letters
from sanbu.codecs.speech.symbols import IDS, LETTERS, MARKS, PHONEMES, ids_of
from sanbu.codecs.speech.written import normalise
from sanbu.config import SanbuError

CASES = [
    ("de", "Schöne Grüße!", "schöne grüße!", "schoene gruesse!"),
    ("de", "Im Jahr 1984.", "im jahr neunzehnhundertvierundachtzig.", "im jahr neunzehnhundertvierundachtzig."),
    ("fr", "Ça coûte 25 euros", "ça coûte vingt-cinq euros", "ca coute vingt-cinq euros"),
    ("ru", "Привет, мир", "привет, мир", ""),
    ("es", "¿Qué? 3 años", "qué? tres años", "que? tres anos"),
    ("de", "Ein [[ˈkapʊt]] Wort", "ein [[ˈkapʊt]] wort", "ein [[ˈkapʊt]] wort"),
    ("de", "...", "", ""),
    ("de", "3,14 und 2.5", "drei komma eins vier und zwei komma fünf", "drei komma eins vier und zwei komma fuenf"),
    ("de", "1.000.000 oder 100 000", "eine million oder einhunderttausend", "eine million oder einhunderttausend"),
    ("de", "um 14:30, 0049", "um vierzehn dreißig, null null vier neun", "um vierzehn dreissig, null null vier neun"),
    ("de", "1990er", "neunzehnhundertneunziger", "neunzehnhundertneunziger"),
    ("de", "2020", "zweitausendzwanzig", "zweitausendzwanzig"),
    ("sv", "1984", "etttusen niohundraåttiofyra", "etttusen niohundraattiofyra"),
    ("nb", "25", "tjuefem", "tjuefem"),
    ("xx", "25", "25", ""),
    ("cmn", "你好。世界！", "你好.世界!", ""),
]


@pytest.mark.parametrize(("language", "text", "spoken", "letters"), CASES)
def test_numbers_are_words_and_letters_stay(language, text, spoken, letters):
    pytest.importorskip("num2words")
    assert spoken_text(text, language) == spoken
    assert written_letters(spoken, language) == letters


@pytest.mark.parametrize("language", ["en", "en-us", "en-gb"])
def test_english_has_its_own_rules(language):
    text = "Dr. Smith paid $5.50"
    assert spoken_text(text, language) == normalise(text)
    assert written_letters(normalise(text), language) == normalise(text)


@given(st.text(max_size=60), st.sampled_from(["de", "fr", "ru", "cmn", "xx", ""]))
def test_any_text_can_be_read(text, language):
    spoken = spoken_text(text, language)
    assert spoken == " ".join(spoken.split())
    letters = written_letters(spoken, language)
    outside = letters.split("[[")[0]
    assert set(outside) <= set(LETTERS + MARKS)
    ids_of(letters)


def test_a_long_number_is_read_digit_by_digit():
    assert spoken_text("a" + "9" * 5000, "xx") == "a " + " ".join("9" * 5000)


def test_a_number_stays_in_digits_in_a_language_without_words_for_it():
    assert spoken_text("Nummer 25", "xx") == "nummer 25"


def test_long_texts_of_a_language_are_cut_alike():
    pytest.importorskip("num2words")
    assert parts_of("Schön. 2 Tage!", language="de") == ["schön.", "zwei tage!"]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "Grüße aus Köln, über zwölf schöne Brötchen"),
        ("fr", "un bon vin blanc"),
        ("it", "perché no"),
        ("pt", "não"),
    ],
)
def test_every_phoneme_of_a_language_has_an_id(language, text):
    pytest.importorskip("espeakng_loader")
    from sanbu.codecs.speech.espeak import Espeak

    with Espeak(language) as espeak:
        phonemes = espeak.phonemes(spoken_text(text, language))
    assert phonemes and set(phonemes) <= set(PHONEMES + MARKS), phonemes
    assert all(f"/{symbol}" in IDS for symbol in phonemes if symbol in PHONEMES)


def test_a_word_of_another_language_is_read_without_the_name_of_that_language():
    pytest.importorskip("espeakng_loader")
    from sanbu.codecs.speech.espeak import Espeak

    with Espeak("de") as espeak:
        assert espeak.phonemes("im download") == "ɪm dˈaʊnləʊd"


def test_a_language_that_is_unknown_is_one_line():
    pytest.importorskip("espeakng_loader")
    for language in ("de", "en-us", "pt-br"):
        check_language(language)
    with pytest.raises(SanbuError, match="data.language: given 'ger', allowed: names of espeak-ng"):
        check_language("ger")
