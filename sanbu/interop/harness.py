"""A run as a model of lm-evaluation-harness, to evaluate it on any task of that library.

import lm_eval
from sanbu.interop.harness import harness_model
lm_eval.simple_evaluate(model=harness_model("runs/first"), tasks=["lambada_openai"])
"""

from __future__ import annotations

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
    """log p of a whole text, in windows that do not overlap; each has the token before it as its only context."""
    codec: Any = run.codec
    tokenizer = codec.tokenizer
    model: Any = run.model
    ids = ([] if tokenizer.start is None else [tokenizer.start]) + encode(tokenizer, text)
    windows = []
    for at in range(0, len(ids) - 1, model.context):
        windows.append((ids[at : at + 1], ids[at + 1 : at + 1 + model.context]))
    return sum(value for value, _ in loglikelihoods(run, windows))


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
