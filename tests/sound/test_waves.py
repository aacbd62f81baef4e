"""Waves as data, the codec, the objectives on a real loop, evaluation, copy synthesis and the original's files."""

import json
import math
import time

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

import sanbu
from sanbu.cli.main import app
from sanbu.codecs.audio import read_wave, write_wave
from sanbu.codecs.waves import WaveCodec
from sanbu.config import SanbuError
from sanbu.data.sound_files import clips
from sanbu.data.waves import Waves
from sanbu.evaluation import vocoders
from sanbu.interop.hifigan import import_run, is_hifigan
from sanbu.layers.spectrogram import Mel, log_mel, stft
from sanbu.memory.cost import cost
from sanbu.memory.training import estimate
from sanbu.models.vocoders.hifigan import HifiGan
from sanbu.models.vocoders.istft_head import IstftHead
from sanbu.models.vocoders.magnitude_head import MagnitudeHead
from sanbu.models.vocoders.waveglow import WaveGlow
from sanbu.models.vocoders.wavenet import WaveNet
from sanbu.objectives.spectral import Spectral, mel_distance, stft_distance
from sanbu.objectives.wave_game import WaveGame
from sanbu.objectives.wave_likelihood import WaveLikelihood
from sanbu.optimizers.gradient import Adam
from sanbu.recipe import Recipe, Schedule
from sanbu.recipes.vocoders import hifigan, istft_head, vocoder, waveglow, wavenet
from sanbu.strategies.vocoding import Vocoding
from tests.sound.test_spectrogram import speech_like
from tests.sound.test_vocoders import original_names, shaken

