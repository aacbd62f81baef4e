"""Folders of diffusers: flat and old layouts, shards, tensors and indexes that do not fit, changed exports."""

import shutil

import pytest
import torch

from sanbu.config import SanbuError
from sanbu.files import read_json, write_json, write_tensors
from sanbu.interop.diffusers import export_folder, import_run
from sanbu.interop.diffusers_in import left_out
from sanbu.interop.huggingface import InteropError
from tests.parity.diffusers_peers import SMALL, WEIGHTS, diffusers, gap, pipeline_folder, rewritten, shaken

UNET, DIT, VAE = SMALL


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "there"
    pipeline_folder(UNET, folder)
    return folder


@pytest.fixture
def there(pipeline, tmp_path):
    """A copy of a pipeline of a U-Net."""
    return shutil.copytree(pipeline, tmp_path / "there")


def refused(message, there):
    """Import it, which has to give this line and leave nothing behind."""
    with pytest.raises(InteropError, match=message) as caught:
        import_run(there, there.parent / "refused")
    assert "\n" not in str(caught.value) and not (there.parent / "refused").exists()


def edited(file, **change):
    write_json(file, {**read_json(file), **change})


# -- layouts -----------------------------------------------------------------------------------------------------------


def old_names(tensors):
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    for new, name in old.items():
        tensors = {each.replace(new, name): tensor for each, tensor in tensors.items()}
    return tensors


@pytest.mark.parametrize("index", [True, False])
def test_a_flat_folder_with_old_names(index, tmp_path):
    """The layout and the config of the repositories of 2022, such as ddpm-cifar10-32."""
    there = tmp_path / "there"
    early = {"attention_head_dim": None, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1}
    theirs = pipeline_folder(UNET, there, norm_eps=1e-6, **early)
    for file in [*(there / "unet").iterdir(), *(there / "scheduler").iterdir()]:
        file.rename(there / file.name)
    if not index:
        (there / "model_index.json").unlink()
    (there / "unet").rmdir()
    (there / "scheduler").rmdir()
    rewritten(there, old_names)
    run = import_run(there, tmp_path / "here")
    assert gap(theirs, run) < 1e-4
    assert run.generate(n=2, overrides=("strategy.steps=2",))[0].shape == (16, 16, 3)


def test_an_autoencoder_with_old_names(tmp_path):
    theirs = pipeline_folder(VAE, tmp_path / "there")
    rewritten(tmp_path / "there", old_names)
    assert gap(theirs, import_run(tmp_path / "there", tmp_path / "here")) < 1e-4


@pytest.mark.parametrize("kind", SMALL)
def test_what_came_in_goes_out_again(kind, tmp_path):
    """In, out and in again: the same weights, and diffusers loads what is written."""
    early = {"downsample_padding": 0, "freq_shift": 1, "attention_head_dim": None, "norm_eps": 1e-6}
    theirs = pipeline_folder(kind, tmp_path / "there", **(early if kind == UNET else {}))
    run = import_run(tmp_path / "there", tmp_path / "run")
    export_folder(run, tmp_path / "out")
    back = import_run(tmp_path / "out", tmp_path / "back")
    assert all(tensor.equal(back.model.state_dict()[name]) for name, tensor in run.model.state_dict().items())
    loaded = diffusers.DiffusionPipeline.from_pretrained(str(tmp_path / "out"))
    part = getattr(loaded, {UNET: "unet", DIT: "transformer", VAE: "vae"}[kind]).state_dict()
    assert all(
        part[name].equal(tensor) for name, tensor in theirs.state_dict().items() if "embedding_table" not in name
    )


# -- shards ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path):
    """A U-Net in half precision in shards, its folder and its index."""
    theirs, there = shaken(diffusers.UNet2DModel(**SMALL[UNET])).half(), tmp_path / "there"
    theirs.save_pretrained(there, max_shard_size="60KB")
    diffusers.DDPMScheduler().save_pretrained(there)
    assert not (there / WEIGHTS).exists()
    return theirs.float(), there, there / f"{WEIGHTS}.index.json"


def test_the_index_says_which_files_count(shards):
    """A whole file and another shard beside those of the index are not read; diffusers does the same."""
    theirs, there, _ = shards
    other = {name: tensor + 1 for name, tensor in theirs.state_dict().items()}
    for name in (WEIGHTS, "diffusion_pytorch_model-00009-of-00009.safetensors"):
        write_tensors(there / name, other)
    assert gap(diffusers.UNet2DModel.from_pretrained(there).eval().float(), import_run(there, there / "run")) < 1e-4
    assert gap(theirs, import_run(there, there / "again")) < 1e-4


def edited_index(index, change):
    about = read_json(index)
    write_json(index, {**about, "weight_map": change(about["weight_map"])})


INDEXES = {
    "a tensor less": (lambda places: dict(list(places.items())[1:]), "do not agree on the tensor"),
    "a tensor more": (
        lambda places: {**places, "new.bias": next(iter(places.values()))},
        "do not agree on .*'new.bias'",
    ),
    "a missing file": (lambda places: {**places, "conv_in.bias": "other.safetensors"}, "safetensors"),
    "a file elsewhere": (lambda places: {**places, "conv_in.bias": "../other.safetensors"}, "is damaged: weight_map"),
    "no map": (lambda places: list(places), "is damaged: weight_map"),
    "an empty map": (lambda places: {}, "there is no tensor"),
}


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_that_does_not_fit_is_refused(name, shards):
    _, there, index = shards
    change, message = INDEXES[name]
    edited_index(index, change)
    with pytest.raises(SanbuError, match=message):
        import_run(there, there.parent / "here")
    assert not (there.parent / "here").exists()


