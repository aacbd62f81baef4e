"""How is a sample drawn? A line for each kind; its file has the config and, below it, the strategy."""

KINDS = {
    "autoregressive": "autoregressive",
    "beam-search": "beam",
    "pixel-by-pixel": "pixel_by_pixel",
    "one-shot": "one_shot",
    "refinement": "refinement",
    "row-refinement": "row_refinement",
    "prediction": "prediction",
    "cells": "cells",
    "vocoding": "vocoding",
    "codes": "codes",
    "speak": "speak",
    "perform": "perform",
    "in-stages": "in_stages",
    "transcribe": "transcribe",
    "choose-text": "choose_text",
}

FUNCTIONS = {  # samplers and filters that need no recipe: sanbu.strategies.sample_heun(denoise, noise, times)
    "sample_euler": "samplers",
    "sample_heun": "samplers",
    "sample_dpm_solver": "samplers",
    "sample_ddim": "samplers",
    "sample_ancestral": "samplers",
    "sample_consistency": "samplers",
    "top_k": "filters",
    "top_p": "filters",
    "min_p": "filters",
    "repetition_penalty": "filters",
}


def __getattr__(name: str) -> object:
    if name in FUNCTIONS:
        from importlib import import_module

        return getattr(import_module(f"sanbu.strategies.{FUNCTIONS[name]}"), name)
    raise AttributeError(f"module 'sanbu.strategies' has no attribute {name!r}")
