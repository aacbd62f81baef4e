"""Sound codecs on the real loop: the objective by hand, resumption, evaluation beside ceiling and floors, commands."""

import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import sanbu
from sanbu.checkpoints import Writer
from sanbu.cli.main import app
from sanbu.codecs.audio import read_wave
from sanbu.config import SanbuError
from sanbu.evaluation import sound_codecs
from sanbu.layers.quantizers.fsq import Fsq
from sanbu.layers.quantizers.quantizer import occurrences, use_of
from sanbu.layers.quantizers.rvq import Rvq
from sanbu.layers.spectrogram import log_mel
from sanbu.memory.training import estimate
from sanbu.models.sound_codecs.istft_codec import IstftCodec
from sanbu.models.sound_codecs.magnitude_codec import MagnitudeCodec
from sanbu.models.vocoders.istft_head import IstftHead
from sanbu.noise import Noise
from sanbu.objectives.coding import Coding
from sanbu.objectives.objective import Round
from sanbu.objectives.spectral import Spectral
from sanbu.objectives.wave_game import WaveGame
from sanbu.recipes.codecs import sound_codec
from sanbu.run import Run
from sanbu.testing import check_objective
from tests.sound.test_spectrogram import speech_like
from tests.sound.test_vocoders import shaken
from tests.sound.test_waves import MEL, RESOLUTIONS, cache, data, folder, recipe

__all__ = ["cache", "folder"]  # fixtures

TINY = {"width": 8, "encoder": 1, "decoder": 1}
RVQ, FSQ = Rvq(codebooks=4, size=16, dimensions=4), Fsq(codebooks=2, levels=(4, 4))
PLAIN, GAME = Spectral(resolutions=RESOLUTIONS), WaveGame(periods=(2,), scales=1, share=0.02, resolutions=RESOLUTIONS)
TRAINED = {
    "magnitudes, rvq": (MagnitudeCodec(quantizer=RVQ, iterations=2, **TINY), Coding(of=PLAIN)),
    "magnitudes, fsq": (MagnitudeCodec(quantizer=FSQ, iterations=2, **TINY), Coding(of=PLAIN)),
    "istft, rvq": (IstftCodec(quantizer=RVQ, **TINY), Coding(of=PLAIN)),
    "istft, rvq, game": (IstftCodec(quantizer=RVQ, **TINY), Coding(of=GAME)),
    "istft, fsq, plain game": (IstftCodec(quantizer=FSQ, **TINY), GAME),
}


def built(name, folder):
    torch.manual_seed(0)
    model, objective = TRAINED[name]
    return model.build(data(folder).space()), objective.build()


# -- the objective ----------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_the_sound_plus_commitment(folder):
    model, objective = built("istft, rvq", folder)
    models, batch = {"model": model}, data(folder).build().batch(0, 5)
    experience = objective.experience(Round(models, batch, Noise("round")))
    loss = objective.loss(models, experience)
    found = model.coded(batch["mel"], experience["depths"])
    distance, _ = PLAIN.distance(found.made, batch["wave"], MEL)
    torch.testing.assert_close(loss.sums["rows"], distance + 0.05 * found.quantized.commitment.sum())
    share, perplexity = use_of(occurrences(found.quantized.codes, 16))
    for name, expected in (("codes_used", share.mean()), ("code_perplexity", perplexity.mean())):
        torch.testing.assert_close(loss.metrics[name][0] / loss.metrics[name][1], expected)


@pytest.mark.parametrize("name", [name for name in TRAINED if "plain" not in name])
def test_the_objective_keeps_its_contract(folder, name):
    model, _ = built(name, folder)
    model.quantizer.follow(model.latent(data(folder).build().batch(9, 4)["mel"]), Noise("built"))
    check_objective(TRAINED[name][1], model, data(folder).build().batch(0, 3))


