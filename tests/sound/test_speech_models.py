"""Acoustic models, recognisers, their objectives and strategies, and the measurements of speech."""

import itertools
import math

import numpy as np
import pytest
import torch

from sanbu.codecs.speech.symbols import ids_of
from sanbu.config import SanbuError
from sanbu.evaluation.edit_distance import edit_distance, error_rate, spoken_letters
from sanbu.evaluation.warping import cepstra, distances, warp
from sanbu.layers.ctc import log_likelihoods
from sanbu.layers.frame_convolutions import FrameConvolutions
from sanbu.layers.frame_transformer import FrameTransformer
from sanbu.layers.spectrogram import Mel, mel_bands
from sanbu.models.acoustic.acoustic import LOUDNESS, Control, contour_of, energy_of, harmonics
from sanbu.models.acoustic.fastspeech2 import ConvolutionalSpeech, FastSpeech2
from sanbu.models.acoustic.flow_speech import FlowSpeech
from sanbu.models.acoustic.tacotron2 import Tacotron2
from sanbu.models.recognisers.ctc import CtcRecogniser
from sanbu.models.recognisers.ctc_pictures import CtcPictures
from sanbu.models.vocoders.istft_head import IstftHead
from sanbu.noise import Noise
from sanbu.objectives.ctc import Ctc, coloured, ctc_loss, hide, noisy, resample, stretched
from sanbu.objectives.ctc_choice import CtcChoice
from sanbu.objectives.objective import Round
from sanbu.objectives.reading_aloud import ReadingAloud
from sanbu.objectives.speaking import Speaking, mean_of_symbols
from sanbu.objectives.speaking_flow import SpeakingFlow
from sanbu.space import Space
from sanbu.strategies.choose_text import ChooseText
from sanbu.strategies.in_stages import InStages
from sanbu.strategies.speak import Speak
from sanbu.strategies.strategy import generate, last
from sanbu.strategies.transcribe import Transcribe, best_path
from sanbu.testing import check_config, check_objective, check_strategy

MEL = Mel(rate=8000, n_fft=128, hop=32, window=128, mels=16, fmax=4000)
SPACE = Space((16,), 20, classes=3, mel=MEL)
ACOUSTIC = {
    "transformer": FastSpeech2(width=16, encoder=1, decoder=2, inner=32, kernels=(3, 1), predictor=8, dropout=0.0),
    "convolutions": ConvolutionalSpeech(width=16, encoder=1, decoder=2, kernel=3, predictor=8, dropout=0.0),
}
EARS = CtcRecogniser(width=16, convolutions=2, kernel=3, transformer=1, heads=2, dropout=0.0)
PICTURES = CtcPictures(width=16, channels=4, convolutions=1, kernel=3, transformer=1, heads=2, dropout=0.0)


def built(config, seed=0):
    torch.manual_seed(seed)
    return config.build(SPACE)


def rows():
    """Three utterances of unequal length, filled up."""
    torch.manual_seed(1)
    symbols, durations = torch.tensor([5, 3, 1]), torch.zeros(3, 5, dtype=torch.long)
    for row, each in enumerate(([2, 3, 1, 0, 4], [5, 2, 2], [7])):
        durations[row, : len(each)] = torch.tensor(each)
    ids = torch.randint(1, 20, (3, 5)) * (torch.arange(5) < symbols[:, None])
    frames = durations.sum(1)
    real = torch.arange(10) < frames[:, None]
    mel = (torch.randn(3, 16, 10) * 2 - 5) * real[:, None]
    pitch = torch.randn(3, 10) * real
    return {"ids": ids, "symbols": symbols, "durations": durations, "frames": frames, "mel": mel, "pitch": pitch,
            "voice": torch.tensor([0, 2, 1])}  # fmt: skip


# -- layers and models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda: FrameTransformer(2, 8, 2, 16, (3, 3), 0.0), lambda: FrameConvolutions(2, 8, 5, 16, 0.0)]
)
def test_what_fills_up_a_row_never_reaches_it(make):
    torch.manual_seed(0)
    stack, x = make().eval(), torch.randn(2, 9, 8)
    inside = torch.arange(9) < torch.tensor([9, 5])[:, None]
    whole = stack(x, inside)
    x[1, 5:] = 100
    torch.testing.assert_close(stack(x, inside), whole)
    torch.testing.assert_close(stack(x[1:, :5], inside[1:, :5])[0], whole[1, :5], atol=1e-5, rtol=1e-5)
    assert not whole[1, 5:].any()


