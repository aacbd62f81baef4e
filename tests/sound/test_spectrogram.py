"""Mels equal librosa's and NVIDIA's convention; the inverse STFT is exact; what differs is said in one line."""

import librosa
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from sanbu.config import ConfigError, load
from sanbu.layers.griffin_lim import griffin_lim, linear_magnitudes
from sanbu.layers.spectrogram import Mel, istft, log_mel, log_mel_unpadded, mel_filters, stft

CPU = torch.device("cpu")


def speech_like(seconds=1.0, rate=22050, seed=0):
    """Harmonics of a moving pitch and some noise, float32 in [-1, 1]."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 2 * time)) / rate
    tones = sum(np.sin(k * phase) / k for k in range(1, 30))
    return (0.2 * tones + 0.01 * generator.standard_normal(len(time))).astype(np.float32)


@pytest.mark.parametrize(
    "mel",
    [Mel(), Mel(fmax=None), Mel(rate=24000, n_fft=2048, hop=300, window=1200, mels=100, fmin=40, fmax=11000)],
)
def test_filters_equal_librosas(mel):
    theirs = librosa.filters.mel(sr=mel.rate, n_fft=mel.n_fft, n_mels=mel.mels, fmin=mel.fmin, fmax=mel.fmax)
    np.testing.assert_allclose(mel_filters(mel, CPU).numpy(), theirs, atol=1e-8)


@pytest.mark.parametrize("wave", [speech_like(), np.random.default_rng(1).uniform(-1, 1, 9001).astype(np.float32)])
@pytest.mark.parametrize("window", [1024, 800])
def test_hifigan_mel_equals_librosa(wave, window):
    """The original project's code, with librosa's STFT in the place of torch's."""
    mel = Mel(window=window)
    padded = np.pad(wave, (1024 - 256) // 2, mode="reflect")
    spectrum = librosa.stft(padded, n_fft=1024, hop_length=256, win_length=window, center=False)
    basis = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0, fmax=8000)
    theirs = np.log(np.maximum(basis @ np.sqrt(np.abs(spectrum) ** 2 + 1e-9), 1e-5))
    ours = log_mel(torch.from_numpy(wave)[None], mel)[0].numpy()
    assert ours.shape == theirs.shape == (80, len(wave) // 256)
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wave", [speech_like(), np.random.default_rng(1).uniform(-1, 1, 9001).astype(np.float32)])
def test_tacotron2_mel_equals_librosa(wave):
    spectrum = librosa.stft(wave, n_fft=1024, hop_length=256, center=True, pad_mode="reflect")
    basis = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0, fmax=8000)
    theirs = np.log(np.maximum(basis @ np.abs(spectrum), 1e-5))
    ours = log_mel(torch.from_numpy(wave)[None], Mel(convention="tacotron2"))[0].numpy()
    assert ours.shape == theirs.shape == (80, len(wave) // 256 + 1)
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("convention", ["hifigan", "tacotron2"])
@pytest.mark.parametrize("samples", [1, 100, 384, 385, 512, 513, 1024, 1279, 1280, 5000])
def test_frames_of_any_length(convention, samples):
    """Short waves too: the number of frames is the one that is computed."""
    mel = Mel(convention=convention)
    found = log_mel(torch.randn(2, samples) / 4, mel)
    assert found.shape == (2, 80, mel.frames(samples))
    assert found.isfinite().all()
    if samples >= 1024:
        assert mel.frames(samples) == samples // 256 + (convention == "tacotron2")


@pytest.mark.parametrize(("n_fft", "hop", "window"), [(1024, 256, 1024), (512, 100, 400), (256, 64, 256)])
@pytest.mark.parametrize("padding", ["same", "centre"])
def test_istft_inverts_stft(n_fft, hop, window, padding):
    pad = (n_fft - hop) // 2 if padding == "same" else n_fft // 2
    wave = torch.from_numpy(speech_like(0.5))[None]
    spectrum = stft(wave, n_fft, hop, window, pad)
    count = min(wave.shape[1], spectrum.shape[2] * hop)
    back = istft(spectrum, n_fft, hop, window, pad, count)
    inside = slice(0, count - n_fft)  # the end of the wave lies under less than whole windows
    torch.testing.assert_close(back[:, inside], wave[:, :count][:, inside], atol=1e-5, rtol=0)


def test_a_cut_with_context_has_the_mel_of_the_whole():
    mel, wave = Mel(), torch.from_numpy(speech_like())[None]
    whole = log_mel(wave, mel)
    start = 10
    cut = wave[:, start * 256 - 384 : (start + 20) * 256 + 384]
    torch.testing.assert_close(log_mel_unpadded(cut, mel), whole[:, :, start : start + 20], atol=1e-5, rtol=1e-5)


def test_a_difference_is_one_line():
    assert Mel().difference(Mel()) == ""
    other = Mel(hop=300, mels=100, convention="tacotron2")
    said = "hop 256 against 300, mels 80 against 100, convention hifigan against tacotron2"
    assert Mel().difference(other) == said


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"fmax": 12000.0}, "fmax 12000"), ({"hop": 2048}, "at least the hop"), ({"window": 2048}, "window 2048")],
)
def test_impossible_configs_are_refused(fields, said):
    with pytest.raises(ConfigError, match=said) as error:
        load(Mel, fields)
    assert "\n" not in str(error.value)
    with pytest.raises(ValidationError):
        Mel(**fields)


def test_magnitudes_are_those_of_the_mel():
    mel = Mel()
    wanted = log_mel(torch.from_numpy(speech_like())[None], mel)
    found = (mel_filters(mel, CPU) @ linear_magnitudes(wanted, mel)).clamp(min=1e-5).log()
    assert (found - wanted).abs().mean() < 0.1


def test_griffin_lim_keeps_the_mel():
    """Sixty iterations come nearer to the mel than two, and the result depends on the seed of its row alone."""
    mel = Mel()
    wave = torch.from_numpy(speech_like())[None]
    wanted = log_mel(wave, mel)

    def error(iterations):
        drawn = griffin_lim(wanted, mel, torch.tensor([3]), iterations)
        assert drawn.shape == (1, wanted.shape[2] * 256)
        return (log_mel(drawn, mel) - wanted).abs().mean()

    assert error(60) < 0.5 * error(2)
    both = griffin_lim(wanted.expand(2, -1, -1), mel, torch.tensor([3, 4]), 4)
    alone = griffin_lim(wanted, mel, torch.tensor([4]), 4)
    torch.testing.assert_close(both[1:], alone)
