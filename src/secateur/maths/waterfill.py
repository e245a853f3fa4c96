"""Bits as if they could be cut as fine as water: the closed form when damage falls by 2^-exponent a bit."""

from __future__ import annotations

import numpy as np


def waterfill(
    coefficient: np.ndarray,
    mean: float,
    size: np.ndarray | None = None,
    least: float = 0.0,
    most: float = np.inf,
    exponent: float = 2.0,
) -> np.ndarray:
    """Bits b that minimise `sum size * coefficient * 2^(-exponent * b)` at a weighted mean of `mean`, between bounds.

    Where no bound holds every part ends with the same damage per size: `b = log2(coefficient) / exponent + level`. The
    level is found exactly, by walking its breakpoints. What has no coefficient gets the least.

    >>> waterfill(np.array([1.0, 4.0, 16.0]), mean=3.0).tolist()
    [2.0, 3.0, 4.0]
    """
    coefficient = np.asarray(coefficient, dtype=float)
    size = np.ones_like(coefficient) if size is None else np.asarray(size, dtype=float)
    if not least <= mean <= most:
        raise ValueError(f"a mean of {mean} lies outside the bounds {least} to {most}")
    alive = coefficient > 0
    if not alive.any():
        return np.full_like(coefficient, mean)
    own = np.log2(coefficient, out=np.zeros_like(coefficient), where=alive) / exponent
    level = _level(own[alive], size[alive], float(mean * size.sum() - least * size[~alive].sum()), least, most)
    return np.where(alive, np.clip(own + level, least, most), least)


def _level(own: np.ndarray, size: np.ndarray, total: float, least: float, most: float) -> float:
    """The level at which `sum size * clip(own + level, least, most)` is `total`: a sum that grows piece by piece."""
    turns = np.concatenate([least - own, most - own])  # from here a part rises; from there it does no more
    order = np.argsort(turns, kind="stable")
    turns, slope = turns[order], np.cumsum(np.concatenate([size, -size])[order])
    turns, slope = turns[np.isfinite(turns)], slope[np.isfinite(turns)]
    filled = least * size.sum() + np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(turns))])
    at = min(int(np.searchsorted(filled, total, side="right")), len(turns)) - 1
    at = max(at, 0)
    return float(turns[at] + (total - filled[at]) / slope[at] if slope[at] > 0 else turns[at])