MEL = Mel(rate=8000, n_fft=128, hop=32, window=128, mels=16, fmax=4000)
RESOLUTIONS = (256, 128, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("sounds")
    for number in range(12):
        wave = speech_like(0.6 + 0.1 * number, 8000, number)
        write_wave(place / f"{number:02d}.{'flac' if number % 2 else 'wav'}", wave / np.abs(wave).max() / 2, 8000)
    (place / "notes.txt").write_text("not a sound")
    return place


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("SANBU_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def data(folder, **fields):
    return Waves(path=str(folder), mel=MEL, segment=8, validation=0.3, **fields)


def recipe(folder, model, objective, steps=3):
    return Recipe(
        name="tiny", data=data(folder), model=model, objective=objective, optimizer=Adam(learning_rate=2e-3),
        strategy=Vocoding(), machine={"precision": "float32"},
        schedule=Schedule(steps=steps, batch=4, micro_batch=2, evaluate_every=max(1, steps), evaluate_rows=8),
    )  # fmt: skip


# -- data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", ["hifigan", "tacotron2"])
def test_a_segment_and_its_mel_are_cut_from_one_place(folder, convention):
    """The mel of a row is a cut of the mel of its clip where the segment begins on a frame."""
    mel = MEL.model_copy(update={"convention": convention})
    rows = data(folder).model_copy(update={"mel": mel}).build()
    row = rows.held_out(1, 1)
    clip = rows.wave(rows.held_clips[0])
    np.testing.assert_allclose(row["wave"][0].numpy(), clip[256:512], atol=1e-6)
    whole = log_mel(torch.from_numpy(clip)[None], mel)[0, :, 8:16]
    torch.testing.assert_close(row["mel"][0], whole, atol=1e-4, rtol=1e-4)
    assert row["mel"].shape == (1, 16, 8)


def test_rows_are_a_pure_function_of_their_position(folder):
    rows, again = data(folder).build(), data(folder).build()
    whole = rows.batch(0, 10)
    for start, size in [(0, 4), (4, 6)]:
        part = again.batch(start, size)
        assert torch.equal(part["wave"], whole["wave"][start : start + size])
        torch.testing.assert_close(part["mel"], whole["mel"][start : start + size])
    assert rows.fingerprint == again.fingerprint
    assert not torch.equal(whole["wave"], rows.batch(rows.rows, 10)["wave"])


def test_no_clip_is_on_both_sides(folder):
    rows = data(folder).build()
    assert rows.held_clips and not set(rows.held_clips) & set(rows.clips)
    assert len(rows.held_clips) + len(rows.clips) == 12
    segments = sum(len(wave) // 256 for wave in rows.waves)
    assert rows.rows + rows.held_out_rows == segments
    waves = {rows.names[clip] for clip in rows.held_clips}
    assert waves == {"01", "06", "07"} or len(waves) >= 2


def test_normalised_clips_have_one_peak(folder):
    rows, plain = data(folder).build(), data(folder, normalise=False).build()
    assert np.abs(rows.wave(0)).max() == pytest.approx(0.95)
    assert np.abs(plain.wave(0)).max() == pytest.approx(0.5, abs=1e-3)


def test_a_clip_shorter_than_a_segment_is_filled_up(tmp_path):
    for number in range(3):
        write_wave(tmp_path / f"{number}.wav", np.full(50 + number, 0.3, np.float32), 8000)
    rows = data(tmp_path).model_copy(update={"validation": 0.0}).build()
    assert rows.batch(0, 3)["wave"].shape == (3, 256) and rows.held_out_rows == 0


def test_a_damaged_file_in_the_middle_is_named(folder, tmp_path):
    for number in range(3):
        write_wave(tmp_path / f"{number}.wav", speech_like(0.2, 8000), 8000)
    (tmp_path / "1.wav").write_bytes(b"RIFF, but nothing of sound")
    with pytest.raises(SanbuError, match=r"1\.wav cannot be read as sound") as error:
        data(tmp_path).build()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [("nowhere", "does not exist"), ("empty", "has no sound files"), ("x.parquet", "no column 'audio'")],
)
def test_bad_sources_are_one_line(tmp_path, path, said):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "empty").mkdir()
    parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(SanbuError, match=said):
        data(tmp_path / path).build()


def test_parquet_is_read_as_its_files_are(folder, tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    files = sorted(path for path in folder.iterdir() if path.suffix != ".txt")
    table = pyarrow.table({"audio": [path.read_bytes() for path in files]})
    parquet.write_table(table, tmp_path / "x.parquet")
    _, ours, _ = clips(str(tmp_path / "x.parquet"), 8000)
    names, theirs, _ = clips(str(folder), 8000)
    assert names == [path.stem for path in files]
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_built_in_sound_is_spoken_alike_by_a_fresh_process(tmp_path):
    pytest.importorskip("espeakng_loader")
    from sanbu.data.builtin.spoken import VOICES, sentences_of, speak

    lines = [[voice, "A short sentence."] for voice in VOICES]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        speak(lines, tmp_path / name)
        time.sleep(1.1)  # espeak-ng would take another second of the clock as the seed of its noise
    for number in range(len(VOICES)):
        first, second = (tmp_path / name / f"{number:05d}.wav" for name in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
    wave, rate = soundfile.read(tmp_path / "a" / "00000.wav")
    assert rate == 22050 and 0.5 < len(wave) / rate < 3 and np.abs(wave).max() > 0.1
    assert len(set(sentences_of(50))) == 50
    with pytest.raises(SanbuError, match="no voice 'klingonese'"):
        speak([["klingonese", "a"]], tmp_path)


# -- objectives -------------------------------------------------------------------------------------------------------


def test_distances_by_hand():
    """A wave at half the loudness: each log-magnitude differs by log 2, and the relative distance is a half."""
    wave = torch.randn(2, 2048)
    torch.testing.assert_close(
        stft_distance(wave / 2, wave, 256), torch.full((2,), 0.5 + math.log(2)), atol=2e-3, rtol=0
    )
    torch.testing.assert_close(mel_distance(wave / 2, wave, MEL), torch.full((2,), math.log(2)), atol=1e-3, rtol=0)
    assert (stft_distance(wave, wave, 256) == 0).all()


def test_the_game_by_hand(folder):
    """The losses of critics and model from their scores and features, as the paper has them."""
    from sanbu.objectives.objective import Round

    objective = WaveGame(periods=(2,), scales=1, share=0.02, resolutions=RESOLUTIONS).build()
    torch.manual_seed(0)
    model = IstftHead(width=8, layers=1).build(data(folder).space())
    models = {"model": model, **objective.attach(model)}
    batch = data(folder).build().batch(0, 3)
    critic, generator = objective.draw_turns(Round(models, batch, None))
    made = model(batch["mel"])
    real, fake = models["critic"](batch["wave"]), models["critic"](made)
    wanted = sum((a - 1).square().mean(1) + b.square().mean(1) for (a, _), (b, _) in zip(real, fake, strict=True)).sum()
    torch.testing.assert_close(critic.loss(models, batch).sums["rows"], wanted)
    game = sum((b - 1).square().mean(1) for b, _ in fake).sum()
    pairs = [(f, g) for (_, a), (_, b) in zip(real, fake, strict=True) for f, g in zip(a, b, strict=True)]
    features = sum((f - g).abs().flatten(1).mean(1) for f, g in pairs).sum()
    wanted = game + 2 * features + 45 * mel_distance(made, batch["wave"], MEL).sum()
    torch.testing.assert_close(generator.loss(models, batch).sums["rows"], wanted)
    assert [critic.player, generator.player] == ["critic", "model"]


def test_magnitudes_are_compared_inside_the_segment(folder):
    """The loss of a model that says the true magnitudes of the whole clip is 0; frames at the ends are left out."""

    class Oracle(torch.nn.Module):
        mel = MEL

        def magnitudes(self, mel):
            return self.known

    rows, model = data(folder).build(), Oracle()
    batch = rows.held_out(1, 1)
    whole = torch.from_numpy(rows.wave(rows.held_clips[0]))[None]
    model.known = stft(whole, 128, 32, 128, 48)[..., 8:16].abs()
    loss = Spectral().build().loss({"model": model}, batch)
    assert loss.sums["rows"] < 1e-3
    model.known = 2 * model.known
    louder = Spectral().build().loss({"model": model}, batch)
    assert louder.sums["rows"] == pytest.approx(1 + math.log(2), abs=0.05)
    assert loss.metrics["mel_l1"][0] < 1e-3 and louder.metrics["mel_l1"][0] == pytest.approx(math.log(2), abs=0.01)


TRAINED = {
    "magnitudes": (MagnitudeHead(width=8, layers=1, iterations=2), Spectral()),
    "spectral": (IstftHead(width=8, layers=1), Spectral(resolutions=RESOLUTIONS)),
    "game": (
        HifiGan(rates=(8, 4), kernels=(16, 8), width=8, block_kernels=(3,), dilations=((1, 3),)),
        WaveGame(periods=(2, 3), scales=1, share=0.02, resolutions=RESOLUTIONS),
    ),
    "mu-law": (WaveNet(width=8, skip=8, layers=4, cycle=4), WaveLikelihood()),
    "logistics": (WaveNet(width=8, skip=8, layers=4, cycle=4, outputs="logistics", components=2), WaveLikelihood()),
    "waveglow": (WaveGlow(flows=3, early_every=2, layers=2, width=8), WaveLikelihood()),
}


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
        assert (parts[weight] - tensor).abs().mean() < 1e-5, weight  # Adam enlarges rounding of tiny gradients
    loaded = sanbu.load(tmp_path / "run")
    short = speech_like(0.1, 8000)
    first, again = loaded.generate(short, n=2, seed=3), loaded.generate(short, seed=4)
    assert first[0].dtype == np.float32 and np.isfinite(first[0]).all()
    np.testing.assert_allclose(first[1], again, atol=1e-4)  # a level of 16 bits is 3e-5
    if name in ("mu-law", "logistics", "waveglow", "magnitudes"):
        assert not np.array_equal(first[0], first[1])


def test_families_are_kept_apart(folder):
    with pytest.raises(ValueError, match="wave-likelihood"):
        recipe(folder, WaveNet(), Spectral())
    with pytest.raises(ValueError, match="spectral"):
        recipe(folder, IstftHead(), WaveLikelihood())


# -- copies -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("run")
    return sanbu.train(recipe(folder, *TRAINED["spectral"]), place / "run", watchers=[])


def test_copy_synthesis_on_the_command_line(run, folder, tmp_path):
    out = tmp_path / "out.wav"
    source = folder / "03.flac"
    done = CliRunner().invoke(app, ["generate", str(run.folder), "-p", str(source), "--out", str(out)])
    assert done.exit_code == 0, done.output
    true, made = read_wave(source, 8000), read_wave(out, 8000)
    assert len(made) == len(true) // 32 * 32
    done = CliRunner().invoke(app, ["generate", str(run.folder), "-n", "2", "--out", str(tmp_path / "many"), "--json"])
    assert json.loads(done.output)["sounds"] == 2
    assert len(list((tmp_path / "many").glob("*.wav"))) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-p", "nowhere.wav"], "No such file"),
        (["--label", "3"], "a vocoder has no labels"),
        (["-n", "2", "--out", "x.wav"], "give a folder"),
    ],
)
def test_bad_requests_are_one_line(run, arguments, said):
    done = CliRunner().invoke(app, ["generate", str(run.folder), *arguments])
    assert isinstance(done.exception, SanbuError) and said in str(done.exception)


def test_prompts_of_many_lengths(run):
    """A list of sounds is copied as each alone; a mel is a prompt too; a stream gives the same samples."""
    sounds = [speech_like(seconds, 8000) for seconds in (0.3, 0.5)]
    both = run.generate(sounds)
    for sound, copy in zip(sounds, both, strict=True):
        assert len(copy) == len(sound) // 32 * 32
        np.testing.assert_allclose(run.generate(sound), copy, atol=1e-6)
    mel = log_mel(torch.from_numpy(sounds[0])[None], MEL)[0].numpy()
    np.testing.assert_allclose(run.generate(mel), both[0], atol=1e-6)
    pieces = list(run.stream(sounds[1], chunk=5))
    assert len(pieces) > 2
    np.testing.assert_allclose(np.concatenate(pieces), both[1], atol=1e-5)
    with pytest.raises(SanbuError, match=r"given an array \[80, 7\], allowed"):
        run.generate(np.zeros((80, 7), np.float32))
    with pytest.raises(SanbuError, match="of different lengths"):
        run.generate(sounds, chunk=4)


def test_a_run_without_example_says_so():
    with pytest.raises(SanbuError, match="no example of its own"):
        WaveCodec(MEL).condition(None, 1)


def test_evaluation_knows_a_copy_from_noise(folder):
    """A true copy has PESQ 4.64, STOI 1 and distance 0; noise is worse in all three."""
    pytest.importorskip("pesq", reason="pesq has no wheel, and this machine may have no C compiler")
    waves = [speech_like(1.0, 8000, seed) for seed in range(2)]
    same = vocoders.figures(vocoders.Copies(waves, waves, 8000, 0.5), MEL)
    noisy = [wave + 0.1 * np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32) for wave in waves]
    other = vocoders.figures(vocoders.Copies(waves, noisy, 8000, 0.5), MEL)
    assert same["pesq"] == pytest.approx(4.64, abs=0.01) and same["stoi"] == pytest.approx(1, abs=1e-3)
    assert same["mel_l1"] == 0 and same["rtf"] == pytest.approx(0.25)
    assert other["pesq"] < 3 and other["stoi"] < 0.95 and other["mel_l1"] > 0.3


