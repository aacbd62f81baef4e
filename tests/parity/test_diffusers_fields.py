"""Each field of the configs of diffusers' networks is changed in turn: equal outputs, or one line that names the field.

Configs are edited as JSON; diffusers builds the model from them, and we import the same file. A value that diffusers
itself cannot build or run is no case.
"""

import inspect
import json
import random

import pytest

from sanbu.interop.diffusers import import_run
from sanbu.interop.diffusers_fields import AUTOENCODER_FIELDS, DIT_FIELDS, UNET_FIELDS
from sanbu.interop.huggingface import InteropError
from tests.parity.diffusers_peers import SMALL, changes, diffusers, gap, shaken, together

TABLES = {"UNet2DModel": UNET_FIELDS, "DiTTransformer2DModel": DIT_FIELDS, "AutoencoderKL": AUTOENCODER_FIELDS}
READ = {  # values that have to come in
    "UNet2DModel": {
        "sample_size": [8, [8, 16]],
        "time_embedding_dim": [None, 64],
        "freq_shift": [0, 1],
        "flip_sin_to_cos": [True, False],
        "block_out_channels": [[8, 8], [12, 24]],
        "layers_per_block": [1, 2],
        "downsample_padding": [0, 1],
        "dropout": [0.0, 0.3],
        "act_fn": ["silu", "swish"],
        "attention_head_dim": [None, 8, 4, 32],
        "norm_num_groups": [2, 8],
        "attn_norm_num_groups": [None, 4],
        "norm_eps": [1e-6, 0.1],
        "num_class_embeds": [5],
        "num_train_timesteps": [None, 77],
    },
    "DiTTransformer2DModel": {
        "num_attention_heads": [1, 4],
        "attention_head_dim": [4, 16],
        "out_channels": [None, 3],
        "num_layers": [1, 3],
        "norm_num_groups": [7],
        "sample_size": [8, 16],
        "patch_size": [1, 4],
        "num_embeds_ada_norm": [5, 1000],
        "upcast_attention": [True, False],
        "norm_eps": [1e-6, 1e-5, 0.1],
    },
    "AutoencoderKL": {
        "block_out_channels": [[8, 8], [4, 12]],
        "layers_per_block": [1, 2],
        "act_fn": ["swish"],
        "latent_channels": [1, 4],
        "norm_num_groups": [2, 4],
        "sample_size": [16, [8, 16]],
        "scaling_factor": [0.5],
        "shift_factor": [0.1],
        "force_upcast": [False],
        "use_quant_conv": [False],
        "use_post_quant_conv": [False],
    },
}
LARGE = ("block_out_channels", "num_layers", "num_attention_heads", "attention_head_dim")  # of the default model
FITS = {  # fields that an error may name instead, because the two do not fit each other
    "down_block_types": "up_block_types", "block_out_channels": "block_types|out_block|attention|norm_num_groups|width",
    "in_channels": "out_channels", "sample_size": "patch_size|sample_size",
}  # fmt: skip


def base_of(kind):
    return json.loads(getattr(diffusers, kind)(**SMALL[kind]).to_json_string())


def outcome(kind, fields, folder):
    """One of: equal, no case, off by the gap between the outputs, or the line of a refusal."""
    try:
        theirs = shaken(getattr(diffusers, kind).from_config(dict(fields)))
        theirs.save_pretrained(folder)
    except Exception:  # whatever a strange value leads to
        return "no case"
    (folder / "config.json").write_text(json.dumps(fields))
    if kind != "AutoencoderKL":
        diffusers.DDPMScheduler().save_pretrained(folder)
    try:
        run = import_run(folder, folder / "run")
    except InteropError as error:
        assert not (folder / "run").exists()
        return str(error)
    off = gap(theirs, run)
    return "equal" if off < 1e-4 else f"off by {off:.4f}"


@pytest.mark.parametrize("kind", TABLES)
def test_every_field_is_known_with_its_default(kind):
    signature = inspect.signature(getattr(diffusers, kind).__init__).parameters
    defaults = {name: json.loads(json.dumps(field.default)) for name, field in signature.items() if name != "self"}
    assert defaults == {name: default for name, (default, _) in TABLES[kind].items()}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(kind, name, value) for kind, table in READ.items() for name, values in table.items() for value in values],
    ids=str,
)
def test_what_is_read(kind, name, value, tmp_path):
    assert outcome(kind, {**base_of(kind), name: value}, tmp_path) == "equal"


@pytest.mark.parametrize(
    "kind", ["UNet2DModel", "DiTTransformer2DModel", pytest.param("AutoencoderKL", marks=pytest.mark.slow)]
)
@pytest.mark.timeout(600)
def test_no_field_is_lost(kind, tmp_path):
    refused = set()
    for number, (name, changed) in enumerate(changes(base_of(kind), LARGE)):
        result = outcome(kind, changed, tmp_path / str(number))
        if result in ("equal", "no case"):
            continue
        named = any(each in result for each in (name, *FITS.get(name, "").split("|")) if each)
        assert named and "\n" not in result, f"{result}, given {name}={changed.get(name, 'nothing')}"
        refused.add(name)
    assert len(refused) > 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.timeout(600)
def test_no_three_fields_together_come_in_wrong(kind, tmp_path):
    """150 sets of changes drawn at random: equal outputs, or one line."""
    base, draws, found = base_of(kind), random.Random(0), []
    table = list(changes(base, LARGE))
    for number in range(150):
        changed = together(base, draws.sample(table, 3))
        result = outcome(kind, changed, tmp_path / str(number))
        assert not result.startswith("off") and "\n" not in result, f"{result}, given {changed}"
        found.append(result)
    assert found.count("equal") > 5