def test_codebooks_follow_in_training_alone(folder):
    model, objective = built("istft, rvq", folder)
    batch = data(folder).build().batch(0, 5)
    before = model.quantizer.codebook.clone()
    held = objective.experience(Round({"model": model}, batch, Noise("round"), learning=False))
    assert torch.equal(model.quantizer.codebook, before) and "depths" not in held
    objective.experience(Round({"model": model}, batch, Noise("round")))
    assert not torch.equal(model.quantizer.codebook, before)


def test_half_of_the_rows_use_fewer_codebooks(folder):
    model, objective = built("istft, rvq", folder)
    batch = {"mel": torch.randn(2000, 16, 2)}
    depths = objective.experience(Round({"model": model}, batch, Noise("round")))["depths"]
    shares = torch.bincount(depths, minlength=5)[1:] / 2000
    torch.testing.assert_close(shares, torch.tensor([0.125, 0.125, 0.125, 0.625]), atol=0.04, rtol=0)


def test_a_vocoder_without_codes_is_refused(folder, tmp_path):
    with pytest.raises(SanbuError, match="this model has no codes; set model=magnitude-codec"):
        sanbu.train(recipe(folder, IstftHead(width=8, layers=1), Coding()), tmp_path / "run", watchers=[])


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(TRAINED))
def test_trains_saves_reloads_and_copies(folder, tmp_path, name):
    """The loss falls, micro-batches change nothing, and a loaded run draws what the seed says."""
    model, objective = TRAINED[name]
    made = recipe(folder, model, objective, 30)
    run = sanbu.train(made, tmp_path / "run", watchers=[])
    losses = [row["loss" if "loss" in row else "model/loss"] for row in run.metrics()]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    whole = sanbu.train(made.change(steps=2, micro_batch=4), tmp_path / "whole", watchers=[]).model.state_dict()
    parts = sanbu.train(made.change(steps=2, micro_batch=1), tmp_path / "parts", watchers=[]).model.state_dict()
    for weight, tensor in whole.items():
        assert (parts[weight].float() - tensor).abs().mean() < 1e-4, weight  # Adam enlarges rounding of tiny gradients
    loaded = sanbu.load(tmp_path / "run")
    short = speech_like(0.1, 8000)
    first, again = loaded.generate(short, n=2, seed=3), loaded.generate(short, seed=4)
    assert first[0].dtype == np.float32 and np.isfinite(first[0]).all()
    np.testing.assert_allclose(first[1], again, atol=1e-5)
    pieces = list(loaded.stream(short, seed=4, chunk=3))
    np.testing.assert_allclose(np.concatenate(pieces), again, atol=1e-5)
    if "plain" not in name:
        last = run.metrics()[-1]
        prefix = "" if "codes_used" in last else "model/"
        assert 0 < last[f"{prefix}codes_used"] <= 1 and last[f"{prefix}code_perplexity"] >= 1


def test_a_codec_resumes_bitwise_with_its_codebooks(folder, tmp_path):
    """6 steps equal 3 and then 3, codebooks and their averages included."""
    made = recipe(folder, *TRAINED["istft, rvq"], steps=6).change(checkpoint_every=3)
    whole, half = (sanbu.train(made, tmp_path / name, watchers=[]) for name in ("whole", "half"))
    shutil.rmtree(Writer(half.folder).checkpoints()[-1])
    resumed = sanbu.train(half.recipe, half.folder, resume=True, watchers=[])
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("codec")
    return sanbu.train(recipe(folder, *TRAINED["magnitudes, rvq"], steps=20), place / "run", watchers=[])


def test_codes_and_back_in_python(run):
    mel = run.codec.condition(speech_like(0.3, 8000), 1)["mel"]
    codes = run.model.encode(mel)
    assert codes.shape == (1, 4, 38) and codes.dtype == torch.int64
    np.testing.assert_allclose(run.model.decode(codes)[0, : 75 * 32], run.generate(speech_like(0.3, 8000)), atol=1e-5)


