"""Folders of diffusers come in with equal outputs, or are refused in one line: every field of every config in turn."""

import inspect
import json
import random
import shutil

import pytest
import torch

from sanbu.config import SanbuError
from sanbu.files import read_json, read_tensors, write_json, write_tensors
from sanbu.interop.diffusers import export_folder, import_run
from sanbu.interop.diffusers_fields import AUTOENCODER_FIELDS, DIT_FIELDS, UNET_FIELDS
from sanbu.interop.diffusers_in import left_out
from sanbu.interop.diffusers_schedulers import CHAIN, CHAINS, FLOW, FLOW_CLASS
from sanbu.interop.huggingface import InteropError

diffusers = pytest.importorskip("diffusers")
diffusers.utils.logging.set_verbosity_error()

WEIGHTS = "diffusion_pytorch_model.safetensors"
UNET = {
    "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
UNET_READ = {  # field: values that come in
    "sample_size": [8, (8, 16)],
    "in_channels": [],
    "out_channels": [],
    "center_input_sample": [],
    "time_embedding_type": [],
    "time_embedding_dim": [None, 32],
    "freq_shift": [0, 1],
    "flip_sin_to_cos": [True, False],
    "down_block_types": [],
    "mid_block_type": [],
    "up_block_types": [],
    "block_out_channels": [(8, 8), (12, 24)],
    "layers_per_block": [1, 2],
    "mid_block_scale_factor": [1],
    "downsample_padding": [0, 1],
    "downsample_type": [],
    "upsample_type": [],
    "dropout": [0.0, 0.3],
    "act_fn": ["silu", "swish"],
    "attention_head_dim": [None, 8, 4, 16],
    "norm_num_groups": [2, 8],
    "attn_norm_num_groups": [None, 4],
    "norm_eps": [1e-6, 0.1],
    "resnet_time_scale_shift": [],
    "add_attention": [],
    "class_embed_type": [],
    "num_class_embeds": [5],
    "num_train_timesteps": [None, 77],
}
UNET_REFUSED = {  # values that do not
    "in_channels": [4],
    "out_channels": [1],
    "center_input_sample": [True],
    "time_embedding_type": ["fourier", "learned"],
    "time_embedding_dim": [48],
    "down_block_types": [("DownBlock2D", "DownBlock2D"), ("AttnDownBlock2D", "AttnDownBlock2D")],
    "mid_block_type": [None],
    "up_block_types": [("UpBlock2D", "UpBlock2D"), ("AttnUpBlock2D", "AttnUpBlock2D"), ("ResnetUpsampleBlock2D",) * 2],
    "block_out_channels": [(8, 12), (16, 8)],
    "mid_block_scale_factor": [2.0],
    "downsample_padding": [2],
    "downsample_type": ["resnet"],
    "upsample_type": ["resnet"],
    "act_fn": ["gelu", "relu"],
    "attention_head_dim": [32],
    "attn_norm_num_groups": [2],
    "resnet_time_scale_shift": ["scale_shift"],
    "add_attention": [False],
    "class_embed_type": ["timestep", "identity"],
}
DIT = {
    "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 3, "out_channels": 3, "num_layers": 2,
    "sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 5,
}  # fmt: skip
DIT_READ = {
    "num_attention_heads": [1, 4],
    "attention_head_dim": [4, 16],
    "in_channels": [3],
    "out_channels": [None],
    "num_layers": [1, 3],
    "dropout": [0.0],
    "norm_num_groups": [32, 7],
    "attention_bias": [True],
    "sample_size": [8, 16],
    "patch_size": [1, 4],
    "activation_fn": [],
    "num_embeds_ada_norm": [5, 1000],
    "upcast_attention": [True, False],
    "norm_type": [],
    "norm_elementwise_affine": [False],
    "norm_eps": [1e-6, 1e-5, 0.1],
}
DIT_REFUSED = {
    "in_channels": [4],
    "out_channels": [6],
    "dropout": [0.5],
    "attention_bias": [False],
    "patch_size": [3],
    "activation_fn": ["gelu", "geglu"],
    "norm_elementwise_affine": [True],
}
VAE = {
    "block_out_channels": (8, 16), "down_block_types": ("DownEncoderBlock2D",) * 2, "norm_num_groups": 4,
    "up_block_types": ("UpDecoderBlock2D",) * 2, "sample_size": 8, "latent_channels": 2,
}  # fmt: skip
VAE_READ = {
    "in_channels": [],
    "out_channels": [],
    "down_block_types": [],
    "up_block_types": [],
    "block_out_channels": [(8, 8), (4, 12)],
    "layers_per_block": [1, 2],
    "act_fn": ["swish"],
    "latent_channels": [1, 4],
    "norm_num_groups": [2, 8],
    "sample_size": [16, (8, 16)],
    "scaling_factor": [0.5],
    "shift_factor": [0.1],
    "latents_mean": [(1.0, 2.0)],
    "latents_std": [(1.0, 2.0)],
    "force_upcast": [False],
    "use_quant_conv": [False],
    "use_post_quant_conv": [False],
    "mid_block_add_attention": [True],
}
VAE_REFUSED = {
    "in_channels": [4],
    "out_channels": [1],
    "block_out_channels": [(8, 12)],
    "act_fn": ["relu"],
    "sample_size": [7],
    "mid_block_add_attention": [False],
}


def cases(table):
    return [(field, value) for field, values in table.items() for value in values]


def shaken(model):
    """Weights far enough from their initial values that every one of them changes the outputs."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def unet_folder(folder, scheduler=None, **fields):
    theirs = shaken(diffusers.UNet2DModel(**{**UNET, **fields}))
    diffusers.DDPMPipeline(theirs, scheduler or diffusers.DDPMScheduler()).save_pretrained(folder)
    return theirs


def dit_folder(folder, **fields):
    theirs = shaken(diffusers.DiTTransformer2DModel(**{**DIT, **fields}))
    for block in theirs.transformer_blocks:
        block.norm1.emb.load_state_dict(theirs.transformer_blocks[0].norm1.emb.state_dict())
    vae = diffusers.AutoencoderKL(latent_channels=3, block_out_channels=(8,), norm_num_groups=4)
    diffusers.DiTPipeline(theirs, vae, diffusers.DDIMScheduler()).save_pretrained(folder)
    return theirs


def gap(theirs, run):
    """The largest difference of the outputs."""
    shape = (3, *run.recipe.data.space().shape)
    x, clock = torch.randn(shape), torch.tensor([999, 700, 3])
    classes = run.recipe.data.space().classes
    label = torch.tensor([0, classes // 2, max(0, classes - 1)])
    with torch.no_grad():
        if isinstance(theirs, diffusers.AutoencoderKL):
            return autoencoder_gap(theirs, run, shape)
        told = {"class_labels": label} if classes else {}
        return float((theirs(x, timestep=clock, **told).sample - run.model(x, (clock + 1) / 1000, label)).abs().max())


def autoencoder_gap(theirs, run, shape):
    levels, nothing = torch.randint(0, 256, shape), torch.zeros(3, dtype=torch.long)
    mean, log_deviation = run.model.encode(levels, nothing)
    there, z = theirs.encode(levels / 127.5 - 1).latent_dist, torch.randn(3, *run.model.latent)
    pairs = (
        (mean, there.mean),
        (log_deviation.exp(), there.std),
        (run.model.decoder(z, nothing), theirs.decode(z).sample),
    )
    return max(float((ours - other).abs().max()) for ours, other in pairs)


def made(kind, folder, **fields):
    if kind == "unet":
        return unet_folder(folder, **fields)
    if kind == "dit":
        return dit_folder(folder, **fields)
    theirs = shaken(diffusers.AutoencoderKL(**{**VAE, **fields}))
    theirs.save_pretrained(folder)
    return theirs


ARCHITECTURES = {
    "unet": (diffusers.UNet2DModel, UNET_FIELDS, UNET_READ, UNET_REFUSED),
    "dit": (diffusers.DiTTransformer2DModel, DIT_FIELDS, DIT_READ, DIT_REFUSED),
    "vae": (diffusers.AutoencoderKL, AUTOENCODER_FIELDS, VAE_READ, VAE_REFUSED),
}
READ = [(kind, *case) for kind, (_, _, read, _) in ARCHITECTURES.items() for case in cases(read)]
REFUSED = [(kind, *case) for kind, (_, _, _, refused) in ARCHITECTURES.items() for case in cases(refused)]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_sweep_has_every_field_and_default(kind):
    cls, table, read, _ = ARCHITECTURES[kind]
    signature = {name: each.default for name, each in inspect.signature(cls.__init__).parameters.items()}
    assert set(signature) - {"self"} == set(table) == set(read)
    for name, (default, _) in table.items():
        assert json.loads(json.dumps(signature[name])) == default, name


@pytest.mark.parametrize(("kind", "field", "value"), READ, ids=str)
def test_a_field_that_comes_in(kind, field, value, tmp_path):
    theirs = made(kind, tmp_path / "there", **{field: value})
    assert gap(theirs, import_run(tmp_path / "there", tmp_path / "here")) < 1e-4


@pytest.mark.parametrize(("kind", "field", "value"), REFUSED, ids=str)
def test_a_field_that_has_no_equal_is_refused_by_name(kind, field, value, tmp_path):
    """The config is written by hand, so that values are tried too with which diffusers builds no model."""
    made(kind, tmp_path / "there")
    folder = {"unet": "unet", "dit": "transformer", "vae": "."}[kind]
    config = tmp_path / "there" / folder / "config.json"
    write_json(config, {**read_json(config), field: value})
    with pytest.raises(InteropError, match=rf"config\.json: {field}|config\.json: up_block_types") as caught:
        import_run(tmp_path / "there", tmp_path / "here")
    assert "\n" not in str(caught.value) and not (tmp_path / "here").exists()


def random_fields(draws, table):
    """Several fields at once, with supported and other values."""
    chosen = draws.sample(sorted(table), 3)
    return {name: draws.choice(table[name]) for name in chosen if table[name]}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_no_three_fields_come_in_wrong(kind, tmp_path):
    """Drawn at random: equal outputs, or one line. 60 of each architecture."""
    _, _, read, refused = ARCHITECTURES[kind]
    table = {name: read[name] + refused.get(name, []) for name in read}
    draws, equal = random.Random(0), 0
    for number in range(60):
        fields, there = random_fields(draws, table), tmp_path / f"there{number}"
        try:
            theirs = made(kind, there, **fields)
        except (ValueError, RuntimeError, TypeError, ZeroDivisionError, NotImplementedError, AttributeError):
            continue  # diffusers builds no such model
        try:
            run = import_run(there, tmp_path / f"here{number}")
        except SanbuError:
            continue
        assert gap(theirs, run) < 1e-4, fields
        equal += 1
    assert equal > 5


# -- schedulers -------------------------------------------------------------------------------------------------------

SCHEDULER_READ = {
    "num_train_timesteps": [10, 1000],
    "beta_start": [0.001],
    "beta_end": [0.5],
    "beta_schedule": ["linear", "scaled_linear", "squaredcos_cap_v2"],
    "trained_betas": [[0.1, 0.2, 0.05, 0.3]],
    "prediction_type": ["epsilon", "sample", "v_prediction"],
    "clip_sample": [True, False],
    "timestep_spacing": ["leading", "linspace", "trailing"],
    "steps_offset": [1],
    "variance_type": ["fixed_large"],
}
SCHEDULER_REFUSED = {
    "beta_schedule": ["laplace", "exp"],
    "trained_betas": [[0.1, 0.2], [0.5, 1.0, 0.1, 0.1]],
    "num_train_timesteps": [1, 1.5],
    "prediction_type": ["flow_prediction"],
    "rescale_betas_zero_snr": [True],
    "variance_type": ["learned", "learned_range"],
    "clip_sample_range": [2.0],
    "thresholding": [True],
    "use_karras_sigmas": [True],
    "use_exponential_sigmas": [True],
    "use_beta_sigmas": [True],
    "use_lu_lambdas": [True],
    "use_flow_sigmas": [True],
    "use_dynamic_shifting": [True],
    "timestep_type": ["continuous"],
    "interpolation_type": ["log_linear"],
    "final_sigmas_type": ["sigma_min"],
    "sigma_max": [14.0],
    "lambda_min_clipped": [-5.1],
    "predict_epsilon": [False],
    "beta_strat": [0.1],
}
FLOW_REFUSED = {
    "num_train_timesteps": [100],
    "shift": [3.0],
    "use_dynamic_shifting": [True],
    "invert_sigmas": [True],
    "shift_terminal": [0.1],
    "use_karras_sigmas": [True],
    "use_exponential_sigmas": [True],
    "use_beta_sigmas": [True],
    "stochastic_sampling": [True],
}
OTHERS = {
    "EDMEulerScheduler": {}, "ScoreSdeVeScheduler": {}, "CMStochasticIterativeScheduler": {}, "LCMScheduler": {},
    "FlowMatchHeunDiscreteScheduler": {}, "TCDScheduler": {}, "IPNDMScheduler": {}, "RePaintScheduler": {},
    "SCMScheduler": {}, "EDMDPMSolverMultistepScheduler": {}, "DDIMInverseScheduler": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "there"
    unet_folder(folder)
    return folder


def with_scheduler(pipeline, folder, scheduler, **fields):
    """The pipeline with another scheduler; `fields` are written by hand."""
    shutil.copytree(pipeline, folder)
    scheduler.save_pretrained(folder / "scheduler")
    config = folder / "scheduler" / "scheduler_config.json"
    write_json(config, {**read_json(config), **fields})
    index = read_json(folder / "model_index.json")
    write_json(folder / "model_index.json", {**index, "scheduler": ["diffusers", type(scheduler).__name__]})
    return folder


def same_levels(run, scheduler):
    """The same alpha^2 and the same clock at every step of the chain."""
    path, theirs = run.recipe.model.path, scheduler.alphas_cumprod.double()
    t = torch.arange(1, len(theirs) + 1, dtype=torch.float64) / len(theirs)
    torch.testing.assert_close(path.alpha(t).square(), theirs, rtol=1e-3, atol=2e-6)
    torch.testing.assert_close(path.sigma(t).square(), 1 - theirs, rtol=1e-3, atol=2e-6)
    torch.testing.assert_close(path.clock(t), torch.arange(len(theirs), dtype=torch.float64))


@pytest.mark.parametrize(("field", "value"), cases(SCHEDULER_READ), ids=str)
def test_a_scheduler_has_the_same_levels(field, value, pipeline, tmp_path):
    fields = {field: value} | ({"num_train_timesteps": len(value)} if field == "trained_betas" else {})
    scheduler = diffusers.DDPMScheduler(**fields)
    run = import_run(with_scheduler(pipeline, tmp_path / "there", scheduler), tmp_path / "here")
    same_levels(run, scheduler)
    targets = {"epsilon": "noise", "sample": "clean", "v_prediction": "rotation"}
    assert run.recipe.model.target == targets[scheduler.config.prediction_type]
    assert run.recipe.strategy.clip == scheduler.config.clip_sample


@pytest.mark.parametrize("name", CHAINS)
def test_the_defaults_of_every_chain(name, pipeline, tmp_path):
    """Also where the config names no field at all, and where it names every field."""
    scheduler = getattr(diffusers, name)()
    there = with_scheduler(pipeline, tmp_path / "there", scheduler)
    same_levels(import_run(there, tmp_path / "here"), scheduler)
    known = {**CHAIN, **CHAINS[name]}
    for field, value in inspect.signature(type(scheduler).__init__).parameters.items():
        assert field in ("self", "args", "kwargs") or known[field][1].allows(value.default), field
    write_json(there / "scheduler" / "scheduler_config.json", {"_class_name": name})
    bare = import_run(there, tmp_path / "bare")
    same_levels(bare, scheduler)
    assert bare.recipe.strategy.clip == getattr(scheduler.config, "clip_sample", False)


def test_a_sigmoid_chain(pipeline, tmp_path):
    scheduler = diffusers.DDPMScheduler(beta_schedule="sigmoid")
    same_levels(import_run(with_scheduler(pipeline, tmp_path / "there", scheduler), tmp_path / "here"), scheduler)


@pytest.mark.parametrize(("field", "value"), cases(SCHEDULER_REFUSED), ids=str)
def test_a_scheduler_with_other_levels_is_refused(field, value, pipeline, tmp_path):
    there = with_scheduler(
        pipeline, tmp_path / "there", diffusers.DDPMScheduler(num_train_timesteps=4), **{field: value}
    )
    with pytest.raises(InteropError, match=rf"scheduler_config\.json: .*({field}|num_train_timesteps)"):
        import_run(there, tmp_path / "here")


@pytest.mark.parametrize(("field", "value"), cases(FLOW_REFUSED), ids=str)
def test_a_flow_with_other_levels_is_refused(field, value, pipeline, tmp_path):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    there = with_scheduler(pipeline, tmp_path / "there", scheduler)
    assert import_run(there, tmp_path / "here").recipe.model.target == "velocity"
    assert set(inspect.signature(type(scheduler).__init__).parameters) - {"self"} == set(FLOW)
    there = with_scheduler(pipeline, tmp_path / "other", scheduler, **{field: value})
    with pytest.raises(InteropError, match=rf"scheduler_config\.json: {field}: given"):
        import_run(there, tmp_path / "not")


@pytest.mark.parametrize("name", OTHERS)
def test_schedulers_without_an_equal_are_refused(name, pipeline, tmp_path):
    there = with_scheduler(pipeline, tmp_path / "there", getattr(diffusers, name)())
    with pytest.raises(InteropError, match=rf"given a {name}.*supported: {FLOW_CLASS}"):
        import_run(there, tmp_path / "here")


def test_how_a_scheduler_walks_is_reported(pipeline, tmp_path):
    scheduler = diffusers.DDPMScheduler(variance_type="fixed_large", clip_sample=False)
    (line,) = left_out(with_scheduler(pipeline, tmp_path / "there", scheduler))
    assert "variance_type=fixed_large" in line and "timestep_spacing=leading" in line


# -- layouts and tensors ----------------------------------------------------------------------------------------------


def rewritten(folder, change):
    """Weights changed by a function of their dictionary."""
    tensors = read_tensors(folder / WEIGHTS)
    write_tensors(folder / WEIGHTS, change(tensors))


def old_names(tensors):
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    for new, name in old.items():
        tensors = {each.replace(new, name): tensor for each, tensor in tensors.items()}
    return tensors


@pytest.mark.parametrize("index", [True, False])
def test_a_flat_folder_with_old_names(index, tmp_path):
    """The layout and the config of the repositories of 2022, such as ddpm-cifar10-32."""
    early = {
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
    }
    there = tmp_path / "there"
    theirs = unet_folder(there, **early)
    for file in [*(there / "unet").iterdir(), *(there / "scheduler").iterdir()]:
        file.rename(there / file.name)
    for name in ("unet", "scheduler"):
        (there / name).rmdir()
    if not index:
        (there / "model_index.json").unlink()
    rewritten(there, old_names)
    assert gap(theirs, import_run(there, tmp_path / "here")) < 1e-4


def test_an_autoencoder_with_old_names(tmp_path):
    theirs = made("vae", tmp_path / "there")
    rewritten(tmp_path / "there", old_names)
    assert gap(theirs, import_run(tmp_path / "there", tmp_path / "here")) < 1e-4


def test_half_precision_and_shards(tmp_path):
    theirs = shaken(diffusers.UNet2DModel(**UNET)).half()
    theirs.save_pretrained(tmp_path / "there", max_shard_size="20KB")
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "there")
    assert not (tmp_path / "there" / WEIGHTS).exists()
    shard = next((tmp_path / "there").glob("*.safetensors"))
    assert gap(theirs.float(), import_run(tmp_path / "there", tmp_path / "here")) < 1e-4
    write_tensors(shard, {**read_tensors(shard), "more": torch.zeros(1)})
    with pytest.raises(InteropError, match="do not agree on the tensor 'more'"):
        import_run(tmp_path / "there", tmp_path / "not")


DAMAGED = {
    "missing": (
        lambda t: {name: each for name, each in t.items() if name != "conv_in.bias"},
        "no tensor 'conv_in.bias'",
    ),
    "left over": (lambda t: {**t, "conv_inn.bias": torch.zeros(8)}, "unknown tensor 'conv_inn.bias'.*did you mean"),
    "shape": (
        lambda t: {**t, "conv_in.bias": torch.zeros(9)},
        r"tensor 'conv_in.bias' has shape \[9\], but its config gives \[8\]",
    ),
    "type": (lambda t: {**t, "conv_in.bias": torch.zeros(8, dtype=torch.int8)}, "'conv_in.bias' has type torch.int8"),
    "twice": (lambda t: {**t, "mid_block.attentions.0.key.bias": torch.zeros(16)}, "there twice"),
    "nothing": (lambda t: {"other": torch.zeros(1)}, "unknown tensor 'other'"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_tensors_that_do_not_fit_are_import_faults(name, pipeline, tmp_path):
    change, message = DAMAGED[name]
    shutil.copytree(pipeline, tmp_path / "there")
    rewritten(tmp_path / "there" / "unet", change)
    with pytest.raises(InteropError, match=message):
        import_run(tmp_path / "there", tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_what_is_no_picture_pipeline_is_refused(pipeline, tmp_path):
    shutil.copytree(pipeline, tmp_path / "there")
    index = read_json(pipeline / "model_index.json")

    def refused(message, **change):
        write_json(tmp_path / "there" / "model_index.json", {**index, **change})
        with pytest.raises(InteropError, match=message):
            import_run(tmp_path / "there", tmp_path / "here")

    refused("given a LDMPipeline", _class_name="LDMPipeline")
    refused("UNet2DModel with 'vqvae' .VQModel. beside it", vqvae=["diffusers", "VQModel"])
    refused("given .*UNet2DConditionModel; supported: UNet2DModel", unet=["diffusers", "UNet2DConditionModel"])
    refused("a DDPMScheduler, but model_index.json gives DDIMScheduler", scheduler=["diffusers", "DDIMScheduler"])
    refused("supported: classes of diffusers alone", unet=["my_own", "UNet2DModel"])
    refused("safe: given True", safe=True)


def test_a_dit_whose_blocks_have_embedders_of_their_own_is_refused(tmp_path):
    theirs = dit_folder(tmp_path / "there")
    shaken(theirs).save_pretrained(tmp_path / "there" / "transformer")
    with pytest.raises(InteropError, match="transformer_blocks.1 has an embedder of its own"):
        import_run(tmp_path / "there", tmp_path / "here")


def test_a_dit_over_latents_is_refused_and_names_of_classes_come_in(tmp_path):
    dit_folder(tmp_path / "there")
    assert left_out(tmp_path / "there")[-1].startswith("vae: not used")
    index = read_json(tmp_path / "there" / "model_index.json")
    write_json(tmp_path / "there" / "model_index.json", {**index, "id2label": {str(k): f"name {k}" for k in range(5)}})
    assert import_run(tmp_path / "there", tmp_path / "here").codec.names == tuple(f"name {k}" for k in range(5))
    vae = diffusers.AutoencoderKL(**{**VAE, "latent_channels": 3})
    vae.save_pretrained(tmp_path / "there" / "vae")
    with pytest.raises(InteropError, match="draws the latents of an autoencoder"):
        import_run(tmp_path / "there", tmp_path / "not")


# -- back from an export ----------------------------------------------------------------------------------------------


def edited(file, **change):
    write_json(file, {**read_json(file), **change})


CHANGES = {
    "a field": (lambda out: edited(out / "unet" / "config.json", norm_eps=1e-3), "norm_eps: given 0.001, exported as"),
    "a chain": (lambda out: edited(out / "scheduler" / "scheduler_config.json", beta_end=0.1), "beta_end: given 0.1"),
    "weights": (
        lambda out: rewritten(out / "unet", lambda t: {**t, "conv_in.bias": t["conv_in.bias"] + 1}),
        None,
    ),
    "the folded label": (
        lambda out: rewritten(
            out / "unet", lambda t: {**t, "time_embedding.linear_2.bias": t["time_embedding.linear_2.bias"] + 1}
        ),
        "'time_embedding.linear_2.bias' was changed since the export; delete sanbu.json",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_export_that_was_changed_does_not_come_back_as_it_was(name, pipeline, tmp_path):
    run, out = import_run(pipeline, tmp_path / "run"), tmp_path / "out"
    export_folder(run, out)
    change, message = CHANGES[name]
    change(out)
    if message is None:
        bias = import_run(out, tmp_path / "back").model.network.first.bias
        assert bias.allclose(run.model.network.first.bias + 1)
        return
    with pytest.raises(InteropError, match=message):
        import_run(out, tmp_path / "back")
    (out / "sanbu.json").unlink()
    (out / "sanbu.safetensors").unlink()
    assert import_run(out, tmp_path / "back").recipe.name == "unet"


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_what_came_in_goes_out_again(kind, tmp_path):
    """In, out and in again: the same weights, and diffusers loads what is written."""
    early = {"downsample_padding": 0, "freq_shift": 1, "attention_head_dim": None, "norm_eps": 1e-6}
    theirs = made(kind, tmp_path / "there", **(early if kind == "unet" else {}))
    run = import_run(tmp_path / "there", tmp_path / "run")
    export_folder(run, tmp_path / "out")
    back = import_run(tmp_path / "out", tmp_path / "back")
    assert all(tensor.equal(back.model.state_dict()[name]) for name, tensor in run.model.state_dict().items())
    loaded = diffusers.DiffusionPipeline.from_pretrained(str(tmp_path / "out"))
    part = {"unet": "unet", "dit": "transformer", "vae": "vae"}[kind]
    for name, tensor in theirs.state_dict().items():
        other = getattr(loaded, part).state_dict()[name]
        if "embedding_table" not in name:
            torch.testing.assert_close(other, tensor, rtol=0, atol=0)
