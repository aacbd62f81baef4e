"""Sound codecs: streams equal the whole, nothing waits longer than it says, gradients, bad input."""

import pytest
import torch

from sanbu.config import SanbuError
from sanbu.layers.mel_stream import MelStream
from sanbu.layers.quantizers.fsq import Fsq
from sanbu.layers.quantizers.rvq import Rvq
from sanbu.layers.spectrogram import Mel, log_mel
from sanbu.models.sound_codecs.istft_codec import IstftCodec
from sanbu.models.sound_codecs.magnitude_codec import MagnitudeCodec
from sanbu.models.sound_codecs.sound_codec import QUIET
from sanbu.models.vocoders.istft_head import IstftHead
from sanbu.noise import Noise
from sanbu.space import Space
from sanbu.testing import check_model
from tests.sound.test_vocoders import SMALL, SPACE, shaken

FSQ, RVQ = Fsq(codebooks=2, levels=(5, 4)), Rvq(codebooks=3, size=12, dimensions=4)
TINY = {"width": 16, "encoder": 2, "decoder": 2, "kernel": 5}
CODECS = {
    "magnitude": MagnitudeCodec(quantizer=RVQ, iterations=2, **TINY),
    "magnitude, stride 1": MagnitudeCodec(quantizer=FSQ, iterations=2, stride=1, **TINY),
    "istft": IstftCodec(quantizer=FSQ, **TINY),
    "istft, stride 3": IstftCodec(quantizer=RVQ, stride=3, **TINY),
}
SEEDS = torch.tensor([1, 2])


def built(name, space=SPACE, seed=0):
    """A codec with weights far from their start, and codebooks that fit its vectors."""
    torch.manual_seed(seed)
    CODECS[name].check(space)
    model = shaken(CODECS[name].build(space).eval().requires_grad_(False))
    model.head.bias.data -= QUIET  # as loud as other vocoders at their start, so that differences are heard
    model.quantizer.follow(model.latent(torch.randn(4, space.mel.mels, 60)), Noise("built"))
    return model


def in_pieces(push, whole, sizes):
    """The pieces that a stream gives, joined along the last axis."""
    pieces, start = [], 0
    for size in sizes:
        start += size
        pieces.append(push(whole[..., start - size : start], last=start == whole.shape[-1]))
    assert start == whole.shape[-1]
    return torch.cat(pieces, -1)


# -- streams ----------------------------------------------------------------------------------------------------------

