"""The public conformance checks pass for every registered kind, and each check detects a broken kind."""

from typing import Literal

import pytest
import torch

from sanbu.models.custom_module import CustomConfig, CustomDenoiser
from sanbu.models.denoisers.perceptron import PerceptronDenoiser
from sanbu.models.denoisers.trees import TreeDenoiser
from sanbu.models.generators.gan import PerceptronGAN
from sanbu.models.latents.vae import PerceptronVAE
from sanbu.models.model import AdaptedConfig, ModelConfig
from sanbu.models.pixels.pixelcnn import PixelCNN
from sanbu.models.predictors.mlp import MLP
from sanbu.models.predictors.trees import Trees
from sanbu.models.scorers.scorer import Scorer
from sanbu.models.tokens.gpt import GPT2
from sanbu.models.tokens.lora import LoRA
from sanbu.models.tokens.mixture import Mixture
from sanbu.models.tokens.ngram import NGram
from sanbu.models.tokens.recurrent import LSTM, StatefulConfig
from sanbu.objectives.carried import CarriedNextToken
from sanbu.objectives.discriminative import Discriminative
from sanbu.objectives.in_context import InContext
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.objectives.policy.group import GRPO, RLOO
from sanbu.objectives.policy.policy import PolicyConfig
from sanbu.objectives.policy.ppo import PPO
from sanbu.objectives.policy.reinforce import Reinforce
from sanbu.objectives.policy.rewards import Checked, Learned
from sanbu.objectives.preference import DPO, IPO, KTO, ConservativeDPO, PairConfig
from sanbu.objectives.reconstruction import Reconstruction
from sanbu.objectives.reward_model import BradleyTerry, PlackettLuce
from sanbu.objectives.supervised import SupervisedConfig
from sanbu.optimizers.bagging import Bagging
from sanbu.optimizers.boosting import Boosting
from sanbu.optimizers.closed_form import ClosedForm
from sanbu.optimizers.gradient import Adam, AdamW
from sanbu.optimizers.muon import Muon
from sanbu.optimizers.rate import ConstantRate
from sanbu.optimizers.search import OptimizerConfig
from sanbu.space import Space
from sanbu.strategies.cells import Cells
from sanbu.strategies.one_shot import OneShot
from sanbu.strategies.pixel_by_pixel import PixelByPixel
from sanbu.strategies.prediction import Prediction
from sanbu.strategies.refinement import Refinement
from sanbu.strategies.row_refinement import RowRefinement
from sanbu.strategies.strategy import StrategyConfig
from sanbu.testing import check_model, check_objective, check_search, check_strategy

SPACE = Space((12,), 30, 0)
TOKENS = torch.arange(48).view(4, 12) % 29 + 1
BATCH = {"tokens": TOKENS, "targets": TOKENS.roll(-1, 1), "bytes": torch.full((4,), 12)}


def ours(base):
    return [cls for cls in base.kinds().values() if cls.__module__.startswith("sanbu.")]


def of_text(base):
    """Kinds for text; kinds for pictures are checked in tests/models and tests/objectives/test_picture*.py."""
    found = [cls for cls in ours(base) if "tokens" in (getattr(cls, "family", ""), *getattr(cls, "families", ()))]
    return [
        cls
        for cls in found
        if not issubclass(cls, (AdaptedConfig, CustomConfig, PairConfig, PolicyConfig, Reinforce, InContext))
    ]


TALE = GPT2(layers=2, heads=2, width=16, context=16)
ADAPTED = [LoRA(base=TALE, rank=2), Scorer(trunk=TALE, outputs=3), Scorer(trunk=LoRA(base=TALE, rank=2))]
ALIGNED = [
    (BradleyTerry(), Scorer(trunk=TALE)),
    (PlackettLuce(), Scorer(trunk=TALE)),
    (DPO(), TALE),
    (ConservativeDPO(), TALE),
    (IPO(), TALE),
    (KTO(), TALE),
    (PPO(samples=2, epochs=2, parts=2), TALE),
    (PPO(rewards=(Learned(), Checked()), kl_target=1.0, whiten_rewards=True), TALE),
    (GRPO(samples=3), TALE),
    (RLOO(samples=3), TALE),
    (Reinforce(samples=2), TALE),
    (Discriminative(), Scorer(trunk=TALE, outputs=3)),
    (Discriminative(judge="choose"), Scorer(trunk=TALE)),
    (Discriminative(judge="regress"), Scorer(trunk=TALE)),
    (InContext(), TALE),
]