@pytest.mark.parametrize("name", list(ACOUSTIC))
def test_a_row_is_the_same_alone(name):
    model, batch = built(ACOUSTIC[name]).eval(), rows()
    given = Speaking().build().experience(Round({"model": model}, batch, Noise("x")))
    arguments = [given[name] for name in ("ids", "voice", "durations", "contour", "energy")]
    whole = model(*arguments)
    assert whole.mel.shape == (3, 16, 10)
    for row in range(3):
        symbols, frames = int(batch["symbols"][row]), int(batch["frames"][row])
        lengths = {5: symbols, 10: frames}  # of symbols and of frames; voices have one axis
        cuts = [each[row : row + 1] for each in arguments]
        alone = model(*[each[:, : lengths[each.shape[1]]] if each.ndim == 2 else each for each in cuts])
        torch.testing.assert_close(alone.mel[0], whole.mel[row, :, :frames], atol=1e-5, rtol=1e-5)
        for mine, theirs in zip(alone[1:4], whole[1:4], strict=True):
            torch.testing.assert_close(mine[0], theirs[row, :symbols], atol=1e-5, rtol=1e-5)
            assert not theirs[row, symbols:].any()
        torch.testing.assert_close(alone.means[0], whole.means[row, :symbols], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", list(ACOUSTIC))
def test_every_weight_gets_a_gradient(name):
    model, batch = built(ACOUSTIC[name]), rows()
    objective = Speaking().build()
    given = objective.experience(Round({"model": model}, batch, Noise("x")))
    loss = objective.loss({"model": model}, given)
    sum(loss.sums.values()).backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())
    check_config(ACOUSTIC[name])


@pytest.mark.parametrize("rate", [0.5, 0.8, 1.0, 2.0])
def test_the_rate_acts(rate):
    """A rate of 0.8 makes 1.25 times the frames, to half a frame in total."""
    model = built(ACOUSTIC["convolutions"]).eval()
    torch.nn.init.constant_(model.durations.out.bias, math.log(1 + 7.3))
    torch.nn.init.zeros_(model.durations.out.weight)
    ids, voice = rows()["ids"], rows()["voice"]
    spoken = model.say(ids, voice, Control(rate=rate), voice)
    wanted = (ids > 0).sum(1) * 7.3 / rate
    assert ((spoken.frames - wanted).abs() <= 0.5).all()
    assert torch.equal(spoken.durations.sum(1), spoken.frames) and spoken.mel.shape[2] == int(spoken.frames.max())


def test_pitch_acts_on_what_the_decoder_is_given():
    model, seen = built(ACOUSTIC["convolutions"]).eval(), {}
    decode = model.decode
    model.decode = lambda h, d, pitch, energy: seen.update(pitch=pitch, energy=energy) or decode(h, d, pitch, energy)
    torch.nn.init.constant_(model.durations.out.bias, 1.5)
    ids, voice = rows()["ids"], rows()["voice"]
    model.say(ids, voice, Control(), voice)
    plain = dict(seen)
    model.say(ids, voice, Control(pitch=2.0), voice)
    torch.testing.assert_close(seen["pitch"] - plain["pitch"], torch.ones_like(plain["pitch"]))  # one octave
    torch.testing.assert_close(seen["energy"], plain["energy"])


@pytest.mark.parametrize("name", [*ACOUSTIC, "attention", "flow"])
def test_energy_multiplies_the_amplitudes(name):
    model = built({**ACOUSTIC, "attention": TALKER, "flow": FLOW}[name]).eval()
    ids, voice = rows()["ids"], rows()["voice"]
    plain, louder = (model.say(ids, voice, Control(energy=energy), torch.arange(3)) for energy in (1.0, 2.5))
    torch.testing.assert_close(louder.mel - plain.mel, torch.full_like(plain.mel, math.log(2.5)), atol=1e-5, rtol=0)


def test_the_energy_of_a_louder_sound():
    mel = torch.randn(2, 16, 7)
    torch.testing.assert_close(
        energy_of(mel + math.log(3)) - energy_of(mel), torch.full((2, 7), math.log(3) / LOUDNESS)
    )


def test_the_comb_is_high_on_harmonics():
    """Where bands are narrow: near 1 on multiples of the pitch, near -1 half-way; wide bands see none."""
    wide = Mel(mels=400, n_fft=16384, window=16384, hop=256)
    centres = mel_bands(wide)[0]
    comb = harmonics(torch.tensor([[math.log2(150 / 200)]]), wide)[0, 0]
    for harmonic in range(1, 5):
        assert comb[np.abs(centres - 150 * harmonic).argmin()] > 0.8
        assert comb[np.abs(centres - 150 * (harmonic + 0.5)).argmin()] < -0.8
    high = harmonics(torch.tensor([[math.log2(150 / 200)]]), Mel())[0, 0]
    assert high[mel_bands(Mel())[0] > 6000].abs().max() < 0.06


