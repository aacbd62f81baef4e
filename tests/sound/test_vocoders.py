"""Vocoders against their definitions: published architecture, exact inverse and determinant, ring buffers, streams."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sanbu.config import ConfigError, load
from sanbu.data.waves import Waves
from sanbu.layers.griffin_lim import linear_magnitudes, settled
from sanbu.layers.pixel_distributions import logistic_mass
from sanbu.layers.spectrogram import Mel, log_mel, mel_filters, stft
from sanbu.layers.wave_distributions import Logistics, MuLaw
from sanbu.models.vocoders.critics import Critics, PeriodCritic, ScaleCritic
from sanbu.models.vocoders.hifigan import VERSIONS, HifiGan
from sanbu.models.vocoders.istft_head import IstftHead
from sanbu.models.vocoders.magnitude_head import MagnitudeHead
from sanbu.models.vocoders.waveglow import WaveGlow
from sanbu.models.vocoders.wavenet import WaveNet
from sanbu.space import Space
from tests.sound.test_spectrogram import speech_like

SMALL = Mel(rate=8000, n_fft=64, hop=16, window=64, mels=8, fmax=4000)
SPACE = Space((64,), mel=SMALL)


def built(config, space=SPACE, seed=0):
    torch.manual_seed(seed)
    config.check(space)
    return config.build(space).eval().requires_grad_(False)


def shaken(model, scale=0.1):
    """The model with every weight moved, so that none is zero or an identity, and lengths of directions near 1."""
    for name, parameter in model.named_parameters():
        parameter.data += scale * torch.randn_like(parameter)
        if name.endswith("original0"):
            parameter.data += 1
    return model


# -- HiFi-GAN ---------------------------------------------------------------------------------------------------------


def published(state, config, mel):
    """The generator of the paper as functions of the original project's state dict (weight_g, weight_v, bias)."""

    def weight(name):
        v, g = state[f"{name}.weight_v"], state[f"{name}.weight_g"]
        return v * (g / v.norm(dim=(1, 2), keepdim=True)), state[f"{name}.bias"]

    def conv(x, name, dilation=1):
        w, b = weight(name)
        return F.conv1d(x, w, b, dilation=dilation, padding=(w.shape[2] - 1) * dilation // 2)

    x = conv(mel, "conv_pre")
    for i, (kernel, rate) in enumerate(zip(config.kernels, config.rates, strict=True)):
        w, b = weight(f"ups.{i}")
        x = F.conv_transpose1d(F.leaky_relu(x, 0.1), w, b, rate, (kernel - rate) // 2)
        total = 0
        for j, dilations in enumerate(config.dilations):
            h, place = x, f"resblocks.{i * len(config.dilations) + j}"
            for d, dilation in enumerate(dilations):
                if config.resblock == "1":
                    inner = conv(F.leaky_relu(h, 0.1), f"{place}.convs1.{d}", dilation)
                    h = h + conv(F.leaky_relu(inner, 0.1), f"{place}.convs2.{d}")
                else:
                    h = h + conv(F.leaky_relu(h, 0.1), f"{place}.convs.{d}", dilation)
            total = total + h
        x = total / len(config.dilations)
    return torch.tanh(conv(F.leaky_relu(x, 0.01), "conv_post"))[:, 0]


def original_names(model):
    """The state of a generator under the names that weight_norm had when the project was written."""
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    found = {}
    for name, tensor in model.state_dict().items():
        for new, before in old.items():
            name = name.replace(new, before)
        found[name] = tensor
    return found


@pytest.mark.parametrize("version", list(VERSIONS))
def test_hifigan_equals_the_published_architecture(version):
    full = HifiGan.version(version)
    config = full.model_copy(update={"width": 32})
    model = shaken(built(config, Space((8192,), mel=Mel())))
    mel = torch.randn(2, 80, 7)
    found = model(mel)
    assert found.shape == (2, 7 * 256)
    torch.testing.assert_close(found, published(original_names(model), config, mel), atol=1e-5, rtol=0)
    assert found.std() > 1e-3
    assert torch.tensor(full.rates).prod() == 256


@pytest.mark.parametrize(("version", "millions"), [("v1", 13.93), ("v2", 0.93), ("v3", 1.46)])
def test_sizes_are_the_published_ones(version, millions):
    with torch.device("meta"):
        model = HifiGan.version(version).build(Space((8192,), mel=Mel()))
    total = sum(p.numel() for name, p in model.named_parameters() if not name.endswith("original0"))
    assert abs(total / 1e6 - millions) < 0.01


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kernels": (15, 16, 4, 4)}, "plus an even number"),
        ({"rates": (8, 8, 2)}, "as many"),
        ({"width": 100}, "multiple"),
    ],
)
def test_impossible_generators_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        HifiGan(**fields)


