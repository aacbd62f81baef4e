"""Runs `sanbu` command lines in forked children of a warm process, in a folder of small runs and of bad files.

`answer(place, line)` gives the exit code, standard output and error, and what was left behind.
"""

import gc
import gzip
import io
import json
import multiprocessing
import os
import resource
import shlex
import shutil
import signal
import struct
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sanbu.loop import train
from sanbu.recipes import make

QUICK = [
    "schedule.steps=1", "schedule.batch=2", "schedule.evaluate_every=0", "schedule.sample_every=0", "machine.threads=1",
    "machine.device=cpu", "machine.precision=float32",
]  # fmt: skip
TOKENS = ["model.layers=1", "model.width=16", "model.heads=2", "model.context=64", "data.context=64"]
SMALL = {
    "gpt2": ["data.tokenizer=byte", *TOKENS, *QUICK],
    "flow": ["model.layers=1", "model.width=16", "strategy.steps=2", *QUICK],
    "gan": ["model.layers=1", "model.width=16", *QUICK],
    "base": ["data.tokenizer.vocabulary=300", *TOKENS, *QUICK],
    "sft": QUICK,
    "reward": QUICK,
    "dpo": QUICK,
    "gpt1-classify": QUICK,
}
PAIR = {"prompt": "Is it?", "chosen": "It is.", "rejected": "No.", "answer": "It is."}
SECONDS, MEMORY = 20, 12 << 30
HEARD = 6  # seconds to end after an interrupt, on a busy machine


@dataclass(frozen=True)
class Answer:
    """How a command line ended. left: files that are there after it and were not before."""

    code: int | None
    out: str
    error: str
    left: tuple[str, ...]

    def well(self) -> bool:
        """Refused in one line, the last, with exit code 2 and nothing left behind, by a message of ours."""
        lines = self.error.strip().splitlines()
        refusals = [line for line in lines if line.startswith("sanbu: ")]
        return self.code == 2 and refusals == lines[-1:] and "please report" not in lines[-1] and not self.left


def train_small(place: Path, name: str, folder: str, *more: str) -> None:
    recipe, rest = make(name, list(more))
    train(recipe.change(*SMALL.get(name, QUICK), *rest), place / "runs" / folder, watchers=[])


def furnish(place: Path) -> None:
    """Runs of text, pictures and a conversation, and files of every kind that something is wrong with."""
    write_texts(place)
    for folder in ("folder", "nonempty", "tok", "tpl"):
        (place / folder).mkdir()
    (place / "nonempty" / "file.txt").write_text("here")
    train_small(place, "gpt2", "text", f"data.path={place / 'text.txt'}")
    train_small(place, "flow", "flow")
    train_small(place, "gan", "gan", "data.classes=0")
    train_small(place, "base", "base", f"path={place / 'text.txt'}")
    train_small(place, "sft", "sft", f"base={place / 'runs/base'}", f"data.path={place / 'pairs.jsonl'}")
    train_small(place, "reward", "reward", f"sft={place / 'runs/sft'}", f"path={place / 'pairs.jsonl'}")
    for number, change in enumerate(STRANGE):
        strange_run(place, number, *change)
    write_pictures(place)
    write_records(place)
    write_tokenizers(place)
    write_imports(place)


def write_texts(place: Path) -> None:
    text = "It is 3, and what is 4? Some text, line after line.\n" * 200
    (place / "text.txt").write_text(text)
    (place / "empty.txt").write_text("")
    damaged = bytearray(gzip.compress(os.urandom(2000) + text.encode()))
    damaged[1000] ^= 255
    (place / "flip.txt.gz").write_bytes(damaged)
    (place / "deep.jsonl").write_text("[" * 100_000 + "\n")
    (place / "pairs.jsonl").write_text("\n".join(json.dumps({**PAIR, "prompt": f"{n}?"}) for n in range(60)))


STRANGE = [
    ("x-deep", "recipe.json", "[" * 100_000),
    ("x-norecipe", "recipe.json", '{"format": 1}'),
    ("x-list", "recipe.json", "[]"),
    ("x-null", "recipe.json", "null"),
    ("x-context", "model.context", 100_000_000_000),
    ("x-huge", "model.width", 20_000_000),
    ("x-vocab", "data.tokenizer", {"kind": "file", "path": "tokenizer.json", "vocabulary": 10**12}),
    ("x-name", "name", "../../evil"),
]


def strange_run(place: Path, number: int, name: str, path: str, value: object) -> None:
    """A copy of the text run whose recipe.json is another, in the old format, which has no hashes."""
    folder = place / "runs" / name
    shutil.copytree(place / "runs" / "text", folder)
    if path == "recipe.json":
        (folder / path).write_text(str(value))
        return
    about = json.loads((folder / "recipe.json").read_text())
    *parents, last = ["recipe", *path.split(".")]
    part = about
    for parent in parents:
        part = part[parent]
    part[last] = value
    (folder / "recipe.json").write_text(json.dumps({"format": 1, "sanbu": "0.1.0", "recipe": about["recipe"]}))