def test_the_contour_by_hand():
    """Middles at 1 and 5: 1, then a line, then 3; the symbol without frames is left out."""
    found = contour_of(torch.tensor([[1.0, 99.0, 3.0]]), torch.tensor([[2, 0, 6]]))
    assert found[0].tolist() == pytest.approx([np.interp(t + 0.5, [1, 5], [1, 3]) for t in range(8)])


# -- flow matching ----------------------------------------------------------------------------------------------------


FLOW = FlowSpeech(base=ACOUSTIC["convolutions"], width=16, decoder=2, kernel=3)


def flow_batch(model, noise="x"):
    return SpeakingFlow().build().experience(Round({"model": model}, rows(), Noise(noise)))


def test_the_flow_of_a_point_is_drawn_exactly():
    """Where the velocity is (x* - x) / (1 - t), every number of Euler steps ends at x*."""
    model = built(FLOW).eval()
    torch.nn.init.constant_(model.base.durations.out.bias, 1.5)
    goal = torch.randn(1, 16, 1)
    model.velocity = lambda x, mean, time, frames: (goal - x) / (1 - time[:, None, None])
    for steps in (1, 3, 8):
        spoken = model.say(rows()["ids"], rows()["voice"], Control(steps=steps), torch.arange(3))
        torch.testing.assert_close(spoken.mel, (goal * 2 - 5).expand_as(spoken.mel), atol=1e-4, rtol=1e-4)


def test_a_row_of_the_flow_is_the_same_alone():
    model = built(FLOW).eval()
    torch.nn.init.constant_(model.base.durations.out.bias, 1.5)
    ids, voice, seeds = rows()["ids"], rows()["voice"], torch.tensor([5, 6, 7])
    whole = model.say(ids, voice, Control(), seeds)
    for row in range(3):
        alone = model.say(ids[row : row + 1], voice[row : row + 1], Control(), seeds[row : row + 1])
        frames = int(alone.frames)
        torch.testing.assert_close(alone.mel[0, :, :frames], whole.mel[row, :, :frames], atol=1e-4, rtol=1e-4)
    assert not torch.equal(model.say(ids, voice, Control(), seeds + 1).mel, whole.mel)


def test_the_loss_of_the_flow_by_hand():
    model, batch = built(FLOW).eval(), flow_batch(built(FLOW))
    loss = SpeakingFlow(flow=3.0).loss({"model": model}, batch)
    own = Speaking().loss({"model": model.base}, batch)
    scaled_mel, flow = (batch["mel"] + 5) / 2, 0.0
    made = model(*[batch[name] for name in ("ids", "voice", "durations", "contour", "energy", "noisy", "time")])
    for row, frames in enumerate([10, 9, 7]):
        t = float(batch["time"][row])
        noise = (batch["noisy"][row] - t * scaled_mel[row]) / (1 - t)
        gap = made.velocity[row] - (scaled_mel[row] - noise)
        flow += float(gap[:, :frames].square().sum()) / 16
    assert float(loss.sums["frames"]) == pytest.approx(float(own.sums["frames"]) + 3 * flow, rel=1e-3)
    assert torch.equal(loss.sums["symbols"], own.sums["symbols"])


def test_the_flow_keeps_its_contract_and_teaches_the_base_nothing():
    check_objective(SpeakingFlow(), built(FLOW), rows())
    model = built(FLOW)
    batch = flow_batch(model)
    made = model(*[batch[name] for name in ("ids", "voice", "durations", "contour", "energy", "noisy", "time")])
    made.velocity.square().sum().backward()
    assert all(each.grad is None for each in model.base.parameters())
    assert all(each.grad is not None for name, each in model.named_parameters() if not name.startswith("base."))


# -- Tacotron 2 -------------------------------------------------------------------------------------------------------


TALKER = Tacotron2(width=16, recurrent=12, prenet=8, attention=8, postnet=8, reduction=3, dropout=0.0)


def test_attention_equals_the_published_layers():
    """The convolution and the linear map, one after the other, as published."""
    model = built(TALKER).attention
    h, inside, query, seen = torch.randn(2, 9, 16), torch.ones(2, 9).bool(), torch.randn(2, 12), torch.rand(2, 2, 9)
    inside[1, 6:] = False
    found = model(query, seen, model.sheet(h, inside))
    places = model.place(torch.nn.functional.conv1d(seen, model.places.weight, padding=15).transpose(1, 2))
    energy = model.score((model.query(query)[:, None] + model.memory(h) + places).tanh())[..., 0]
    torch.testing.assert_close(found, energy.masked_fill(~inside, -torch.inf).softmax(1))
    assert not found[1, 6:].any()


