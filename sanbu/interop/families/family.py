"""A model family of Hugging Face: its config.json and its tensors as tables, read and written in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sanbu.config import ConfigError, load
from sanbu.interop.families.sheet import Fields, InteropError, Sheet
from sanbu.interop.families.tensors import Rule, Tensors, check_tensors, tensors_in, tensors_out, with_prefix
from sanbu.models.model import ModelConfig

HARMLESS = (  # the file itself; training and memory; what a call returns, and other heads; kernels; the tokenizer
    "model_type", "architectures", "_name_or_path", "name_or_path", "transformers_version",
    "transformers.js_config", "auto_map", "dtype", "torch_dtype", "tokenizer_class", "unsloth_version",
    "unsloth_fixed", "model_name", "is_llama_config", "torchscript", "initializer_range", "use_cache",
    "gradient_checkpointing", "chunk_size_feed_forward", "use_bfloat16", "pretraining_tp", "output_attentions",
    "output_hidden_states", "return_dict", "id2label", "label2id", "num_labels", "problem_type", "finetuning_task",
    "task_specific_params", "is_decoder", "classifier_dropout", "attn_implementation", "_attn_implementation",
    "_attn_implementation_autoset", "attn_impl", "cache_implementation", "vocab_size", "bos_token_id",
    "eos_token_id", "pad_token_id", "sep_token_id",
)  # fmt: skip

HEADS = ("lm_head.weight", "embed_out.weight")
NONE: Mapping[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "rope_interleaved": (False,),
    "use_mrope": (False,),
}  # what no family here does


@dataclass(frozen=True)
class Family:
    """One model_type.

    fields: our field -> (their field, its default in transformers). fixed: their field -> the values that it may have,
    the default first; they are also written. read and write: what a table cannot say, from a Sheet to our fields and
    from our config to theirs. rules: the tensors. prefix: of the tensors' names without a head.
    """

    model_type: str
    architecture: str
    kind: type[ModelConfig]
    fields: Mapping[str, tuple[str, Any]]
    fixed: Mapping[str, tuple[Any, ...]]
    harmless: tuple[str, ...]
    read: Callable[[Sheet], Fields]
    write: Callable[[Any], Fields]
    rules: Callable[[Any], Sequence[Rule]]
    prefix: str

    def config_in(self, fields: Fields, place: Path = Path("config.json")) -> ModelConfig:
        """Our config. Raises InteropError naming the field, what was given and what is allowed."""
        sheet = Sheet(fields, place)
        refuse_quantised(sheet)
        ours = {name: sheet.get(theirs, default) for name, (theirs, default) in self.fields.items()}
        for name, allowed in {**NONE, **self.fixed}.items():
            sheet.only(name, *allowed)
        ours |= self.read(sheet)
        sheet.ignore((*HARMLESS, *self.harmless))
        sheet.close()
        try:
            return load(self.kind, ours)
        except ConfigError as error:
            raise InteropError(f"{place}: {error}") from None

    def config_out(self, config: Any, vocabulary: int) -> Fields:
        """Their config, without ids of tokens."""
        named = {theirs: getattr(config, ours) for ours, (theirs, _) in self.fields.items()}
        fixed = {name: allowed[0] for name, allowed in self.fixed.items()}
        kind = {"model_type": self.model_type, "architectures": [self.architecture], "vocab_size": vocabulary}
        return kind | fixed | named | self.write(config)

    def weights_in(
        self, theirs: Tensors, config: Any, shapes: dict[str, torch.Size] | None = None, place: Path = Path("weights")
    ) -> Tensors:
        """Our tensors. shapes: of our tensors; checked where they are given. Raises InteropError."""
        rules = self.rules(config)
        theirs = without_copy(with_prefix(theirs, rules, self.prefix), rules, place)
        if shapes is not None:
            check_tensors(theirs, rules, shapes, place)
        return tensors_in(theirs, rules)

    def weights_out(self, ours: Tensors, config: Any) -> Tensors:
        """Their tensors."""
        return tensors_out(ours, self.rules(config))


def without_copy(theirs: Tensors, rules: Sequence[Rule], place: Path) -> Tensors:
    """The tensors without the copy of the embedding that some files have as the head of a tied model."""
    named = {rule.theirs for rule in rules}
    embedding = next(rule.theirs for rule in rules if rule.ours == ("embedding.tokens.weight",))
    copies = [name for name in HEADS if name in theirs and name not in named]
    for name in copies:
        if embedding in theirs and not theirs[name].equal(theirs[embedding]):
            raise InteropError(
                f"{place}: the model is tied, but {name} differs from {embedding}; set tie_word_embeddings to false in"
                f" config.json if the family allows it, or delete {name}"
            )
    return {name: tensor for name, tensor in theirs.items() if name not in copies}


def refuse_quantised(sheet: Sheet) -> None:
    """Raise InteropError for a config of quantised weights."""
    about = sheet.get("quantization_config", None) or sheet.get("compression_config", None)
    if about:
        method = about.get("quant_method", "unknown") if isinstance(about, dict) else about
        raise InteropError(
            f"{sheet.place}: the weights are quantised (quantization_config.quant_method is {method!r}); import the"
            " model in float32, float16 or bfloat16"
        )


def dropout_in(sheet: Sheet, first: str, *others: str, default: float = 0.0) -> float:
    """The dropout of a model that has one for every place. Raises InteropError where they differ."""
    value = sheet.get(first, default)
    for name in others:
        if sheet.get(name, default) != value:
            sheet.refuse(name, f"{value:g}, as {first}")
    return float(value)
