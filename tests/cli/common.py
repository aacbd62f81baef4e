"""Small runs for tests of the command line."""

import json

import sanbu
from sanbu.codecs.tokenizer import Byte
from sanbu.data.chat import Chat


def chat_run(folder, name="run"):
    """A run of chat that has hardly learnt anything; answers are 8 bytes at most."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {a} + {b}?"},
                {"role": "assistant", "content": f"It is {a + b}."},
            ],
            "answer": f"It is {a + b}.",
        }
        for a in range(9)
        for b in range(9)
    ]
    path = folder / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    recipe = sanbu.recipes.gpt2().change(
        "model.width=16", "model.heads=2", "model.layers=1", "model.context=96", "strategy.max_tokens=8",
        "machine.threads=1", "machine.precision=float32",
        data=Chat(path=str(path), tokenizer=Byte(), context=96, validation=0.2),
        steps=2, batch=4, evaluate_every=0, sample_every=0,
    )  # fmt: skip
    return sanbu.train(recipe, folder / name, watchers=[])