def test_rates_must_give_the_hop():
    with pytest.raises(ValueError, match="product 256, but the hop"):
        HifiGan().check(SPACE)


def test_vocoders_need_a_mel():
    with pytest.raises(ValueError, match="set data=waves"):
        IstftHead().check(Space((3,)))


# -- critics ----------------------------------------------------------------------------------------------------------


def test_critics_have_the_published_sizes():
    """41.1 and 29.6 million parameters, of which weight normalisation's lengths are not counted."""
    with torch.device("meta"):
        critics = Critics((2, 3, 5, 7, 11), 3, 1.0)

    def count(part):
        return sum(p.numel() for name, p in part.named_parameters() if not name.endswith("original0")) / 1e6

    assert abs(count(critics.periods) - 41.1) < 0.1
    assert abs(count(critics.scales) - 29.6) < 0.1


def test_a_period_critic_sees_a_column_alone():
    """A sample changes only scores of its own column: positions that are congruent modulo the period."""
    torch.manual_seed(0)
    critic = PeriodCritic(5, 0.1).eval().double()
    wave = torch.randn(1, 500, dtype=torch.double)
    other = wave.clone()
    other[0, 203] += 1
    a, b = critic(wave)[0].view(-1, 5), critic(other)[0].view(-1, 5)
    changed = (a != b).any(0)
    assert changed.tolist() == [False, False, False, True, False]


def test_critics_do_not_couple_rows():
    torch.manual_seed(0)
    critics = Critics((2, 3), 2, 0.1).eval().double()
    waves = torch.randn(3, 700, dtype=torch.double)
    for (whole, _), (alone, _) in zip(critics(waves), critics(waves[1:2]), strict=True):
        torch.testing.assert_close(whole[1:2], alone)
    assert isinstance(critics.scales[0], ScaleCritic)


# -- WaveGlow ---------------------------------------------------------------------------------------------------------

GLOW = WaveGlow(flows=4, group=4, early_every=2, early_size=2, layers=2, width=8)


def test_waveglow_inverts():
    model = shaken(built(GLOW))
    wave, mel = torch.randn(3, 96) / 3, torch.randn(3, 8, 6)
    noise, _ = model.encode(wave, mel)
    assert (noise - wave).abs().mean() > 0.05
    torch.testing.assert_close(model.decode(noise, mel), wave, atol=1e-4, rtol=0)


def test_waveglow_determinant_is_that_of_the_jacobian():
    model = shaken(built(GLOW)).double()
    wave, mel = torch.randn(1, 32, dtype=torch.double) / 3, torch.randn(1, 8, 2, dtype=torch.double)
    jacobian = torch.autograd.functional.jacobian(lambda x: model.encode(x, mel)[0][0], wave)[:, 0]
    expected = torch.linalg.slogdet(jacobian)[1]
    found = model.encode(wave, mel)[1][0]
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    assert found.abs() > 0.1


def test_waveglow_likelihood_is_a_density():
    """The negative log-likelihood is that of the Gaussian noise, minus the determinant."""
    model = shaken(built(GLOW.model_copy(update={"sigma": 0.7})))
    wave, mel = torch.randn(2, 96) / 3, torch.randn(2, 8, 6)
    noise, determinant = model.encode(wave, mel)
    expected = torch.distributions.Normal(0, 0.7).log_prob(noise).sum(1) + determinant
    torch.testing.assert_close(model(wave, mel), -expected)


