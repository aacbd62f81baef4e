"""Utility: models trained on generated rows and tested on held-out ones (TSTR; Esteban and others, 2017).

Four kinds of scikit-learn, each with its defaults: a linear model, AdaBoost, a random forest, histogram boosting. A
class is judged by macro F1 and AUC, a number by R^2. The same for training rows is the ceiling.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from sanbu.codecs.features import Features

Figures = dict[str, float]


def utility(features: Features, train_BC: Tensor, test_BC: Tensor, seed: int = 0) -> Figures:
    """Means over four models: f1 and auc of a class, r2 of a number; nothing without a target."""
    if not features.target:
        return {}
    flagged = replace(features, gaps="flag", names="one-hot")
    x, y = arrays(flagged, train_BC)
    test_x, test_y = arrays(flagged, test_BC)
    middle, scale = x.mean(0), x.std(0)
    scale[scale < 1e-9] = 1.0
    x, test_x = (x - middle) / scale, (test_x - middle) / scale
    judge = judge_classes if features.classes else judge_numbers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a linear model that would gain from more steps
        return judge(x, y, test_x, test_y, seed)


def arrays(features: Features, cells_BC: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the rows that have a target."""
    there = ~cells_BC[:, features.place].isnan()
    found = features.tensors(cells_BC[there])
    return found["x"].numpy().astype(np.float64), found["y"].numpy()


def judge_classes(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, seed: int) -> Figures:
    """Macro F1 and AUC, means over the classifiers. A class without a row is never predicted."""
    from sklearn.ensemble import AdaBoostClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    count = int(max(y.max(initial=0), test_y.max())) + 1
    if len(np.unique(y)) < 2:
        always = np.full(len(test_y), y[0])
        return {"f1": float(f1_score(test_y, always, average="macro")), "auc": 0.5}
    f1, auc = [], []
    for model in (
        LogisticRegression(max_iter=500, random_state=seed),
        AdaBoostClassifier(random_state=seed),
        RandomForestClassifier(random_state=seed),
        HistGradientBoostingClassifier(random_state=seed),
    ):
        model.fit(x, y)
        chance = np.zeros((len(test_x), count))
        chance[:, model.classes_] = model.predict_proba(test_x)
        f1.append(f1_score(test_y, chance.argmax(1), average="macro"))
        auc.append(area(test_y, chance))
    return {"f1": float(np.mean(f1)), "auc": float(np.mean(auc))}


def area(y: np.ndarray, chance_BK: np.ndarray) -> float:
    """The area under the ROC curve: of the second class, or the mean over classes, each against the rest."""
    from sklearn.metrics import roc_auc_score

    if chance_BK.shape[1] == 2:
        return float(roc_auc_score(y, chance_BK[:, 1])) if len(np.unique(y)) == 2 else 0.5
    each = [roc_auc_score(y == label, chance_BK[:, label]) for label in np.unique(y)]
    return float(np.mean(each))


def judge_numbers(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, seed: int) -> Figures:
    """R^2, the mean over the regressors."""
    from sklearn.ensemble import AdaBoostRegressor, HistGradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import RidgeCV

    models: list[Any] = [RidgeCV(np.logspace(-3, 3, 7)), AdaBoostRegressor(random_state=seed)]
    models += [RandomForestRegressor(random_state=seed), HistGradientBoostingRegressor(random_state=seed)]
    return {"r2": float(np.mean([model.fit(x, y).score(test_x, test_y) for model in models]))}