SOUND = {
    "vocoder",
    "wave-density",
    "durations",
    "attention",
    "speech-flow",
    "recogniser",
    "codes",
    "performer",
    "performer-flow",
}  # families of models


def test_every_kind_is_checked_somewhere():
    from tests.models.test_cnn import KINDS as CONVOLUTIONS
    from tests.models.test_pictures import ALL
    from tests.objectives.test_picture_objectives import PAIRS

    custom = {*CustomConfig.__subclasses__(), CustomDenoiser}  # checked in tests/test_python.py
    checked = {*of_text(ModelConfig), *(type(config) for config, _ in ALL), *map(type, ADAPTED)}
    checked |= {type(config) for config in CONVOLUTIONS}
    checked |= {kind for kind in ours(ModelConfig) if kind.family == "columns"}  # in tests/tables
    checked |= {kind for kind in ours(ModelConfig) if kind.family in SOUND}  # in tests/sound
    checked |= {MLP, Trees, TreeDenoiser, Mixture}  # here below, in tests/models/test_trees.py and test_ngram.py
    assert checked | custom == {*ours(ModelConfig)}
    aligned = {type(objective) for objective, _ in ALIGNED} | {*SupervisedConfig.kinds().values(), Reconstruction}
    aligned |= {kind for kind in ours(ObjectiveConfig) if kind.families == ("columns",)}  # in tests/tables
    aligned |= {kind for kind in ours(ObjectiveConfig) if SOUND & {*kind.families}}  # in tests/sound
    assert {*of_text(ObjectiveConfig), *(type(o) for o, _ in PAIRS.values())} | aligned == {*ours(ObjectiveConfig)}
    pictures = {type(config) for config, _ in PICTURES}
    sound = {kind for kind in ours(StrategyConfig) if SOUND & {*kind.families}}  # in tests/sound
    rows = {Prediction, Cells, RowRefinement}  # the last two in tests/tables
    assert {*of_text(StrategyConfig), *rows} | pictures | sound == {*ours(StrategyConfig)}


PICTURES = [
    (PixelByPixel(), PixelCNN(width=8, layers=1)),
    (OneShot(), PerceptronVAE(width=8, latent=2)),
    (OneShot(temperature=0.5), PerceptronGAN(width=8, latent=2)),
    (Refinement(steps=3, guidance=1.5), PerceptronDenoiser(width=8)),
    (Refinement(steps=3, sampler="ancestral", clip=True), PerceptronDenoiser(width=8)),
]


@pytest.mark.parametrize("number", range(len(PICTURES)))
def test_strategies_for_pictures(number):
    strategy, model = PICTURES[number]
    space = Space((1, 3, 4), 5, classes=2)
    check_strategy(strategy, {"model": model.build(space).eval()}, space, {"label": torch.tensor([0, 1, 2])})


@pytest.mark.parametrize("config", ADAPTED)
def test_models_over_a_decoder(config):
    check_model(config, SPACE, (TOKENS,))


@pytest.mark.parametrize("number", range(len(ALIGNED)))
def test_objectives_of_alignment(number):
    """Includes additivity of every loss: micro-batches, and rows without targets, sum to the whole batch."""
    from tests.objectives.test_policy import QUESTIONS, asking
    from tests.objectives.test_preferences import pairs

    objective, config = ALIGNED[number]
    torch.manual_seed(0)
    model = config.build(SPACE)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    if isinstance(objective, (PolicyConfig, Reinforce)):
        asked = asking(model, None, space=SPACE)
        batch, others = QUESTIONS, {**asked.models, "reward": Scorer(trunk=TALE).build(SPACE)}
        check_objective(objective, model, batch, others, asked.draw, asked.read)
        return
    if isinstance(objective, InContext):
        batch, others = {"tokens": TOKENS, "targets": TOKENS.roll(-1, 1).where(TOKENS % 2 == 0, -100)}, {}
    else:
        batch, others = pairs(answers=2), {"reference": TALE.build(SPACE)}
        batch["label"] = (
            torch.tensor([0.5, 1.0, 2.0]) if getattr(objective, "judge", "") == "regress" else torch.tensor([0, 1, 1])
        )
        batch["targets"][1, 1] = -100
    check_objective(objective, model, batch, others)


