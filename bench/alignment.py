"""Alignment training compared with TRL: python -m bench.alignment [--part sft|dpo|grpo] [--rounds N] [--json]

Both train the same GPT-2 shape (6 layers, width 256, vocabulary 4,096) on the same questions and the same machine, in
alternating measurements. TRL runs in its fastest setting (padded or packed; float32 without recomputation, which is
faster on a CPU). Rates count useful work per second: sft non-padding tokens, dpo pairs, grpo answers.
The last line is one JSON object: sft.ratio, dpo.ratio, grpo.ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.together import best, side_by_side
from sanbu.checkpoints import Writer

SHAPE = {"layers": 6, "heads": 4, "width": 256, "context": 256}
VOCABULARY, QUESTIONS = 4096, 2000
ROLES = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + ('<|endoftext|>' if m.role == 'assistant' else '') }}"
)
CHATML = ROLES + "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


def prepare(folder: Path) -> None:
    """Write a tokenizer and questions with a chosen and a rejected answer, used by both sides."""
    from sanbu.codecs.bpe import train_chat
    from sanbu.data.conversations import skill_record

    records = [skill_record(number) for number in range(QUESTIONS)]
    texts = [record.prompt[0]["content"] + " " + " ".join(record.answers) for record in records]
    train_chat(texts, VOCABULARY).save(folder)
    rows = [
        {"prompt": r.prompt[0]["content"], "chosen": r.answers[0], "rejected": r.answers[2], "answer": r.answer}
        for r in records
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


# -- ours --------------------------------------------------------------------------------------------------------------


def ours(folder: str, what: str) -> Callable[[], float]:
    """Work per second of Sanbu's training rounds."""
    from sanbu.codecs.bpe import TokenizerFile
    from sanbu.data.chat import Chat, Prompts
    from sanbu.data.preferences import Pairs
    from sanbu.machine import MachineConfig, decide
    from sanbu.models.tokens.gpt import GPT2
    from sanbu.objectives.next_token import ChunkedNextToken
    from sanbu.objectives.policy.group import GRPO
    from sanbu.objectives.preference import DPO
    from sanbu.optimizers.gradient import AdamW
    from sanbu.recipe import Recipe, Schedule
    from sanbu.space import Space
    from sanbu.strategies.autoregressive import Autoregressive
    from sanbu.training import Training

    common = {
        "path": str(Path(folder) / "pairs.jsonl"),
        "tokenizer": TokenizerFile(path=folder, vocabulary=VOCABULARY),
        "context": 256,
        "validation": 0.0,
    }
    data, objective, batch = {
        "sft": (Chat(**common), ChunkedNextToken(chunk=4096), 8),
        "dpo": (Pairs(**common), DPO(), 32),
        "grpo": (Prompts(**common), GRPO(samples=8, kl=0.02), 8),
    }[what]
    model, machine = GPT2(**SHAPE), MachineConfig(precision="float32")
    start = Path(folder) / f"start-{what}"
    recipe = Recipe(
        name="bench", data=data, model=model, objective=objective, optimizer=AdamW(learning_rate=1e-5), machine=machine,
        strategy=Autoregressive(max_tokens=32), schedule=Schedule(steps=10_000, batch=batch, micro_batch=256),
    )  # fmt: skip
    if what != "sft":
        save = data.tokenizer.build(()).save
        made = Writer.create(start, recipe.model_copy(update={"objective": ChunkedNextToken()}), save)
        made.save_model(model.build(Space((256,), VOCABULARY, 0)))
        recipe = recipe.model_copy(update={"parents": {"model": str(start), "reference": str(start)}})
    training = Training(recipe, decide(machine))

    def rounds(count: int) -> float:
        done = 0.0
        for _ in range(count):
            rows = training.data.batch(training.step * batch, batch)
            if what == "sft":
                done += float((rows["tokens"] != training.data.pad).sum())  # type: ignore[attr-defined]
            else:
                done += batch * (8 if what == "grpo" else 1)
            while not training.advance():
                pass
        return done

    return timed(rounds, 4)


def timed(rounds: Callable[[int], float], count: int) -> Callable[[], float]:
    """Work per second over `count` rounds, after one warm-up round."""
    rounds(1)

    def measure() -> float:
        start = time.perf_counter()
        return rounds(count) / (time.perf_counter() - start)

    return measure


# -- TRL ---------------------------------------------------------------------------------------------------------------


