"""generation_config.json: how transformers samples, as our strategy and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sanbu.config import ConfigError, load
from sanbu.interop.families.sheet import Fields, InteropError, Sheet
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.strategies.strategy import StrategyConfig

USED = {
    "temperature": ("temperature", 1.0),
    "top_k": ("top_k", 0),
    "top_p": ("top_p", 1.0),
    "min_p": ("min_p", 0.0),
    "repetition_penalty": ("repetition_penalty", 1.0),
    "max_tokens": ("max_new_tokens", 0),
}  # our field -> theirs, and the value that leaves ours at its default
SAMPLED = ("temperature", "top_k", "top_p", "min_p")
TOP_K = 50  # in transformers, where sampling is on and top_k is not given
OFF: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "penalty_alpha": (0, 0.0),
    "typical_p": (1.0,),
    "top_h": (),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "encoder_repetition_penalty": (1.0,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "bad_words_ids": ([],),
    "force_words_ids": ([],),
    "constraints": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "exponential_decay_length_penalty": (),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "sequence_bias": ({},),
    "token_healing": (False,),
    "guidance_scale": (1.0,),
    "watermarking_config": (),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "max_time": (),
    "dola_layers": (),
    "diversity_penalty": (0.0,),
}  # their field -> the values at which it does nothing, beside null
HARMLESS = (
    "transformers_version", "_from_model_config", "bos_token_id", "eos_token_id", "pad_token_id",
    "decoder_start_token_id", "max_length", "early_stopping", "length_penalty", "renormalize_logits",
    "remove_invalid_values", "use_cache", "cache_implementation", "cache_config", "max_cache_len",
    "return_legacy_cache", "output_attentions", "output_hidden_states", "output_scores", "output_logits",
    "return_dict_in_generate", "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "use_mtp",
    "assistant_confidence_threshold", "assistant_early_exit", "assistant_lookbehind", "target_lookbehind",
    "assistant_ensemble_weight", "prompt_lookup_num_tokens", "max_matching_ngram_size", "speculation_type",
    "compile_config", "disable_compile", "continuous_batching_config", "low_memory", "prefill_chunk_size",
    "trust_remote_code",
)  # fmt: skip
NAMES = (*(theirs for theirs, _ in USED.values()), *OFF, "do_sample", "stop_strings", "max_length", "length_penalty",
         "early_stopping", "remove_invalid_values", "return_dict_in_generate", "output_scores")  # fmt: skip


def strategy_in(fields: Fields, place: Path) -> StrategyConfig:
    """The strategy of a generation_config.json. Raises InteropError for what it cannot do.

    do_sample: false is temperature 0. Without do_sample the given fields count, and the others are our defaults.
    """
    sheet = Sheet(fields, place)
    ours = {name: sheet.get(theirs, default) for name, (theirs, default) in USED.items()}
    ours = {name: value for name, value in ours.items() if value != USED[name][1]}
    sampled = sheet.get("do_sample", None)
    if sampled is True and fields.get("top_k") is None:
        ours["top_k"] = TOP_K
    if sampled is False:
        ours = {name: value for name, value in ours.items() if name not in SAMPLED} | {"temperature": 0.0}
    stop = sheet.get("stop_strings", None) or []
    ours["stop"] = [stop] if isinstance(stop, str) else stop
    for name, allowed in OFF.items():
        sheet.only(name, *allowed, None)
    sheet.ignore(HARMLESS)
    sheet.close()
    try:
        return load(Autoregressive, ours)
    except ConfigError as error:
        raise InteropError(f"{place}: {error}") from None


def strategy_out(strategy: StrategyConfig) -> Fields:
    """The fields of a generation_config.json that differ from the default strategy."""
    if not isinstance(strategy, Autoregressive):
        return {}
    plain = Autoregressive()
    changed = {name: getattr(strategy, name) for name in USED if getattr(strategy, name) != getattr(plain, name)}
    theirs = {USED[name][0]: value for name, value in changed.items()}
    if strategy.stop:
        theirs["stop_strings"] = list(strategy.stop)
    if strategy.temperature == 0:
        return {name: value for name, value in theirs.items() if name not in SAMPLED} | {"do_sample": False}
    if any(name in changed for name in SAMPLED):
        theirs |= {"do_sample": True, "top_k": strategy.top_k}
    return theirs
