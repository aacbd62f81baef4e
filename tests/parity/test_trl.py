"""Parity with TRL: equal SFT loss on the same conversations, equal DPO loss and margins on the same pairs."""

import json
import os

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

from sanbu.codecs.bpe import TokenizerFile, train_chat
from sanbu.codecs.jinja import Jinja
from sanbu.data.chat import Chat
from sanbu.data.preferences import Pairs
from sanbu.interop.families import FAMILIES
from sanbu.models.tokens.gpt import GPT2
from sanbu.noise import Noise
from sanbu.objectives.next_token import NextToken
from sanbu.objectives.objective import Round
from sanbu.objectives.preference import DPO

CHATML = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + ('<|endoftext|>' if m.role == 'assistant' else '') }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ROWS = [
    {"prompt": "What is 1 + 2?", "chosen": "It is 3.", "rejected": "Well, who knows what it is? It may be 4."},
    {"prompt": "Say it.", "chosen": "It. That is all there is.", "rejected": "No."},
    {"prompt": "Is lambda a keyword of this language?", "chosen": "Yes.", "rejected": "No, it is not."},
]
SIZES = {"vocab_size": 300, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tokenizer, a policy and a reference for both sides."""
    folder = tmp_path_factory.mktemp("trl")
    tokenizer = train_chat([" ".join(row.values()) for row in ROWS] * 20, 300)
    tokenizer.save(folder)
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>", pad_token="<|pad|>"
    )
    theirs.chat_template = CHATML
    return folder, theirs


def peer(seed):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        **SIZES, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def ours(model, space):
    """The same weights in our model."""
    config = GPT2(layers=2, heads=2, width=32, context=64)
    made = config.build(space).eval()
    made.load_state_dict(FAMILIES["gpt2"].weights_in(model.state_dict(), config), strict=False)
    ids = torch.arange(3, 40)[None]
    torch.testing.assert_close(made(ids), model(ids).logits, rtol=1e-4, atol=1e-4)
    return made


def settings(folder, kind, **more):
    return kind(
        output_dir=str(folder / "out"), per_device_train_batch_size=3, max_steps=1, learning_rate=1e-6,
        logging_steps=1, report_to=[],
        use_cpu=True, bf16=False, gradient_checkpointing=False, save_strategy="no", max_length=64, **more,
    )  # fmt: skip


def said(messages):
    return [{"role": "user", "content": messages["prompt"]}]


def test_dpo(place):
    folder, theirs = place
    config = Pairs(
        path=str(folder / "pairs.jsonl"), tokenizer=TokenizerFile(path=str(folder)), context=64, validation=0.0
    )
    config = config.model_copy(update={"template": Jinja(source=CHATML)})
    data = config.build()
    policy, reference = peer(0), peer(1)
    models = {"model": ours(policy, data.space), "reference": ours(reference, data.space)}
    objective = DPO(beta=0.3).build()
    loss = objective.loss(models, objective.experience(Round(models, data.batch(0, 3), Noise("test"))))
    answer = lambda text: [{"role": "assistant", "content": text}]
    rows = [{"prompt": said(row), "chosen": answer(row["chosen"]), "rejected": answer(row["rejected"])} for row in ROWS]
    trainer = trl.DPOTrainer(
        policy,
        reference,
        settings(folder, trl.DPOConfig, beta=0.3),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=theirs,
    )
    trainer.train()
    log = trainer.state.log_history[0]
    assert float(loss.sums["preference"].detach()) / 3 == pytest.approx(log["loss"], abs=1e-5, rel=1e-5)
    assert float(loss.metrics["margin"][0]) / 3 == pytest.approx(log["rewards/margins"], abs=1e-4, rel=1e-5)
    assert abs(log["rewards/margins"]) > 0.01


def test_sft_with_masks(place):
    folder, theirs = place
    config = Chat(
        path=str(folder / "pairs.jsonl"), tokenizer=TokenizerFile(path=str(folder)), context=64, validation=0.0
    )
    data = config.build()
    policy = peer(0)
    batch = data.batch(0, data.rows)
    objective = NextToken().build()
    models = {"model": ours(policy, data.space)}
    mean = float(objective.loss(models, batch).sums["next_token"].detach()) / objective.count(batch)["next_token"]
    rows = [{"prompt": said(row), "completion": [{"role": "assistant", "content": row["chosen"]}]} for row in ROWS]
    trainer = trl.SFTTrainer(
        policy,
        settings(folder, trl.SFTConfig, completion_only_loss=True),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=theirs,
    )
    trainer.train()
    assert mean == pytest.approx(trainer.state.log_history[0]["loss"], abs=1e-5, rel=1e-5)
