"""FastSpeech distilled from an attention model: durations are the teacher's."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from sanbu.config import SanbuError
from sanbu.models.acoustic.fastspeech2 import ConvolutionalSpeech
from sanbu.models.acoustic.tacotron2 import Tacotron2, Taught
from sanbu.noise import Noise
from sanbu.objectives.distilled_speaking import DistilledSpeaking
from sanbu.objectives.objective import Round
from sanbu.objectives.speaking import Speaking
from sanbu.recipes import speech, vocoders
from sanbu.training import check_needs
from tests.sound.test_speech_models import SPACE, rows

TEACHER = Tacotron2(width=16, recurrent=12, prenet=8, attention=8, postnet=8, reduction=2)
STUDENT = ConvolutionalSpeech(width=16, encoder=1, decoder=1, kernel=3, predictor=8, dropout=0.0)


def teacher_with(weights_BKS):
    """A Tacotron 2 whose attention has these weights."""
    model = TEACHER.build(SPACE).eval()
    model.forward = lambda ids, voice, mel, frames: Taught(mel, mel, mel, weights_BKS)
    return model


def best_by_enumeration(weights_TS, symbols, frames):
    """Every way to give each symbol at least one frame; the one with the largest product of weights."""
    ways = (way for way in itertools.product(range(1, frames + 1), repeat=symbols) if sum(way) == frames)

    def score(way):
        places = [symbol for symbol, count in enumerate(way) for _ in range(count)]
        return sum(float(weights_TS[t, s].clamp(min=1e-6).log()) for t, s in enumerate(places))

    return max(ways, key=score)


def test_durations_are_those_of_the_best_path_through_the_weights():
    batch = rows()
    torch.manual_seed(5)
    weights = torch.randn(3, 5, 5).mul(3).masked_fill(batch["ids"][:, None] == 0, -torch.inf).softmax(2)
    durations = teacher_with(weights).align(batch["ids"], batch["voice"], batch["mel"], batch["frames"])
    for row, (symbols, frames) in enumerate(zip([5, 3, 1], [10, 9, 7], strict=True)):
        spread = weights[row].repeat_interleave(2, 0)
        assert tuple(durations[row, :symbols].tolist()) == best_by_enumeration(spread, symbols, frames)
        assert not durations[row, symbols:].any()


def test_the_loss_is_that_of_speaking_with_the_durations_of_the_teacher():
    batch = rows()
    torch.manual_seed(6)
    weights = torch.randn(3, 5, 5).masked_fill(batch["ids"][:, None] == 0, -torch.inf).softmax(2)
    teacher = teacher_with(weights)
    torch.manual_seed(0)
    models = {"model": STUDENT.build(SPACE), "teacher": teacher}
    own = DistilledSpeaking().build()
    made = own.experience(Round(models, batch, Noise(0)))
    durations = teacher.align(batch["ids"], batch["voice"], batch["mel"], batch["frames"])
    assert not torch.equal(durations, batch["durations"])
    assert torch.equal(made["durations"], durations)
    plain = Speaking().build()
    wanted = plain.experience(Round(models, {**batch, "durations": durations}, Noise(0)))
    for name, value in own.loss(models, made).sums.items():
        torch.testing.assert_close(value, plain.loss(models, wanted).sums[name])


def test_the_recipe_needs_a_teacher():
    with pytest.raises(SanbuError, match=r"parents\.teacher: the objective 'distilled-speaking' needs a run"):
        check_needs(speech.fastspeech(), {})


def test_a_parent_of_another_kind_is_one_line(tmp_path):
    vocoder = SimpleNamespace(recipe=vocoders.vocoder(), folder=tmp_path)
    with pytest.raises(SanbuError, match=r"parents\.teacher: .* is a magnitude-head; allowed: .*tacotron2"):
        check_needs(speech.fastspeech(), {"teacher": vocoder})
    with pytest.raises(SanbuError, match=r"parents\.acoustic: .* is a magnitude-head; allowed: .*flow-speech"):
        check_needs(speech.tuned_vocoder(), {"acoustic": vocoder})
