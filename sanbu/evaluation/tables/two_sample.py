"""The two-sample test (C2ST; Lopez-Paz and Oquab, 2017): can a booster tell generated rows from held-out ones?

The figure is its AUC on rows that it has not seen (5 folds): 0.5 is best, 1 is worst. Its power grows with the number
of rows, so it is told with that number: rows a side.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

MOST = 4000  # rows a side


def two_sample(generated_BC: Tensor, held_out_BC: Tensor, seed: int = 0, most: int = MOST) -> tuple[float, int]:
    """The AUC, and the rows a side."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    count = min(len(generated_BC), len(held_out_BC), most)
    draw = np.random.default_rng(seed)
    parts = [part.numpy()[draw.permutation(len(part))[:count]] for part in (generated_BC, held_out_BC)]
    x, y = np.concatenate(parts), np.repeat([1, 0], count)
    model = HistGradientBoostingClassifier(random_state=seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    chance = cross_val_predict(model, x, y, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(y, chance)), count
