"""Tiny networks of diffusers with random weights, their folders, and other values for the fields of their configs."""

import pytest
import torch

from sanbu.files import read_tensors, write_tensors

diffusers = pytest.importorskip("diffusers")
diffusers.utils.logging.set_verbosity(100)

WEIGHTS = "diffusion_pytorch_model.safetensors"
SMALL = {
    "UNet2DModel": {
        "sample_size": 16, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    },
    "DiTTransformer2DModel": {
        "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 3, "num_layers": 2, "sample_size": 8,
        "num_embeds_ada_norm": 5,
    },
    "AutoencoderKL": {
        "block_out_channels": (16, 32), "latent_channels": 2, "norm_num_groups": 4, "sample_size": 16,
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
    },
}  # fmt: skip

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


OUTPUTS = {
    "UNet2DModel": unet_outputs,
    "DiTTransformer2DModel": dit_outputs,
    "AutoencoderKL": autoencoder_outputs,
}


def gap(theirs, run):
    """The largest difference of the outputs."""
    with torch.no_grad():
        there, here = OUTPUTS[type(theirs).__name__](theirs, run)
    return float((there - here).abs().max())


def pipeline_folder(kind, folder, **fields):
    """The model of a small pipeline of this class, written to the folder; an autoencoder alone."""
    theirs = shaken(getattr(diffusers, kind)(**{**SMALL[kind], **fields}))
    if kind == "UNet2DModel":
        diffusers.DDPMPipeline(theirs, diffusers.DDPMScheduler()).save_pretrained(folder)
    elif kind == "DiTTransformer2DModel":
        vae = diffusers.AutoencoderKL(latent_channels=3, block_out_channels=(8,), norm_num_groups=4)
        diffusers.DiTPipeline(theirs, vae, diffusers.DDIMScheduler()).save_pretrained(folder)
    else:
        theirs.save_pretrained(folder)
    return theirs


def rewritten(folder, change):
    """Weights changed by a function of their dictionary."""
    write_tensors(folder / WEIGHTS, change(read_tensors(folder / WEIGHTS)))


# -- fields ------------------------------------------------------------------------------------------------------------

BLOCKS = [
    "AttnDownBlock2D",
    "AttnUpBlock2D",
    "ResnetDownsampleBlock2D",
    "UNetResDownBlock2D",
    "DownBlock2D",
    "UpBlock2D",
]
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
    "trained_betas": [[0.01 * (k + 1) for k in range(20)], [0.01] * 7, [], [0.01] * 1000],
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


def together(fields, chosen):
    """The fields with several changes of `changes` at once."""
    changed = dict(fields)
    for name, other in chosen:
        changed.pop(name, None)
        changed |= {name: other[name]} if name in other else {}
    return changed
