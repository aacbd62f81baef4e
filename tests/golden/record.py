"""Record the exact results of recipes and strategies: `python -m tests.golden.record` writes hashes.json.

A change that should not alter results leaves every hash as it is (test_golden.py). Record again only for a change that
should, and say so in docs/LOG.md. Exact bits depend on the instruction set of the processor and on library versions, so
this disables optimised kernels, and hashes a small probe computation to tell whether two machines agree at all.
"""

import hashlib
import inspect
import json
import os
import sys
import tempfile
from pathlib import Path

PLAIN = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
FILE = Path(__file__).parent / "hashes.json"
STEPS = 20
QUIET = [
    "machine.device=cpu", "machine.precision=float32", "machine.compile=off", "machine.threads=1",
    f"schedule.steps={STEPS}", "schedule.sample_every=0", "schedule.evaluate_every=0", "schedule.checkpoint_every=0",
    "schedule.patience=0",
]  # fmt: skip
SMALLER = {"ppo": ["schedule.batch=32"], "grpo": ["schedule.batch=8"], "pixelrnn": ["schedule.batch=16"]}
PARENTS = {
    "sft": "sft",
    "base": "base",
    "reward": "reward",
    "teacher": "edm",
    "ngram": "ngram",
    "codec": "sound-codec",
}  # recipe argument: the run passed for it
SAMPLES = {
    "autoregressive": (
        "gpt2",
        "The ",
        ["strategy.max_tokens=16", "strategy.repetition_penalty=1.1", "strategy.top_k=50"],
    ),
    "beam-search": ("gpt2", "The ", ["strategy=beam-search", "strategy.max_tokens=8", "strategy.length_penalty=0.5"]),
    "prediction": ("reward", "How much is 1 + 1?", []),
    "pixel-by-pixel": ("pixelcnn", None, []),
    "pixel-by-pixel, recurrent": ("pixelrnn", None, []),
    "pixel-by-pixel, attention": ("image-gpt", None, []),
    "one-shot, latent": ("vae", None, []),
    "one-shot, generator": ("gan", None, []),
    "chat": ("sft", "What is 3 + 4?", ["strategy.max_tokens=12"]),
    **{
        f"refinement, {sampler}": (
            "flow",
            None,
            [f"strategy.sampler={sampler}", "strategy.steps=4", "strategy.guidance=1.5"],
        )
        for sampler in ("ancestral", "ddim", "euler", "heun", "dpm-solver", "consistency")
    },
    "refinement, clipped": ("ddpm", None, ["strategy.steps=4", "strategy.clip=true"]),
}


def digest(tensors):
    """A hash of named tensors: names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous().cpu()
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()[:16]


def probe():
    """A hash of a small computation that every recipe uses; machines that differ here cannot be compared."""
    import torch
    from torch.nn import functional as F

    x = torch.linspace(-2, 2, 64 * 64).view(64, 64)
    image = x.view(1, 4, 32, 32)
    parts = {
        "product": x @ x.T, "exp": x.exp(), "trigonometry": x.sin() + x.cos() + x.tanh(),
        "softmax": x.log_softmax(1), "gelu": F.gelu(x), "norm": F.layer_norm(x, (64,)),
        "convolution": F.conv2d(image, torch.linspace(-1, 1, 4 * 4 * 9).view(4, 4, 3, 3)),
        "attention": F.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True),
    }  # fmt: skip
    return digest(parts)


def train_all(folder, wanted):
    """Train nano recipes for a few steps: all, or the given names with their parents; yields name and run."""
    from sanbu import recipes
    from sanbu.config import override
    from sanbu.loop import train

    wanted = {*wanted, *(PARENTS[a] for name in wanted for a in arguments(name))} if wanted else recipes.RECIPES
    for name in sorted(wanted, key=order):
        function = recipes.find(name)
        given = {argument: str(folder / PARENTS[argument]) for argument in arguments(name)}
        recipe = override(function(**given), [*QUIET, *SMALLER.get(name, [])])
        run = train(recipe, folder / name, watchers=[])
        yield name, run


def order(name):
    """The recipes sorted so that parents come first."""
    first = ("base", "sft", "reward", "edm", "ngram", "sound-codec")
    return (first.index(name) if name in first else len(first), name)


def one_round(folder, name):
    """The metrics of one rollout round: rewards, KL, entropy, loss."""
    from sanbu import recipes
    from sanbu.config import override
    from sanbu.loop import train

    function = recipes.find(name)
    given = {argument: str(folder / PARENTS[argument]) for argument in arguments(name)}
    run = train(
        override(function(**given), [*QUIET, "schedule.steps=1", *SMALLER[name]]), folder / f"{name}-round", watchers=[]
    )
    row = {key: value for key, value in run.metrics()[0].items() if not key.startswith("time/")}
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]


def samples(run, prompt, overrides):
    """Ten samples of a strategy."""
    import torch

    from sanbu.config import override
    from sanbu.strategies.strategy import generate, last

    recipe = override(run.recipe, overrides)
    condition = run.codec.condition(prompt, 10)
    draft = last(generate(recipe.strategy.build(recipe.data.space()), run.models, condition, torch.arange(10)))
    return digest({"sample": draft.sample, "committed": draft.committed})


def arguments(name):
    """The recipe arguments that take a run."""
    from sanbu import recipes

    return [argument for argument in inspect.signature(recipes.find(name)).parameters if argument in PARENTS]


def record(wanted=()):
    """Hashes of all recipes, or of the given names, as JSON values."""
    import torch

    from sanbu.files import read_tensors

    torch.set_num_threads(1)
    found = {"probe": probe(), "data": {}, "weights": {}, "rounds": {}, "samples": {}}
    with tempfile.TemporaryDirectory() as place:
        folder, runs = Path(place), {}
        for name, run in train_all(folder, wanted):
            runs[name] = run
            found["weights"][name] = digest(read_tensors(run.folder / "model.safetensors"))
            rows = run.recipe.data.build().batch(0, 64)
            found["data"][name] = digest(rows)
            print(name, found["weights"][name], file=sys.stderr, flush=True)
        for name in ("ppo", "grpo") if not wanted else ():
            found["rounds"][name] = one_round(folder, name)
        for name, (run, prompt, overrides) in SAMPLES.items():
            if run in runs:
                found["samples"][name] = samples(runs[run], prompt, overrides)
    return found


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in PLAIN.items()):
        os.execve(sys.executable, [sys.executable, "-m", "tests.golden.record", *sys.argv[1:]], {**os.environ, **PLAIN})
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    out.write_text(json.dumps(record(sys.argv[2:]), indent=1) + "\n")