def png(shape: tuple[int, ...], value: int = 200) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full(shape, value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_pictures(place: Path) -> None:
    (place / "half.png").write_bytes(png((8, 8, 4)))
    (place / "wrong.png").write_bytes(png((5, 9, 3)))
    (place / "nopic.png").write_text("no picture")
    Image.new("1", (20_000, 20_000)).save(place / "bomb.png")
    os.symlink("loop", place / "loop")
    os.symlink("nowhere", place / "dangling")
    arrays = {"zeroside": np.zeros((9, 0, 4), np.uint8), "numbers": np.zeros(9), "text": np.array(["a", "b"])}
    for name, array in arrays.items():
        np.savez(place / f"{name}.npz", array)
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
    shape = b"{'descr': '|u1', 'fortran_order': False, 'shape': (64000000000000,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(place / "huge.npz", "w") as archive:
        archive.writestr("arr_0.npy", header + shape)
    (place / "dims-idx3-ubyte").write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 9) + bytes(9))
    (place / "emptyside-idx3-ubyte").write_bytes(struct.pack(">BBBBIII", 0, 0, 8, 3, 9, 0, 4))
    write_archives(place)


def write_archives(place: Path) -> None:
    pictures = {f"{n}.png": png((8, 8), n) for n in range(4)}
    more = {
        "listjson": {"dataset.json": b"[1, 2]"},
        "labels2": {"dataset.json": b'{"labels": [1, 2]}'},
        "labels3": {"dataset.json": b'{"labels": {"0.png": 1}}'},
        "plain": {},
    }
    for name, files in more.items():
        with zipfile.ZipFile(place / f"{name}.zip", "w") as archive:
            for file, content in {**pictures, **files}.items():
                archive.writestr(file, content)
    plain = (place / "plain.zip").read_bytes()
    damaged = bytearray(plain)
    with zipfile.ZipFile(place / "flip.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in pictures.items():
            archive.writestr(file, content)
    damaged = bytearray((place / "flip.zip").read_bytes())
    damaged[45] ^= 255
    (place / "flip.zip").write_bytes(damaged)
    for name, at, value in (("encrypted", 6, 1), ("method", 8, 99)):  # flags and method of each header
        damaged = bytearray(plain)
        start = 0
        while (start := damaged.find(b"PK\x03\x04", start)) >= 0:
            damaged[start + at] = value
            start += 4
        start = 0
        while (start := damaged.find(b"PK\x01\x02", start)) >= 0:
            damaged[start + at + 2] = value
            start += 4
        (place / f"{name}.zip").write_bytes(damaged)


def write_records(place: Path) -> None:
    talk = {"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b."}]}
    ranked = {"messages": talk["messages"][:1], "answers": ["It is.", "No."], "ranks": [0, 1]}
    files = {
        "c-assistantonly": [{"messages": talk["messages"][1:]}],
        "c-promptlist": [{"prompt": ["a"], "completion": "b"}],
        "r-answersnum": [{**ranked, "answers": 3}],
        "r-answersint": [{**ranked, "answers": [1, 2]}],
        "r-ranksnull": [{**ranked, "ranks": None}],
        "r-ranksstr": [{**ranked, "ranks": ["x", "y"]}],
        "r-margin": [{**PAIR, "margin": "big"}],
        "r-nan": [{**ranked, "ranks": [float("nan"), 1]}],
        "p-margin": [{**PAIR, "margin": [1]}],
        "l-late": [{"text": f"t {n}", "label": "ab"[n % 2]} for n in range(50)] + [{"text": "t"}],
        "l-num": [{"text": "t", "label": 1.0}] * 50 + [{"text": "t", "label": "many"}],
        "l-choice": [{"text": "t", "choices": ["a", "b"], "label": 7}] * 50,
        "l-choice2": [{"text": "t", "choices": 3, "label": 0}] * 50,
        "l-ok": [{"text": f"t {n}", "label": "ab"[n % 2]} for n in range(50)],
    }
    for name, records in files.items():
        (place / f"{name}.jsonl").write_text("\n".join(json.dumps(record) for record in records * 4) + "\n")
    (place / "c-deep.jsonl").write_text("[" * 100_000 + "\n")
    (place / "c-list.json").write_text("[1, 2, 3]")
    (place / "c-listlist.json").write_text("[[1], [2]]")
    (place / "l-short.csv").write_text("text,label\n" + "a b,yes\nc d,no\n" * 30 + "e f\n")
    task = {"name": "t", "kind": "choice", "file": "records.jsonl", "prompt": "{question}"}
    records = [{"question": "a?", "label": 0}]
    (place / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    (place / "none.jsonl").write_text("")
    tasks = {
        "t-field": {**task, "prompt": "{nothing}"}, "t-brace": {**task, "prompt": "{"}, "t-choices": task,
        "t-empty": {**task, "file": "none.jsonl"}, "t-text": {**task, "kind": "text", "text": "label"},
    }  # fmt: skip
    for name, value in tasks.items():
        (place / f"{name}.json").write_text(json.dumps(value))
    (place / "t.json").write_text("not json")
    for name, value in {"empty": {}, "list": [], "null": None, "str": "x", "elem": {"keys": [1]}}.items():
        (place / f"k-{name}.json").write_text(json.dumps(value))


def write_tokenizers(place: Path) -> None:
    known = json.loads((place / "runs/base/tokenizer.json").read_text())
    files = {
        "list": [], "null": None, "vocablist": {**known, "model": {**known["model"], "vocab": [1, 2]}},
        "vocabnum": {**known, "model": {**known["model"], "vocab": 3}}, "added": {**known, "added_tokens": [{"id": 3}]},
        "addednull": {**known, "added_tokens": None},
        "ids": {**known, "model": {**known["model"], "vocab": {"a": "b"}}},
    }  # fmt: skip
    for name, value in files.items():
        (place / "tok" / f"{name}.json").write_text(json.dumps(value))
    (place / "tok" / "deep.json").write_text("[" * 100_000)
    templates = {
        "div": "{{ 1 / 0 }}", "format": "{{ '%s %s' | format('a') }}{{ '{} {}'.format('a') }}",
        "encode": "{{ 'a'.encode('nope') }}", "ok": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }  # fmt: skip
    for name, text in templates.items():
        (place / "tpl" / f"{name}.jinja").write_text(text)
    (place / "tpl" / "binary.jinja").write_bytes(b"\xff\xfe")
    (place / "tpl" / "bad.json").write_text("{bad")
    (place / "tpl" / "list.json").write_text("[]")


def write_imports(place: Path) -> None:
    """Folders hfN and pipeN whose config.json is not what it should be."""
    llama = {
        "model_type": "llama", "vocab_size": 256, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    bad: list[object] = [[], None, 3, "x", {}, {"model_type": None}, {"model_type": "llama"}]
    bad += [{key: value for key, value in llama.items() if key != name} for name in llama if name != "model_type"]
    bad += [
        {**llama, name: value} for name in llama for value in (None, "x", -1, 0, [1], 10**12) if name != "model_type"
    ]
    bad += [{**llama, "rope_parameters": value} for value in (3, "x", [], {"rope_theta": None}, {"rope_theta": "y"})]
    for number, value in enumerate(bad):
        folder = place / f"hf{number}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(value))
        shutil.copyfile(place / "runs/text/model.safetensors", folder / "model.safetensors")
    unet = {
        "_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
        "block_out_channels": [16, 32], "down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2,
        "norm_num_groups": 4,
    }  # fmt: skip
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPM"]}
    chain = {"_class_name": "DDPMScheduler", "num_train_timesteps": 100, "beta_schedule": "linear"}
    cases: list[tuple[object, object, object]] = [([], unet, chain), ("x", unet, chain), ({"unet": 3}, unet, chain)]
    cases += [({**index, "unet": ["one"]}, unet, chain), (index, [], chain), (index, unet, []), (index, unet, {})]
    cases += [(index, {key: value for key, value in unet.items() if key != name}, chain) for name in unet]
    cases += [(index, {**unet, name: value}, chain) for name in unet for value in (None, "x", 0, -1, [])]
    cases += [(index, unet, {**chain, name: value}) for name in chain for value in (None, "x", 0, [1])]
    for number, (top, part, steps) in enumerate(cases):
        folder = place / f"pipe{number}"
        (folder / "unet").mkdir(parents=True)
        (folder / "scheduler").mkdir()
        (folder / "model_index.json").write_text(json.dumps(top))
        (folder / "unet" / "config.json").write_text(json.dumps(part))
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(steps))
        shutil.copyfile(place / "runs/text/model.safetensors", folder / "unet" / "diffusion_pytorch_model.safetensors")


# -- running -----------------------------------------------------------------------------------------------------------


def names(place: Path) -> set[str]:
    """Every file below a folder, without what is kept for later runs."""
    return {str(path.relative_to(place)) for path in place.rglob("*") if "cache" not in path.parts}


def child(words: list[str], place: Path, out: Path, error: Path) -> None:
    """(In a child process) Run the command line with its output in two files."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(place)
    os.environ |= {"SANBU_CACHE": str(place / "cache"), "COLUMNS": "80"}
    for number, path in ((1, out), (2, error)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdin, sys.stdout, sys.stderr = open(os.devnull), open(1, "w"), open(2, "w", errors="backslashreplace")  # noqa: SIM115
    sys.argv = ["sanbu", *words]
    from sanbu.cli.main import main

    main()


def answer(place: Path, line: str | list[str], before: set[str] | None = None) -> Answer:
    """Run one command line; what it leaves behind is reported and removed."""
    words = [os.fsdecode(word) for word in (shlex.split(line) if isinstance(line, str) else line)]
    before = names(place) if before is None else before
    out, error = place.parent / f"{place.name}.out", place.parent / f"{place.name}.err"
    process = multiprocessing.get_context("fork").Process(target=child, args=(words, place, out, error))
    gc.freeze()  # pages that a child need not copy
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGINT)
        process.join(HEARD)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    left = sorted(names(place) - before)
    for name in reversed(left):
        path = place / name
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return Answer(code, out.read_text(errors="replace"), error.read_text(errors="replace"), tuple(left))