# -- WaveNet ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", ["mu-law", "logistics"])
def test_ring_buffers_equal_the_naive_pass(outputs):
    """Every drawn level is the one that a whole pass over all earlier samples gives, with the same random number."""
    config = WaveNet(width=8, skip=8, layers=6, cycle=3, outputs=outputs, components=3)
    model = shaken(built(config), 0.3).double()
    mel, seeds = torch.randn(2, 8, 3, dtype=torch.double), torch.tensor([5, 6])
    found = model.law.nearest(model.draw(mel, seeds))
    levels = torch.zeros(2, 48, dtype=torch.long)
    for position in range(48):
        outputs_BP = model.predict(levels, mel)[:, :, position]
        levels[:, position] = model.law.draw(outputs_BP, seeds, position)
    assert torch.equal(found, levels)
    assert len(levels.unique()) > 20


def test_wavenet_is_causal_and_sees_far():
    config = WaveNet(width=8, skip=8, layers=4, cycle=4)
    model = shaken(built(config), 0.3)
    levels, mel = torch.randint(256, (1, 64)), torch.randn(1, 8, 4)
    changed = levels.clone()
    changed[0, 30] = (changed[0, 30] + 100) % 256
    differs = (model.predict(levels, mel) != model.predict(changed, mel)).any(1)[0].nonzero().flatten().tolist()
    assert differs[0] == 31 and differs[-1] == 30 + 16  # the sample itself, and 1 + 2 + 4 + 8 before it


@pytest.mark.parametrize("law", [MuLaw(), Logistics(4)])
def test_distributions_sum_to_one(law):
    torch.manual_seed(0)
    outputs = torch.randn(1, law.size, dtype=torch.double)
    levels = torch.arange(law.levels)
    total = law.log_probability(outputs.expand(law.levels, -1), levels).exp().sum()
    torch.testing.assert_close(total, torch.ones((), dtype=torch.double), atol=1e-6, rtol=0)


@pytest.mark.parametrize("law", [MuLaw(), Logistics(4)])
def test_levels_and_values_agree(law):
    levels = torch.arange(law.levels)
    assert torch.equal(law.nearest(law.value(levels)), levels)
    wave = torch.linspace(-1, 1, 1001)
    assert (law.value(law.nearest(wave)) - wave).abs().max() < (0.025 if law.levels == 256 else 2e-5)


