"""How sure a mean is, without a distribution assumed: the bootstrap (Efron, 1979), percentiles of resampled means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: numbers that are resampled at once: 32 MB of places and as much of values
_ROOM = 1 << 22


def bootstrap(differences: Sequence[float], level: float = 0.95, draws: int = 10_000) -> tuple[float, float]:
    """The interval of the mean of paired differences, in their unit; always with the same draws.

    >>> bootstrap([1.0, 1.0, 1.0])
    (1.0, 1.0)
    """
    x = np.asarray(differences, dtype=float)
    rng, step = np.random.default_rng(0), max(1, _ROOM // max(len(x), 1))
    some = (min(step, draws - at) for at in range(0, draws, step))
    means = np.concatenate([x[rng.integers(len(x), size=(n, len(x)))].mean(1) for n in some])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
