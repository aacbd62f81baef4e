"""Parity with diffusers: the same outputs from the same weights, exported pipelines, and equal scheduler steps."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch

from sanbu.checkpoints import Writer
from sanbu.config import override
from sanbu.files import weights
from sanbu.interop.diffusers import export_folder, import_run
from sanbu.interop.diffusers_folder import identity
from sanbu.interop.huggingface import InteropError
from sanbu.models.denoisers.dit import DiT
from sanbu.noise import normal_at
from sanbu.paths import Betas, LinearPath
from sanbu.recipe import Recipe
from sanbu.recipes import images
from sanbu.run import Run
from sanbu.strategies.samplers import SAMPLERS, Memory
from sanbu.strategies.strategy import generate, last

diffusers = pytest.importorskip("diffusers")
diffusers.utils.logging.set_verbosity_error()

UNETS = {
    "unet": ["model.multipliers=[1,2]", "model.attention=[1]", "model.layers=2", "model.groups=4", "model.width=8"],
    "wide": [
        "model.multipliers=[1,2,2]",
        "model.attention=[0,2]",
        "model.head_width=4",
        "model.groups=4",
        "model.width=8",
    ],
}


def made(recipe: Recipe, folder) -> Run:
    """A run with random weights, all of them moved from their initial values."""
    torch.manual_seed(0)
    recipe = recipe.resolve()
    run = Writer.create(folder, recipe, recipe.data.codec(folder).save)
    model = recipe.model.build(recipe.data.space())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    run.save_model(model)
    return Run.open(run.folder)


def pipeline(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = diffusers.DiffusionPipeline.from_pretrained(str(folder))
    loaded.set_progress_bar_config(disable=True)
    return loaded


def same_weights(first, second):
    a, b = weights(first.model), weights(second.model)
    assert a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


@pytest.mark.parametrize("name", UNETS)
@pytest.mark.parametrize("label", [None, "3"])
def test_unet(name, label, tmp_path):
    run = made(override(images.ddpm(), UNETS[name]), tmp_path / "run")
    export_folder(run, tmp_path / "out", label)
    loaded = pipeline(tmp_path / "out")
    x, clock = torch.randn(3, 1, 8, 8), torch.tensor([999, 500, 0])
    number = torch.full((3,), 10 if label is None else int(label))
    with torch.no_grad():
        ours, theirs = run.model(x, (clock + 1) / 1000, number), loaded.unet(x, clock).sample
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    same_weights(run, import_run(tmp_path / "out", tmp_path / "back"))


def drawn_there(loaded, x):
    """DDIM with 10 trailing steps from x by a pipeline's scheduler."""
    loaded.scheduler.set_timesteps(10)
    with torch.no_grad():
        for t in loaded.scheduler.timesteps:
            x = loaded.scheduler.step(loaded.unet(x, t).sample, t, x).prev_sample
    return x


def drawn_here(run, label, steps=10, sampler="ddim"):
    """Two pictures of a run from the noise of seeds 0 and 1."""
    recipe = override(run.recipe, [f"strategy.steps={steps}", f"strategy.sampler={sampler}"])
    strategy = recipe.strategy.build(recipe.data.space())
    return last(generate(strategy, run.models, {"label": torch.full((2,), label)}, torch.arange(2))).sample


