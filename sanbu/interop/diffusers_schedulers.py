"""diffusers' schedulers, in and out: a noise path and what the network predicts, with alpha^2 equal at every step.

Of a scheduler, the noise levels that a network was trained on, the prediction type and clipping come in. How it walks
from noise to a picture (WALK) is a run's own strategy. Every other field has to have its default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sanbu.config import nearest
from sanbu.files import read_object
from sanbu.interop.diffusers_fields import (
    ANY,
    BETA,
    FLAG,
    POSITIVE,
    Fields,
    Table,
    each,
    numbers,
    only,
    optional,
    read_fields,
    refuse,
)
from sanbu.interop.huggingface import InteropError
from sanbu.paths import Betas, Chain, LinearPath, ListedBetas, NoisePath, TargetName

PREDICTIONS: dict[TargetName, str] = {"noise": "epsilon", "clean": "sample", "rotation": "v_prediction"}
SPACINGS = only("leading", "linspace", "trailing")
VARIANCES = only(None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
OFF = (False, only(False))
NONE = (None, only(None))

SOLVER = (
    "solver_order", "algorithm_type", "solver_type", "lower_order_final", "euler_at_final", "predict_x0",
    "disable_corrector", "solver_p",
)  # fmt: skip
WALK: Table = {
    "timestep_spacing": ("leading", SPACINGS),
    "variance_type": (None, VARIANCES),
    "steps_offset": (0, numbers(int, 0, 2**31, "an integer from 0")),
    "set_alpha_to_one": (True, FLAG),
    "skip_prk_steps": (False, FLAG),
    **dict.fromkeys(SOLVER, (None, ANY)),
}
STEPS = numbers(int, 2, 10**6 + 1, "an integer from 2")
CHAIN: Table = {
    "num_train_timesteps": (1000, STEPS),
    "beta_start": (1e-4, BETA),
    "beta_end": (0.02, BETA),
    "beta_schedule": ("linear", only("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")),
    "trained_betas": (None, optional(each(BETA))),
    "rescale_betas_zero_snr": OFF,
    "prediction_type": ("epsilon", only(*PREDICTIONS.values())),
    "predict_epsilon": (True, only(True)),  # of early versions
    "tensor_format": ("pt", ANY),
    "timestep_values": NONE,
    "timestep_type": ("discrete", only("discrete")),
    "clip_sample": (False, FLAG),
    "clip_sample_range": (1.0, POSITIVE),
    "thresholding": OFF,
    "dynamic_thresholding_ratio": (0.995, ANY),  # read by thresholding=True alone
    "sample_max_value": (1.0, ANY),
    "use_karras_sigmas": OFF,
    "use_exponential_sigmas": OFF,
    "use_beta_sigmas": OFF,
    "use_lu_lambdas": OFF,
    "use_flow_sigmas": OFF,
    "flow_shift": (1.0, ANY),  # read by use_flow_sigmas=True alone
    "use_dynamic_shifting": OFF,
    "time_shift_type": ("exponential", ANY),  # read by use_dynamic_shifting=True alone
    "shift_terminal": NONE,
    "sigma_min": NONE,
    "sigma_max": NONE,
    "interpolation_type": ("linear", only("linear")),
    "final_sigmas_type": ("zero", only("zero")),
    "lambda_min_clipped": (-math.inf, only(-math.inf)),
    **WALK,
}
DYNAMIC = ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type")  # dynamic shifting
FLOW: Table = {
    "num_train_timesteps": (1000, only(1000)),
    "shift": (1.0, only(1)),
    "use_dynamic_shifting": OFF,
    **dict.fromkeys(DYNAMIC, (None, ANY)),
    "invert_sigmas": OFF,
    "shift_terminal": NONE,
    "use_karras_sigmas": OFF,
    "use_exponential_sigmas": OFF,
    "use_beta_sigmas": OFF,
    "stochastic_sampling": OFF,
}
CLIPS: Table = {"clip_sample": (True, FLAG)}
LATENT: Table = {"beta_start": (0.00085, BETA), "beta_end": (0.012, BETA)}
CHAINS: dict[str, Table] = {  # the classes that walk a chain of betas, with the defaults that differ from CHAIN
    "DDPMScheduler": CLIPS, "DDPMParallelScheduler": CLIPS, "DDIMScheduler": CLIPS, "DDIMParallelScheduler": CLIPS,
    "PNDMScheduler": {}, "LMSDiscreteScheduler": {}, "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {}, "DPMSolverMultistepScheduler": {}, "DPMSolverSinglestepScheduler": {},
    "DEISMultistepScheduler": {}, "UniPCMultistepScheduler": {},
    "HeunDiscreteScheduler": LATENT, "KDPM2DiscreteScheduler": LATENT, "KDPM2AncestralDiscreteScheduler": LATENT,
}  # fmt: skip
FLOW_CLASS = "FlowMatchEulerDiscreteScheduler"


@dataclass(frozen=True)
class Schedule:
    """What a scheduler says of the network it belongs to. clip: the clean estimate is clamped to -1 to 1."""

    path: NoisePath
    target: TargetName
    clip: bool = False


def scheduler_in(path: Path) -> Schedule:
    """Read a scheduler_config.json. Raises InteropError for noise levels that no path here equals."""
    kind = str(read_object(path, "_class_name")["_class_name"])
    if kind == FLOW_CLASS:
        read_fields(path, FLOW)
        return Schedule(LinearPath(), "velocity")
    if kind not in CHAINS:
        raise InteropError(
            f"{path}: given {kind}, whose noise levels no path here has; supported: {FLOW_CLASS} and schedulers"
            f" over a chain of betas, such as DDPMScheduler{nearest(kind, CHAINS)}"
        )
    fields = read_fields(path, CHAIN, CHAINS[kind])
    if fields["clip_sample"] and fields["clip_sample_range"] != 1:
        refuse(path, "clip_sample_range", fields["clip_sample_range"], "1.0")
    targets = {theirs: ours for ours, theirs in PREDICTIONS.items()}
    return Schedule(chain_in(path, fields), targets[fields["prediction_type"]], fields["clip_sample"])


def chain_in(path: Path, fields: Fields) -> Chain:
    """The chain of betas of a scheduler's fields."""
    steps, listed = fields["num_train_timesteps"], fields["trained_betas"]
    if listed is not None:
        if len(listed) != steps:
            refuse(path, "num_train_timesteps", steps, f"{len(listed)}, the length of trained_betas")
        return ListedBetas(values=tuple(float(beta) for beta in listed))
    first, last = float(fields["beta_start"]), float(fields["beta_end"])
    if fields["beta_schedule"] == "linear":
        return Betas(steps=steps, first=first, last=last)
    return ListedBetas(values=tuple(BETAS[fields["beta_schedule"]](steps, first, last).tolist()))


