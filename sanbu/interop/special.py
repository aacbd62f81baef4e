"""Special tokens and chat templates of a Hugging Face folder, in and out."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanbu.codecs.bpe import FileTokenizer, TokenizerFile, byte_file_tokenizer, first_of, vocabulary_of
from sanbu.codecs.chat import MARKERS, WRITTEN, TemplateConfig, Turns
from sanbu.codecs.foreign import check_foreign
from sanbu.codecs.jinja import Jinja
from sanbu.codecs.tokenizer import END_TOKENS, PAD, START_TOKENS, Byte, ByteTokenizer, TokenizerConfig
from sanbu.data.text_rows import Text
from sanbu.files import read_object, write_json, write_text
from sanbu.interop.families.sheet import Fields, InteropError
from sanbu.interop.generation import NAMES, strategy_out
from sanbu.run import Run

KEPT = "huggingface.json"  # in the run folder: what of an imported folder the recipe does not hold
TEMPLATE = "chat_template.jinja"
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Origin:
    """The small files of a Hugging Face folder: config.json, generation_config.json and tokenizer_config.json."""

    place: Path
    config: Fields
    generation: Fields
    tokenizer: Fields

    @classmethod
    def read(cls, place: Path) -> Origin:
        """Read them; without a generation_config.json, config.json speaks for it, as in transformers."""
        config = read_object(place / "config.json")
        sampling = {name: config[name] for name in (*NAMES, *IDS) if name in config}
        file = place / "generation_config.json"
        generation = read_object(file) if file.exists() else sampling
        return cls(place, config, generation, optional(place / "tokenizer_config.json"))

    def model_fields(self) -> Fields:
        """The fields of config.json that are not about sampling."""
        return {name: value for name, value in self.config.items() if name not in NAMES}

    def ids(self, name: str, ids: dict[str, int], size: int) -> tuple[int, ...]:
        """The ids of "eos", "bos" or "pad" that are in the vocabulary, from the first file that gives any.

        ids: {token: id} of the tokenizer, empty without one.
        """
        named = token_name(self.tokenizer.get(f"{name}_token"))
        given = (self.generation.get(f"{name}_token_id"), self.config.get(f"{name}_token_id"), ids.get(named))
        return next((known for known in (known_ids(each, size) for each in given) if known), ())

    def keep(self, made: Path) -> None:
        """Copy the tokenizer and the template into a run folder, with what else an export needs."""
        for name in ("tokenizer.json", TEMPLATE):
            if (self.place / name).exists():
                shutil.copyfile(self.place / name, made / name)
        ids = {name: self.config[name] for name in IDS if name in self.config}
        own = (self.place / "generation_config.json").exists()
        generation = self.generation if own else {}
        write_json(made / KEPT, {"config": ids, "generation": generation, "tokenizer": self.tokenizer})


def optional(path: Path) -> Fields:
    """A JSON object; empty where there is no file."""
    return read_object(path) if path.exists() else {}


def token_name(given: Any) -> str:
    """A token of a tokenizer_config.json, which may be an object with its content."""
    return str(given.get("content", "") if isinstance(given, dict) else given or "")


def known_ids(given: Any, size: int) -> tuple[int, ...]:
    """The ids among one or several that a vocabulary of this size has, each once."""
    several = given if isinstance(given, list) else [given]
    return tuple(dict.fromkeys(i for i in several if type(i) is int and 0 <= i < size))


def tokenizer_in(origin: Origin) -> TokenizerConfig:
    """The folder's tokenizer.json at the model's vocabulary, or bytes where there is none and the size allows."""
    size, file = origin.config.get("vocab_size"), origin.place / "tokenizer.json"
    if type(size) is not int or size < 1:
        raise InteropError(f"{origin.place / 'config.json'}: vocab_size is {size!r}, allowed: 1 or more")
    if not file.exists() and size == Byte().size():
        return Byte()
    ids = vocabulary_of(file) if file.exists() else {}
    if file.exists():
        check_foreign(file)
    inside = {name: number for name, number in ids.items() if number < size}
    ends = origin.ids("eos", ids, size) or tuple_of(first_of(END_TOKENS, inside))
    starts = origin.ids("bos", ids, size) or tuple_of(first_of(START_TOKENS, inside)) or ends
    pads = origin.ids("pad", ids, size)
    return TokenizerFile(
        path="tokenizer.json",
        vocabulary=size,
        end_id=first(ends),
        start_id=first(starts),
        other_end_ids=ends[1:],
        pad_id=first(pads),
    )


def tuple_of(value: int | None) -> tuple[int, ...]:
    """None as no id."""
    return () if value is None else (value,)


def first(values: Iterable[int]) -> int | None:
    """The first id, or None."""
    return next(iter(values), None)


# -- out -------------------------------------------------------------------------------------------------------------


def file_tokenizer(run: Run) -> FileTokenizer | None:
    """A run's tokenizer as a file, or None if it has none. Raises InteropError when it cannot be a tokenizer.json."""
    data = run.recipe.data
    imported = isinstance(data, Text) and isinstance(data.tokenizer, TokenizerFile)
    if imported and not (run.folder / "tokenizer.json").exists():
        return None
    tokenizer = getattr(run.codec, "tokenizer", None)
    if isinstance(tokenizer, ByteTokenizer):
        return byte_file_tokenizer()
    if not isinstance(tokenizer, FileTokenizer):
        raise InteropError(f"{run.folder}: only byte, BPE and file tokenizers have a tokenizer.json to export")
    return tokenizer