def test_drawing_equals_teacher_forcing(monkeypatch):
    """Given its own frames, the model of training makes the frames that drawing made; dropout of the prenet is off."""
    model = built(TALKER).eval()
    monkeypatch.setattr("sanbu.models.acoustic.tacotron2.DROPPED", 0.0)
    monkeypatch.setattr("sanbu.models.acoustic.tacotron2.LONGEST_SYMBOL", 4)
    torch.nn.init.constant_(model.gate.bias, -9.0)
    ids, voice = rows()["ids"], rows()["voice"]
    spoken = model.say(ids, voice, Control(), torch.arange(3))
    assert spoken.frames.tolist() == [21, 12, 6]  # of at most 4 frames per symbol, in steps of 3
    before, drawn = spoken.mel, []
    model.frames_of, kept = lambda out, make=model.frames_of: drawn.append(make(out)) or drawn[-1], model.frames_of
    spoken = model.say(ids, voice, Control(), torch.arange(3))
    model.frames_of = kept
    own = torch.cat(drawn, 2) * 2.0 - 5.0
    taught = model(ids, voice, own, spoken.frames)
    torch.testing.assert_close(taught.before, own, atol=1e-5, rtol=1e-5)
    for row, frames in enumerate(spoken.frames.tolist()):
        torch.testing.assert_close(taught.mel[row, :, :frames], before[row, :, :frames], atol=1e-4, rtol=1e-4)
    assert torch.equal(spoken.durations.sum(1), spoken.frames)


def test_a_row_is_spoken_alike_alone():
    model = built(TALKER).eval()
    ids, voice, seeds = rows()["ids"], rows()["voice"], torch.tensor([7, 8, 9])
    whole = model.say(ids, voice, Control(), seeds)
    for row in range(3):
        alone = model.say(ids[row : row + 1], voice[row : row + 1], Control(), seeds[row : row + 1])
        frames = int(alone.frames)
        assert frames == whole.frames[row] and torch.equal(alone.durations[0], whole.durations[row])
        torch.testing.assert_close(alone.mel[0, :, :frames], whole.mel[row, :, :frames], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("gate", "finished"), [(-9.0, False), (9.0, True)])
def test_the_stop_rule(gate, finished, monkeypatch):
    """An open gate ends at once; a closed one ends at the limit, and says so."""
    model = built(TALKER).eval()
    monkeypatch.setattr("sanbu.models.acoustic.tacotron2.LINGER", 10**6)
    torch.nn.init.zeros_(model.gate.weight)
    torch.nn.init.constant_(model.gate.bias, gate)
    spoken = model.say(rows()["ids"], rows()["voice"], Control(), torch.arange(3))
    assert spoken.finished.tolist() == [finished] * 3
    assert spoken.frames.tolist() == ([3, 3, 3] if finished else [201, 120, 42])


def test_attention_that_lingers_at_the_last_sign_ends_a_row():
    model = built(TALKER).eval()
    torch.nn.init.constant_(model.gate.bias, -9.0)
    one = torch.tensor([[5]])
    spoken = model.say(one, torch.tensor([0]), Control(), torch.tensor([0]))
    assert spoken.frames.tolist() == [15] and spoken.finished.all()


@pytest.mark.parametrize("timed", [True, False])
def test_reading_aloud_by_hand(timed):
    """The middle frames of steps of 3 are 1, 4, 7 and 10; beyond a row's end its last frame counts."""
    model, batch = built(TALKER).eval(), rows()
    spoken = [[0, 1, 4, 4], [0, 0, 2], [0, 0, 0]]
    if not timed:
        del batch["durations"]
    torch.manual_seed(3)
    loss = ReadingAloud(guide=2.0, reach=0.7, sigma=0.3, stop_weight=5.0).loss({"model": model}, batch)
    torch.manual_seed(3)
    made = model(batch["ids"], batch["voice"], batch["mel"], batch["frames"])
    total = 0.0
    for row, (frames, symbols) in enumerate(zip([10, 9, 7], [5, 3, 1], strict=True)):
        steps = -(-frames // 3)
        for mel in (made.before, made.mel):
            gap = (mel[row, :, :frames] - batch["mel"][row, :, :frames]) / 2
            total += float((gap.abs() + gap.square()).sum()) / 16
        for t in range(steps):
            open_ = float(made.gate[row, t].sigmoid())
            total += 3 * (-5 * math.log(open_) if t == steps - 1 else -math.log(1 - open_))
            for s in range(symbols):
                apart = (spoken[row][t] - s) / 0.7 if timed else (t / steps - s / symbols) / 0.3
                far = 1 - math.exp(-(apart**2) / 2)
                total += 2.0 * 3 * float(made.alignment[row, t, s]) * far
    assert float(loss.sums["frames"]) == pytest.approx(total, rel=1e-4)


def test_every_weight_of_the_talker_gets_a_gradient():
    model = built(TALKER)
    ReadingAloud().loss({"model": model}, rows()).sums["frames"].backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())


