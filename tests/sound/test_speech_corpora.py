"""Corpora of speech: layouts, exact durations, phonemes with their times, pitch, bad input."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sanbu.cli.main import app
from sanbu.codecs.audio import write_wave
from sanbu.codecs.speech.espeak import Espeak, spoken_of
from sanbu.codecs.speech.symbols import SYMBOLS, ids_of
from sanbu.config import SanbuError
from sanbu.data.sound_files import sounds
from sanbu.data.speech import Speech, Transcripts, filled_up, frame_counts
from sanbu.data.speech_check import of_times
from sanbu.data.speech_files import Utterance, voices_of
from sanbu.layers.pitch import pitch
from sanbu.layers.spectrogram import Mel, log_mel
from tests.sound.test_spectrogram import speech_like

MEL = Mel(rate=8000, n_fft=128, hop=32, window=128, mels=16, fmax=4000)
TEXTS = ["One small step.", "Two more steps!", "Three steps, and done.", "It is 5 o'clock.", "Yes."]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("SANBU_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def wave(number, seconds=1.0):
    made = speech_like(seconds + 0.1 * number, 8000, number)
    return made / np.abs(made).max() / 2


@pytest.fixture
def folder(tmp_path):
    """wav + txt, the voices in folders of their own."""
    for number, text in enumerate(TEXTS):
        place = tmp_path / "pairs" / ("ada" if number % 2 else "bob")
        place.mkdir(parents=True, exist_ok=True)
        write_wave(place / f"{number}.wav", wave(number), 8000)
        (place / f"{number}.txt").write_text(text)
    return tmp_path / "pairs"


@pytest.fixture
def ljspeech(tmp_path):
    (tmp_path / "lj" / "wavs").mkdir(parents=True)
    lines = []
    for number, text in enumerate(TEXTS):
        write_wave(tmp_path / "lj" / "wavs" / f"LJ{number}.wav", wave(number), 8000)
        lines.append(f'LJ{number}|"raw|{text}')
    (tmp_path / "lj" / "metadata.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "lj"


def test_layouts_hold_the_same(folder, ljspeech, tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    files = [ljspeech / "wavs" / f"LJ{number}.wav" for number in range(len(TEXTS))]
    table = {"audio": [file.read_bytes() for file in files], "text": TEXTS, "speaker": ["x", "y", "x", "y", "x"]}
    parquet.write_table(pyarrow.table(table), tmp_path / "x.parquet")
    for part, rows in (("train", slice(0, 3)), ("test", slice(3, 5))):
        (tmp_path / "parts" / part).mkdir(parents=True)
        some = pyarrow.table({name: column[rows] for name, column in table.items()})
        parquet.write_table(some, tmp_path / "parts" / part / "0.parquet")
    places = (folder, ljspeech, tmp_path / "x.parquet", tmp_path / "parts")
    found = {path: Speech(path=str(path), mel=MEL).build() for path in places}
    for path, rows in found.items():
        assert sorted(row["text"] for row in rows.about) == sorted(
            ["one small step.", "two more steps!", "three steps, and done.", "it is five o'clock.", "yes."]
        )
        assert rows.rows + rows.held_out_rows == 5 and not rows.timed
        assert sum(row["frames"] for row in rows.about) == len(rows.mels) == len(rows.pitches), path
    assert voices_of(str(folder)) == ("ada", "bob") and voices_of(str(ljspeech)) == ("default",)
    assert len(sounds(str(tmp_path / "parts"))) == 5  # a vocoder is trained on the same path
    assert found[tmp_path / "x.parquet"].voices == found[tmp_path / "parts"].voices == ("x", "y")


def test_a_corpus_of_another_language(folder):
    pytest.importorskip("num2words")
    (folder / "bob" / "0.txt").write_text("Schöne Grüße, 2 Stück.")
    config = Speech(path=str(folder), mel=MEL, language="de")
    rows = config.build()
    row = next(number for number, about in enumerate(rows.about) if about["name"] == "bob/0")
    assert rows.text(row) == "schöne grüße, zwei stück." and rows.letters(row) == "schoene gruesse, zwei stueck."
    assert rows.about[row]["ids"] == ids_of("schoene gruesse, zwei stueck.")
    assert rows.codec.condition("Grüße", 1)["ids"][0, 0].tolist() == ids_of("gruesse")
    assert "language" not in Speech(path=str(folder), mel=MEL).model_dump()  # as runs of before have it
    done = CliRunner().invoke(app, ["data", "check", str(folder), "--language", "ru"])
    assert "another script" not in done.output


@pytest.mark.parametrize("line", [["train", "tts"], ["compare", "speech"], ["train", "recogniser"]])
def test_a_wrong_language_is_refused_before_anything_is_trained(line, folder, tmp_path):
    pytest.importorskip("espeakng_loader")
    run = tmp_path / "run"
    name = "data.language" if "recogniser" in line else "language"
    for language, path, said in (("xx", folder, "names of espeak-ng"), ("de", "spoken", "spoken is English")):
        done = CliRunner().invoke(app, [*line, f"path={path}", f"{name}={language}", "--run", str(run)])
        assert isinstance(done.exception, SanbuError) and said in str(done.exception), done.exception
        assert not run.exists() or not list(run.rglob("model.safetensors"))


def test_another_script_needs_phonemes(folder):
    for file in folder.rglob("*.txt"):
        file.write_text("Привет, мир")
    done = CliRunner().invoke(app, ["data", "check", str(folder), "--language", "ru"])
    assert "another script: 5" in done.output and done.exit_code == 2
    with pytest.raises(SanbuError, match="no utterance that can be used.*needs data.units=phonemes"):
        Speech(path=str(folder), mel=MEL, language="ru").build()
    pytest.importorskip("espeakng_loader")
    rows = Speech(path=str(folder), mel=MEL, language="ru", units="phonemes").build()
    assert rows.rows + rows.held_out_rows == 5 and rows.text(0) == "привет, мир"
    assert rows.about[0]["ids"] == ids_of("[[prʲivʲˈet, mʲˈir]]")


def test_a_voice_is_held_out_whole(folder):
    rows = Speech(path=str(folder), mel=MEL, held_out=("ada",)).build()
    assert {rows.about[row]["voice"] for row in rows.held} == {"ada"}
    assert {rows.about[row]["voice"] for row in rows.order} == {"bob"}
    with pytest.raises(SanbuError, match=r"data\.held_out: given 'adda', allowed: ada, bob; did you mean 'ada'"):
        Speech(path=str(folder), mel=MEL, held_out=("adda",)).build()


def test_a_row_is_its_utterance_alone_and_in_a_batch(folder):
    rows = Speech(path=str(folder), mel=MEL, validation=0.0).build()
    whole = rows.batch(0, 5)
    for place in range(5):
        alone = rows.batch(place, 1)
        frames, symbols = int(alone["frames"]), int(alone["symbols"])
        assert whole["frames"][place] == frames and whole["symbols"][place] == symbols
        assert (
            torch.equal(whole["mel"][place, :, :frames], alone["mel"][0]) and not whole["mel"][place, :, frames:].any()
        )
        assert torch.equal(whole["ids"][place, :symbols], alone["ids"][0]) and not whole["ids"][place, symbols:].any()
    row = rows.order[0]
    first = rows.together([row])
    heard = log_mel(torch.from_numpy(rows.wave(row))[None], MEL)
    torch.testing.assert_close(first["mel"], heard)
    assert rows.fingerprint == Speech(path=str(folder), mel=MEL).build().fingerprint
    assert rows.fingerprint != Transcripts(path=str(folder), mel=MEL, longest=3).build().fingerprint


def test_durations_sum_to_the_frames():
    about = {"frames": 97, "ends": [100, 100, 250, 3000, 24_900]}
    counts = frame_counts(about)
    assert sum(counts) == 97 and counts[1] == 0 and all(count >= 0 for count in counts)


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ("does not exist", "nowhere"),
        ("no sound with a text", "empty"),
        ("no sound with a text", "lonely"),
        ("needs a column 'audio'", "x.parquet"),
        ("LJ9.wav does not exist", "lj"),
        ("line 1: given 'no bar'", "lj2"),
    ],
)
def test_bad_corpora_are_one_line(tmp_path, ljspeech, said, where):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "empty").mkdir()
    (tmp_path / "lonely").mkdir()
    write_wave(tmp_path / "lonely" / "a.wav", wave(0), 8000)
    parquet.write_table(pyarrow.table({"sound": [b""], "text": ["a"]}), tmp_path / "x.parquet")
    (ljspeech / "metadata.csv").write_text("LJ9|text\n")
    (tmp_path / "lj2").mkdir()
    (tmp_path / "lj2" / "metadata.csv").write_text("no bar\n")
    with pytest.raises(SanbuError, match=said) as error:
        Speech(path=str(tmp_path / where), mel=MEL).build()
    assert "\n" not in str(error.value)


def test_what_cannot_be_used_is_left_out(tmp_path):
    for name, seconds, text in [("long", 3.0, "Too long."), ("short", 0.05, "Much too short for all of this."),
                                ("mute", 1.0, "..."), ("good", 1.0, "Good.")]:  # fmt: skip
        write_wave(tmp_path / f"{name}.wav", wave(0, seconds), 8000)
        (tmp_path / f"{name}.txt").write_text(text)
    rows = Speech(path=str(tmp_path), mel=MEL, longest=2.0, validation=0.0).build()
    assert [row["name"] for row in rows.about] == ["good"]
    (tmp_path / "good.wav").unlink()
    with pytest.raises(SanbuError, match="no utterance that can be used"):
        Speech(path=str(tmp_path), mel=MEL, longest=2.0, validation=0.0).build()


def test_a_corrupt_file_in_the_middle_is_named(folder):
    (folder / "ada" / "3.wav").write_bytes(b"RIFF and nothing")
    with pytest.raises(SanbuError, match=r"ada/3 cannot be read as sound"):
        Speech(path=str(folder), mel=MEL).build()


# -- what is wrong ----------------------------------------------------------------------------------------------------


def checked(folder, *options):
    done = CliRunner().invoke(app, ["data", "check", str(folder), "--rate", "8000", "--json", *options])
    return done.exit_code, json.loads(done.output.strip().splitlines()[-1])


def test_a_good_corpus_has_nothing_to_mend(tmp_path):
    write_wave(tmp_path / "a.wav", wave(0), 8000)
    (tmp_path / "a.txt").write_text("A good example.")
    code, found = checked(tmp_path)
    assert code == 0 and found["kinds"] == {} and found["rates"] == [8000] and found["utterances"] == 1


def test_every_fault_is_found_and_named(tmp_path):
    good = wave(0)
    sounds = {
        "silence": (good * 1e-3, "Nothing to hear."),
        "clipped": (np.clip(good * 40, -1, 1), "Much too loud."),
        "long pause": (np.concatenate((np.zeros(12_000, np.float32), good)), "Waiting for a second and a half."),
        "text and sound differ": (good, "Far more words than anybody could ever say in one second of sound, really."),
        "no text": (good, "..."),
        "odd length": (good[:1600], "Hey."),
    }
    for kind, (sound, text) in sounds.items():
        write_wave(tmp_path / f"{kind}.wav", sound, 8000)
        (tmp_path / f"{kind}.txt").write_text(text)
    (tmp_path / "cannot be read.wav").write_bytes(b"RIFF")
    (tmp_path / "cannot be read.txt").write_text("Broken.")
    write_wave(tmp_path / "low rate.wav", wave(0)[::2], 4000)
    (tmp_path / "low rate.txt").write_text("A low rate.")
    code, found = checked(tmp_path)
    named = {(problem["name"], problem["kind"]) for problem in found["problems"]}
    assert code == 2 and named == {(kind, kind) for kind in [*sounds, "cannot be read", "low rate"]}


def test_times_that_do_not_add_up_are_found():
    each = Utterance("a", b"", "a", symbols="ab", ends=(10, 20))
    assert [problem.kind for problem in of_times(each, 21)] == ["times do not add up"] and not list(of_times(each, 20))


# -- phonemes ---------------------------------------------------------------------------------------------------------


def test_events_become_symbols_with_ends():
    """A gap belongs to the space, a pause to its mark; a phoneme of two symbols is halved; a short pause is ignored."""
    events = [("word", 0, ""), ("phoneme", 10, "a"), ("phoneme", 100, ""), ("word", 120, ""), ("phoneme", 130, "oʊ"),
              ("phoneme", 230, ""), ("phoneme", 300, ""), ("end", 300, 6), ("word", 310, ""), ("phoneme", 310, "t"),
              ("phoneme", 390, ""), ("end", 400, 9)]  # fmt: skip
    said = spoken_of("a, oh; t", events, 400)
    assert said.symbols == "a oʊ; t."
    assert said.ends == [120, 130, 180, 230, 310, 310, 390, 400]


@pytest.fixture(scope="module")
def espeak():
    pytest.importorskip("espeakng_loader")
    with Espeak() as running:
        yield running


def test_phonemes_of_a_text_are_those_that_are_spoken(espeak, tmp_path):
    for text in ("three steps make a model, the first value.", "is it so? it is; it is!"):
        said = espeak.say(text, "en-us", tmp_path / "x.wav")
        assert espeak.phonemes(text) == said.symbols
        assert said.ends == sorted(said.ends) and said.ends[-1] == said.samples > 20_000
        assert len(ids_of(f"[[{said.symbols}]]")) == len(said.symbols) == len(said.ends)
    assert (
        espeak.phonemes("three steps make a model, the first value.")
        == "θɹˈiː stˈɛps mˌeɪk ɐ mˈɑːdəl, ðə fˈɜːst vˈæljuː."
    )


def test_inline_phonemes_are_kept(espeak):
    assert espeak.phonemes("hello [[wˈɜːld]], yes") == "həlˈoʊ wˈɜːld, jˈɛs"
    assert espeak.phonemes("") == "" and espeak.phonemes("!") == "!"


def test_a_voice_that_is_not_there_is_one_line(espeak, tmp_path):
    with pytest.raises(SanbuError, match="no voice 'klingonese'"):
        espeak.say("a", "klingonese", tmp_path / "x.wav")
    assert espeak.phonemes("a") == "ˈeɪ"  # it goes on


def test_a_process_that_ends_fails_one_request_and_is_started_again(espeak):
    with Espeak() as running:
        wanted = running.phonemes("hello")
        running.process.stdin.flush = running.process.kill
        with pytest.raises(SanbuError, match="ended with exit code -9"):
            running.phonemes("hello")
        assert running.phonemes("hello") == wanted


def test_the_built_in_corpus_has_times(espeak):
    rows = Speech(sentences=12, validation=0.2).build()
    assert rows.timed and rows.config.symbols == "phonemes" and len(rows.voices) == 6
    batch = rows.batch(0, 6)
    assert torch.equal(batch["durations"].sum(1), batch["frames"])
    assert ((batch["durations"] > 0) <= (batch["ids"] > 0)).all()
    level = {",": [], "/ɪ": []}  # a pause is quieter than a vowel, where the times say that they are
    whole = rows.together(list(range(12)))
    ends = whole["durations"].cumsum(1)
    for row, symbol in (whole["ids"] > 0).nonzero().tolist():
        name, end = SYMBOLS[whole["ids"][row, symbol]], int(ends[row, symbol])
        if name in level and whole["durations"][row, symbol] > 2:
            level[name].append(float(whole["mel"][row, :, end - 2].mean()))
    assert max(level[","]) < np.mean(level["/ɪ"]) - 2


# -- pitch ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hertz", [80.0, 123.4, 220.0, 400.0])
def test_the_pitch_of_a_tone(hertz):
    t = np.arange(22050) / 22050
    tone = sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 6)) / 5
    found = pitch(tone, 22050, 256, 86)
    assert np.abs(found[4:-4] / hertz - 1).max() < 1e-3


def test_the_pitch_of_a_slide_is_that_at_the_middle_of_a_frame():
    t = np.arange(44100) / 22050
    hertz = 100 * 2 ** (t / 2)
    phase = 2 * np.pi * np.cumsum(hertz) / 22050
    found = pitch(sum(np.sin(k * phase) / k for k in range(1, 5)) / 4, 22050, 256, 172)
    middle = 100 * 2 ** ((np.arange(172) + 0.5) * 256 / 22050 / 2)
    assert np.abs(np.log2(found / middle))[5:-5].max() < 0.005


def test_noise_and_silence_have_no_pitch():
    noise = np.random.default_rng(0).standard_normal(22050) * 0.1
    assert np.isnan(pitch(noise, 22050, 256, 86)).mean() > 0.95
    assert np.isnan(pitch(np.zeros(22050), 22050, 256, 86)).all()


def test_unvoiced_frames_are_interpolated():
    given = np.array([np.nan, 1.0, np.nan, np.nan, 4.0, np.nan])
    np.testing.assert_allclose(filled_up(given), [1, 1, 2, 3, 4, 4])
    assert (filled_up(np.full(3, np.nan)) == 0).all()


def test_times_are_kept_with_the_sounds(espeak):
    from sanbu.data.builtin.spoken import TIMES, spoken

    files = spoken(6)
    times = json.loads((files[0].parent / TIMES).read_text())
    assert len(times) == len(files) == 6 and all(len(each["symbols"]) == len(each["ends"]) for each in times)