def special_out(run: Run, tokenizer: FileTokenizer | None) -> tuple[Fields, Fields]:
    """The ids for config.json, and generation_config.json. Those of an imported run are what its folder had, if any."""
    kept = optional(run.folder / KEPT)
    if kept.get("config"):
        return kept["config"], kept["generation"] or kept["config"]
    ends = run.recipe.data.space().ends
    start = None if tokenizer is None else tokenizer.start
    ids = {"bos_token_id": start, "eos_token_id": list(ends) if len(ends) > 1 else first(ends)}
    pad = pad_of(run, tokenizer)
    ids |= {} if pad is None else {"pad_token_id": pad}
    return ids, ids | strategy_out(run.recipe.strategy)


def pad_of(run: Run, tokenizer: FileTokenizer | None) -> int | None:
    """The padding token of a run."""
    given = getattr(getattr(run.recipe.data, "tokenizer", None), "pad_id", None)
    return given if given is not None or tokenizer is None else tokenizer.special(PAD)


def tokenizer_out(run: Run, tokenizer: FileTokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and the chat template, for AutoTokenizer."""
    tokenizer.save(folder)
    kept = optional(run.folder / KEPT).get("tokenizer", {})
    template: TemplateConfig | None = getattr(run.recipe.data, "template", None)
    ids = {"bos_token": tokenizer.start, "eos_token": end_of(run, template, tokenizer)}
    ids["pad_token"] = pad_of(run, tokenizer)
    named = {name: tokenizer.tokenizer.id_to_token(i) for name, i in ids.items() if i is not None}
    about = {"tokenizer_class": "PreTrainedTokenizerFast"}
    old = {name: value for name, value in kept.items() if name not in ("auto_map", "tokenizer_file")}
    plain = {"clean_up_tokenization_spaces": False}
    write_json(folder / "tokenizer_config.json", (plain | old if kept else plain | named) | about)
    if template is not None:
        write_text(folder / TEMPLATE, template_out(template, tokenizer))
    elif (run.folder / TEMPLATE).exists():
        shutil.copyfile(run.folder / TEMPLATE, folder / TEMPLATE)


def end_of(run: Run, template: TemplateConfig | None, tokenizer: FileTokenizer) -> int | None:
    """eos_token: what a template writes by that name, otherwise the token that ends an answer."""
    if isinstance(template, Jinja) and "eos_token" in template.source:
        return tokenizer.special(template.end) if template.end else tokenizer.end
    return tokenizer.end if template is None else run.recipe.data.space().end


def template_out(template: TemplateConfig, tokenizer: FileTokenizer) -> str:
    """The Jinja text of a template. Raises InteropError for a kind that is not text."""
    if isinstance(template, Jinja):
        return template.source
    if not isinstance(template, Turns):
        raise InteropError(f"data.template: {type(template).__name__} cannot be written as a Jinja template")
    marked = all(tokenizer.special(name) is not None for name in MARKERS.values())
    marks, before, after = (MARKERS, "", "") if marked else (WRITTEN, " ", "\n")
    begin = "" if marked or tokenizer.start is None else "{{- bos_token }}"
    answer = f"{{{{- {literal(marks['assistant'] + before)} + message['content'] + eos_token }}}}"
    others = "".join(
        f"{{%- elif message['role'] == '{role}' %}}"
        f"{{{{- {literal(marks[role])} + message['content'] + {literal(after)} }}}}"
        for role in ("system", "user")
    )
    turn = f"{{%- if message['role'] == 'assistant' %}}{answer}{others}"
    unknown = "{%- else %}{{- raise_exception('unknown role ' + message['role']) }}{%- endif %}"
    ask = f"{{%- if add_generation_prompt %}}{{{{- {literal(marks['assistant'])} }}}}{{%- endif %}}"
    return f"{begin}{{%- for message in messages %}}{turn}{unknown}{{%- endfor %}}{ask}"


def literal(text: str) -> str:
    """A text as a Jinja string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