@pytest.mark.parametrize("law", [MuLaw(), Logistics(3)])
def test_draws_follow_the_distribution(law):
    """20,000 draws in 16 bins against the exact masses: chi-squared of 15 degrees below 45 (p 1e-4)."""
    torch.manual_seed(1)
    outputs = torch.randn(1, law.size, dtype=torch.double)
    if law.levels > 256:
        outputs[:, 6:] -= 2
    drawn = law.draw(outputs.expand(20_000, -1), torch.arange(20_000), 3)
    exact = law.log_probability(outputs.expand(law.levels, -1), torch.arange(law.levels)).exp()
    expected = exact.view(16, -1).sum(1) * 20_000
    found = torch.bincount(drawn // (law.levels // 16), minlength=16)
    kept = expected > 5
    assert ((found - expected) ** 2 / expected)[kept].sum() < 45
    assert kept.sum() >= 4


def test_mu_law_has_the_published_values():
    law = MuLaw()
    assert law.nearest(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0, 128, 255]
    assert logistic_mass(torch.tensor(0.0), torch.tensor(0.0), torch.tensor(0.0), 256) < 0


# -- magnitude head ---------------------------------------------------------------------------------------------------


def test_a_new_magnitude_head_gives_the_magnitudes_of_the_mel():
    """Before training the correction is small, so it begins where Griffin-Lim begins."""
    mel = Mel()
    model = built(MagnitudeHead(width=16, layers=1, solves=30), Space((8192,), mel=mel))
    frames = log_mel(torch.from_numpy(speech_like()[None]), mel)
    expected = linear_magnitudes(frames, mel).clamp(min=1e-2, max=100)
    ratio = (model.magnitudes(frames) / expected).log()
    assert ratio.abs().max() < 1
    made = log_mel(model.draw(frames, torch.tensor([0])), mel)
    assert (made - frames)[:, :60, 2:-2].abs().mean() < 0.4


def test_gradients_reach_the_magnitudes_of_the_wave():
    """The game trains a magnitude head through its wave."""
    torch.manual_seed(0)
    model = MagnitudeHead(width=8, layers=1, iterations=2).build(SPACE)
    wave = model(torch.randn(2, 8, 12))
    wave.square().sum().backward()
    gradient = model.head.bias.grad
    assert gradient.isfinite().all() and (gradient != 0).all()


def test_magnitudes_settle_on_their_mel():
    """Magnitudes that have the mel stay; others come nearer with each step; bins without a filter are kept."""
    mel = Mel()
    wave = torch.from_numpy(speech_like()[None])
    true = stft(wave, 1024, 256, 1024, 384).abs()
    filters = mel_filters(mel, torch.device("cpu"))
    frames = (filters @ true).log()
    torch.testing.assert_close(settled(true, frames, mel), true, atol=1e-4, rtol=1e-4)
    other = true * (1 + torch.rand_like(true))
    distances = []
    for _ in range(3):
        distances.append(((filters @ other).log() - frames).abs().mean())
        other = settled(other, frames, mel)
    assert distances[2] < 0.7 * distances[1] < 0.5 * distances[0]
    assert torch.equal(settled(true, frames + 1, mel)[:, 400:], true[:, 400:])


# -- streams ----------------------------------------------------------------------------------------------------------

STREAMED = {
    "istft-head": IstftHead(width=16, layers=2),
    "istft-head, causal": IstftHead(width=16, layers=2, causal=True),
    "magnitude-head": MagnitudeHead(width=16, layers=2, iterations=3),
    "hifigan": HifiGan(rates=(4, 4), kernels=(8, 8), width=16, block_kernels=(3, 5), dilations=((1, 3), (1, 3))),
    "hifigan, type 2": HifiGan(
        resblock="2", rates=(4, 4), kernels=(8, 8), width=16, block_kernels=(3, 5), dilations=((1, 2), (2, 6))
    ),
    "waveglow": WaveGlow(flows=2, group=4, early_every=2, layers=2, width=8),
    "wavenet": WaveNet(width=8, skip=8, layers=4, cycle=4),
}


@pytest.mark.parametrize("convention", ["hifigan", "tacotron2"])
@pytest.mark.parametrize("sizes", [(1,) * 40, (3, 1, 20, 16), (40,), (7, 33)])
@pytest.mark.parametrize("name", list(STREAMED))
def test_pieces_equal_the_whole(name, sizes, convention):
    mel = SMALL.model_copy(update={"convention": convention})
    model = shaken(built(STREAMED[name], Space((64,), mel=mel)))
    frames, seeds = torch.randn(2, 8, 40), torch.tensor([1, 2])
    whole = model.draw(frames, seeds)
    stream, pieces, start = model.stream(seeds), [], 0
    for size in sizes:
        start += size
        pieces.append(stream.push(frames[:, :, start - size : start], last=start == 40))
    assert whole.shape == (2, 640)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=0)
    assert whole.std() > 1e-4


@pytest.mark.parametrize("name", ["istft-head, causal", "wavenet"])
def test_the_future_does_not_change_the_past(name):
    """A causal head waits for its overlap of three hops alone, a WaveNet for one frame."""
    model = shaken(built(STREAMED[name]))
    frames, seeds = torch.randn(1, 8, 20), torch.tensor([1])
    other = frames.clone()
    other[:, :, 12:] += 1
    a, b = model.draw(frames, seeds), model.draw(other, seeds)
    late = 12 * 16 - SMALL.padding if "causal" in name else 11 * 16
    assert torch.equal(a[:, :late], b[:, :late])
    assert not torch.equal(a[:, late:], b[:, late:])


def test_rows_of_a_stream_do_not_depend_on_each_other():
    model = shaken(built(STREAMED["waveglow"]))
    frames = torch.randn(2, 8, 10)
    both = model.draw(frames, torch.tensor([1, 2]))
    torch.testing.assert_close(both[1:], model.draw(frames[1:], torch.tensor([2])), atol=1e-6, rtol=0)
    assert isinstance(model, nn.Module)


def test_mel_must_be_that_of_the_data():
    with pytest.raises(ConfigError, match="hop"):
        load(Waves, {"kind": "waves", "path": "x", "mel": {"hop": 0}})
