"""A run as a model of lm-evaluation-harness, to evaluate it on any task of that library.

import lm_eval
from sanbu.interop.harness import harness_model
lm_eval.simple_evaluate(model=harness_model("runs/first"), tasks=["lambada_openai"])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sanbu.codecs.tokenizer import decode, encode
from sanbu.config import SanbuError
from sanbu.evaluation.likelihood import loglikelihoods, split
from sanbu.run import Run


def harness_model(folder: Path | str) -> Any:
    """The model. Raises SanbuError when lm-eval is not installed."""
    try:
        from lm_eval.api.model import LM
    except ImportError:
        raise SanbuError("lm-evaluation-harness is not installed: pip install lm-eval") from None

    class SanbuLM(LM):  # type: ignore[misc]
        """Log-likelihoods and answers of a run."""

        def __init__(self, run: Run) -> None:
            super().__init__()
            self.run = run

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            return loglikelihoods(self.run, [split(self.run, *request.args) for request in requests])

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            return [rolling(self.run, request.args[0]) for request in requests]

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            return [generate_to_stop(self.run, *request.args) for request in requests]

    return SanbuLM(Run.open(folder))


def rolling(run: Run, text: str) -> float:
    """log p of a whole text: each token once, after as many tokens before it as its window holds.

    The text begins after the start token; without one, its first token is only context. See `windows`.
    """
    codec: Any = run.codec
    model: Any = run.model
    tokenizer = codec.tokenizer
    ids = ([] if tokenizer.start is None else [tokenizer.start]) + encode(tokenizer, text)
    return sum(value for value, _ in loglikelihoods(run, windows(ids, model.context)))


def windows(ids: Sequence[int], context: int) -> list[tuple[list[int], list[int]]]:
    """(context, continuation) pairs that predict all ids but the first, each once, in steps of `context`.

    Every window but one shorter than the model's context is full: the last begins before the end of the one before it.
    The rule is that of lm-evaluation-harness (get_rolling_token_windows with a context of one token).
    """
    found = []
    for start in range(1, len(ids), context):
        end = min(start + context, len(ids))
        found.append((list(ids[max(0, end - context - 1) : start]), list(ids[start:end])))
    return found


def generate_to_stop(run: Run, prompt: str, settings: dict[str, Any]) -> str:
    """The continuation of a prompt up to a stop text; greedy unless the settings ask for sampling."""
    stop = settings.get("until") or []
    words = tuple([stop] if isinstance(stop, str) else stop)
    most = int(settings.get("max_gen_toks", 128))
    temperature = float(settings.get("temperature", 0.0)) if settings.get("do_sample") else 0.0
    context = run.model.context - most if isinstance(run.model.context, int) else 0
    codec: Any = run.codec
    tokenizer = codec.tokenizer
    ids = encode(tokenizer, prompt)
    if len(ids) >= context > 0:
        prompt = decode(tokenizer, ids[-(context - 1) :])
    return run.generate(prompt, max_tokens=most, temperature=temperature, stop=words)