def test_rate_and_pitch_of_the_talker():
    model = built(TALKER).eval()
    torch.nn.init.constant_(model.gate.bias, -9.0)
    ids, voice, seeds = rows()["ids"][:1], rows()["voice"][:1], torch.zeros(1, dtype=torch.long)
    plain, slow = (model.say(ids, voice, Control(rate=rate), seeds) for rate in (1.0, 0.5))
    assert int(slow.frames) == 2 * int(plain.frames) == slow.mel.shape[2]
    with pytest.raises(SanbuError, match=r"pitch: given 1\.2, but tacotron2"):
        model.say(ids, voice, Control(pitch=1.2), seeds)


# -- objectives -------------------------------------------------------------------------------------------------------


def test_the_mean_of_a_sign_by_hand():
    values = torch.tensor([[1.0, 2, 3, 4, 5, 99]])
    found = mean_of_symbols(values, torch.tensor([[2, 0, 3]]))
    torch.testing.assert_close(found, torch.tensor([[1.5, 0.0, 4.0]]))


def test_speaking_by_hand():
    model, batch = built(ACOUSTIC["convolutions"]).eval(), rows()
    objective = Speaking(weights=(1, 2, 3), aligner=4).build()
    given = objective.experience(Round({"model": model}, batch, Noise("x")))
    loss = objective.loss({"model": model}, given)
    made = model(*[given[name] for name in ("ids", "voice", "durations", "contour", "energy")])
    mel = sum((made.mel[r, :, :f] - batch["mel"][r, :, :f]).abs().sum() / 16 for r, f in enumerate([10, 9, 7]))
    for row, frames in enumerate([10, 9, 7]):
        means = made.means[row].repeat_interleave(given["durations"][row], 0).T
        mel = mel + 4 * ((batch["mel"][row, :, :frames] - means) / 2).square().sum() / 16 / 2
    torch.testing.assert_close(loss.sums["frames"], mel)
    symbols = 0
    for row, count in enumerate([5, 3, 1]):
        wanted = (given["durations"][row].float().log1p(), given["pitch"][row], given["energy"][row])
        for weight, a, b in zip((1, 2, 3), made[1:4], wanted, strict=True):
            counted = given["durations"][row] > (0 if weight > 1 else -1)  # symbols without frames have no pitch
            symbols = symbols + weight * ((a[row] - b).square() * counted)[:count].sum()
    torch.testing.assert_close(loss.sums["symbols"], symbols)
    assert objective.count(given) == {"frames": 26.0, "symbols": 9.0}


def test_durations_are_found_where_symbols_sound_unlike():
    """A mel whose frames are the means of its symbols is cut where the symbols change."""
    model, batch = built(ACOUSTIC["convolutions"]).eval(), rows()
    torch.nn.init.normal_(model.means.weight, std=2.0)
    durations = batch.pop("durations")
    durations[0] = torch.tensor([2, 3, 1, 1, 3])  # every symbol has at least one frame
    means = model.means_of(model.hear(batch["ids"], batch["voice"])).detach()
    for row, frames in enumerate([10, 9, 7]):
        batch["mel"][row, :, :frames] = means[row].repeat_interleave(durations[row], 0).T
    given = Speaking().build().experience(Round({"model": model}, batch, Noise("x")))
    assert torch.equal(given["durations"], durations)


def test_losses_do_not_see_what_fills_up():
    batch = rows()
    real = torch.arange(10) < batch["frames"][:, None]
    junk = {
        **batch,
        "mel": torch.where(real[:, None], batch["mel"], 77.0),
        "pitch": torch.where(real, batch["pitch"], 9.0),
    }
    pairs = ((Speaking(), ACOUSTIC["convolutions"]), (Ctc(), EARS))
    for objective, model in ((config.build(), built(model)) for config, model in pairs):
        sums = []
        for each in (batch, junk):
            given = objective.experience(Round({"model": model.eval()}, each, Noise("x"), learning=False))
            sums.append(objective.loss({"model": model}, given).sums)
        assert all(torch.allclose(sums[0][name], sums[1][name]) for name in sums[0])


