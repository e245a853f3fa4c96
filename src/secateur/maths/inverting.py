"""A law turned around: where it takes a value, and where it is the lowest. One variable, above zero, on a log scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

#: places on the log scale at which a law is looked at before it is searched between them
PLACES = 400


def crossings(law: Callable[[np.ndarray], np.ndarray], target: float, low: float, high: float) -> list[float]:
    """Everywhere between `low` and `high` where the law (of many values at once) takes the target, from the least on.

    >>> crossings(lambda x: x**2, 49.0, 0.1, 1e3)
    [7.0]
    """
    from scipy.optimize import brentq

    places = np.linspace(math.log(low), math.log(high), PLACES)
    off = law(np.exp(places)) - target
    found = np.exp(places[off == 0]).tolist()
    for at in np.flatnonzero(np.isfinite(off[:-1]) & np.isfinite(off[1:]) & (off[:-1] * off[1:] < 0)):
        root: Any = brentq(lambda x: _one(law, x) - target, places[at], places[at + 1], xtol=1e-13)
        found.append(math.exp(float(root)))
    return sorted(float(f"{x:.12g}") for x in found)


def lowest(law: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> float | None:
    """Where the law is the lowest; None where that is at an end, so that it only falls or only rises.

    >>> lowest(lambda x: x + 9 / x, 0.1, 1e3)
    3.0
    """
    from scipy.optimize import minimize_scalar

    places = np.linspace(math.log(low), math.log(high), PLACES)
    values = law(np.exp(places))
    values = np.where(np.isfinite(values), values, np.inf)
    at = int(values.argmin())
    if at in (0, PLACES - 1) or not values[at] < min(values[0], values[-1]) * (1 - 1e-12):
        return None
    found = minimize_scalar(
        lambda x: _one(law, x), bounds=(places[at - 1], places[at + 1]), method="bounded", options={"xatol": 1e-10}
    )
    return float(f"{math.exp(found.x):.6g}")


def _one(law: Callable[[np.ndarray], np.ndarray], x: float) -> float:
    return float(law(np.array([math.exp(x)]))[0])