SIZES = [(1,) * 40, (3, 1, 20, 16), (40,), (7, 33), (39, 0, 1)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", list(CODECS))
def test_pieces_equal_the_whole(name, sizes):
    model, mel = built(name), torch.randn(2, 8, 40)
    codes = model.encode(mel)
    assert codes.shape == (2, model.quantizer.codebooks, -(-40 // model.stride)) and len(codes.unique()) > 3
    assert torch.equal(in_pieces(model.encoding(2).push, mel, sizes), codes)
    whole = model.draw(mel, SEEDS)
    assert whole.shape == (2, 640) and whole.std() > 1e-4
    torch.testing.assert_close(in_pieces(model.stream(SEEDS).push, mel, sizes), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sizes", [(1,) * 12, (5, 7), (11, 0, 1)])
@pytest.mark.parametrize("name", list(CODECS))
def test_pieces_of_codes_equal_the_whole(name, sizes):
    model = built(name)
    codes = model.encode(torch.randn(2, 8, 12 * model.stride))
    whole = model.decode(codes, SEEDS)
    assert whole.shape == (2, 12 * model.stride * 16)
    torch.testing.assert_close(in_pieces(model.decoding(SEEDS).push, codes, sizes), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", list(CODECS))
def test_decoded_codes_are_the_drawn_sound(name):
    model, mel = built(name), torch.randn(2, 8, 12)
    torch.testing.assert_close(model.decode(model.encode(mel), SEEDS), model.draw(mel, SEEDS), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", list(CODECS))
def test_the_future_does_not_change_the_past(name):
    """A code sees its own frames and earlier ones; a wave waits for the overlap, and for the reach of its phases."""
    model, mel = built(name), torch.randn(1, 8, 60)
    other = mel.clone()
    other[:, :, 42:] += 3
    first, second = model.encode(mel), model.encode(other)
    frame = 42 // model.stride
    assert torch.equal(first[..., :frame], second[..., :frame])
    assert not torch.equal(first[..., frame:], second[..., frame:])
    a, b = model.draw(mel, SEEDS[:1]), model.draw(other, SEEDS[:1])
    late = (42 - model.phases.reach) * 16 if "magnitude" in name else 42 * 16 - SMALL.padding
    assert late > 0 and torch.equal(a[:, :late], b[:, :late])
    assert not torch.equal(a[:, late:], b[:, late:])


@pytest.mark.parametrize("sizes", [(64,) * 16, (1000, 24), (1024,), (100, 0, 500, 424), (1,) * 1024])
@pytest.mark.parametrize("convention", ["hifigan", "tacotron2"])
def test_the_mel_of_a_growing_wave_equals_that_of_the_whole(sizes, convention):
    mel, wave = SMALL.model_copy(update={"convention": convention}), torch.rand(2, 1024) - 0.5
    found = in_pieces(MelStream(mel, 2).push, wave, sizes)
    torch.testing.assert_close(found, log_mel(wave, mel), atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [1, 24, 25, 63, 64, 90, 130])
def test_the_mel_of_a_short_wave_is_the_same_in_a_stream(samples):
    wave = torch.rand(1, samples) - 0.5
    found = in_pieces(MelStream(SMALL, 1).push, wave, (samples // 2, samples - samples // 2))
    torch.testing.assert_close(found, log_mel(wave, SMALL), atol=1e-5, rtol=0)


def test_a_frame_of_the_mel_waits_for_its_window_alone():
    stream = MelStream(SMALL, 1)
    given = sum(stream.push(torch.rand(1, 16)).shape[2] for _ in range(20))
    assert given == (320 + SMALL.padding - 64) // 16 + 1


def test_samples_become_codes_and_sound_piece_by_piece():
    """The whole chain of a stream: samples -> mel -> codes -> samples."""
    model, wave = built("istft"), torch.rand(1, 800) - 0.5
    heard, encoding, decoding = MelStream(SMALL, 1), model.encoding(1), model.decoding(SEEDS[:1])

    def push(samples, last):
        return decoding.push(encoding.push(heard.push(samples, last), last), last)

    whole = model.draw(log_mel(wave, SMALL), SEEDS[:1])
    torch.testing.assert_close(in_pieces(push, wave, (50,) * 16), whole, atol=1e-5, rtol=0)


# -- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(CODECS))
def test_codecs_keep_the_contract_of_models(name):
    check_model(CODECS[name], SPACE, (torch.randn(2, 8, 12),))


def test_the_bypass_is_what_better_codes_could_reach():
    """With many levels per number the codes say almost what they are made of."""
    fine = MagnitudeCodec(quantizer=Fsq(codebooks=2, levels=(4001, 4001)), iterations=2, **TINY)
    torch.manual_seed(0)
    model = shaken(fine.build(SPACE).eval().requires_grad_(False))
    model.head.bias.data -= QUIET
    mel = torch.randn(2, 8, 12)
    torch.testing.assert_close(model.draw(mel, SEEDS), model.bypass(mel, SEEDS), atol=1e-3, rtol=0)
    coarse = built("magnitude, stride 1")
    assert (coarse.draw(mel, SEEDS) - coarse.bypass(mel, SEEDS)).abs().max() > 0.01


def test_a_wave_does_not_depend_on_the_other_rows():
    model, mel = built("magnitude"), torch.randn(2, 8, 15)
    torch.testing.assert_close(model.draw(mel, SEEDS)[1:], model.draw(mel[1:], SEEDS[1:]), atol=1e-6, rtol=0)


def test_bit_rate_is_frames_per_second_times_bits_of_a_frame():
    config = MagnitudeCodec(quantizer=Rvq(codebooks=4, size=512))
    assert config.bit_rate(Mel()) == pytest.approx(22050 / 512 * 36)
    assert CODECS["istft, stride 3"].frame_rate(SMALL) == pytest.approx(8000 / 48)


def test_a_causal_head_streams_as_before():
    torch.manual_seed(0)
    model = shaken(IstftHead(width=16, layers=2, causal=True).build(SPACE).eval().requires_grad_(False))
    mel = torch.randn(2, 8, 40)
    found = in_pieces(model.stream(SEEDS).push, mel, (3, 0, 20, 17))
    torch.testing.assert_close(found, model.draw(mel, SEEDS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 7, 5), (8, 5), (1, 8, 0)])
def test_what_is_no_mel_is_one_line(shape):
    with pytest.raises(SanbuError, match="allowed: rows, 8 mels, frames"):
        built("istft").encode(torch.zeros(shape))


def test_wrong_codes_are_one_line():
    model = built("istft")
    with pytest.raises(SanbuError, match="given 20, allowed: 0 to 19"):
        model.decode(torch.full((1, 2, 3), 20))
    with pytest.raises(SanbuError, match="given 99, allowed: 0 to 19"):
        model.decoding(SEEDS[:1]).push(torch.full((1, 2, 3), 99))


def test_codecs_need_a_mel():
    with pytest.raises(ValueError, match="set data=waves"):
        MagnitudeCodec().check(Space((3,)))