def test_objectives_keep_their_contract():
    check_objective(Speaking(), built(ACOUSTIC["convolutions"]), rows())
    ears = {**rows(), "symbols": torch.tensor([3, 2, 1])}
    ears["ids"] = ears["ids"] * (torch.arange(5) < ears["symbols"][:, None])
    check_objective(Ctc(bands=0, frames=0, stretch=0), built(EARS), ears)
    check_objective(CtcChoice(of=Ctc(bands=0, frames=0, stretch=0)), built(EARS), ears)


def test_ctc_equals_all_paths():
    """-log of the sum over every labelling of frames that gives the text."""
    model, batch = built(EARS).eval(), rows()
    batch["symbols"] = torch.tensor([2, 2, 1])
    batch["ids"] = torch.tensor([[3, 3], [1, 2], [5, 0]])
    logprobs, steps = model(batch["mel"], batch["frames"]).detach(), model.steps(batch["frames"])
    total = 0.0
    for row in range(3):
        text = batch["ids"][row, : batch["symbols"][row]].tolist()
        alphabet = sorted({0, *text})
        found = 0.0
        for path in itertools.product(alphabet, repeat=int(steps[row])):
            joined = [symbol for symbol, _ in itertools.groupby(path) if symbol]
            if joined == text:
                found += math.exp(sum(float(logprobs[row, t, symbol]) for t, symbol in enumerate(path)))
        total -= math.log(found)
    assert float(ctc_loss({"model": model}, batch).sums["letters"]) == pytest.approx(total, rel=1e-4)


def test_the_texts_of_a_sound_have_probabilities_that_sum_to_one():
    """Every text of two letters that four steps can hold; one that needs more is impossible."""
    torch.manual_seed(0)
    logprobs = torch.randn(2, 4, 3).log_softmax(2)
    texts = [each for size in range(5) for each in itertools.product((1, 2), repeat=size)]
    padded = torch.tensor([[*text, *[0] * (4 - len(text))] for text in texts])
    found = log_likelihoods(logprobs, torch.tensor([4, 3]), padded)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(2))
    needs = torch.tensor([len(text) + sum(a == b for a, b in itertools.pairwise(text)) for text in texts])
    assert torch.equal(found.isfinite(), needs <= torch.tensor([[4], [3]]))


def test_a_choice_of_texts_by_hand():
    """The softmax over the two texts of the batch; a sound that is too short for its text teaches nothing."""
    model, batch = built(EARS).eval(), rows()
    batch["symbols"] = torch.tensor([2, 2, 5])
    batch["ids"] = torch.tensor([[3, 1, 0, 0, 0], [3, 1, 0, 0, 0], [5, 4, 5, 4, 5]])
    batch["frames"] = torch.tensor([10, 9, 7])
    found = CtcChoice(spelling=0.5).loss({"model": model}, batch)
    steps = model.steps(batch["frames"])
    likely = log_likelihoods(model(batch["mel"], batch["frames"]), steps, batch["ids"][1:]).detach()
    assert likely[2].tolist() == [pytest.approx(float(likely[2, 0])), -math.inf] and likely[:2].isfinite().all()
    wanted = -sum(math.log(math.exp(a) / (math.exp(a) + math.exp(b))) for a, b in likely[:2].tolist())
    assert float(found.sums["rows"]) == pytest.approx(wanted, rel=1e-4)
    assert float(found.sums["letters"]) == pytest.approx(-0.5 * float(likely[:2, 0].sum()), rel=1e-5)
    sum(found.sums.values()).backward()
    assert all(each.grad.isfinite().all() for each in model.parameters())


def test_the_likeliest_of_the_texts_is_chosen():
    model, strategy = built(EARS).eval(), ChooseText(texts=("bad", "Egg", "a cab"))
    condition = {name: rows()[name] for name in ("mel", "frames")}
    check_strategy(strategy, {"model": model}, SPACE, condition)
    drawn = last(generate(strategy.build(SPACE), {"model": model}, condition, torch.arange(3))).sample
    texts = torch.tensor([[*ids_of(text), *[0] * (5 - len(text))] for text in ("bad", "egg", "a cab")])
    likely = log_likelihoods(model(condition["mel"], condition["frames"]), model.steps(condition["frames"]), texts)
    assert torch.equal(drawn, texts[likely.argmax(1)])


@pytest.mark.parametrize(("texts", "said"), [((), "given none"), (("yes", "größe"), "given 'größe'"), ((" ",), "' '")])
def test_texts_that_cannot_be_read_are_refused(texts, said):
    with pytest.raises(ValueError, match=said):
        ChooseText(texts=texts).check(SPACE)