@pytest.mark.parametrize("target", ["noise", "clean", "rotation"])
@pytest.mark.parametrize("clip", [True, False])
def test_a_ddpm_pipeline_draws_what_we_draw(target, clip, tmp_path):
    """The same pixels from the same noise, clipped or not, and again when the pipeline alone comes back.

    With random weights, the clean estimate of a noise target divides rounding errors by an alpha of 0.006.
    """
    assert images.ddpm().strategy.clip
    given = [*UNETS["unet"], f"model.target={target}", f"strategy.clip={str(clip).lower()}"]
    run = made(override(images.ddpm(), given), tmp_path / "run")
    export_folder(run, tmp_path / "out")
    loaded = pipeline(tmp_path / "out")
    assert loaded.scheduler.config.clip_sample is clip
    theirs = drawn_there(loaded, normal_at(torch.arange(2), 0, 1, 8, 8))
    error = {"rtol": 0, "atol": float(theirs.abs().max()) * (5e-3 if target == "noise" else 2e-4)}
    torch.testing.assert_close(drawn_here(run, 10), theirs, **error)
    assert float(theirs.abs().max()) <= 1 or not clip
    assert loaded(batch_size=2, num_inference_steps=3, output_type="np").images.shape == (2, 8, 8, 1)
    (tmp_path / "out" / "sanbu.json").unlink()
    back = import_run(tmp_path / "out", tmp_path / "back")
    assert back.recipe.strategy.clip is clip
    torch.testing.assert_close(drawn_here(back, 0), theirs, **error)


@pytest.mark.parametrize("clip", [True, False])
def test_ancestral_draws_are_those_of_ddpm(clip, tmp_path, monkeypatch):
    """All 20 steps of a chain, with the same noise in each: a clipped estimate gives the mean of the posterior."""
    theirs = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=20, beta_end=0.2, clip_sample=clip)
    diffusers.DDPMPipeline(theirs, scheduler).save_pretrained(tmp_path / "theirs")
    run, seeds = import_run(tmp_path / "theirs", tmp_path / "run"), torch.arange(2)
    fresh = iter(normal_at(seeds, 2 * step + 1, 1, 8, 8) for step in range(20))
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: next(fresh))
    x = normal_at(seeds, 0, 1, 8, 8) * (1 - scheduler.alphas_cumprod[-1]).sqrt()
    scheduler.set_timesteps(20)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(theirs(x, t).sample, t, x).prev_sample
    ours = drawn_here(run, 0, steps=20, sampler="ancestral")
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-3 * float(x.abs().max()))


@pytest.mark.parametrize("clip", [True, False])
def test_a_guided_dit_pipeline_draws_what_we_draw(clip, tmp_path):
    """Labels, guidance and clipping together, through the whole pipeline."""
    small = ["model.width=32", "model.heads=2", "model.layers=2", "model.target=clean"]
    run = made(override(images.dit(), [*small, f"strategy.clip={str(clip).lower()}"]), tmp_path / "run")
    export_folder(run, tmp_path / "out")
    how = {"guidance_scale": 3.0, "num_inference_steps": 5, "generator": torch.Generator().manual_seed(3)}
    theirs = pipeline(tmp_path / "out")([1, 2], output_type="np", **how).images
    strategy = override(run.recipe, ["strategy.steps=5", "strategy.guidance=3", "strategy.sampler=ddim"]).strategy
    walk = strategy.build(run.recipe.data.space())
    state = walk.begin({"label": torch.tensor([1, 2])}, torch.arange(2))
    state.x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for _ in range(5):
            state = walk.advance(run.models, state)
    ours = state.x.clamp(-1, 1).permute(0, 2, 3, 1).numpy() / 2 + 0.5
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_a_flow_unet_goes_to_flow_matching(tmp_path):
    recipe = override(images.flow(), ["model=unet", *UNETS["unet"]])
    run = made(recipe, tmp_path / "run")
    export_folder(run, tmp_path / "out")
    loaded = pipeline(tmp_path / "out")
    noise = normal_at(torch.arange(2), 0, 1, 8, 8)
    loaded.scheduler.set_timesteps(sigmas=[1 - k / 8 for k in range(8)])
    x = noise.clone()
    with torch.no_grad():
        for t in loaded.scheduler.timesteps:
            x = loaded.scheduler.step(loaded.unet(x, t).sample, t, x).prev_sample
    strategy = override(run.recipe, ["strategy.steps=8"]).strategy.build(run.recipe.data.space())
    ours = last(generate(strategy, run.models, {"label": torch.full((2,), 10)}, torch.arange(2))).sample
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-4)
    assert loaded(batch_size=2, num_inference_steps=3, output_type="np").images.shape == (2, 8, 8, 1)
    same_weights(run, import_run(tmp_path / "out", tmp_path / "back"))