def test_evaluate_measures_a_run_beside_griffin_lim(run, monkeypatch):
    monkeypatch.setattr(vocoders, "CLIPS", 2)
    done = CliRunner().invoke(app, ["evaluate", str(run.folder), "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.output)["rows"]
    assert [row["name"] for row in rows] == [str(run.folder), "griffin-lim, 60 iterations"]
    assert rows[0]["parameters"] > 0 and rows[0]["rtf"] > 0 and rows[1]["rtf"] > 0
    assert rows[1]["mel_l1"] < rows[0]["mel_l1"]  # three steps of training


@pytest.mark.parametrize("make", [vocoder, istft_head, hifigan, wavenet, waveglow])
@pytest.mark.parametrize("size", ["nano", "paper"])
def test_recipes_build(make, size):
    found = make(size)
    with torch.device("meta"):
        model = found.model.build(found.data.space())
    assert sum(each.numel() for each in model.parameters()) > (20_000 if size == "nano" else 4e6)


# -- the original project's files -------------------------------------------------------------------------------------

CONFIG = {
    "resblock": "1", "upsample_rates": [8, 8, 2, 2], "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 32, "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]], "segment_size": 8192, "num_mels": 80,
    "n_fft": 1024, "hop_size": 256, "win_size": 1024, "sampling_rate": 22050, "fmin": 0, "fmax": 8000,
    "fmax_for_loss": None, "learning_rate": 0.0002, "num_workers": 4,
}  # fmt: skip