def test_hidden_strips_are_narrow_and_a_function_of_the_row():
    mel = torch.randn(64, 16, 50)
    hidden = hide(mel, 4, 10, Noise("x"))
    changed = hidden != mel
    bands, frames = changed.all(2).sum(1), changed.all(1).sum(1)
    assert (bands <= 8).all() and (frames <= 20).all() and bands.float().mean() > 1 and frames.float().mean() > 4
    assert torch.equal(hide(mel[32:], 4, 10, Noise("x", first_row=32)), hidden[32:])


def test_a_line_that_is_stretched_is_a_line():
    line = torch.arange(10.0).view(1, 10, 1).expand(2, 10, 3)
    found = resample(line, torch.tensor([2.0, 0.5]), torch.tensor([10, 10]))
    torch.testing.assert_close(found[0, :, 0], torch.arange(10) / 2)
    torch.testing.assert_close(found[1, :, 2], (torch.arange(10.0) * 2).clamp(max=9))


def test_a_curve_over_the_bands_is_the_same_in_all_frames():
    mel = torch.randn(256, 16, 50)
    curve = coloured(mel, 0.5, Noise("x")) - mel
    torch.testing.assert_close(curve, curve[..., :1].expand_as(curve), atol=1e-5, rtol=0)
    knots = curve[:, [0, 15], 0]
    assert knots.mean() == pytest.approx(0, abs=0.09) and knots.std() == pytest.approx(0.5, rel=0.13)  # 4 deviations
    torch.testing.assert_close(curve[:, 1:3, 0].diff(), curve[:, 2:4, 0].diff(), atol=1e-5, rtol=0)  # straight
    torch.testing.assert_close(coloured(mel[32:], 0.5, Noise("x", first_row=32)), curve[32:] + mel[32:])
    assert coloured(mel, 0.0, Noise("x")) is mel


def test_noise_fills_what_is_silent_and_leaves_what_is_loud():
    mel = torch.full((400, 16, 50), -11.5)
    mel[:, :, :10] = 2.0
    heard = noisy(mel, 0.7, Noise("x"))
    changed = (heard != mel).flatten(1).any(1)
    assert changed.float().mean() == pytest.approx(0.7, abs=0.1)  # 4 deviations
    quiet = heard[changed, :, 10:].mean((1, 2))
    assert quiet.min() > 2 - 7 - 0.5 and quiet.max() < 2 - 3 and (heard[:, :, :10] - 2).max() < 0.7
    assert torch.equal(noisy(mel[32:], 0.7, Noise("x", first_row=32)), heard[32:])
    assert noisy(mel, 0.0, Noise("x")) is mel


def test_every_weight_of_a_recogniser_of_pictures_gets_a_gradient():
    model, batch = built(PICTURES), rows()
    model(batch["mel"], batch["frames"]).square().sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in model.parameters())


def test_stretching_keeps_what_a_row_is():
    """Frames follow the factor, rows do not depend on their neighbours, and no row outgrows its batch."""
    mel, frames = torch.randn(64, 16, 40), torch.full((64,), 30)
    found, longer = stretched(mel, frames, 0.2, Noise("x"))
    assert found.shape == mel.shape and longer.min() >= 24 and longer.max() <= 36 and longer.unique().numel() > 5
    part, some = stretched(mel[32:], frames[32:], 0.2, Noise("x", first_row=32))
    assert torch.equal(part, found[32:]) and torch.equal(some, longer[32:])
    junk = torch.where(torch.arange(40) < 30, mel, 99.0)
    assert torch.equal(stretched(junk, frames, 0.2, Noise("x"))[0], found)
    _, full = stretched(mel, torch.full((64,), 40), 0.2, Noise("x"))
    assert full.max() == 40
    assert torch.equal(stretched(mel, frames, 0.0, Noise("x"))[0], mel)


def test_mels_are_hidden_while_learning_alone():
    model, batch, objective = built(EARS), rows(), Ctc(bands=4, frames=3, stretch=0.0).build()
    learning, held_out = (Round({"model": model}, batch, Noise("x"), learning=each) for each in (True, False))
    assert not torch.equal(objective.experience(learning)["mel"], batch["mel"])
    assert torch.equal(objective.experience(held_out)["mel"], batch["mel"])


@pytest.mark.parametrize("ears", [EARS, PICTURES])
def test_the_recogniser_sees_a_row_alone_as_in_a_batch(ears):
    model, batch = built(ears).eval(), rows()
    whole = model(batch["mel"], batch["frames"])
    for row in range(3):
        frames = batch["frames"][row : row + 1]
        alone = model(batch["mel"][row : row + 1, :, : int(frames)], frames)
        torch.testing.assert_close(alone[0], whole[row, : alone.shape[1]], atol=1e-5, rtol=1e-5)
    assert whole.exp().sum(2).allclose(torch.ones(3, 5))


