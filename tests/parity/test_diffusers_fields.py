"""Every field of every diffusers config that is read is changed in turn: equal outputs, or a refusal in one line.

Configs are edited as JSON; diffusers builds the class from them, and we import the same file. A value that diffusers
itself cannot build or run is no case.
"""

import json

import pytest
import torch

from sanbu.interop.diffusers import import_run
from sanbu.interop.diffusers_in import left_out
from sanbu.interop.diffusers_schedulers import CHAINS, FLOW_CLASS, PREDICTIONS, scheduler_in
from sanbu.interop.huggingface import InteropError

diffusers = pytest.importorskip("diffusers")
diffusers.utils.logging.set_verbosity(100)

BLOCKS = ["AttnDownBlock2D", "AttnUpBlock2D", "ResnetDownsampleBlock2D", "SkipDownBlock2D", "DownBlock2D", "UpBlock2D"]
INSTEAD = {  # what these fields are changed to
    "act_fn": ["silu", "swish", "mish", "gelu", "relu"],
    "activation_fn": ["gelu", "geglu", "geglu-approximate", "gelu-approximate"],
    "algorithm_type": ["dpmsolver", "dpmsolver++", "sde-dpmsolver++", "deis"],
    "beta_schedule": ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "other"],
    "class_embed_type": ["timestep", "identity"],
    "downsample_type": ["conv", "resnet"],
    "final_sigmas_type": ["zero", "sigma_min"],
    "interpolation_type": ["linear", "log_linear"],
    "mid_block_type": ["UNetMidBlock2D", "UNetMidBlock2DSimpleCrossAttn", None],
    "norm_type": ["ada_norm", "ada_norm_zero", "layer_norm", "ada_norm_single"],
    "prediction_type": ["epsilon", "sample", "v_prediction", "flow_prediction", "other"],
    "resnet_time_scale_shift": ["default", "scale_shift", "ada_group", "spatial"],
    "sample_size": [32, 24, [16, 8], [8], "16", None],
    "solver_type": ["midpoint", "heun", "logrho", "bh1", "bh2"],
    "time_embedding_type": ["positional", "fourier", "learned"],
    "time_shift_type": ["exponential", "linear"],
    "timestep_spacing": ["leading", "linspace", "trailing"],
    "timestep_type": ["discrete", "continuous"],
    "upsample_type": ["conv", "resnet"],
    "variance_type": [None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned_range"],
}
MORE = {  # what the rules of `others` do not reach
    "trained_betas": [[0.01 * (k + 1) for k in range(20)], [0.01] * 7, [], [0.5] * 1000],
    "attention_head_dim": [4, 16, 3, None],
    "num_class_embeds": [7],
    "num_train_timesteps": [20, 999, 1],
    "latents_mean": [[0.5, 0.5]],
    "block_out_channels": [[16, 48], [16, 24], [16]],
    "disable_corrector": [[0, 1]],
}


def others(name, value):
    """Plausible values in the place of this one."""
    if name in INSTEAD:
        return INSTEAD[name]
    more = MORE.get(name, [])
    if isinstance(value, bool):
        return [not value, *more]
    if isinstance(value, int | float):
        return [value * 2, value + 1, value / 2, None, *more]
    if isinstance(value, str):
        return ["other", *more]
    if isinstance(value, list):
        swapped = [[new, *value[1:]] for new in BLOCKS] if isinstance((value or [0])[0], str) else []
        return [value[::-1], value[:-1], value[-1:] * len(value), *swapped, *more]
    return [True, 1, 4, 0.5, *more]


def changes(fields, kept=()):
    """(name, changed fields): each field left out and with other values, and a field that nobody knows."""
    for name, value in fields.items():
        if name.startswith("_"):
            continue
        if name not in kept:  # the defaults of sizes are large
            yield name, {key: old for key, old in fields.items() if key != name}
        for new in others(name, value):
            if new != value or type(new) is not type(value):
                yield name, {**fields, name: new}
    yield "new_field", {**fields, "new_field": True}


# -- networks ----------------------------------------------------------------------------------------------------------