# -- tensors -----------------------------------------------------------------------------------------------------------

DAMAGED = {
    "missing": (
        lambda t: {name: each for name, each in t.items() if name != "conv_in.bias"},
        "no tensor 'conv_in.bias'",
    ),
    "left over": (lambda t: {**t, "conv_inn.bias": torch.zeros(16)}, "unknown tensor 'conv_inn.bias'.*did you mean"),
    "shape": (
        lambda t: {**t, "conv_in.bias": torch.zeros(9)},
        r"tensor 'conv_in.bias' has shape \[9\], but its config gives \[16\]",
    ),
    "type": (lambda t: {**t, "conv_in.bias": torch.zeros(16, dtype=torch.int8)}, "'conv_in.bias' has type torch.int8"),
    "twice": (lambda t: {**t, "mid_block.attentions.0.key.bias": torch.zeros(32)}, "there twice"),
    "scaled": (lambda t: {**t, "conv_in.weight_scale": torch.ones(1)}, "unknown tensor 'conv_in.weight_scale'"),
    "eight bits": (
        lambda t: {**t, "conv_in.weight": t["conv_in.weight"].to(torch.float8_e4m3fn)},
        "'conv_in.weight' has type torch.float8_e4m3fn",
    ),
    "a name of another block": (
        lambda t: {**t, "down_blocks.7.resnets.0.conv1.bias": torch.zeros(16)},
        "unknown tensor",
    ),
    "nothing": (lambda t: {"other": torch.zeros(1)}, "unknown tensor 'other'"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_tensors_that_do_not_fit_are_import_faults(name, there):
    change, message = DAMAGED[name]
    rewritten(there / "unet", change)
    refused(message, there)


@pytest.mark.parametrize(
    ("files", "message"),
    [(["diffusion_pytorch_model.bin"], "pickled weights"), (["diffusion_pytorch_model.fp16.safetensors"], "variants")],
    ids=["pickled", "variant"],
)
def test_other_files_of_weights_are_refused(files, message, there):
    (there / "unet" / WEIGHTS).rename(there / "unet" / files[0])
    refused(message, there)


def test_a_dit_whose_blocks_have_embedders_of_their_own_is_refused(tmp_path):
    theirs = pipeline_folder(DIT, tmp_path / "there")
    with torch.no_grad():
        theirs.transformer_blocks[1].norm1.emb.class_embedder.embedding_table.weight[2, 3] += 1e-6
    theirs.save_pretrained(tmp_path / "there" / "transformer")
    refused("transformer_blocks.1 has an embedder of its own", tmp_path / "there")


# -- the index of a pipeline -------------------------------------------------------------------------------------------

CHANGED_INDEX = {
    "another pipeline": ({"_class_name": "LDMPipeline"}, "given a LDMPipeline, supported: DDPMPipeline"),
    "a model beside": ({"vqvae": ["diffusers", "VQModel"]}, r"UNet2DModel with 'vqvae' .VQModel. beside it"),
    "another model": ({"unet": ["diffusers", "UNet2DConditionModel"]}, "UNet2DConditionModel; supported: UNet2DModel"),
    "another scheduler": ({"scheduler": ["diffusers", "DDIMScheduler"]}, "DDPMScheduler, but .* gives DDIMScheduler"),
    "another library": ({"unet": ["my_own", "UNet2DModel"]}, "supported: classes of diffusers alone"),
    "a field": ({"safe": True}, "safe: given True"),
    "no model": ({"unet": None}, "given DDPMScheduler; supported: UNet2DModel"),
    "no scheduler": ({"scheduler": [None, None]}, "there is no scheduler_config.json"),
    "a list too short": ({"unet": ["UNet2DModel"]}, "unet: given"),
    "no class": ({"_class_name": None}, "given a None"),
}


@pytest.mark.parametrize("name", CHANGED_INDEX)
def test_an_index_of_another_pipeline_is_refused(name, there):
    change, message = CHANGED_INDEX[name]
    edited(there / "model_index.json", **change)
    refused(message, there)


def test_a_dit_over_latents_is_refused_and_names_of_classes_come_in(tmp_path):
    there = tmp_path / "there"
    pipeline_folder(DIT, there)
    assert left_out(there)[-1].startswith("vae: not used")
    edited(there / "model_index.json", id2label={str(k): f"name {k}" for k in range(4)})
    refused("id2label has to give a name for each of 5 classes", there)
    edited(there / "model_index.json", id2label={str(k): f"name {k}" for k in range(5)})
    assert import_run(there, tmp_path / "here").codec.names == tuple(f"name {k}" for k in range(5))
    diffusers.AutoencoderKL(**{**SMALL[VAE], "latent_channels": 3}).save_pretrained(there / "vae")
    refused("draws the latents of an autoencoder", there)


# -- back from an export ----------------------------------------------------------------------------------------------


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
