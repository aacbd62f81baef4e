"""Vocoders that are tuned on the mels of an acoustic model."""

import numpy as np
import pytest
import torch

import sanbu
from sanbu.data.speech import Speech
from sanbu.data.speech_waves import SpeechWaves
from sanbu.noise import Noise
from sanbu.objectives.acoustic_copies import AcousticCopies, copied
from sanbu.objectives.objective import Round
from sanbu.objectives.speaking import Speaking
from sanbu.objectives.spectral import Spectral
from sanbu.recipes.speech import tuned_vocoder
from sanbu.run import Run
from sanbu.strategies.vocoding import Vocoding
from sanbu.testing import check_config
from tests.sound.test_speech_models import ACOUSTIC, MEL, SPACE, TALKER, rows
from tests.sound.test_speech_runs import cache, corpus, recipe, runs  # noqa: F401  fixtures
from tests.sound.test_waves import TRAINED

MODELS = {**ACOUSTIC, "attention": TALKER}


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_is_teacher_forcing(name, monkeypatch):
    monkeypatch.setattr("sanbu.models.acoustic.tacotron2.DROPPED", 0.0)
    torch.manual_seed(0)
    model, batch = MODELS[name].build(SPACE).eval(), rows()
    made = model.copy(batch)
    if name == "attention":
        wanted = model(batch["ids"], batch["voice"], batch["mel"], batch["frames"]).mel
    else:
        ready = Speaking().build().experience(Round({"model": model}, batch, Noise(0)))
        given = (ready[each] for each in ("ids", "voice", "durations", "contour", "energy"))
        wanted = model(*given).mel
    torch.testing.assert_close(made, wanted)
    assert made.shape == batch["mel"].shape


def test_without_durations_a_copy_uses_those_of_the_aligner():
    torch.manual_seed(0)
    model, batch = ACOUSTIC["convolutions"].build(SPACE).eval(), rows()
    durations = model.align(batch["ids"], batch["voice"], batch["mel"], batch["frames"])
    without = {name: value for name, value in batch.items() if name != "durations"}
    torch.testing.assert_close(model.copy(without), model.copy({**batch, "durations": durations}))


def test_segments_of_the_mel_and_of_the_wave_have_the_same_times(corpus):  # noqa: F811
    data = SpeechWaves(path=str(corpus), mel=MEL, validation=0.0, segment=6).build()
    batch = data.batch(0, 6)

    class Parrot:
        mel = MEL

        def copy(self, batch):
            return batch["mel"]

    for row, start in enumerate(batch["start"].tolist()):
        number = next(n for n in data.order if data.about[n]["frames"] == int(batch["frames"][row]))
        cut = data.wave(number)[start * MEL.hop : (start + 6) * MEL.hop]
        np.testing.assert_array_equal(batch["wave"][row].numpy(), cut)
    heard = copied(Parrot(), batch)
    for row, start in enumerate(batch["start"].tolist()):
        assert torch.equal(heard["mel"][row], batch["mel"][row, :, start : start + 6])
    again = SpeechWaves(path=str(corpus), mel=MEL, validation=0.0, segment=6).build().batch(2, 1)
    assert torch.equal(again["start"], batch["start"][2:3]) and torch.equal(again["wave"][0], batch["wave"][2])


def test_a_vocoder_is_tuned_and_used(runs, tmp_path):  # noqa: F811
    made = tuned_vocoder("nano", str(runs / "voice"), str(runs / "vocoder"))
    assert made.data.voices == ("ada", "bob") and made.parents["acoustic"] == str(runs / "voice")
    made = made.change(steps=2, batch=2, micro_batch=2).change("data.segment=6", "schedule.evaluate_rows=2")
    run = sanbu.train(made, tmp_path / "tuned", watchers=[])
    before, after = Run.open(runs / "vocoder").model.state_dict(), run.model.state_dict()
    assert before.keys() == after.keys() and not all(torch.equal(before[name], after[name]) for name in before)
    voice = sanbu.load(runs / "voice")
    assert len(voice.generate("One step.", overrides=[f"parents.vocoder={run.folder}"]))


def test_the_game_can_be_tuned_too(runs, corpus, tmp_path):  # noqa: F811
    model, objective = TRAINED["game"]
    data = SpeechWaves(path=str(corpus), mel=MEL, validation=0.5, segment=8)
    parents = {"acoustic": str(runs / "talker")}
    check_config(AcousticCopies(of=objective))
    made = recipe(data, model, AcousticCopies(of=objective), Vocoding(), steps=2, parents=parents)
    assert sanbu.train(made, tmp_path / "tuned", watchers=[]).finished()


def test_the_example_of_a_row_is_as_large_as_a_row():
    config = SpeechWaves()
    assert config.example(2)["wave"].shape == (2, 32 * 256) and set(Speech().example(1)) < set(config.example(1))
    assert AcousticCopies().needs() == ("acoustic",) and isinstance(AcousticCopies().of, Spectral)
