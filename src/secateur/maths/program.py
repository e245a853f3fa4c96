"""A small 0/1 program through SciPy's HiGHS: one item of every group, the least value, within every limit exactly."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array


def choose(
    value: np.ndarray,
    group: np.ndarray,
    cost: np.ndarray,
    limits: np.ndarray,
    fits: Callable[[np.ndarray], bool],
    node_limit: int | None = None,
    time_limit: float | None = None,
    tries: int = 100,
) -> tuple[np.ndarray | None, float]:
    """Which items to take (None if none were found to fit) and a proven floor under the value of any that fit.

    `value` and `group` are per item, `cost` is limits x items. Values should be of size one: the solver's tolerance is
    absolute. It also lets a cost pass a limit by a hair, so every answer is put to `fits`, which counts exactly; one
    that does not is forbidden, and the program runs again.
    """
    if not len(value):
        return (np.zeros(0, dtype=bool), 0.0) if fits(np.zeros(0, dtype=bool)) else (None, np.inf)
    _, group = np.unique(group, return_inverse=True)
    items = np.arange(len(group))
    one_each = csr_array((np.ones(len(group)), (group, items)))
    size = np.array([_unit(row) for row in cost])
    unlimited = np.full(len(size), -np.inf)
    within = LinearConstraint(cost / size[:, None], unlimited, limits / size)  # type: ignore[arg-type]  # SciPy is untyped
    rules = [LinearConstraint(one_each, 1, 1), within]
    options = {"node_limit": node_limit, "time_limit": time_limit, "mip_rel_gap": 0.0}
    options = {key: limit for key, limit in options.items() if limit is not None}
    sharpen = 1e4  # HiGHS stops at an absolute gap of 1e-6, which this makes 1e-10
    floor = -np.inf
    for _ in range(tries):
        with silent():
            found = milp(value * sharpen, integrality=1, bounds=Bounds(0, 1), constraints=rules, options=options)
        floor = -np.inf if found.mip_dual_bound is None else (found.mip_dual_bound - 1e-5) / sharpen
        if found.x is None:
            return None, np.inf if found.status == 2 else floor
        taken = found.x > 0.5
        if fits(taken):
            return taken, floor
        rules.append(LinearConstraint(taken.astype(float)[None], -np.inf, taken.sum() - 1))
    return None, floor


@contextmanager
def silent() -> Iterator[None]:
    """Nothing on the process's standard output: HiGHS prints a debugging line there that no option turns off.

    (jump-dev/HiGHS.jl issue 312.) The line sits in C's own buffer, so that is emptied before and after.
    """
    flush = ctypes.CDLL(None).fflush if os.name == "posix" else ctypes.cdll.msvcrt.fflush
    sys.stdout.flush()
    flush(None)
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _unit(costs: np.ndarray) -> float:
    """The largest number that divides all of them, for integers; their largest, otherwise."""
    if (costs == np.floor(costs)).all():
        return float(max(np.gcd.reduce(costs.astype(np.int64)), 1))
    return float(np.abs(costs).max())
