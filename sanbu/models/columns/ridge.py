"""A ridge regression whose penalty and residuals come from leaving each row out, in closed form (Allen, 1974).

e_i = (y_i - f(x_i)) / (1 - h_i) is the error at row i of the fit without row i; h_i is the leverage.
"""

from __future__ import annotations

import numpy as np

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 1e5)
Array = np.ndarray


def ridge(x_BP: Array, y_B: Array) -> tuple[Array, float, Array]:
    """Weights_P, the constant, and the residual of each row by the fit without it; the best of several penalties."""
    middle, mean = x_BP.mean(0), y_B.mean()
    centred = x_BP - middle
    squares, vectors = np.linalg.eigh(centred.T @ centred)
    scores_BP = centred @ vectors
    products_P = scores_BP.T @ (y_B - mean)
    best: tuple[float, Array, Array] | None = None
    for penalty in PENALTIES:
        shrunk = 1 / (np.maximum(squares, 0) + penalty)
        lever_B = (scores_BP**2 @ shrunk) + 1 / len(y_B)
        residual_B = (y_B - mean - scores_BP @ (shrunk * products_P)) / np.maximum(1 - lever_B, 0.05)
        error = float((residual_B**2).mean())
        if best is None or error < best[0]:
            best = error, vectors @ (shrunk * products_P), residual_B
    assert best is not None
    return best[1], float(mean - middle @ best[1]), best[2]
