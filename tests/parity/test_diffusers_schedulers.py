"""Each field of diffusers' schedulers is changed in turn: equal noise levels and pictures, or one line of refusal."""

import inspect
import json
import random

import pytest
import torch

from sanbu.interop.diffusers_in import left_out
from sanbu.interop.diffusers_schedulers import CHAIN, CHAINS, FLOW, FLOW_CLASS, PREDICTIONS, scheduler_in
from sanbu.interop.huggingface import InteropError
from tests.parity.diffusers_peers import changes, diffusers, together

HONOURED = {
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type", "clip_sample",
}  # fmt: skip

WAITING = {"sample_max_value": 3.0, "flow_shift": 3.0}  # read where another field is on, and then seen in the picture


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


def understood(fields, folder):
    """The fields that the import honours, and those that it says it leaves out."""
    told = " ".join(left_out(folder))
    return {name: value for name, value in fields.items() if name in HONOURED or f"{name}=" in told}


def result_of(config, kind, fields):
    """ "read" or "refused", or what is wrong with our reading of a scheduler; nothing where diffusers builds none."""
    built = there(kind, fields)
    if built is None:
        return ""
    config.write_text(json.dumps({**fields, "_class_name": kind}))
    try:
        schedule, (theirs, picture) = scheduler_in(config), built
    except InteropError as error:
        return "refused" if str(config) in str(error) and "\n" not in str(error) else str(error)
    if kind != FLOW_CLASS:
        times = torch.arange(1, len(theirs.alphas_cumprod) + 1, dtype=torch.float64) / len(theirs.alphas_cumprod)
        torch.testing.assert_close(schedule.path.clock(times), torch.arange(len(times), dtype=torch.float64))
        if not schedule.path.alpha(times).square().allclose(theirs.alphas_cumprod.double(), rtol=1e-4, atol=1e-7):
            return "other alphas"
        if PREDICTIONS[schedule.target] != theirs.config.get("prediction_type", "epsilon"):
            return "another prediction type"
        if schedule.clip != theirs.config.get("clip_sample", False):
            return "other clipping"
    _, again = there(kind, understood(fields, config.parent))
    return (
        "read"
        if picture.nan_to_num().equal(again.nan_to_num())
        else "another picture than by the fields that were understood"
    )


@pytest.fixture
def config(tmp_path):
    """The scheduler_config.json of a flat folder."""
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    return tmp_path / "scheduler_config.json"


QUICK = ["DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", FLOW_CLASS]  # the others are marked slow


@pytest.mark.parametrize("kind", [*QUICK, *(pytest.param(k, marks=pytest.mark.slow) for k in CHAINS if k not in QUICK)])
@pytest.mark.timeout(600)
def test_no_field_of_a_scheduler_is_lost(kind, config):
    """One field at a time, then 100 sets of three."""
    base = json.loads(getattr(diffusers, kind)().to_json_string())
    base |= {name: value for name, value in WAITING.items() if name in base}
    table, draws, found = list(changes(base)), random.Random(0), {"read": set(), "refused": set(), "": set()}
    assert result_of(config, kind, {}) == "read"
    for name, changed in table:
        result = result_of(config, kind, changed)
        assert result in found, f"{result}, given {name}={changed.get(name, 'nothing')}"
        found[result].add(name)
    assert len(found["read"]) > 2 and len(found["refused"]) > 2
    for _ in range(100):
        fields = together(base, draws.sample(table, 3))
        result = result_of(config, kind, fields)
        assert result in found, f"{result}, given {fields}"


@pytest.mark.parametrize("kind", [*CHAINS, FLOW_CLASS])
def test_every_field_is_known_with_its_default(kind):
    table = FLOW if kind == FLOW_CLASS else {**CHAIN, **CHAINS[kind]}
    for name, field in inspect.signature(getattr(diffusers, kind).__init__).parameters.items():
        assert name in ("self", "args", "kwargs") or table[name][1].allows(field.default), name


READ = {
    "num_train_timesteps": [10, 2000],
    "beta_start": [0.001],
    "beta_end": [0.5],
    "beta_schedule": ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"],
    "trained_betas": [[0.02 * k for k in range(1, 21)]],
    "prediction_type": ["epsilon", "sample", "v_prediction"],
    "clip_sample": [True, False],
    "timestep_spacing": ["leading", "linspace", "trailing"],
    "steps_offset": [1],
    "variance_type": ["fixed_large"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in READ.items() for value in values], ids=str
)
def test_what_is_read(name, value, config):
    fields = {name: value} | ({"num_train_timesteps": 20} if name == "trained_betas" else {})
    assert result_of(config, "DDPMScheduler", fields) == "read"


def test_how_a_scheduler_walks_is_told(config):
    config.write_text(json.dumps({"_class_name": "DDPMScheduler", "variance_type": "fixed_large"}))
    assert left_out(config.parent) == ["not used, because a run draws by its own strategy: variance_type=fixed_large"]


def test_the_classes_that_are_refused_are_named(tmp_path):
    """Every other scheduler of diffusers."""
    path, others = tmp_path / "scheduler_config.json", 0
    for kind in (name for name in dir(diffusers) if name.endswith("Scheduler")):
        if kind in CHAINS or kind == FLOW_CLASS:
            continue
        path.write_text(json.dumps({"_class_name": kind}))
        with pytest.raises(
            InteropError, match=f"given {kind}, whose noise levels no path here has; supported: {FLOW_CLASS}"
        ):
            scheduler_in(path)
        others += 1
    assert others > 20
