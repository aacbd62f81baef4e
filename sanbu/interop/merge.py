"""Merge the low-rank changes of a LoRA run into its weights."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from sanbu.checkpoints import Writer
from sanbu.config import SanbuError, kind_of
from sanbu.files import load_weights, weights
from sanbu.models.tokens.lora import LoRA, merge_low_rank
from sanbu.run import Run


def plain_model(run: Run) -> nn.Module:
    """A plain decoder that computes the same as a LoRA run. Raises SanbuError for other runs."""
    config = run.recipe.model
    if not isinstance(config, LoRA):
        raise SanbuError(f"{run.folder} has nothing to merge: its model is a {kind_of(config)!r}, not lora")
    model = config.base.build(run.recipe.data.space()).eval().requires_grad_(False)
    load_weights(model, merge_low_rank(run.model, weights(run.model)), run.folder)
    return model


def merge_run(run: Run, folder: Path) -> Run:
    """Write a new run folder with the merged weights."""
    model = plain_model(run)
    assert isinstance(run.recipe.model, LoRA)
    recipe = run.recipe.change(model=run.recipe.model.base)
    made = Writer.create(folder, recipe, run.codec.save)
    made.save_model(model)
    return Run.open(folder)
