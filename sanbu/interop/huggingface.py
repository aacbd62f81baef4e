"""Import and export of Hugging Face folders (config.json, model.safetensors, tokenizer.json), bit for bit.

Model families and their names are in `families.py`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from sanbu.checkpoints import Writer
from sanbu.codecs.bpe import FileTokenizer, TokenizerFile, byte_file_tokenizer, first_of, vocabulary_of
from sanbu.codecs.tokenizer import END_TOKENS, START_TOKENS, Byte, ByteTokenizer, TokenizerConfig
from sanbu.config import SanbuError, nearest
from sanbu.data.text_rows import Text
from sanbu.files import load_weights, read_json, read_tensors, replace_atomically, weights, write_json, write_tensors
from sanbu.interop.families import FAMILIES, Family
from sanbu.interop.merge import plain_model
from sanbu.models.tokens.lora import LoRA
from sanbu.objectives.next_token import NextToken
from sanbu.optimizers.gradient import AdamW
from sanbu.recipe import Recipe
from sanbu.run import Run
from sanbu.strategies.autoregressive import Autoregressive


class InteropError(SanbuError):
    """A folder or a run that cannot be converted."""


def import_run(source: str, folder: Path) -> Run:
    """Make a run from a Hugging Face folder, or from the name of a model on the hub (extra `hub`)."""
    place = Path(source) if Path(source).is_dir() else download(source)
    fields = read_json(place / "config.json")
    family = family_of(str(fields.get("model_type")))
    try:
        model: Any = family.config_in(fields)
    except (KeyError, ValueError) as error:
        raise InteropError(
            f"{place}: {'config.json has no field ' if isinstance(error, KeyError) else ''}{error}"
        ) from None
    theirs = read_shards(place)
    tokenizer = tokenizer_in(place, fields)
    recipe = Recipe(
        name=family.kind.__name__.lower(),
        data=Text(tokenizer=tokenizer, context=model.context),
        model=model,
        objective=NextToken(),
        optimizer=AdamW(),
        strategy=Autoregressive(),
    )
    built = model.build(recipe.data.space())
    try:
        ours = family.weights_in(theirs, model)
    except KeyError as error:
        raise InteropError(f"{place}: there is no tensor {error} in its weights") from None
    load_weights(built, {name: tensor.float() for name, tensor in ours.items()}, place)

    def save(made: Path) -> None:
        if (place / "tokenizer.json").exists():
            shutil.copyfile(place / "tokenizer.json", made / "tokenizer.json")

    made = Writer.create(folder, recipe, save)
    made.save_model(built)
    return Run.open(folder)


def export_folder(run: Run, out: Path) -> Path:
    """Write a folder for AutoModelForCausalLM; LoRA runs are merged. Raises InteropError for other models."""
    families = {family.kind: family for family in FAMILIES.values()}
    lora = isinstance(run.recipe.model, LoRA)
    config = run.recipe.model.base if isinstance(run.recipe.model, LoRA) else run.recipe.model
    if type(config) not in families:
        kind = config.model_dump()["kind"]
        raise InteropError(f"{run.folder}: Hugging Face has no model of kind {kind!r}; kinds it has: gpt1, gpt2, llama")
    if out.exists():
        raise InteropError(f"{out} already exists")
    family, space = families[type(config)], run.recipe.data.space()
    fields = family.config_out(config, space.vocabulary)
    tokenizer = file_tokenizer(run)
    ends = {} if tokenizer is None else {"bos_token_id": tokenizer.start, "eos_token_id": tokenizer.end}
    out.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(out) as temporary:
        temporary.mkdir()
        write_json(temporary / "config.json", {**fields, **ends, "dtype": "float32"})
        write_json(temporary / "generation_config.json", ends)
        write_tensors(
            temporary / "model.safetensors",
            family.weights_out(weights(plain_model(run) if lora else run.model), config),
        )
        if tokenizer is not None:
            tokenizer_out(tokenizer, temporary)
    return out


def family_of(model_type: str) -> Family:
    """The family of a model_type. Raises InteropError with the nearest match."""
    if model_type not in FAMILIES:
        raise InteropError(
            f"model_type: given {model_type!r}, allowed: {', '.join(FAMILIES)}{nearest(model_type, FAMILIES)}"
        )
    return FAMILIES[model_type]


def read_shards(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, in one file or several."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InteropError(f"{folder} has no .safetensors file (pickled weights are not read)")
    return {name: tensor for file in files for name, tensor in read_tensors(file).items()}


def tokenizer_in(folder: Path, fields: dict[str, Any]) -> TokenizerConfig:
    """The folder's tokenizer.json at the model's vocabulary, or bytes where there is none and the size allows."""
    size, file = fields["vocab_size"], folder / "tokenizer.json"
    if file.exists():
        ids = vocabulary_of(file)
        end, start = first_of(END_TOKENS, ids), first_of(START_TOKENS, ids)
        size = max(size, max(ids.values()) + 1)
        return TokenizerFile(
            path="tokenizer.json", vocabulary=size, end_id=end, start_id=end if start is None else start
        )
    if size == Byte().size():
        return Byte()
    end, start = (known_id(fields.get(name), size) for name in ("eos_token_id", "bos_token_id"))
    return TokenizerFile(path="tokenizer.json", vocabulary=size, end_id=end, start_id=end if start is None else start)


def known_id(given: Any, size: int) -> int | None:
    """A token id of a config.json, the first where it lists several, None where the vocabulary has no such id."""
    first = given[0] if isinstance(given, list) and given else given
    return first if isinstance(first, int) and 0 <= first < size else None


def file_tokenizer(run: Run) -> FileTokenizer | None:
    """A run's tokenizer as a file, or None if it has none. Raises InteropError when it cannot be a tokenizer.json."""
    data = run.recipe.data
    bare = (
        isinstance(data, Text)
        and isinstance(data.tokenizer, TokenizerFile)
        and not (run.folder / "tokenizer.json").exists()
    )
    if bare:
        return None
    tokenizer = getattr(run.codec, "tokenizer", None)
    if isinstance(tokenizer, ByteTokenizer):
        return byte_file_tokenizer()
    if not isinstance(tokenizer, FileTokenizer):
        raise InteropError(f"{run.folder}: only byte, BPE and file tokenizers have a tokenizer.json to export")
    return tokenizer


def tokenizer_out(tokenizer: FileTokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, for AutoTokenizer."""
    tokenizer.save(folder)
    ids = {"bos_token": tokenizer.start, "eos_token": tokenizer.end}
    named = {name: tokenizer.tokenizer.id_to_token(i) for name, i in ids.items() if i is not None}
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    write_json(folder / "tokenizer_config.json", {**about, **named})


def download(name: str) -> Path:
    """Download a model from the hub and return its folder. Raises InteropError if that fails."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InteropError(f"{name!r} is not a folder; to import by name: pip install 'sanbu[hub]'") from None
    wanted = ["config.json", "*.safetensors", "tokenizer.json"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # the library raises many types for a failed download
        raise InteropError(
            f"{name!r} is not a folder and cannot be downloaded by name: {str(error).splitlines()[0]}"
        ) from None
