"""A LoRA run as a plain one."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from sanbu.config import SanbuError
from sanbu.files import load_weights, weights
from sanbu.models.tokens.lora import LoRA, merged
from sanbu.run import Run


def plain_model(run: Run) -> nn.Module:
    """The decoder that computes what a LoRA run computes. Raises SanbuError when the run is no LoRA run."""
    config = run.recipe.model
    if not isinstance(config, LoRA):
        raise SanbuError(f"{run.folder} has nothing to merge: its model is a {config.model_dump()['kind']!r}, not lora")
    model = config.base.build(run.recipe.data.space()).eval().requires_grad_(False)
    load_weights(model, merged(run.model, weights(run.model)), run.folder)
    return model


def merged_run(run: Run, folder: Path) -> Run:
    """A new run folder with the merged weights."""
    model = plain_model(run)
    assert isinstance(run.recipe.model, LoRA)
    made = Run.create(folder, run.recipe.model_copy(update={"model": run.recipe.model.base}))
    run.codec.save(folder)
    made.save_model(model)
    return made