@pytest.fixture
def original(tmp_path):
    """A folder as the project writes it, and the weights in it."""
    source = tmp_path / "hifigan"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    config = HifiGan(width=32)
    model = shaken(config.build(Waves().space()))
    torch.save({"generator": original_names(model)}, source / "g_00000100")
    return source, model.eval()


def test_the_originals_files_are_imported(original, tmp_path):
    source, model = original
    done = CliRunner().invoke(app, ["import", str(source), "--run", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    run = sanbu.load(tmp_path / "run")
    mel = torch.randn(1, 80, 9)
    torch.testing.assert_close(run.model(mel), model(mel), atol=1e-6, rtol=0)
    assert run.recipe.data.mel == Mel() and run.recipe.data.segment == 32
    copied = run.generate(speech_like(0.3))
    assert len(copied) == int(0.3 * 22050) // 256 * 256


def test_generators_without_norm_are_imported_too(original, tmp_path):
    source, model = original
    plain = {}
    for name, tensor in original_names(model).items():
        if name.endswith("weight_v"):
            g = original_names(model)[name.replace("weight_v", "weight_g")]
            plain[name.replace("weight_v", "weight")] = tensor * (g / tensor.norm(dim=(1, 2), keepdim=True))
        elif not name.endswith("weight_g"):
            plain[name] = tensor
    torch.save({"generator": plain}, source / "g_00000200")
    run = import_run(source, tmp_path / "run")
    mel = torch.randn(1, 80, 9)
    torch.testing.assert_close(run.model(mel), model(mel), atol=1e-5, rtol=0)


class Danger:
    def __reduce__(self):
        return print, ("this ran",)


def test_bad_folders_are_one_line(original, tmp_path, capfd):
    source, _ = original
    cases = {
        "needs a JSON object": lambda: (source / "config.json").write_text('{"upsample_initial_channel": 3}'),
        "product 128, but the hop": lambda: write(source, CONFIG | {"upsample_rates": [8, 4, 2, 2]}),
        "has shape": lambda: write(source, CONFIG | {"upsample_initial_channel": 64}),
        "cannot be read as tensors": lambda: [write(source, CONFIG), torch.save(Danger(), source / "g_00000100")],
        "no generator": lambda: [(source / "g_00000100").unlink()],
    }
    assert is_hifigan(source)
    for number, (said, spoil) in enumerate(cases.items()):
        spoil()
        done = CliRunner().invoke(app, ["import", str(source), "--run", str(tmp_path / f"run{number}")])
        assert isinstance(done.exception, SanbuError) and said in str(done.exception), (said, done.exception)
    assert "this ran" not in capfd.readouterr().out


def write(source, config):
    (source / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("make", [vocoder, istft_head, hifigan, wavenet, waveglow])
def test_memory_and_cost_are_counted_without_a_trace(make):
    """`sanbu show`: memory and FLOPs are counted with hollow tensors, and none of them is kept for later."""
    found = make()
    used = estimate(found, {}, torch.float32)
    assert cost(found).parameters > 20_000
    assert used is not None
    assert log_mel(torch.randn(1, 8192), Mel()).isfinite().all()