def squared(steps: int, first: float, last: float) -> Tensor:
    """The square roots of the betas are linear (Rombach and others, 2022)."""
    return torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64).square()


def cosine(steps: int, first: float, last: float) -> Tensor:
    """alpha^2 = cos^2((t + 0.008) / 1.008 pi / 2), with beta at most 0.999 (Nichol and Dhariwal, 2021)."""
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    levels = ((t + 0.008) / 1.008 * (math.pi / 2)).cos().square()
    return (1 - levels[1:] / levels[:-1]).clamp(max=0.999)


def sigmoid(steps: int, first: float, last: float) -> Tensor:
    """A sigmoid from -6 to 6, from first to last (Xu and others, 2022)."""
    return torch.linspace(-6, 6, steps, dtype=torch.float64).sigmoid() * (last - first) + first


BETAS = {"scaled_linear": squared, "squaredcos_cap_v2": cosine, "sigmoid": sigmoid}


def chain_out(path: Chain) -> Fields:
    """The fields of a DDIMScheduler that give the chain."""
    if isinstance(path, Betas):
        linear = {"beta_start": path.first, "beta_end": path.last, "beta_schedule": "linear"}
        return {"num_train_timesteps": path.steps, **linear}
    return {"num_train_timesteps": path.length, "trained_betas": path.betas().tolist()}


def walk_given(path: Path) -> Fields:
    """The fields of a scheduler_config.json that say how it walks, which a run's own strategy does not read."""
    return {name: value for name, value in read_object(path).items() if name in WALK and value is not None}
