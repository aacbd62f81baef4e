"""Import and export of Hugging Face folders (config.json, model.safetensors, tokenizer.json), bit for bit.

Model families, their fields and their tensors are in `families/`, special tokens and templates in `special.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sanbu.checkpoints import Writer
from sanbu.config import ConfigError, kind_of, load, nearest
from sanbu.data.text_rows import Text
from sanbu.files import load_weights, replace_atomically, weights, write_json, write_tensors
from sanbu.interop.families import FAMILIES, Family
from sanbu.interop.families.sheet import InteropError
from sanbu.interop.generation import strategy_in
from sanbu.interop.merge import plain_model
from sanbu.interop.shards import read_shards, shard_paths
from sanbu.interop.special import Origin, file_tokenizer, special_out, tokenizer_in, tokenizer_out
from sanbu.memory.check import check_weights, headers
from sanbu.models.tokens.lora import LoRA
from sanbu.objectives.next_token import NextToken
from sanbu.optimizers.gradient import AdamW
from sanbu.recipe import Recipe
from sanbu.run import Run

__all__ = ["InteropError", "download", "export_folder", "family_of", "import_run"]


def import_run(source: str, folder: Path) -> Run:
    """Make a run from a Hugging Face folder, or from the name of a model on the hub (extra `hub`).

    Raises InteropError for a field, a tensor or a token that would be lost or mean something else here.
    """
    place = Path(source) if Path(source).is_dir() else download(source)
    origin = Origin.read(place)
    family = family_of(str(origin.config.get("model_type")))
    model: Any = family.config_in(origin.model_fields(), place / "config.json")
    recipe = recipe_in(origin, family, model)
    check_weights(f"importing {place}", headers(shard_paths(place)), built="imported")
    built = model.build(recipe.data.space())
    shapes = {name: tensor.shape for name, tensor in weights(built).items()}
    ours = family.weights_in(read_shards(place), model, shapes, place)
    load_weights(built, {name: tensor.float() for name, tensor in ours.items()}, place)
    made = Writer.create(folder, recipe, origin.keep)
    made.save_model(built)
    return Run.open(folder)


def recipe_in(origin: Origin, family: Family, model: Any) -> Recipe:
    """The recipe of an imported model. Raises InteropError if the model cannot be built."""
    given = origin.place / "generation_config.json"
    strategy = strategy_in(origin.generation, given if given.exists() else origin.place / "config.json")
    values = {
        "name": family.kind.__name__.lower(),
        "data": Text(tokenizer=tokenizer_in(origin), context=model.context),
        "model": model,
        "objective": NextToken(),
        "optimizer": AdamW(),
        "strategy": strategy,
    }
    try:
        return load(Recipe, {name: as_json(value) for name, value in values.items()})
    except ConfigError as error:
        raise InteropError(f"{origin.place}: {error}") from None


def as_json(value: Any) -> Any:
    """A config as plain values."""
    return value if isinstance(value, str) else value.model_dump(mode="json", serialize_as_any=True)


def export_folder(run: Run, out: Path) -> Path:
    """Write a folder for AutoModelForCausalLM; LoRA runs are merged. Raises InteropError for other models."""
    families = {family.kind: family for family in FAMILIES.values()}
    lora = isinstance(run.recipe.model, LoRA)
    config = run.recipe.model.base if isinstance(run.recipe.model, LoRA) else run.recipe.model
    if type(config) not in families:
        kind, known = kind_of(config), ", ".join(str(kind_of(family)) for family in families)
        raise InteropError(f"{run.folder}: Hugging Face has no model of kind {kind!r}; kinds it has: {known}")
    if out.exists():
        raise InteropError(f"{out} already exists")
    family, tokenizer = families[type(config)], file_tokenizer(run)
    fields = family.config_out(config, run.recipe.data.space().vocabulary)
    ids, generation = special_out(run, tokenizer)
    tensors = family.weights_out(weights(plain_model(run) if lora else run.model), config)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(out) as temporary:
        temporary.mkdir()
        write_json(temporary / "config.json", {**fields, **ids, "dtype": "float32"})
        write_json(temporary / "generation_config.json", generation)
        write_tensors(temporary / "model.safetensors", tensors)
        if tokenizer is not None:
            tokenizer_out(run, tokenizer, temporary)
    return out


def family_of(model_type: str) -> Family:
    """The family of a model_type. Raises InteropError with the nearest match."""
    if model_type not in FAMILIES:
        raise InteropError(
            f"model_type: given {model_type!r}, allowed: {', '.join(FAMILIES)}{nearest(model_type, FAMILIES)}"
        )
    return FAMILIES[model_type]


def download(name: str) -> Path:
    """Download a model from the hub and return its folder. Raises InteropError if that fails."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InteropError(f"{name!r} is not a folder; to import by name: pip install 'sanbu[hub]'") from None
    wanted = ["*config.json", "model*.safetensors", "model.safetensors.index.json", "tokenizer.json", "*.jinja"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # the library raises many types for a failed download
        raise InteropError(
            f"{name!r} is not a folder and cannot be downloaded by name: {str(error).splitlines()[0]}"
        ) from None
