"""Whether runs were trained on the same pictures: known by what is in them, not by where they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sanbu.config import SanbuError, change
from sanbu.run import Run


def check_same_pictures(runs: Sequence[Run]) -> Run:
    """A run whose source still holds what every one of the runs was trained on. Raises SanbuError if there is none.

    A run is known by the fingerprint of its source when it began. Where two differ, as those of a folder and a ZIP
    do, and both sources are as they were, the pictures and labels themselves are compared.
    """
    first = runs[0]
    for run in runs[1:]:
        if split_of(run) != split_of(first):
            raise SanbuError(
                f"{run.folder} was trained on other pictures than {first.folder}: {split_of(run)} against"
                f" {split_of(first)}; only runs on the same pictures and split can be compared"
            )
    problems = {str(run.folder): problem_of(run) for run in runs}
    intact = [run for run in runs if not problems[str(run.folder)]]
    if not intact:
        raise SanbuError(problems[str(first.folder)])
    judged = intact[0]
    for run in runs:
        if fingerprint(run) != fingerprint(judged) and (run not in intact or contents(run) != contents(judged)):
            hint = problems[str(run.folder)] or "only runs on the same pictures and split can be compared"
            raise SanbuError(f"{run.folder} was trained on other pictures than {judged.folder}; {hint}")
    return judged


def split_of(run: Run) -> dict[str, Any]:
    """The properties of the data that must be equal in compared runs, besides the pictures."""
    data: Any = run.recipe.data
    shape, levels = data.space().shape, data.space().vocabulary
    return {"shape": list(shape), "levels": levels, "validation": data.validation, "test": data.test}


def problem_of(run: Run) -> str:
    """Why the pictures of a run cannot be had any more, in one line; empty if they can."""
    data: Any = run.recipe.data
    try:
        found = data.build().fingerprint
    except SanbuError as error:
        return str(error)
    if run.fingerprint in (None, found):
        return ""
    return f"{data.path} holds other pictures now than when {run.folder} was trained"


def fingerprint(run: Run) -> str:
    """The fingerprint of the source of a run when it began; of its source now, where the run has none."""
    return run.fingerprint or run.recipe.data.build().fingerprint


def contents(run: Run) -> str:
    """A hash of the pictures of a run with their labels, in any order."""
    labelled: Any = change(run.recipe.data, {"classes": "auto"}).resolve()
    data = labelled.build()
    pairs = zip(data.images, data.labels, strict=True)
    digests = sorted(hashlib.sha256(image.tobytes() + label.tobytes()).digest() for image, label in pairs)
    return hashlib.sha256(b"".join(digests)).hexdigest()
