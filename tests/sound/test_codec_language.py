"""Language models of codes: the delay pattern, the loss by hand, drawing against teacher forcing, bad input."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import sanbu
from sanbu.cli.main import app
from sanbu.codecs.audio import read_wave
from sanbu.config import ConfigError, SanbuError
from sanbu.data.sounds import Sounds
from sanbu.layers.delays import delayed, taught, undelayed
from sanbu.layers.spectrogram import log_mel
from sanbu.models.codes.code_transformer import CodeTransformer
from sanbu.noise import Noise
from sanbu.objectives.next_code import NextCode
from sanbu.objectives.objective import Round
from sanbu.optimizers.gradient import Adam
from sanbu.recipe import Recipe, Schedule
from sanbu.recipes.codecs import codec_language
from sanbu.space import Space
from sanbu.strategies.codes import Codes
from sanbu.strategies.strategy import generate
from sanbu.testing import check_model, check_objective, check_strategy
from tests.sound.test_codec_models import SEEDS, SPACE, built
from tests.sound.test_codec_runs import TRAINED
from tests.sound.test_spectrogram import speech_like
from tests.sound.test_vocoders import shaken
from tests.sound.test_waves import MEL, cache, folder, recipe

__all__ = ["cache", "folder"]  # fixtures

TINY = CodeTransformer(codebooks=3, codes=12, layers=2, heads=2, width=16, context=64)


def language(seed=0, space=SPACE):
    torch.manual_seed(seed)
    return shaken(TINY.build(space).eval().requires_grad_(False), 0.3)


# -- delays -----------------------------------------------------------------------------------------------------------


def test_the_pattern_by_hand():
    codes = torch.tensor([[[1, 2, 3], [4, 5, 6], [7, 8, 9]]])
    assert delayed(codes, torch.tensor([3]), 0)[0].tolist() == [
        [1, 2, 3, 0, 0, 0],
        [0, 4, 5, 6, 0, 0],
        [0, 0, 7, 8, 9, 0],
    ]
    assert taught(delayed(codes, torch.tensor([2]), 0), torch.tensor([2])).int()[0].tolist() == [
        [1, 1, 1, 0, 0, 0],  # two codes and the end
        [0, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
    ]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 8), st.integers(0, 12), st.lists(st.integers(0, 12), min_size=1, max_size=4), st.integers(0, 99))
def test_undelayed_is_the_inverse(codebooks, frames, lengths, seed):
    torch.manual_seed(seed)
    codes = torch.randint(0, 9, (len(lengths), codebooks, frames))
    lengths = torch.tensor(lengths).clamp(max=frames)
    sequence = delayed(codes, lengths, 9)
    assert sequence.shape == (len(lengths), codebooks, frames + codebooks)
    back = undelayed(sequence)
    inside = torch.arange(frames) < lengths[:, None, None]
    assert torch.equal(back, torch.where(inside, codes, 9))
    learnt = taught(sequence, lengths)
    assert torch.equal(learnt.sum((1, 2)), codebooks * lengths + 1)
    assert (sequence[learnt] != 9).sum() == codebooks * lengths.sum()


# -- the model and the loss -------------------------------------------------------------------------------------------


def test_the_model_keeps_its_contract():
    check_model(TINY, SPACE, (torch.randint(0, 13, (2, 3, 9)),))


def test_embeddings_of_a_step_are_added_and_each_codebook_has_its_own_head():
    model = language()
    before = torch.randint(0, 13, (1, 3, 1))
    x = sum(model.decoder.embedding.tokens.weight[13 * k + before[0, k, 0]] for k in range(3))[None, None]
    sight_free = model.decoder.blocks  # one step attends to itself alone, so attention is its value
    for block in sight_free.values():
        attention = block.attention
        x = x + attention.out(attention.value(block.attention_norm(x)))
        x = x + block.mlp(block.mlp_norm(x))
    weight = model.decoder.head.weight
    expected = torch.stack([model.decoder.norm(x) @ weight[13 * k : 13 * k + 13].T for k in range(3)], 1)
    torch.testing.assert_close(model(before), expected, atol=1e-5, rtol=1e-5)


def test_the_future_does_not_change_the_past():
    model, codes = language(), torch.randint(0, 12, (1, 3, 20))
    other = codes.clone()
    other[:, :, 9:] = (other[:, :, 9:] + 1) % 12
    first, second = model(model.shifted(codes)), model(model.shifted(other))
    torch.testing.assert_close(first[:, :, :10], second[:, :, :10], atol=1e-6, rtol=0)
    assert not torch.allclose(first[:, :, 10:], second[:, :, 10:])


def test_the_loss_is_over_the_codes_of_a_row_and_its_end():
    model, codes = language(), torch.randint(0, 12, (2, 3, 6))
    batch = {"codes": codes, "code_frames": torch.tensor([6, 4])}
    loss = NextCode().build().loss({"model": model}, batch)
    total = 0.0
    for row, frames in enumerate((6, 4)):
        sequence = delayed(codes[row : row + 1], torch.tensor([frames]), 12)
        logs = model(model.shifted(sequence)).log_softmax(-1)[0]
        for k in range(3):
            total -= sum(logs[k, k + f, codes[row, k, f]] for f in range(frames))
        total -= logs[0, frames, 12]
    torch.testing.assert_close(loss.sums["codes"], total, atol=1e-3, rtol=1e-5)
    assert NextCode().build().count(batch) == {"codes": 3 * 10 + 2}
    assert sum(count for _, count in loss.metrics.values()) == 32


def test_what_lies_beyond_a_row_does_not_count():
    model, codes = language(), torch.randint(0, 12, (1, 3, 6))
    other = codes.clone()
    other[:, :, 4:] = 3
    frames = torch.tensor([4])
    losses = [
        NextCode().build().loss({"model": model}, {"codes": each, "code_frames": frames}).sums["codes"]
        for each in (codes, other, codes[:, :, :4])
    ]
    assert losses[0] == losses[1]
    torch.testing.assert_close(losses[0], losses[2])


def test_the_objective_keeps_its_contract():
    codec, batch = built("magnitude"), {"mel": torch.randn(3, 8, 9), "frames": torch.tensor([9, 5, 2])}
    check_objective(NextCode(), language(), batch, {"codec": codec})
    experience = NextCode().build().experience(Round({"model": language(), "codec": codec}, batch, Noise("x")))
    assert experience["code_frames"].tolist() == [5, 3, 1]
    assert torch.equal(experience["codes"], codec.encode(batch["mel"]))
    kept = NextCode().build().fixed({"model": language(), "codec": codec}, batch)
    again = NextCode().build().experience(Round({}, batch | kept, Noise("x")))
    assert torch.equal(again["codes"], kept["codes"])


# -- drawing ----------------------------------------------------------------------------------------------------------


def drawn(config, condition, seeds=SEEDS, model=None, codec=None):
    models = {"model": model or language(), "codec": codec or built("magnitude")}
    drafts = list(generate(config.build(SPACE), models, condition, seeds))
    return drafts[-1], models


NOTHING = {"mel": torch.zeros(2, 8, 0), "frames": torch.zeros(2, dtype=torch.long)}
SECONDS = 40 * 32 / 8000  # 40 frames of codes


@pytest.mark.parametrize("fields", [{}, {"temperature": 0}, {"top_k": 4, "temperature": 0.7}])
def test_drawing_equals_teacher_forcing(fields):
    """The log-probabilities of a drawing are those of one pass over what was drawn; the greedy one takes the best."""
    last, models = drawn(Codes(seconds=SECONDS, **fields), NOTHING)
    model, codes, frames = models["model"], last.record["codes"], last.record["code_frames"]
    sequence = delayed(codes, frames, 12)
    whole = model(model.shifted(sequence)).log_softmax(-1)
    learnt = taught(sequence, frames)
    learnt[:, 0] &= torch.arange(sequence.shape[2]) < 40  # the limit is no end that was drawn
    found = last.record["logprobs"][:, :, : sequence.shape[2]]
    exact = whole.gather(3, sequence[..., None])[..., 0]
    torch.testing.assert_close(found[learnt], exact[learnt], atol=1e-5, rtol=0)
    if fields.get("temperature") == 0:
        best = whole.clone()
        best[:, 1:, :, 12] = -torch.inf
        best[:, 0, 0, 12] = -torch.inf
        assert torch.equal(best.argmax(-1)[learnt], sequence[learnt])
    torch.testing.assert_close(
        models["codec"].decode(codes[:1, :, : frames[0]], SEEDS[:1])[0], last.sample[0][last.committed[0]]
    )


def test_codes_are_drawn_with_the_chances_of_the_model():
    """The first code of 4,000 rows against the softmax, empty left out: a chi-square test at 5 deviations."""
    seeds = torch.arange(4000)
    condition = {"mel": torch.zeros(4000, 8, 0), "frames": torch.zeros(4000, dtype=torch.long)}
    strategy, models = Codes(seconds=SECONDS).build(SPACE), {"model": language(), "codec": built("magnitude")}
    state = strategy.advance(models, strategy.begin(condition, seeds))
    first = state.sequence[:, 0, 0]
    logits = models["model"](torch.full((1, 3, 1), 12))[0, 0, 0, :12]
    expected = 4000 * logits.softmax(0)
    counts = torch.bincount(first, minlength=12)
    big = expected > 5
    assert ((counts - expected)[big] ** 2 / expected[big]).sum() < 11 + 5 * 22**0.5


def test_a_row_ends_where_the_first_codebook_is_empty():
    """A model that always ends after some frames gives sounds of that length, not a sample more."""

    class Ending(torch.nn.Module):
        codebooks, empty, context = 3, 12, 64

        def __init__(self):
            super().__init__()
            self.inner = language()

        def cache(self, rows, slots):
            return self.inner.cache(rows, slots)

        def shifted(self, sequence):
            return self.inner.shifted(sequence)

        def forward(self, before, positions=None, cache=None):
            logits = self.inner(before, positions, cache)
            logits[:, 0, :, 12] = torch.where(positions == 7, 1e4, -1e4)
            return logits

    last, _ = drawn(Codes(seconds=SECONDS), NOTHING, model=Ending())
    assert last.record["code_frames"].tolist() == [7, 7]
    assert last.sample.shape == (2, 7 * 32) and last.record["frames"].tolist() == [14, 14]
    assert (last.record["codes"][:, :, :7] < 12).all() and (last.record["codes"][:, :, 7:] == 12).all()


def test_a_prompt_is_kept_and_continued():
    codec, mel = built("magnitude"), torch.randn(2, 8, 20)
    condition = {"mel": mel, "frames": torch.tensor([20, 9])}
    last, _ = drawn(Codes(seconds=SECONDS), condition)
    codes = codec.encode(mel)
    assert torch.equal(last.record["codes"][0, :, :10], codes[0])
    assert torch.equal(last.record["codes"][1, :, :4], codes[1, :, :4])
    assert (last.record["code_frames"] >= torch.tensor([10, 5])).all()
    other, _ = drawn(Codes(seconds=SECONDS), condition, seeds=SEEDS + 9)
    assert torch.equal(other.record["codes"][0, :, :10], codes[0])
    assert not torch.equal(other.record["codes"], last.record["codes"])


@pytest.mark.parametrize("chunk", [0, 1, 5])
def test_strategies_keep_their_contract(chunk):
    condition = {"mel": torch.randn(2, 8, 6), "frames": torch.tensor([6, 3])}
    models = {"model": language(), "codec": built("istft, stride 3")}
    check_strategy(Codes(seconds=20 * 48 / 8000, chunk=chunk), models, SPACE, condition)


@pytest.mark.parametrize("name", ["magnitude", "istft, stride 3"])
def test_a_streamed_sound_equals_the_whole(name):
    codec = built(name)
    whole, _ = drawn(Codes(seconds=SECONDS), NOTHING, codec=codec)
    streamed, _ = drawn(Codes(seconds=SECONDS, chunk=4), NOTHING, codec=codec)
    torch.testing.assert_close(streamed.sample, whole.sample, atol=1e-5, rtol=0)


# -- data -------------------------------------------------------------------------------------------------------------


def test_rows_are_whole_sounds(folder):
    rows = Sounds(path=str(folder), mel=MEL, seconds=10, validation=0.3).build()
    assert rows.rows + rows.held_out_rows == 12
    batch = rows.batch(0, rows.rows)
    assert sorted(batch["row"].tolist()) == list(range(rows.rows))
    for row, number in enumerate(batch["row"].tolist()):
        wave = rows.wave(rows.cuts[number])
        frames = int(batch["frames"][row])
        assert frames == len(wave) // 32
        torch.testing.assert_close(batch["mel"][row, :, :frames], log_mel(torch.from_numpy(wave)[None], MEL)[0])
        assert (batch["mel"][row, :, frames:] == np.log(np.float32(1e-5))).all()


def test_long_sounds_give_several_rows_and_short_rests_are_left_out(folder):
    config = Sounds(path=str(folder), mel=MEL, seconds=0.5, validation=0.0)
    rows = config.build()
    size = config.frames() * 32
    for clip, wave in enumerate(rows.waves):
        mine = [cut for cut in rows.cuts if cut[0] == clip]
        whole, rest = divmod(len(wave), size)
        assert len(mine) == whole + (rest >= size / 4)
        assert [cut[1] for cut in mine] == [size * number for number in range(len(mine))]


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codec(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("parent")
    return sanbu.train(recipe(folder, *TRAINED["magnitudes, rvq"], steps=3), place / "codec", watchers=[])


def talking(folder, codec, steps=40, **fields):
    model = CodeTransformer(codebooks=4, codes=16, layers=1, heads=2, width=16, context=128, **fields)
    return Recipe(
        name="talk", data=Sounds(path=str(folder), mel=MEL, seconds=0.4, validation=0.3), model=model,
        objective=NextCode(), optimizer=Adam(learning_rate=1e-2), strategy=Codes(seconds=0.4),
        parents={"codec": str(codec.folder)}, machine={"precision": "float32"},
        schedule=Schedule(
            steps=steps, batch=4, micro_batch=2, evaluate_every=steps, evaluate_rows=4, sample_every=steps
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(folder, codec, tmp_path_factory):
    return sanbu.train(talking(folder, codec), tmp_path_factory.mktemp("talk") / "run", watchers=[])


def test_trains_on_codes_that_are_computed_once(run, folder, codec, tmp_path, monkeypatch):
    """The loss falls; a run that repeats its rows encodes each once; micro-batches change nothing."""
    losses = [row["loss"] for row in run.metrics()]
    assert np.mean(losses[-5:]) < 0.8 * losses[0] and losses[0] == pytest.approx(np.log(17), rel=0.05)
    from sanbu.models.sound_codecs.sound_codec import SoundCodec

    encoded, plain = [], SoundCodec.encode
    monkeypatch.setattr(SoundCodec, "encode", lambda self, mel: encoded.append(len(mel)) or plain(self, mel))
    made = talking(folder, codec, steps=20).change(evaluate_every=0, sample_every=0)
    whole = sanbu.train(made, tmp_path / "whole", watchers=[])
    assert sum(encoded) == 4 * -(-made.data.build().rows // 4)  # the last part has as many rows as the others
    parts = sanbu.train(made.change(steps=2, micro_batch=1), tmp_path / "parts", watchers=[])
    assert parts.metrics()[0]["loss"] == pytest.approx(whole.metrics()[0]["loss"], rel=1e-5)


def test_sound_from_nothing_and_from_a_beginning(run, folder, tmp_path):
    first, again = run.generate(n=2, seed=3), run.generate(seed=4)
    assert first[0].dtype == np.float32 and 0 < len(first[0]) <= 0.4 * 8000
    np.testing.assert_allclose(first[1], again, atol=1e-5)
    assert not np.array_equal(first[0], first[1])
    np.testing.assert_allclose(np.concatenate(list(run.stream(seed=4, chunk=2))), again, atol=1e-5)
    beginning = speech_like(0.2, 8000)
    assert len(run.generate(beginning, seed=1)) >= 0.2 * 8000 // 64 * 64
    out = tmp_path / "out.wav"
    done = CliRunner().invoke(app, ["generate", str(run.folder), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert len(read_wave(out, 8000)) == len(run.generate())


def test_evaluation_gives_nats_per_code(run):
    done = CliRunner().invoke(app, ["evaluate", str(run.folder), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert 0 < found["codebook_4"] < np.log(17) * 1.2 and found["rows"] > 0


def test_a_prompt_as_long_as_the_sound_is_one_line(run):
    with pytest.raises(SanbuError, match=r"strategy.seconds: given 0.4, but the prompt is of 1.0 seconds"):
        run.generate(speech_like(1.0, 8000))
    with pytest.raises(SanbuError, match=r"strategy.seconds: given 9, allowed: at most 1.0, the context"):
        run.generate(seconds=9)
    with pytest.raises(SanbuError, match="label"):
        run.codec.request(None, "3")
    with pytest.raises(SanbuError, match="given sounds and None together"):
        run.generate([None, speech_like(0.2, 8000)])


def test_parents_that_do_not_fit_are_one_line(folder, codec, run, tmp_path):
    with pytest.raises(SanbuError, match="needs a run here: parents.codec=RUN"):
        sanbu.train(talking(folder, codec).change(parents={}), tmp_path / "a", watchers=[])
    with pytest.raises(SanbuError, match="parents.codec: given a run without codes"):
        sanbu.train(talking(folder, run), tmp_path / "b", watchers=[])
    with pytest.raises(SanbuError, match="4 codebooks of 16 codes, but the model has 3 of 16; set model.codebooks=4"):
        sanbu.train(talking(folder, codec).change("model.codebooks=3"), tmp_path / "c", watchers=[])
    other = MEL.model_copy(update={"hop": 64})
    made = talking(folder, codec)
    made = made.change(data=made.data.model_copy(update={"mel": other}))
    with pytest.raises(SanbuError, match="has another mel than this run: hop 32 against 64"):
        sanbu.train(made, tmp_path / "d", watchers=[])


def test_the_recipe_takes_codebooks_and_mel_of_its_codec(codec, run):
    found = codec_language(codec=str(codec.folder))
    assert (found.model.codebooks, found.model.codes, found.data.mel) == (4, 16, MEL)
    assert found.parents == {"codec": str(codec.folder)}
    with pytest.raises(ConfigError, match="is no sound codec: its model is 'code-transformer'"):
        codec_language(codec=str(run.folder))


@pytest.mark.parametrize("size", ["nano", "large"])
def test_recipes_build(size):
    found = codec_language(size)
    with torch.device("meta"):
        model = found.model.build(found.data.space())
    assert sum(each.numel() for each in model.parameters()) > (2e6 if size == "nano" else 3e8)


def test_the_model_needs_sounds():
    with pytest.raises(ValueError, match="set data=sounds"):
        TINY.check(Space((3,)))