def shaken(model):
    """The model with random weights, the same embedders in every block of a DiT."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for block in getattr(model, "transformer_blocks", ()):
            block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
    return model.eval()


CLOCK = torch.tensor([700, 3])


def unet_outputs(theirs, run):
    """What both give for the same pictures, times and labels."""
    shape, label = run.recipe.data.space().shape, torch.tensor([1, 2]) % (run.recipe.data.classes or 1)
    x, told = torch.randn(2, *shape), label if theirs.class_embedding is not None else None
    return theirs(x, CLOCK, class_labels=told).sample, run.model(x, (CLOCK + 1) / 1000, label)


def dit_outputs(theirs, run):
    x, label = torch.randn(2, *run.recipe.data.space().shape), torch.tensor([0, run.recipe.data.classes])
    return theirs(x, timestep=CLOCK, class_labels=label).sample, run.model(x, (CLOCK + 1) / 1000, label)


def autoencoder_outputs(theirs, run):
    label, z = torch.zeros(2, dtype=torch.long), torch.randn(2, *run.model.latent)
    levels = torch.randint(0, 256, (2, *run.recipe.data.space().shape))
    mean, log_deviation = run.model.encode(levels, label)
    there = theirs.encode(levels / 127.5 - 1).latent_dist
    ours = (mean, log_deviation.exp(), run.model.decoder(z, label))
    return (torch.cat([t.flatten() for t in each]) for each in ((there.mean, there.std, theirs.decode(z).sample), ours))


NETWORKS = {
    "UNet2DModel": (
        unet_outputs,
        {"sample_size": 16, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4,
         "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")},
        ("block_out_channels",),
    ),
    "DiTTransformer2DModel": (
        dit_outputs,
        {"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 3, "num_layers": 2, "sample_size": 8,
         "num_embeds_ada_norm": 10},
        ("num_layers", "num_attention_heads", "attention_head_dim"),
    ),
    "AutoencoderKL": (
        autoencoder_outputs,
        {"block_out_channels": (16, 32), "latent_channels": 2, "norm_num_groups": 4, "sample_size": 16,
         "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2},
        (),
    ),
}  # fmt: skip


def outcome(kind, fields, folder):
    """One of: equal, refused, no case, off by the gap between the outputs."""
    try:
        theirs = shaken(getattr(diffusers, kind).from_config(dict(fields)))
        theirs.save_pretrained(folder)
    except Exception:  # whatever a strange value leads to
        return "no case"
    (folder / "config.json").write_text(json.dumps(fields))
    diffusers.DDPMScheduler().save_pretrained(folder)
    if kind == "AutoencoderKL":
        (folder / "scheduler_config.json").unlink()
    try:
        run = import_run(folder, folder / "run")
    except InteropError as error:
        return "refused" if str(folder) in str(error) and "\n" not in str(error) else f"off: {error}"
    with torch.no_grad():
        there, here = NETWORKS[kind][0](theirs, run)
    return "equal" if there.allclose(here, rtol=1e-4, atol=1e-4) else f"off by {float((there - here).abs().max()):.4f}"


@pytest.mark.parametrize("kind", ["UNet2DModel", *(pytest.param(k, marks=pytest.mark.slow) for k in [*NETWORKS][1:])])
@pytest.mark.timeout(600)
def test_no_field_of_a_network_is_lost(kind, tmp_path):
    _, small, kept = NETWORKS[kind]
    fields = json.loads(getattr(diffusers, kind)(**small).to_json_string())
    assert outcome(kind, fields, tmp_path / "base") == "equal"
    found = {}
    for number, (name, changed) in enumerate(changes(fields, kept)):
        result = outcome(kind, changed, tmp_path / str(number))
        assert not result.startswith("off"), f"{name}: {result}, given {changed.get(name, 'nothing')}"
        found.setdefault(result, set()).add(name)
    assert len(found["equal"]) > 6 and len(found["refused"]) > 6  # neither all refused nor all accepted


# -- schedulers --------------------------------------------------------------------------------------------------------

HONOURED = {
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type", "clip_sample",
}  # fmt: skip


def drawn(scheduler):
    """Four steps from the same noise with a fixed network."""
    torch.manual_seed(0)
    x = torch.randn(2, 1, 4, 4)
    scheduler.set_timesteps(4)
    x = x * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(0.3 * scaled.roll(1, -1) + 0.05 * scaled.tanh(), t, x).prev_sample
    return x


def there(kind, fields):
    """The scheduler that diffusers builds, and what it draws; nothing where it cannot."""
    try:
        scheduler = getattr(diffusers, kind).from_config(dict(fields))
        return scheduler, drawn(scheduler)
    except Exception:
        return None


def difference(kind, name, fields, base, path):
    """What is wrong with our reading of a scheduler; "read" or "refused" where nothing is."""
    try:
        schedule, (theirs, picture) = scheduler_in(path), there(kind, fields)
    except InteropError as error:
        return "refused" if str(path) in str(error) and "\n" not in str(error) else str(error)
    if kind == FLOW_CLASS:
        return "read" if picture.equal(base) else "another picture"
    steps = len(theirs.alphas_cumprod)
    ours = schedule.path.alpha(torch.arange(1, steps + 1, dtype=torch.float64) / steps).square()
    if not torch.allclose(ours, theirs.alphas_cumprod.double(), rtol=1e-4, atol=1e-7):
        return "other alphas"
    if PREDICTIONS[schedule.target] != theirs.config.get("prediction_type", "epsilon"):
        return "another prediction type"
    if schedule.clip != theirs.config.get("clip_sample", False):
        return "other clipping"
    told = name not in fields or any(f"{name}={fields[name]}" in line for line in left_out(path.parent))
    return "read" if told or name in HONOURED or picture.equal(base) else "another picture, in silence"


@pytest.mark.parametrize("kind", [*CHAINS, FLOW_CLASS])
def test_no_field_of_a_scheduler_is_lost(kind, tmp_path):
    fields = json.loads(getattr(diffusers, kind)().to_json_string())
    _, base = there(kind, fields)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    path, found = tmp_path / "scheduler_config.json", {}
    for name, changed in changes(fields):
        if there(kind, changed) is None:
            continue
        path.write_text(json.dumps(changed))
        result = difference(kind, name, changed, base, path)
        assert result in ("read", "refused"), f"{result}, given {name}={changed.get(name, 'nothing')}"
        found.setdefault(result, set()).add(name)
    assert len(found["read"]) > 2 and len(found["refused"]) > 2


def test_the_classes_that_are_refused_are_named(tmp_path):
    """Every other scheduler of diffusers."""
    path, others = tmp_path / "scheduler_config.json", 0
    for kind in (name for name in dir(diffusers) if name.endswith("Scheduler")):
        if kind in CHAINS or kind == FLOW_CLASS:
            continue
        path.write_text(json.dumps({"_class_name": kind}))
        with pytest.raises(InteropError, match=f"given {kind}, which has no equal here; supported: DDPMScheduler"):
            scheduler_in(path)
        others += 1
    assert others > 20
