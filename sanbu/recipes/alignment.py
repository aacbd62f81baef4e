"""Alignment: base model, supervised fine-tuning, reward model, PPO, GRPO, DPO; each starts from an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sanbu.codecs.bpe import ChatBPE, TokenizerFile
from sanbu.codecs.tokenizer import TokenizerConfig
from sanbu.config import ConfigError, change
from sanbu.data.chat import Chat, Prompts
from sanbu.data.labelled import Labelled
from sanbu.data.mappings import Mappings
from sanbu.data.preferences import Pairs, Rankings
from sanbu.data.sources import built_in
from sanbu.data.text_rows import Text
from sanbu.machine import MachineConfig
from sanbu.models.model import ModelConfig, plain_decoder
from sanbu.models.scorers.scorer import Scorer
from sanbu.models.tokens.gpt import GPT1, GPT2
from sanbu.models.tokens.modern import Modern
from sanbu.objectives.discriminative import Discriminative
from sanbu.objectives.in_context import InContext
from sanbu.objectives.next_token import ChunkedNextToken, NextToken
from sanbu.objectives.policy.group import GRPO
from sanbu.objectives.policy.ppo import PPO
from sanbu.objectives.policy.rewards import Checked, Learned, RewardConfig
from sanbu.objectives.preference import DPO
from sanbu.objectives.reward_model import BradleyTerry
from sanbu.optimizers.gradient import AdamW
from sanbu.optimizers.muon import Muon
from sanbu.optimizers.rate import CosineRate, LinearRate
from sanbu.optimizers.search import OptimizerConfig
from sanbu.recipe import Recipe, Schedule
from sanbu.recipes.text import TALK, pick
from sanbu.run import Run
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.strategies.prediction import Prediction

ANSWER = Autoregressive(max_tokens=48, temperature=0.0)  # of chat and server; PPO and GRPO sample at temperature 1
NANO = Modern(layers=4, heads=2, width=128, context=160)
PAPER = {  # InstructGPT's policies (Ouyang and others, 2022) have GPT-3's shapes; their tokenizer is GPT-2's
    "1.3b": GPT2(layers=24, heads=16, width=2048, context=2048),
    "6b": GPT2(layers=32, heads=32, width=4096, context=2048),
}


def muon(rate: float, rest: float = 0.2) -> Muon:
    """Muon with a linear cool-down. rest: the rate of embedding and head, as a fraction of that of the matrices."""
    linear = LinearRate(hold=0.3)
    others = AdamW(learning_rate=rate * rest, weight_decay=0.0, clip=None, rate=linear)
    return Muon(learning_rate=rate, rest=others, rate=linear)


def base(size: str = "nano", path: str = "builtin:python") -> Recipe:
    """Assistant, step 1: base model whose tokenizer has role tokens and single digits."""
    if size != "nano":
        return paper_stage(
            "base",
            size,
            Text(path=path, tokenizer=ChatBPE(vocabulary=50304), context=2048),
            ChunkedNextToken(),
            2e-4,
            512,
            572_000,
        )
    return Recipe(
        name="base",
        data=Text(path=path, tokenizer=ChatBPE(vocabulary=1024), context=128),
        model=NANO,
        objective=NextToken(),
        optimizer=muon(0.02),
        strategy=TALK,
        schedule=Schedule(
            steps=100, batch=8, evaluate_every=50, evaluate_rows=64, sample_every=50, checkpoint_every=50
        ),
    )


def sft(size: str = "nano", base: str = "") -> Recipe:
    """Assistant, step 2: supervised fine-tuning (SFT) on conversations; base=RUN."""
    data = Chat(tokenizer=tokenizer_of(base, size), context=context(base, size))
    if size != "nano":
        return paper_stage("sft", size, data, ChunkedNextToken(), 9.65e-6, 32, 6_000, start=base)
    schedule = Schedule(
        steps=1900, batch=7, evaluate_every=950, evaluate_rows=64, sample_every=950, samples=2, checkpoint_every=950
    )
    optimizer = muon(0.02, rest=1.0)
    return recipe("sft", data, model_of(base), ChunkedNextToken(chunk=4096), optimizer, schedule, {"model": base})


def reward(size: str = "nano", sft: str = "", path: str = "builtin:skills") -> Recipe:
    """Assistant, step 3: reward model from rankings; sft=RUN gives its trunk."""
    data = Rankings(
        path=path, answers=4 if size == "nano" else 6, tokenizer=tokenizer_of(sft, size), context=context(sft, size)
    )
    if size != "nano":
        trunk = pick(PAPER, size)
        return paper_stage("reward", size, data, BradleyTerry(), 9e-6, 64, 500, start=sft, model=Scorer(trunk=trunk))
    schedule = Schedule(steps=80, batch=16, micro_batch=16, evaluate_every=40, evaluate_rows=128, checkpoint_every=40)
    model = Scorer(trunk=model_of(sft))
    return recipe("reward", data, model, BradleyTerry(), muon(0.006), schedule, {"model": sft}, Prediction())


def ppo(size: str = "nano", sft: str = "", reward: str = "", path: str = "builtin:skills") -> Recipe:
    """Assistant, step 4: PPO on the reward model and checked answers; sft=RUN, reward=RUN."""
    rewards: tuple[RewardConfig, ...] = (Learned(weight=0.2), Checked()) if built_in(path, "skills") else (Learned(),)
    objective = PPO(rewards=rewards, epochs=1, parts=2, kl=0.03)
    parents = {"model": sft, "reference": sft, "reward": reward}
    return policy("ppo", size, sft, path, objective, 26, 128, parents)


def grpo(size: str = "nano", sft: str = "", path: str = "builtin:skills") -> Recipe:
    """Assistant, alternative: GRPO on checked answers; sft=RUN."""
    objective = GRPO(rewards=(Checked(),), samples=8, kl=0.02)
    return policy("grpo", size, sft, path, objective, 80, 80, {"model": sft, "reference": sft})


def policy(
    name: str, size: str, sft: str, path: str, objective: Any, steps: int, batch: int, parents: dict[str, str]
) -> Recipe:
    """What PPO and GRPO have in common."""
    data = Prompts(path=path, tokenizer=tokenizer_of(sft, size), context=context(sft, size))
    if size != "nano":
        return paper_stage(name, size, data, objective, 9e-6, 512, 500, start=sft, parents=parents)
    schedule = Schedule(
        steps=steps, batch=batch, micro_batch=32, evaluate_every=13, evaluate_rows=128, checkpoint_every=13
    )
    optimizer = AdamW(
        learning_rate=4e-4, betas=(0.9, 0.99), weight_decay=0.0, clip=1.0, rate=LinearRate(warmup=0.05, hold=0.6)
    )
    made = recipe(name, data, model_of(sft), objective, optimizer, schedule, parents)
    return made.change(machine=MachineConfig(precision="float32"))  # ratios compare recorded and computed probabilities


def dpo(size: str = "nano", sft: str = "", path: str = "builtin:skills") -> Recipe:
    """Assistant, alternative: DPO on pairs of answers, without reward model; sft=RUN."""
    data = Pairs(path=path, tokenizer=tokenizer_of(sft, size), context=context(sft, size))
    parents = {"model": sft, "reference": sft}
    if size != "nano":
        return paper_stage("dpo", size, data, DPO(), 1e-6, 64, 1_000, start=sft, parents=parents)
    schedule = Schedule(steps=50, batch=32, evaluate_every=25, evaluate_rows=64, checkpoint_every=25)
    optimizer = AdamW(learning_rate=1e-4, weight_decay=0.0, clip=1.0, rate=LinearRate(warmup=0.1, hold=0.3))
    return recipe("dpo", data, model_of(sft), DPO(beta=0.3), optimizer, schedule, parents)


def gpt1_classify(
    size: str = "nano", base: str = "", path: str = "builtin:skills", task: str = "classification", text: str = "text"
) -> Recipe:
    """GPT-1, second: discriminative fine-tuning with a linear head; base=RUN (pretrained), task=, text= (field)."""
    judge = {"choice": "choose", "regression": "regress"}.get(task, "classify")
    trunk = parent(base).model if base else GPT1(layers=4, heads=4, width=128, context=128, dropout=0.1)
    if size != "nano":
        trunk = GPT1(layers=12, heads=12, width=768, context=512)
    reads = {"path": path, "task": task, "text": text, "context": getattr(plain_decoder(trunk), "context", 128)}
    data = change(Labelled(tokenizer=tokenizer_of(base, size)), reads)
    schedule = Schedule(steps=600, batch=32, evaluate_every=100, evaluate_rows=1024, checkpoint_every=200)
    optimizer = AdamW(
        learning_rate=6.25e-5 if size != "nano" else 5e-4, rate=LinearRate(warmup=0.002 if size != "nano" else 0.1)
    )
    objective = change(Discriminative(), {"judge": judge})
    return recipe(
        "gpt1-classify", data, Scorer(trunk=trunk), objective, optimizer, schedule, {"model": base}, Prediction()
    )


def icl(size: str = "nano") -> Recipe:
    """In-context learning: random mappings, to be inferred from the examples in the prompt."""
    shapes = {"nano": (4, 4, 128), "12m": (12, 8, 256)}  # the second is the model of Garg and others (2022)
    layers, heads, width = pick(shapes, size)
    return Recipe(
        name="icl",
        data=Mappings(),
        model=Modern(layers=layers, heads=heads, width=width, context=64),
        objective=InContext(),
        optimizer=muon(0.01),
        strategy=Autoregressive(max_tokens=1, temperature=0.0),
        schedule=Schedule(steps=600, batch=64, evaluate_every=100, evaluate_rows=512, checkpoint_every=200),
    )


def recipe(
    name: str, data: Any, model: Any, objective: Any, optimizer: OptimizerConfig, schedule: Schedule,
    parents: dict[str, str], strategy: Any = ANSWER,
) -> Recipe:  # fmt: skip
    """A stage; parents that are not given are left out."""
    return Recipe(
        name=name, data=data, model=model, objective=objective, optimizer=optimizer, strategy=strategy,
        parents={role: path for role, path in parents.items() if path}, schedule=schedule,
    )  # fmt: skip


def paper_stage(
    name: str, size: str, data: Any, objective: Any, rate: float, batch: int, steps: int,
    start: str = "", parents: dict[str, str] | None = None, model: Any = None,
) -> Recipe:  # fmt: skip
    """A stage at the size of the paper."""
    optimizer = AdamW(learning_rate=rate, rate=CosineRate(warmup=0.02))
    schedule = Schedule(steps=steps, batch=batch, micro_batch=4, evaluate_every=100, checkpoint_every=100)
    strategy = Prediction() if model is not None else TALK
    return recipe(
        name, data, model or pick(PAPER, size), objective, optimizer, schedule, parents or {"model": start}, strategy
    )


def parent(path: str) -> Recipe:
    """The recipe of a parent run."""
    return Run.open(path).recipe


def tokenizer_of(path: str, size: str) -> TokenizerConfig:
    """The tokenizer of a parent run, or the one its recipe would make."""
    if not path:
        return ChatBPE(vocabulary=1024 if size == "nano" else 50304)
    data: Any = parent(path).data
    config: TokenizerConfig | None = getattr(data, "tokenizer", None)
    if config is None:
        raise ConfigError(f"{path} is not a run of text, so it cannot be the parent here: its data is {data.kind!r}")
    file = Path(path) / "tokenizer.json"
    if not file.exists():
        return config
    if isinstance(config, TokenizerFile):
        return change(config, {"path": str(file)})
    return TokenizerFile(path=str(file), vocabulary=config.size(), end_id=config.end(), start_id=config.end())


def model_of(path: str) -> Any:
    """The model of a parent run, without dropout: policy and reference must agree before anything is learnt."""
    if not path:
        return NANO
    return without_dropout(parent(path).model)


def without_dropout(model: Any) -> Any:
    """A model, and the model that it adapts, with no dropout."""
    fields = {name: without_dropout(part) for name, part in model if isinstance(part, ModelConfig)}
    if "dropout" in type(model).model_fields:
        fields["dropout"] = 0.0
    return change(model, fields) if fields else model


def context(path: str, size: str) -> int:
    """The longest sequence of a parent run."""
    return getattr(plain_decoder(model_of(path)), "context", 128) if size == "nano" else 2048


__all__ = ["base", "dpo", "gpt1_classify", "grpo", "icl", "ppo", "reward", "sft"]
