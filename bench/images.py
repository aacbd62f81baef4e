"""Image generation compared with its usual alternatives.

python -m bench.images [--part unet|dit|import|pixelcnn|compare|nats] [--json]

unet, dit: DDIM with 50 steps and the same weights, Sanbu and a diffusers pipeline, each at its best (eager or
compiled), one thread, in alternating measurements. import: seconds to import. pixelcnn: sampling 28 x 28 with cached
activations against a full forward pass per pixel. compare: the strategies on Fashion-MNIST, each trained for --seconds
(--data: an .npz; on a GPU if there is one). nats: binarised MNIST compared with published figures. The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.together import best, side_by_side
from sanbu.checkpoints import Writer

STEPS = 50
Figures = dict[str, Any]
SHAPES = {
    "unet": ["model.width=32", "model.multipliers=[1,2,2]", "model.attention=[1]", "model.layers=1"],
    "dit": ["model.width=128", "model.layers=6", "model.heads=4", "model.patch=4"],
}


def prepared(name: str, folder: Path) -> Path:
    """Create a run with random weights for 28 x 28 pictures, and the same weights as a diffusers pipeline."""
    import torch

    from sanbu import recipes
    from sanbu.config import override
    from sanbu.interop.diffusers import export_folder
    from sanbu.run import Run

    base = recipes.ddpm() if name == "unet" else recipes.dit()
    data = ["data.path=none", "data.shape=[1,28,28]", "data.levels=256", "data.classes=10"]
    recipe = override(base, [*data, *SHAPES[name]])
    torch.manual_seed(0)
    model = recipe.model.build(recipe.data.space())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    run = Writer.create(folder / "run", recipe, recipe.data.codec(folder).save)
    run.save_model(model)
    export_folder(Run.open(folder / "run"), folder / "pipeline")
    return folder


def our_drawing(folder: str, rows: int, compiled: bool) -> Callable[[], float]:
    """Pictures per second of a run."""
    import torch

    from sanbu.run import Run
    from sanbu.strategies.strategy import last

    torch.set_num_threads(1)
    run = Run.open(Path(folder) / "run")
    if compiled:
        run.model.network.compile(dynamic=False, options={"cpp_wrapper": True})
    label = torch.full((rows,), 10) if "unet" in folder else torch.arange(rows) % 10
    return pictures(lambda: last(run.drawing((f"strategy.steps={STEPS}",)).drafts({"label": label})), rows)


def peer_drawing(folder: str, rows: int, compiled: bool) -> Callable[[], float]:
    """Pictures per second of a diffusers pipeline."""
    import diffusers
    import torch

    torch.set_num_threads(1)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(Path(folder) / "pipeline"))
    pipeline.set_progress_bar_config(disable=True)
    part = pipeline.unet if "unet" in folder else pipeline.transformer
    if compiled:
        part.compile(dynamic=False, options={"cpp_wrapper": True})
    if "unet" in folder:
        draw = lambda: pipeline(batch_size=rows, num_inference_steps=STEPS, output_type="np")
    else:
        labels = [row % 10 for row in range(rows)]
        draw = lambda: pipeline(labels, guidance_scale=1.0, num_inference_steps=STEPS, output_type="np")
    return pictures(draw, rows)


def pictures(draw: Callable[[], Any], rows: int) -> Callable[[], float]:
    """Pictures per second of a function that draws `rows` pictures, after one warm-up call."""
    draw()

    def measure() -> float:
        since = time.perf_counter()
        draw()
        return rows / (time.perf_counter() - since)

    return measure


def drawing(name: str, rounds: int = 5) -> Figures:
    """Sanbu's rate divided by that of diffusers at batch 1 and 16, each at its best."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as place:
        folder = str(prepared(name, Path(place) / name))
        for rows in (1, 16):
            found = side_by_side(
                {
                    "sanbu, eager": (our_drawing, (folder, rows, False)),
                    "sanbu, compiled": (our_drawing, (folder, rows, True)),
                    "diffusers, eager": (peer_drawing, (folder, rows, False)),
                    "diffusers, compiled": (peer_drawing, (folder, rows, True)),
                },
                rounds,
            )
            (ours, mine), (theirs, peer) = best(found, "sanbu"), best(found, "diffusers")
            figures |= {f"{name}.batch{rows}.pictures_per_second": mine, f"{name}.batch{rows}.peer": peer}
            figures |= {
                f"{name}.batch{rows}.settings": f"{ours} against {theirs}",
                f"{name}.batch{rows}.ratio": mine / peer,
            }
            figures[f"{name}.batch{rows}.eager_ratio"] = found["sanbu, eager"] / found["diffusers, eager"]
    figures[f"{name}.ratio"] = figures[f"{name}.batch16.ratio"]
    return figures


def importing(rounds: int = 5) -> Figures:
    """CPU seconds of an import, less the start of Python: diffusers divided by Sanbu.

    Measured twice: the bare import, and everything needed to load and sample a pipeline or a run.
    """

    def seconds(line: str) -> float:
        code = f"import time; {line}; print(time.process_time())"
        return min(
            float(subprocess.check_output([sys.executable, "-c", code], text=True).split()[-1]) for _ in range(rounds)
        )

    nothing = seconds("pass")
    lines = {
        "import": ("import sanbu", "import diffusers"),
        "import.ready": (
            "import sanbu, sanbu.strategies.refinement, sanbu.models.denoisers.unet; sanbu.load",
            "from diffusers import DiffusionPipeline, UNet2DModel, DDIMScheduler, DDPMPipeline",
        ),
    }
    figures: Figures = {}
    for name, (ours, theirs) in lines.items():
        mine, peer = seconds(ours) - nothing, seconds(theirs) - nothing
        figures |= {f"{name}.seconds": mine, f"{name}.peer": peer, f"{name}.ratio": peer / mine}
    return figures