def test_dit(tmp_path):
    recipe = override(images.dit(), ["model.width=32", "model.heads=2", "model.layers=2"])
    run = made(recipe, tmp_path / "run")
    export_folder(run, tmp_path / "out")
    loaded = pipeline(tmp_path / "out")
    x, clock, label = torch.randn(3, 1, 8, 8), torch.tensor([999, 500, 0]), torch.tensor([0, 7, 10])
    with torch.no_grad():
        ours = run.model(x, (clock + 1) / 1000, label)
        theirs = loaded.transformer(x, timestep=clock, class_labels=label).sample
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        # the identity as an autoencoder
        torch.testing.assert_close(loaded.vae.decode(x).sample, x, rtol=0, atol=2e-4)
    drawn = loaded(class_labels=[1, 2], guidance_scale=4.0, num_inference_steps=3, output_type="np").images
    assert drawn.shape == (2, 8, 8, 1)
    same_weights(run, import_run(tmp_path / "out", tmp_path / "back"))


def test_autoencoder(tmp_path):
    base = [
        "data.classes=0", "model=autoencoder", "model.width=8", "model.groups=4", "model.layers=1", "model.latent=2",
        "schedule.batch=4",
    ]  # fmt: skip
    run = made(override(images.vae(), base), tmp_path / "run")
    export_folder(run, tmp_path / "out")
    loaded = pipeline(tmp_path / "out")
    levels, label = torch.randint(0, 17, (3, 1, 8, 8)), torch.zeros(3, dtype=torch.long)
    z = torch.randn(3, *run.model.latent)
    with torch.no_grad():
        mean, log_deviation = run.model.encode(levels, label)
        theirs = loaded.vae.encode(levels / 8 - 1).latent_dist
        torch.testing.assert_close(mean, theirs.mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(log_deviation.exp(), theirs.std, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(run.model.decoder(z, label), loaded.vae.decode(z).sample, rtol=1e-4, atol=1e-5)
    generator = torch.Generator().manual_seed(5)
    drawn = loaded([0, 0], guidance_scale=1.0, generator=generator, num_inference_steps=1, output_type="np").images
    noise = torch.randn(2, *run.model.latent, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ours = run.model.decoder(noise, label[:2]).clamp(-1, 1).permute(0, 2, 3, 1).numpy() / 2 + 0.5
    np.testing.assert_allclose(drawn, ours, atol=1e-3)
    same_weights(run, import_run(tmp_path / "out", tmp_path / "back"))


def test_the_identity_is_one_for_colour_too():
    part = identity(3, 4)
    vae = diffusers.AutoencoderKL(**part.config)
    vae.load_state_dict(part.tensors)
    x = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(vae.decode(x).sample, x, rtol=0, atol=3e-4)


def test_what_has_no_equal_is_refused(tmp_path):
    edm = made(images.edm(), tmp_path / "edm")
    with pytest.raises(InteropError, match="no pipeline for 'skip-perceptron'"):
        export_folder(edm, tmp_path / "out")
    other = made(override(images.edm(), ["model=unet", "model.path=exploding", *UNETS["unet"]]), tmp_path / "unet")
    with pytest.raises(InteropError, match="does not support the path 'exploding'"):
        export_folder(other, tmp_path / "out")
    told = made(override(images.ddpm(), ["data.drop_label=0", *UNETS["unet"]]), tmp_path / "told")
    with pytest.raises(InteropError, match="give --label"):
        export_folder(told, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- schedulers --------------------------------------------------------------------------------------------------------


class Linear64(torch.nn.Module):
    """A fixed network that depends on x and the time."""

    def forward(self, x, clock):
        return 0.3 * x.roll(1, -1) + 0.1 * torch.sin(torch.as_tensor(clock, dtype=x.dtype) / 300) + 0.05 * torch.tanh(x)


def exactly(scheduler):
    """Give a scheduler its alphas in float64, so that the tolerance can be tight.

    Step counts that do not divide 1000 are not comparable: diffusers rounds the stride, and then does not step to the
    next time of its own grid.
    """
    scheduler.alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    return scheduler


def theirs_walk(scheduler, steps, x, **how):
    scheduler.set_timesteps(steps, **how)
    net = Linear64()
    draws = torch.Generator().manual_seed(1)
    for t in scheduler.timesteps:
        out = net(scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x, t)
        extra = {"generator": draws} if "generator" in scheduler.step.__code__.co_varnames else {}
        x = scheduler.step(out, t, x, **extra).prev_sample
    return x


def ours_walk(sampler, path, target, steps, x):
    from sanbu.paths import TARGETS, solve

    draws = torch.Generator().manual_seed(1)

    def denoise(x, t):
        t_B = torch.full((len(x),), t, dtype=torch.float64)
        return solve(path, TARGETS[target](path, t_B, 0.5), x, Linear64()(x, float(path.clock(t_B)[0])), t_B)

    memory, times = Memory(torch.zeros_like(x)), path.grid(steps).tolist()
    fresh = lambda: torch.randn(memory.clean.shape, generator=draws, dtype=memory.clean.dtype)
    for t, s in pairwise(times):
        x = SAMPLERS[sampler](denoise, path, x, t, s, memory, fresh)
    return x


@pytest.mark.parametrize("steps", [10, 50, 1000])
@pytest.mark.parametrize(
    ("target", "prediction"), [("noise", "epsilon"), ("clean", "sample"), ("rotation", "v_prediction")]
)
def test_ddim(steps, target, prediction):
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    scheduler = diffusers.DDIMScheduler(
        beta_start=1e-4, beta_end=0.02, clip_sample=False, timestep_spacing="trailing", prediction_type=prediction
    )
    theirs = theirs_walk(exactly(scheduler), steps, x)
    torch.testing.assert_close(ours_walk("ddim", Betas(), target, steps, x), theirs, rtol=1e-6, atol=1e-6)


def test_ancestral():
    """All 1000 steps, where DDPM in diffusers is the same Markov chain (fixed_small variance)."""
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    scheduler = diffusers.DDPMScheduler(
        beta_start=1e-4, beta_end=0.02, clip_sample=False, variance_type="fixed_small", prediction_type="v_prediction"
    )
    theirs = theirs_walk(exactly(scheduler), 1000, x)
    torch.testing.assert_close(ours_walk("ancestral", Betas(), "rotation", 1000, x), theirs, rtol=1e-6, atol=1e-6)


def test_dpm_solver():
    """Second-order multistep with a trailing grid; both sides end with a step to zero noise."""
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_start=1e-4, beta_end=0.02, timestep_spacing="trailing", solver_order=2, lower_order_final=False,
        final_sigmas_type="zero", prediction_type="v_prediction",
    )  # fmt: skip
    theirs = theirs_walk(scheduler, 10, x)
    torch.testing.assert_close(ours_walk("dpm-solver", Betas(), "rotation", 10, x), theirs, rtol=2e-3, atol=2e-3)


def test_flow_matching_euler():
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    theirs = theirs_walk(scheduler, 8, x, sigmas=[1 - k / 8 for k in range(8)])
    torch.testing.assert_close(ours_walk("euler", LinearPath(), "velocity", 8, x), theirs, rtol=1e-5, atol=1e-5)


def test_published_shapes():
    """Parameters: DDPM's U-Net for CIFAR-10 35.7 M, DiT-XL/2 675 M, the kl-f8 autoencoder 83.65 M."""
    counts = {}
    for name, recipe in {"ddpm": images.ddpm("paper"), "dit": images.dit("paper"), "vae": images.vae("paper")}.items():
        with torch.device("meta"):
            counts[name] = sum(p.numel() for p in recipe.model.build(recipe.data.space()).parameters())
    assert counts["ddpm"] == 35_746_307 + 11 * 512
    assert abs(counts["dit"] + 990 * 1152 - 675e6) < 0.5e6  # with ImageNet's 1,000 labels
    assert abs(counts["vae"] - 83_653_863) < 2000
    assert isinstance(images.dit("b").model, DiT)