# -- strategies -------------------------------------------------------------------------------------------------------


def test_the_best_path_by_hand():
    best = torch.tensor([[1, 1, 0, 1, 2, 2], [0, 0, 3, 3, 3, 9]])
    assert best_path(best, torch.tensor([6, 5])).tolist() == [[1, 1, 2], [3, 0, 0]]


def speaking_models(chatty=1.5):
    model, vocoder = built(ACOUSTIC["convolutions"]).eval(), built(IstftHead(width=16, layers=1), 1).eval()
    torch.nn.init.constant_(model.durations.out.bias, chatty)
    return {"model": model, "vocoder": vocoder}


CONDITION = {
    "ids": torch.tensor([[[3, 4, 5, 0], [6, 7, 8, 9]], [[5, 6, 0, 0], [0, 0, 0, 0]]]),
    "voice": torch.tensor([0, 1]),
}


@pytest.mark.parametrize("chunk", [0, 3, 100])
def test_strategies_keep_their_contract(chunk):
    check_strategy(InStages(chunk=chunk), speaking_models(), SPACE, CONDITION)
    one = {**CONDITION, "ids": CONDITION["ids"][:, :1]}
    check_strategy(Speak(), speaking_models(), SPACE, one)
    check_strategy(Transcribe(), {"model": built(EARS).eval()}, SPACE, {k: rows()[k] for k in ("mel", "frames")})


@pytest.mark.parametrize("chunk", [1, 4])
def test_chunks_equal_the_whole(chunk):
    models, one = speaking_models(), {name: each[:1] for name, each in CONDITION.items()}
    whole = list(generate(InStages().build(SPACE), models, one, torch.zeros(1, dtype=torch.long)))
    parts = list(generate(InStages(chunk=chunk).build(SPACE), models, one, torch.zeros(1, dtype=torch.long)))
    assert len(parts) > len(whole) == 4  # a mel and a wave for each of two sentences
    torch.testing.assert_close(parts[-1].sample, whole[-1].sample, atol=1e-5, rtol=0)
    assert [draft.stage for draft in whole] == ["mel", "wave", "mel", "wave"]
    assert not whole[0].committed.any() and whole[0].record["mel"].shape[2] == 16


def test_without_a_vocoder_griffin_lim_speaks():
    models = {"model": speaking_models()["model"]}
    last = list(generate(InStages().build(SPACE), models, CONDITION, torch.zeros(2, dtype=torch.long)))[-1]
    assert last.sample.isfinite().all() and last.sample.abs().max() > 0
    assert last.record["samples"].tolist()[0] > last.record["samples"].tolist()[1] > 0


def test_fields_of_the_first_stage_need_no_prefix():
    changed = InStages().changed({"rate": 0.5, "chunk": 7})
    assert changed.first.rate == 0.5 and changed.chunk == 7
    with pytest.raises(Exception, match=r"strategy\.pich.*did you mean 'pitch'|pich"):
        InStages().changed({"pich": 2})


# -- measurements -----------------------------------------------------------------------------------------------------


def slow_distance(a, b):
    table = [[i + j for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            changed = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, changed)
    return table[-1][-1]


def test_edit_distance_equals_the_plain_table():
    generator = np.random.default_rng(0)
    for _ in range(200):
        a, b = ("".join(generator.choice(list("abc"), generator.integers(0, 9))) for _ in range(2))
        assert edit_distance(a, b) == slow_distance(a, b)
    assert error_rate([("abcd", "abxd"), ("ab", "ab")]) == pytest.approx(1 / 6)
    assert spoken_letters("it's five, o'clock!") == "it's five o'clock"


def test_the_path_of_least_cost():
    cost = np.random.default_rng(1).random((5, 6))

    def best(n, m):
        if n < 0 or m < 0:
            return math.inf
        if n == m == 0:
            return cost[0, 0]
        return cost[n, m] + min(best(n - 1, m), best(n, m - 1), best(n - 1, m - 1))

    path = warp(cost)
    assert path[0] == (0, 0) and path[-1] == (4, 5)
    assert sum(cost[place] for place in path) == pytest.approx(best(4, 5))


def test_a_slower_copy_has_no_distance_and_an_octave_is_twelve():
    mel = np.random.default_rng(2).standard_normal((16, 30))
    slow, hertz = np.repeat(mel, 2, axis=1), np.linspace(100, 200, 30)
    found = distances(mel, slow, hertz, np.repeat(2 * hertz, 2))
    assert found["mcd"] == pytest.approx(0, abs=1e-9) and found["f0"] == pytest.approx(12)
    assert cepstra(mel + 5) == pytest.approx(cepstra(mel))  # loudness is left out
