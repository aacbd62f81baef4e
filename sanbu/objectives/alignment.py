"""The kinds of goodness that make a base model an assistant. Configs only; each `build` imports its module when called."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sanbu.config import Choice
from sanbu.objectives.kinds import ObjectiveConfig

if TYPE_CHECKING:
    from sanbu.objectives.objective import Objective
    from sanbu.objectives.rollout import Reward


class BradleyTerry(ObjectiveConfig):
    """A reward model from every pair of answers to a question."""

    kind: Literal["bradley-terry"] = "bradley-terry"
    families: ClassVar[tuple[str, ...]] = ("scorer",)

    def build(self) -> Objective:
        from sanbu.objectives.reward import bradley_terry

        return bradley_terry()


class PlackettLuce(ObjectiveConfig):
    """A reward model from the whole order of the answers to a question."""

    kind: Literal["plackett-luce"] = "plackett-luce"
    families: ClassVar[tuple[str, ...]] = ("scorer",)

    def build(self) -> Objective:
        from sanbu.objectives.reward import plackett_luce

        return plackett_luce()


# -- preferences without a reward model ------------------------------------------------------------------------------------


class PairConfig(ObjectiveConfig):
    """What objectives of pairs have in common: parents.reference is the policy they must not leave too far."""

    families: ClassVar[tuple[str, ...]] = ("tokens",)
    beta: float = Field(0.1, gt=0, description="how dear it is to leave the reference")

    def needs(self) -> tuple[str, ...]:
        return ("reference",)


class DPO(PairConfig):
    """Direct preference optimisation."""

    kind: Literal["dpo"] = "dpo"

    def build(self) -> Objective:
        from sanbu.objectives.preference import dpo

        return dpo(self.beta)


class ConservativeDPO(PairConfig):
    """DPO for labels of which some are wrong."""

    kind: Literal["conservative-dpo"] = "conservative-dpo"
    wrong: float = Field(0.1, ge=0, lt=0.5, description="chance that a label is wrong")

    def build(self) -> Objective:
        from sanbu.objectives.preference import conservative_dpo

        return conservative_dpo(self.beta, self.wrong)


class IPO(PairConfig):
    """Identity preference optimisation: no margin grows without end."""

    kind: Literal["ipo"] = "ipo"

    def build(self) -> Objective:
        from sanbu.objectives.preference import ipo

        return ipo(self.beta)


class KTO(PairConfig):
    """Kahneman-Tversky optimisation: each answer judged by itself."""

    kind: Literal["kto"] = "kto"

    def build(self) -> Objective:
        from sanbu.objectives.preference import kto

        return kto(self.beta)


# -- rewards of one's own answers ------------------------------------------------------------------------------------------


class RewardConfig(Choice):
    """What an answer is worth; several are added."""

    weight: float = Field(1.0, description="of this reward in the sum")

    def build(self) -> Reward:
        raise NotImplementedError


class Learned(RewardConfig):
    """The score of the reward model parents.reward."""

    kind: Literal["learned"] = "learned"

    def build(self) -> Reward:
        from sanbu.objectives.rollout import learned

        return learned(self.weight)


class Checked(RewardConfig):
    """1 where the answer is exactly the known one, 0 elsewhere."""

    kind: Literal["checked"] = "checked"

    def build(self) -> Reward:
        from sanbu.objectives.rollout import checked

        return checked(self.weight)


class PolicyConfig(ObjectiveConfig):
    """What learning from one's own answers has in common: parents.reference, and parents.reward where a reward is learned."""

    families: ClassVar[tuple[str, ...]] = ("tokens",)
    rewards: tuple[RewardConfig, ...] = Field((Checked(),), min_length=1, description="what an answer is worth, added up")
    samples: int = Field(1, ge=1, description="answers to each question")
    epochs: int = Field(1, ge=1, description="passes over the answers of a round")
    parts: int = Field(1, ge=1, description="updates a pass")
    clip: float = Field(0.2, gt=0, description="how far the ratio of new and old probability may help")
    kl: float = Field(0.05, ge=0, description="weight of the KL from the reference")
    unfinished: float = Field(-1.0, description="added to the reward of an answer that does not end")

    def needs(self) -> tuple[str, ...]:
        return ("reference", *("reward" for reward in self.rewards if isinstance(reward, Learned)))


class PPO(PolicyConfig):
    """Proximal policy optimisation with a value function."""

    kind: Literal["ppo"] = "ppo"
    kl_target: float | None = Field(None, gt=0, description="KL of an answer that the weight is steered to; none keeps it")
    value_clip: float = Field(0.2, gt=0, description="how far the value may move in a round")
    value_weight: float = Field(0.5, ge=0, description="of the value's loss")
    discount: float = Field(1.0, gt=0, le=1, description="gamma, of later rewards")
    trace: float = Field(0.95, ge=0, le=1, description="lambda of generalised advantage estimation")
    mix_weight: float = Field(1.0, ge=0, description="of the loss on text, where data.mix gives some")
    whiten_rewards: bool = Field(False, description="bring the rewards of a round to deviation 1")

    def build(self) -> Objective:
        from sanbu.objectives.ppo import Settings, ppo

        names = Settings.__dataclass_fields__
        return ppo(Settings(**{name: getattr(self, name) for name in names}), [reward.build() for reward in self.rewards])


class GroupConfig(PolicyConfig):
    """What the group methods have in common."""

    samples: int = Field(8, ge=2, description="answers to each question")


class GRPO(GroupConfig):
    """Group-relative policy optimisation: advantages in deviations of the group."""

    kind: Literal["grpo"] = "grpo"

    def build(self) -> Objective:
        from sanbu.objectives.group import relative
        from sanbu.objectives.policy import grouped

        return relative(
            grouped,
            [reward.build() for reward in self.rewards],
            self.samples, self.epochs, self.parts, self.clip, self.kl, self.unfinished,
        )  # fmt: skip


class RLOO(GroupConfig):
    """REINFORCE with the other answers of the group as baseline."""

    kind: Literal["rloo"] = "rloo"

    def build(self) -> Objective:
        from sanbu.objectives.group import relative
        from sanbu.objectives.policy import left_out

        return relative(
            left_out,
            [reward.build() for reward in self.rewards],
            self.samples, self.epochs, self.parts, self.clip, self.kl, self.unfinished,
        )  # fmt: skip


# -- a task beside the language model, and learning in context -------------------------------------------------------------


class Discriminative(ObjectiveConfig):
    """A label, a choice or a number, with the language model beside it."""

    kind: Literal["discriminative"] = "discriminative"
    families: ClassVar[tuple[str, ...]] = ("scorer",)
    judge: Literal["classify", "choose", "regress"] = Field("classify", description="how scores are compared with the label")
    language: float = Field(0.5, ge=0, description="weight of the language model's loss")

    def build(self) -> Objective:
        from sanbu.objectives.discriminative import JUDGES, discriminative

        return discriminative(JUDGES[self.judge], self.language)


class InContext(ObjectiveConfig):
    """Cross-entropy of what is taught, with the accuracy after so many examples."""

    kind: Literal["in-context"] = "in-context"
    families: ClassVar[tuple[str, ...]] = ("tokens",)

    def build(self) -> Objective:
        from sanbu.objectives.next_token import in_context

        return in_context()
