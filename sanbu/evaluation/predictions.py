"""Predictions on held-out rows: how often they are right, whether their probabilities are, and what they depend on.

classes    accuracy, macro F1, log loss, Brier score (summed over classes), area under the ROC curve (each class
           against the rest), calibration error: E |accuracy - confidence| over ten bins of the confidence
numbers    mean absolute and root mean squared error, R^2; coverage and width of prediction intervals
importance how much the loss rises when a column is shuffled among rows, mean of five shuffles (Breiman, 2001)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sanbu.config import SanbuError
from sanbu.display.tables import Column, FittedTable, folded
from sanbu.evaluation.held_out import nothing_held_out
from sanbu.evaluation.options import Measurement, Options, figure_lines, single_run
from sanbu.evaluation.prediction_plots import draw
from sanbu.files import replace_atomically
from sanbu.noise import Noise
from sanbu.objectives.supervised import SupervisedConfig
from sanbu.progress import progress_rows
from sanbu.run import Run

BINS, SHUFFLES, AT_ONCE = 10, 5, 4096
MOST_ROWS, MOST_CLASSES, MOST_COLUMNS = 2000, 12, 100  # of importance; of a matrix in a terminal; of importance


@dataclass(frozen=True)
class Predicted:
    """Inputs x_B..., outputs_BO and targets of held-out rows, on the CPU. classes: their names, empty for numbers."""

    x: Tensor
    outputs: Tensor
    target: np.ndarray
    objective: SupervisedConfig
    classes: Sequence[str]

    @property
    def law(self) -> np.ndarray:
        """The probability of each class, float64 [B, K]."""
        return torch.stack(list(self.objective.read(self.outputs).values()), 1).double().numpy()

    @property
    def number(self) -> np.ndarray:
        """The predicted number, or numbers, float64 [B, O]."""
        read = list(self.objective.read(self.outputs).values())
        several = self.target.ndim > 1 and self.target.shape[1] > 1
        return torch.stack(read if several else read[:1], 1).double().numpy()


def measure(runs: Sequence[Run], options: Options) -> Measurement:
    """All figures of one run, as JSON and as text; draws predictions.png into its folder."""
    run = single_run(runs)
    found = predict_held_out(run)
    figures = figures_of(found)
    importance = importances(run.model, found, groups_of(run, found.x))
    path = run.folder / "predictions.png"
    with replace_atomically(path) as temporary:
        temporary.write_bytes(draw(found.target, found.law if found.classes else found.number, found.classes,
                                   importance, intervals(found)))  # fmt: skip
    about: dict[str, Any] = {"run": str(run.folder), **figures, "importance": importance}
    text = [figure_lines(figures)]
    if found.classes:
        matrix = confusion(found)
        about |= {"classes": list(found.classes), "confusion": matrix.tolist()}
        text.append(confusion_text(matrix, found.classes))
    text.append(importance_text(importance))
    return about | {"picture": str(path)}, "\n\n".join([*text, str(path)])


def predict_held_out(run: Run) -> Predicted:
    """The outputs of a run on all held-out rows. Raises SanbuError if nothing is held out."""
    data, objective = run.recipe.data.build(), run.recipe.objective
    assert isinstance(objective, SupervisedConfig)
    if not data.held_out_rows:
        raise SanbuError(f"{run.folder}: {nothing_held_out(run.recipe.data, data)}")
    inputs, targets = [], []
    for start in range(0, data.held_out_rows, AT_ONCE):
        batch = data.held_out(start, min(AT_ONCE, data.held_out_rows - start))
        inputs.append(batch[objective.input])
        targets.append(batch[objective.target])
    x, target = torch.cat(inputs), torch.cat(targets).numpy()
    outputs = outputs_of(run.model, x, "evaluating")
    return Predicted(x, outputs, target, objective, classes_of(run, target, outputs))


def outputs_of(model: nn.Module, x: Tensor, what: str = "") -> Tensor:
    """outputs_BO of a model, on the CPU."""
    tensors = (*model.parameters(), *model.buffers())
    device = tensors[0].device if tensors else x.device
    found = []
    with torch.no_grad(), progress_rows(what or "predicting", len(x)) as progress:
        for part in x.split(AT_ONCE):
            found.append(model(part.to(device)).float().cpu())
            progress(len(part))
    return torch.cat(found)


def classes_of(run: Run, target: np.ndarray, outputs_BO: Tensor) -> Sequence[str]:
    """The names of the classes; numbers where the data has no names; nothing for targets that are numbers."""
    if np.issubdtype(target.dtype, np.floating):
        return ()
    names, count = tuple(getattr(run.codec, "classes", ())), outputs_BO.shape[1]
    return names if len(names) == count else tuple(map(str, range(count)))


def groups_of(run: Run, x: Tensor) -> Mapping[str, list[int]]:
    """The features of each column of a table; of other inputs, each number by its place."""
    known = getattr(run.codec, "groups", None)
    return known if known is not None else {str(place): [place] for place in range(x.flatten(1).shape[1])}


# -- figures ----------------------------------------------------------------------------------------------------------


def figures_of(found: Predicted) -> dict[str, Any]:
    """The figures by name."""
    figures = of_classes(found.target, found.law) if found.classes else of_numbers(found)
    return figures | {"rows": len(found.target)}


def of_classes(target: np.ndarray, law: np.ndarray) -> dict[str, Any]:
    """Figures of probabilities, [B, K]."""
    from sklearn import metrics

    best = law.argmax(1)
    one_hot = np.eye(law.shape[1])[target]
    return {
        "accuracy": float(metrics.accuracy_score(target, best)),
        "macro_f1": float(metrics.f1_score(target, best, average="macro", zero_division=0.0)),
        "log_loss": float(-np.log(np.maximum(law[np.arange(len(target)), target], 1e-15)).mean()),
        "brier": float(((law - one_hot) ** 2).sum(1).mean()),
        "auc": area(one_hot, law),
        "calibration_error": calibration_error(target, law),
        "always_the_most_frequent": float(np.bincount(target).max() / len(target)),
    }


def area(one_hot: np.ndarray, law: np.ndarray) -> float | None:
    """The mean area under the ROC curve of each class that is there, against the rest; None with one class alone."""
    from sklearn import metrics

    share = one_hot.mean(0)
    there = [k for k in range(law.shape[1]) if 0 < share[k] < 1]
    areas = [float(metrics.roc_auc_score(one_hot[:, k], law[:, k])) for k in there]
    return sum(areas) / len(areas) if areas else None


def calibration_error(target: np.ndarray, law: np.ndarray) -> float:
    """The expected calibration error of the most probable class (Naeini and others, 2015)."""
    confidence, right = law.max(1), law.argmax(1) == target
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(place, right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(target))


def of_numbers(found: Predicted) -> dict[str, Any]:
    """Figures of numbers."""
    from sklearn import metrics

    target = found.target.reshape(len(found.target), -1)
    figures: dict[str, Any] = {
        "mae": float(metrics.mean_absolute_error(target, found.number)),
        "rmse": float(metrics.root_mean_squared_error(target, found.number)),
        "r2": float(metrics.r2_score(target, found.number)) if len(target) > 1 else None,
    }
    known = intervals(found)
    if known is not None:
        low, high, nominal = known
        inside = (target[:, 0] >= low) & (target[:, 0] <= high)
        figures |= {"coverage": float(inside.mean()), "nominal": nominal, "width": float((high - low).mean())}
    return figures


def intervals(found: Predicted) -> tuple[np.ndarray, np.ndarray, float] | None:
    """The prediction interval of each row, and its nominal probability, where the objective has one."""
    known = None if found.classes else found.objective.interval(found.outputs)
    if known is None:
        return None
    low, high, nominal = known
    return low.double().numpy(), high.double().numpy(), nominal


def importances(model: nn.Module, found: Predicted, groups: Mapping[str, list[int]]) -> dict[str, float]:
    """How much the loss (log loss, or root mean squared error) rises when a column is shuffled; largest first."""
    if len(groups) > MOST_COLUMNS or len(found.target) < 2:
        return {}
    rows = min(len(found.target), MOST_ROWS)
    part = replace(found, x=found.x[:rows], outputs=found.outputs[:rows], target=found.target[:rows])
    name, before = "log_loss" if found.classes else "rmse", figures_of(part)
    rises = {}
    for number, (column, places) in enumerate(groups.items()):
        total = 0.0
        for shuffle in range(SHUFFLES):
            order = Noise("importance", number, shuffle).together().permutation(rows)
            x = part.x.flatten(1).clone()
            x[:, places] = x[order][:, places]
            outputs = outputs_of(model, x.view_as(part.x))
            total += figures_of(replace(part, outputs=outputs))[name] - before[name]
        rises[column] = total / SHUFFLES
    return dict(sorted(rises.items(), key=lambda pair: -pair[1]))


def confusion(found: Predicted) -> np.ndarray:
    """Counts, [true, predicted]."""
    from sklearn import metrics

    return np.asarray(metrics.confusion_matrix(found.target, found.law.argmax(1), labels=range(len(found.classes))))


# -- text -------------------------------------------------------------------------------------------------------------


def confusion_text(matrix: np.ndarray, classes: Sequence[str]) -> str:
    """The confusion matrix as a table, or the most frequent confusions of many classes."""
    if len(classes) > MOST_CLASSES:
        wrong = [(int(matrix[i, j]), i, j) for i, j in np.argwhere(matrix) if i != j]
        worst = sorted(wrong, reverse=True)[:10]
        lines = [f"{count} of {classes[i]} taken for {classes[j]}" for count, i, j in worst]
        return "\n".join(["most frequent confusions", *lines])
    columns = [Column("is, taken for", number=False), *(Column(name) for name in classes)]
    rows = [[name, *map(str, matrix[number])] for number, name in enumerate(classes)]
    return str(FittedTable(columns, rows))


def importance_text(importance: Mapping[str, float]) -> str:
    """The ten most important columns in one line."""
    shown = [f"{name} {value:.3g}" for name, value in list(importance.items())[:10]]
    return folded("importance (rise of the loss when shuffled): " + ", ".join(shown)) if shown else ""
