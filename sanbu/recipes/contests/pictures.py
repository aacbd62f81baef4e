"""Pictures: recipes that are trained under one budget on the same data, and the ways to sample from each."""

from __future__ import annotations

from sanbu.data.image_rows import Images
from sanbu.evaluation.compare import compare_contest
from sanbu.evaluation.contest import Contestant
from sanbu.evaluation.figures import Entry
from sanbu.evaluation.report import PictureReport
from sanbu.recipe import Recipe
from sanbu.recipes import images

SECONDS, SEEDS = 60, 3  # CPU seconds of training per strategy, and runs of each
FLOW_STEPS = (1, 2, 4, 8, 16, 32, 64)


def digits() -> tuple[Contestant, ...]:
    """Digits of 8 x 8 pixels, a third of them kept for the test, no labels: every strategy on the same pictures."""
    return contest(Images(validation=0.0, test=1 / 3, classes=0))


def contest(data: Images) -> tuple[Contestant, ...]:
    """The strategies side by side, each in its nano recipe, on one CPU thread."""
    return make_contestants(
        data,
        "cpu",
        pixelcnn=images.pixelcnn(),
        vae=images.vae(),
        gan=images.gan(),
        flow=images.flow(),
        edm=images.edm(),
        consistency=images.consistency(),
    )


def convolutions(data: Images, device: str) -> tuple[Contestant, ...]:
    """The same strategies with convolutions, for larger pictures."""
    unet = ["model.width=32", "model.multipliers=[1,2,2]", "model.attention=[2]", "model.layers=1"]
    edm = ["model.path=exploding", "model.target=preconditioned", "optimizer.learning_rate=0.001", *unet]
    return make_contestants(
        data,
        device,
        pixelcnn=images.pixelcnn().change("model.width=48", "model.layers=6", "model.kernel=5"),
        vae=images.vae().change("model=autoencoder", "model.width=32", "model.multipliers=[1,2,2]", "model.latent=4"),
        gan=images.gan().change("model=dcgan", "model.width=48", "optimizer.learning_rate=0.0005"),
        flow=images.flow().change("model=unet", "optimizer.learning_rate=0.001", *unet),
        edm=images.edm().change("model=unet", *edm),
        consistency=images.consistency().change("model=unet", *edm),
    )


def make_contestants(data: Images, device: str, **chosen: Recipe) -> tuple[Contestant, ...]:
    """Recipes as contestants on the same data, with their ways to sample; consistency starts from edm's run."""
    quiet = ["schedule.evaluate_every=0", "schedule.sample_every=0", "schedule.checkpoint_every=0"]
    quiet += [f"machine.device={device}", *(["machine.precision=float32"] if device == "cpu" else [])]
    ready = {name: recipe.change(*quiet, data=data) for name, recipe in chosen.items()}
    flow = tuple((f"{steps} steps" if steps > 1 else "1 step", (f"strategy.steps={steps}",)) for steps in FLOW_STEPS)
    heun = ("Heun, 9 steps", ("strategy.sampler=heun", "strategy.steps=9"))
    edm = tuple((f"Heun, {steps} steps", (f"strategy.steps={steps}",)) for steps in (9, 18))
    few = (("1 step", ("strategy.steps=1",)), ("2 steps", ("strategy.steps=2",)))
    return (
        *(Contestant(name, ready[name]) for name in ("pixelcnn", "vae", "gan")),
        Contestant("flow", ready["flow"], (*flow, heun)),
        Contestant("edm", ready["edm"], edm, share=0.6),
        Contestant(
            "consistency", ready["consistency"], few, share=0.4, parent="edm", divided=(("objective.stage", 8),)
        ),
    )


def compete(entry: Entry) -> PictureReport:
    """Train and measure every strategy on the digits."""
    entry.values("digits")
    seconds, seeds = entry.seconds or SECONDS, entry.seeds or SEEDS
    rows = compare_contest(digits(), entry.folder, seconds, seeds)
    return PictureReport(rows, f"digits: {seconds:g} CPU seconds each, {seeds} seed{'s' if seeds > 1 else ''}")