def pixelcnn(rows: int = 16) -> Figures:
    """Sampling 28 x 28 pixel by pixel: cached activations against a full forward pass per pixel."""
    import torch

    from sanbu.models.pixels.pixelcnn import PixelCNN
    from sanbu.space import Space
    from sanbu.strategies.pixel_by_pixel import PixelByPixel
    from sanbu.strategies.strategy import generate, last

    torch.set_num_threads(1)
    space = Space((1, 28, 28), 256)
    model = PixelCNN(width=48, layers=4).build(space).eval()
    condition = {"label": torch.zeros(rows, dtype=torch.long)}

    def kept() -> float:
        since = time.process_time()
        last(generate(PixelByPixel().build(space), {"model": model}, condition, torch.arange(rows)))
        return time.process_time() - since

    @torch.no_grad()
    def whole(pixels: int) -> float:
        levels = torch.zeros(rows, 1, 28, 28, dtype=torch.long)
        since = time.process_time()
        for place in range(pixels):
            row, column = divmod(place, 28)
            features = model.features(levels, condition["label"])[:, row, column]
            logits = model.output.logits(features, levels[:, :, row, column], 0)
            levels[:, 0, row, column] = torch.distributions.Categorical(logits=logits).sample()
        return (time.process_time() - since) * 784 / pixels

    ours, theirs = min(kept() for _ in range(3)), min(whole(16) for _ in range(3))
    return {
        "pixelcnn.ms_per_picture": 1000 * ours / rows,
        "pixelcnn.peer": 1000 * theirs / rows,
        "pixelcnn.cached_ratio": theirs / ours,
    }


def compare(data: str, seconds: float) -> Figures:
    """The strategies compared on 28 x 28 pictures with convolutional networks, on a GPU if there is one."""
    import torch

    from sanbu.data.image_rows import Images
    from sanbu.evaluation.compare import compare_contest
    from sanbu.evaluation.report import row_figures, write
    from sanbu.recipes.contests.pictures import convolutions

    device = "cuda" if torch.cuda.is_available() else "cpu"
    contestants = convolutions(Images(path=data, validation=0.0, test=0.1, classes=0).resolve(), device)
    folder = Path(f"runs/compare-{Path(data).parent.name}-{seconds:g}")
    rows = compare_contest(contestants, folder, seconds, 1)
    write(rows, folder, f"{Path(data).parent.name}, {seconds:g} seconds each on {device}")
    return {f"compare.{row.name}": row_figures(row) for row in rows}


def nats(data: str, seconds: float) -> Figures:
    """Held-out nats of binarised MNIST: exact for PixelCNN, importance-weighted bound (64 draws) for the VAE."""
    import math

    from sanbu.config import override
    from sanbu.data.image_rows import Images
    from sanbu.evaluation.contest import Contestant, train_contestants
    from sanbu.evaluation.pictures import bits_per_dimension
    from sanbu.models.latents.vae import PerceptronVAE
    from sanbu.models.pixels.pixelcnn import PixelCNN
    from sanbu.recipes import pixelcnn as pixelcnn_recipe
    from sanbu.recipes import vae as vae_recipe

    pictures = Images(path=data, levels=2, classes=0, validation=0.0, test=1 / 12)
    quiet = ["schedule.evaluate_every=0", "schedule.sample_every=0", "schedule.checkpoint_every=0"]
    chosen = {
        "pixelcnn": override(
            pixelcnn_recipe().model_copy(update={"data": pictures, "model": PixelCNN(width=32, layers=6, kernel=5)}),
            quiet,
        ),
        "vae": override(
            vae_recipe().model_copy(update={"data": pictures, "model": PerceptronVAE(width=512, layers=1, latent=50)}),
            quiet,
        ),
    }
    figures: Figures = {"nats.published": {"pixelcnn": 81.3, "vae": 89.8}}
    folder = Path(f"runs/nats-{seconds:g}")
    contestants = [Contestant(name, recipe) for name, recipe in chosen.items()]
    for each, _, run in train_contestants(contestants, folder, seconds, 1):
        figures[f"nats.{each.name}"] = (
            (bits_per_dimension(run, run.recipe.data.build(), 2000) or 0.0) * 784 * math.log(2)
        )
    return figures


def main() -> None:
    """Run the requested parts."""
    parts: dict[str, Callable[[argparse.Namespace], Figures]] = {
        "unet": lambda given: drawing("unet"),
        "dit": lambda given: drawing("dit"),
        "import": lambda given: importing(),
        "pixelcnn": lambda given: pixelcnn(),
        "compare": lambda given: compare(given.data or "../shared/data/fashion_mnist/train.npz", given.seconds),
        "nats": lambda given: nats(given.data or "../shared/data/mnist/train.npz", given.seconds),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=parts, action="append")
    parser.add_argument("--data", help=".npz file of pictures; default: the data set of the part")
    parser.add_argument(
        "--seconds", type=float, default=600, help="seconds of training per model (compare, nats); default: 600"
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures: Figures = {}
    for name in given.part or ("unet", "dit", "import", "pixelcnn"):
        print(name, file=sys.stderr, flush=True)
        figures |= parts[name](given)
    print(json.dumps(figures, indent=None if given.json else 1))


if __name__ == "__main__":
    main()