def test_a_prediction():
    condition = {"tokens": TOKENS[:, :7], "length": torch.tensor([7, 1, 4, 6])}
    check_strategy(Prediction(), {"model": Scorer(trunk=TALE, outputs=3).build(SPACE).eval()}, SPACE, condition)


@pytest.mark.parametrize("kind", of_text(ModelConfig))
def test_models(kind):
    if kind.searches:
        config = NGram(order=3) if kind is NGram else kind(trees=2, leaves=8, leaf=1)
        check_model(config, SPACE, (TOKENS,), lambda model: model.fit(BATCH))
    elif issubclass(kind, StatefulConfig):
        check_model(kind(layers=2, width=16), SPACE, (TOKENS,))
    else:
        check_model(kind(layers=2, heads=2, width=16, context=16), SPACE, (TOKENS,))


def test_a_multilayer_perceptron():
    check_model(MLP(layers=2, width=8, outputs=3), Space((2, 3)), (torch.randn(4, 2, 3),))


@pytest.mark.parametrize("kind", of_text(ObjectiveConfig))
def test_objectives(kind):
    lanes = {"lane": torch.arange(4), "continues": torch.zeros(4, dtype=torch.bool)}
    config = LSTM(layers=2, width=16) if kind is CarriedNextToken else GPT2(layers=2, heads=2, width=16, context=16)
    check_objective(kind(), config.build(SPACE), BATCH | lanes)


@pytest.mark.parametrize("kind", [cls for cls in ours(OptimizerConfig) if cls not in (Boosting, Bagging, ClosedForm)])
def test_searches(kind):
    """Boosting and bagging need a forest, closed form a model that fits itself: they have tests of their own."""
    fields = {
        Adam: {"learning_rate": 0.01},
        AdamW: {"learning_rate": 0.01},
        Muon: {"rest": AdamW(learning_rate=0.01), "rate": ConstantRate()},
    }
    check_search(kind(**fields.get(kind, {})))


@pytest.mark.parametrize("kind", of_text(StrategyConfig))
def test_strategies(kind):
    torch.manual_seed(0)
    model = GPT2(layers=2, heads=2, width=16, context=32).build(SPACE).eval()
    condition = {"tokens": TOKENS[:, :7], "length": torch.tensor([7, 1, 4, 6])}
    check_strategy(kind(max_tokens=15, prefill=3), {"model": model}, SPACE, condition)


class Doubling(ObjectiveConfig):
    """A broken objective: its loss is a mean, not a sum over rows."""

    kind: Literal["broken-objective"] = "broken-objective"

    def build(self):
        return Objective(
            lambda models, batch: Loss({"x": models["model"](batch["tokens"]).mean()}),
            lambda batch: {"x": 1.0 * len(batch["tokens"])},
        )


class Forgetful(OptimizerConfig):
    """A broken optimizer: it does not save its momentum."""

    kind: Literal["broken-search"] = "broken-search"

    def build(self, models, steps):
        search = Adam(learning_rate=0.01).build(models, steps)
        search.state_dict = lambda: {
            "updates": 0,
            "optimizers": [torch.optim.Adam(models["model"].parameters(), fused=True).state_dict()],
        }
        return search


class Fickle(StrategyConfig):
    """A broken strategy: a row depends on its neighbours' seeds."""

    kind: Literal["broken-strategy"] = "broken-strategy"

    def build(self, space):
        from sanbu.strategies.autoregressive import Autoregressive

        strategy = Autoregressive(max_tokens=10).build(space)
        begin = strategy.begin
        strategy.begin = lambda condition, seeds: begin(condition, seeds + len(seeds))
        return strategy


def test_the_checks_catch_what_is_broken():
    model = GPT2(layers=1, heads=1, width=8, context=32).build(SPACE).eval()
    with pytest.raises(AssertionError, match="not close"):
        check_objective(Doubling(), model, BATCH)
    with pytest.raises(AssertionError, match="another way"):
        check_search(Forgetful())
    with pytest.raises(AssertionError, match="another alone"):
        check_strategy(
            Fickle(), {"model": model}, SPACE, {"tokens": TOKENS[:, :3], "length": torch.tensor([3, 3, 3, 3])}
        )