def test_copies_on_the_command_line(run, folder, tmp_path):
    source, out = folder / "03.flac", tmp_path / "out.wav"
    done = CliRunner().invoke(app, ["generate", str(run.folder), "-p", str(source), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert len(read_wave(out, 8000)) == len(read_wave(source, 8000)) // 32 * 32


def test_evaluate_measures_a_codec_beside_ceiling_and_floors(run, monkeypatch):
    """The model is moved far from its start, so that codes matter."""
    monkeypatch.setattr(sound_codecs, "CLIPS", 3)
    torch.manual_seed(0)
    monkeypatch.setattr(Run, "model", shaken(run.recipe.model.build(run.recipe.data.space()).eval(), 0.3))
    run.model.quantizer.follow(run.model.latent(run.recipe.data.build().held_out(0, 20)["mel"]), Noise("moved"))
    done = CliRunner().invoke(app, ["evaluate", str(run.folder), "--json"])
    assert done.exit_code == 0, done.output
    rows = {row["rank"]: row for row in json.loads(done.output)["rows"]}
    assert list(rows) == ["codec", "first 2 codebooks", "unquantized", "shuffled", "mu-law"]
    bits = 8000 / 64 * 4 * 4
    expected = {"codec": bits, "first 2 codebooks": bits / 2, "shuffled": bits, "mu-law": bits}
    assert {name: 1000 * row["kbps"] for name, row in rows.items() if row["kbps"] is not None} == expected
    distances = [rows[name]["mel_l1"] for name in rows]
    assert len(set(distances)) == 5 and all(map(math.isfinite, distances))
    assert 0 < rows["codec"]["codes_used"] <= 1 < rows["codec"]["perplexity"] <= 16
    text = CliRunner().invoke(app, ["evaluate", str(run.folder)], env={"COLUMNS": "140"}).output
    assert "unquantized" in text and "held-out clips" in text


def test_use_on_held_out_clips_is_counted_exactly(run):
    waves = run.recipe.data.build().held_out_waves(3)
    found = sound_codecs.codebook_use(run.model, MEL, waves)
    codes = torch.cat([run.model.encode(log_mel(torch.from_numpy(wave)[None], MEL)) for wave in waves], 2)
    shares = [len(codes[0, level].unique()) / 16 for level in range(4)]
    assert found["codes_used"] == pytest.approx(np.mean(shares))


def test_the_floor_has_the_bits_it_says():
    wave = speech_like(1.0, 8000)
    copies = sound_codecs.low_rate([wave], MEL, 4 * 2000)
    assert len(copies.made[0]) == 8000 and copies.rate == 8000
    slow = np.fft.rfft(copies.made[0])
    assert (np.abs(slow[1100:]) ** 2).sum() < 1e-2 * (np.abs(slow) ** 2).sum()  # nothing above half of 2000 Hz


@pytest.mark.parametrize("size", ["nano", "large"])
def test_recipes_build_and_are_counted(size):
    found = sound_codec(size)
    with torch.device("meta"):
        model = found.model.build(found.data.space())
    assert sum(each.numel() for each in model.parameters()) > (1e6 if size == "nano" else 2e7)
    assert estimate(found.change(batch=4), {}, torch.float32)


def test_the_judge_reads_copies_of_its_own_sentences():
    """A judge that hears only what is loud: true sound is read without error, silent copies not at all."""
    texts = ["one two", "three four"]
    rows = SimpleNamespace(held=[0, 1], wave=lambda row: speech_like(0.3, 8000, row), letters=lambda row: texts[row])

    def listen(wave):
        found = [row for row in rows.held if len(wave) == len(rows.wave(row)) and np.allclose(wave, rows.wave(row))]
        return texts[found[0]] if found else ""

    source = SimpleNamespace(build=lambda: rows, mel=MEL)
    judge = SimpleNamespace(recipe=SimpleNamespace(data=source), generate=listen)
    silent = sound_codecs.heard(judge, lambda mel: torch.zeros(1, MEL.samples(mel.shape[2])))
    assert (silent["cer"], silent["cer_ceiling"]) == (1, 0)
    assert sound_codecs.heard(None, lambda mel: mel) == {"cer": None}
