"""Any sound file is read, six formats are written, and bad input is one line."""

import io

import numpy as np
import pytest
import soundfile
import soxr

from sanbu.codecs import audio
from sanbu.codecs.audio import AudioError, encode, read_wave, resample, write_wave

RATE = 22050


def tone(seconds=0.5, rate=RATE, hertz=440):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def correlation(a, b):
    """The largest normalised correlation over shifts of up to 3000 samples: codecs delay."""
    size = min(len(a), len(b)) - 6000
    a = a[3000 : 3000 + size]
    best = 0.0
    for shift in range(0, 6000, 1):
        part = b[shift : shift + size]
        if len(part) == size:
            best = max(best, float(a @ part / np.sqrt((a @ a) * (part @ part) + 1e-9)))
    return best


@pytest.mark.parametrize(("subtype", "error"), [("PCM_U8", 2e-2), ("PCM_16", 1e-4), ("PCM_24", 1e-6), ("FLOAT", 1e-7)])
@pytest.mark.parametrize("channels", [1, 2])
def test_widths_and_channels(tmp_path, subtype, error, channels):
    wave = tone()
    file = tmp_path / "in.wav"
    soundfile.write(file, np.stack([wave * (1 + k) for k in range(channels)], 1) / channels, RATE, subtype)
    expected = wave * np.mean(np.arange(channels) + 1) / channels
    found = read_wave(file, RATE)
    assert found.dtype == np.float32 and found.ndim == 1
    np.testing.assert_allclose(found, expected, atol=error)


@pytest.mark.parametrize("rate", [8000, 44100, 96000])
def test_other_rates_are_resampled_by_soxr(tmp_path, rate):
    wave = tone(rate=rate)
    file = tmp_path / "in.wav"
    soundfile.write(file, wave, rate, "FLOAT")
    found = read_wave(file, RATE)
    np.testing.assert_array_equal(found, soxr.resample(wave, rate, RATE, quality="HQ"))
    assert abs(len(found) - RATE // 2) <= 1
    middle = slice(1000, 10000)
    np.testing.assert_allclose(found[middle], tone()[middle], atol=2e-3)


@pytest.mark.parametrize("suffix", list(audio.FORMATS))
def test_every_format_is_written(tmp_path, suffix):
    """Lossless ones return the same samples, the others nearly the same sound."""
    wave = tone(1.0) * np.linspace(0.2, 1, RATE, dtype=np.float32)
    path = write_wave(tmp_path / f"out.{suffix}", wave, RATE)
    if suffix == "pcm":
        found = np.frombuffer(path.read_bytes(), "<i2").astype(np.float32) / 32768
        np.testing.assert_allclose(found, resample(wave, RATE, 24000), atol=1e-4)
        return
    found = read_wave(path, RATE)
    if suffix in ("wav", "flac"):
        np.testing.assert_allclose(found, wave, atol=1e-4)
    else:
        assert correlation(wave, found) > 0.99
    assert soundfile.info(path).samplerate == audio.rate_for(suffix, RATE)


def test_a_long_vorbis_file_is_written():
    """libsndfile crashes on one long block of Vorbis."""
    content = encode(np.zeros(60 * RATE, np.float32), RATE, "ogg")
    assert len(read_wave(content, RATE)) == 60 * RATE


def test_loud_samples_are_clipped_not_wrapped():
    found = read_wave(encode(np.array([2.0, -2.0, 0.5], np.float32), RATE), RATE)
    np.testing.assert_allclose(found, [1, -1, 0.5], atol=1e-4)
    raw = np.frombuffer(encode(np.array([2.0, -2.0, 0.5], np.float32), 24000, "pcm"), "<i2")
    assert raw.tolist() == [32767, -32768, 16384]


def bad_files(folder):
    good = encode(tone(), RATE, "flac")
    nan = io.BytesIO()
    soundfile.write(nan, np.array([0.0, np.nan], np.float32), RATE, "FLOAT", format="WAV")
    return {
        "missing.wav": (None, "No such file"),
        "empty.wav": (b"", "is empty, 0 bytes"),
        "text.wav": (b"hello there, this is no sound at all", "cannot be read as sound"),
        "header.wav": (encode(tone(), RATE)[:20], "cannot be read as sound"),
        "broken.flac": (good[:100] + bytes(200), "cannot be read as sound"),
        "silent.wav": (encode(np.zeros(0, np.float32), RATE), "has no samples"),
        "nan.wav": (nan.getvalue(), "NaN or infinite"),
    }


@pytest.mark.parametrize("name", list(bad_files(None)))
def test_bad_files_are_one_line(tmp_path, name):
    content, said = bad_files(None)[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=said) as error:
        read_wave(tmp_path / name, RATE)
    assert "\n" not in str(error.value) and name in str(error.value)


def test_a_folder_is_no_sound(tmp_path):
    with pytest.raises(AudioError, match="Is a directory"):
        read_wave(tmp_path, RATE)


@pytest.mark.parametrize(
    ("path", "said"), [("a.wave", "did you mean 'wav'"), ("a.aac", "allowed: .wav"), ("a", "suffix ''")]
)
def test_other_formats_are_refused(path, said):
    with pytest.raises(AudioError, match=said):
        write_wave(path, tone(), RATE)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(AudioError, match=r"sanbu\[speech\]"):
        read_wave(encode_without_library(), RATE)


def encode_without_library():
    return b"RIFF" + bytes(40)