def theirs(folder: str, what: str, setting: str) -> Callable[[], float]:
    """Work per second between the first and the last step of a TRL trainer."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers

    transformers.logging.set_verbosity_error()
    trainer_of = {"sft": sft_trainer, "dpo": dpo_trainer, "grpo": grpo_trainer}[what]

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        """Records when each step ended."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, *arguments: Any, **named: Any) -> None:
            self.times.append(time.perf_counter())

    def measure() -> float:
        clock = Clock()
        trainer, work = trainer_of(Path(folder), setting)
        trainer.remove_callback(transformers.ProgressCallback)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.add_callback(clock)
        trainer.train()
        return work(len(clock.times) - 1) / (clock.times[-1] - clock.times[0])

    measure()
    return measure


def peers(folder: Path) -> tuple[Any, Any, list[dict[str, Any]]]:
    """The tokenizer, model and rows for TRL."""
    import torch
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        padding_side="left",
    )
    tokenizer.chat_template = CHATML
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "n_positions": 256, "n_embd": 256, "n_layer": 6, "n_head": 4}
    config = transformers.GPT2Config(
        **sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, pad_token_id=1
    )
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    # saved and loaded, since GRPOTrainer needs a model with a path
    transformers.GPT2LMHeadModel(config).save_pretrained(folder / "peer")
    return tokenizer, transformers.GPT2LMHeadModel.from_pretrained(folder / "peer"), rows


def settings(folder: Path, steps: int, rows: int, **more: Any) -> dict[str, Any]:
    """Arguments common to all TRL trainers."""
    return {
        "output_dir": str(folder / "out"), "per_device_train_batch_size": rows, "max_steps": steps,
        "learning_rate": 1e-5, "report_to": [],
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True, **more,
    }  # fmt: skip


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def sft_trainer(folder: Path, setting: str) -> tuple[Any, Callable[[int], float]]:
    """SFTTrainer, padded in batches of 64 conversations, or packed into rows of 256."""
    import datasets
    import trl

    tokenizer, model, rows = peers(folder)
    talks = [{"prompt": user(row["prompt"]), "completion": assistant(row["chosen"])} for row in rows]
    packed = setting == "packed"
    config = trl.SFTConfig(
        **settings(folder, 7, 8 if packed else 64), packing=packed, max_length=256, completion_only_loss=True
    )
    trainer = trl.SFTTrainer(model, config, train_dataset=datasets.Dataset.from_list(talks), processing_class=tokenizer)
    lengths = [len(row["input_ids"]) for row in trainer.train_dataset]
    mean = sum(lengths) / len(lengths)
    return trainer, lambda steps: steps * config.per_device_train_batch_size * mean


def dpo_trainer(folder: Path, setting: str) -> tuple[Any, Callable[[int], float]]:
    """DPOTrainer with a separate reference model."""
    import datasets
    import trl

    tokenizer, model, rows = peers(folder)
    _, reference, _ = peers(folder)
    pairs = [
        {"prompt": user(r["prompt"]), "chosen": assistant(r["chosen"]), "rejected": assistant(r["rejected"])}
        for r in rows
    ]
    config = trl.DPOConfig(**settings(folder, 7, 32), max_length=256)
    trainer = trl.DPOTrainer(
        model, reference, config, train_dataset=datasets.Dataset.from_list(pairs), processing_class=tokenizer
    )
    return trainer, lambda steps: steps * 32.0


def grpo_trainer(folder: Path, setting: str) -> tuple[Any, Callable[[int], float]]:
    """GRPOTrainer with a reward function, 8 answers for each of 8 questions."""
    import datasets
    import trl

    tokenizer, model, rows = peers(folder)
    asked = [{"prompt": user(row["prompt"]), "answer": row["answer"]} for row in rows]

    def right(completions: Any, answer: list[str], **more: Any) -> list[float]:
        return [float(said[0]["content"].strip() == known) for said, known in zip(completions, answer, strict=True)]

    config = trl.GRPOConfig(
        **settings(folder, 4, 64), num_generations=8, max_completion_length=32, beta=0.02, temperature=1.0,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model, right, config, train_dataset=datasets.Dataset.from_list(asked), processing_class=tokenizer
    )
    return trainer, lambda steps: steps * 64.0


SETTINGS = {"sft": ("padded", "packed"), "dpo": ("padded",), "grpo": ("generate",)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=SETTINGS, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    for part in arguments.part or SETTINGS:
        with tempfile.TemporaryDirectory() as place:
            prepare(Path(place))
            parties: dict[str, Any] = {"sanbu": (ours, (place, part))}
            parties |= {f"trl {setting}": (theirs, (place, part, setting)) for setting in SETTINGS[part]}
            print(part, file=sys.stderr, flush=True)
            found = side_by_side(parties, arguments.rounds)
            peer, rate = best(found, "trl")
            figures |= {
                f"{part}.sanbu": found["sanbu"],
                f"{part}.trl": rate,
                f"{part}.peer": peer,
                f"{part}.ratio": found["sanbu"] / rate,
            }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
