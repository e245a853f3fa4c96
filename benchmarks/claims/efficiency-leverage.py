"""Are leverages above six foretold from those below? On made points, since training mixtures is out of reach here.

    PYTHONPATH=src python -m benchmarks.claims.efficiency-leverage

120 mixtures a seed, drawn at random, with the leverage that the paper's constants give them, 5% off at random. The law
is fitted to those below six, as the paper does, and predicts the others; against a plain power law of the three numbers
(log-linear least squares). The error is the mean distance of the logarithms to the leverage without noise. It says that
the constants can be found from such points, not that the law is true.
"""

from __future__ import annotations

import numpy as np

from benchmarks import harness
from secateur.maths.fitting import fit
from secateur.methods.laws.efficiency_leverage import FOUND, LEVERAGE


def trial(seed: int) -> tuple[float, float]:
    draw, n = np.random.default_rng(seed), 120
    rows = {
        "activation": np.exp(draw.uniform(np.log(0.008), np.log(0.5), n)),
        "granularity": np.exp(draw.uniform(0, np.log(32), n)),
        "flops": np.exp(draw.uniform(np.log(1e18), np.log(1e22), n)),
    }
    true = LEVERAGE.at(rows, FOUND)
    seen = true * np.exp(draw.normal(0, 0.05, n))
    known = seen < 6
    values = fit(LEVERAGE, {name: x[known] for name, x in {**rows, "leverage": seen}.items()}, draws=0).values
    logs = np.stack([np.ones(n), *(np.log(column) for column in rows.values())], 1)
    plain = logs @ np.linalg.lstsq(logs[known], np.log(seen[known]), rcond=None)[0]
    ours = np.abs(np.log(LEVERAGE.at(rows, values) / true))[~known]
    return float(ours.mean()), float(np.abs(plain - np.log(true))[~known].mean())


if __name__ == "__main__":
    text = "fitted to made leverages below six it predicts those above better than a power law"
    harness.claim("efficiency-leverage", text, trial, seeds=8)
