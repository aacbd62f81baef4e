"""Contests: recipes that `sanbu compare NAME` trains under one budget, and the ways to draw from each."""

from __future__ import annotations

from collections.abc import Callable

from sanbu.config import ConfigError, nearest, override
from sanbu.data.kinds import Images
from sanbu.evaluation.contest import Contestant
from sanbu.recipe import Recipe
from sanbu.recipes import images

FLOW_STEPS = (1, 2, 4, 8, 16, 32, 64)


def digits() -> tuple[Contestant, ...]:
    """Digits of 8 x 8 pixels, a third of them kept for the test, no labels: every strategy on the same pictures."""
    return contest(Images(validation=0.0, test=1 / 3, classes=0))


def contest(data: Images) -> tuple[Contestant, ...]:
    """The strategies side by side, each in its nano recipe."""

    def entered(recipe: Recipe) -> Recipe:
        quiet = [
            "schedule.evaluate_every=0",
            "schedule.sample_every=0",
            "schedule.checkpoint_every=0",
            "machine.device=cpu",
            "machine.precision=float32",
        ]
        return override(recipe.model_copy(update={"data": data}), quiet)

    flow = tuple((f"{steps} steps" if steps > 1 else "1 step", (f"strategy.steps={steps}",)) for steps in FLOW_STEPS)
    heun = ("Heun, 9 steps", ("strategy.sampler=heun", "strategy.steps=9"))
    return (
        Contestant("pixelcnn", entered(images.pixelcnn())),
        Contestant("vae", entered(images.vae())),
        Contestant("gan", entered(images.gan())),
        Contestant("flow", entered(images.flow()), (*flow, heun)),
        Contestant(
            "edm", entered(images.edm()), tuple((f"Heun, {n} steps", (f"strategy.steps={n}",)) for n in (5, 18)), share=0.6
        ),
        Contestant(
            "consistency",
            entered(images.consistency()),
            (("1 step", ("strategy.steps=1",)), ("2 steps", ("strategy.steps=2",))),
            share=0.4,
            parent="edm",
            divided=(("objective.stage", 8),),
        ),
    )


CONTESTS: dict[str, Callable[[], tuple[Contestant, ...]]] = {"digits": digits}


def find(name: str) -> tuple[Contestant, ...]:
    """The contest of that name. Raises ConfigError with the nearest match."""
    if name not in CONTESTS:
        raise ConfigError(
            f"{name!r} is no run folder and no contest; contests: {', '.join(CONTESTS)}{nearest(name, CONTESTS)}"
        )
    return CONTESTS[name]()
