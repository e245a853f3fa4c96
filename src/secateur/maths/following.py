"""One table and one law as least squares: random places, the way downhill, and what the table cannot tell.

A parameter that must be positive is followed as its logarithm. What is compared is the logarithm of what the law says
with that of what was measured, so that a part in a hundred counts alike for small and large values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from secateur.maths.formula import Formula, Rows, Values, listed
from secateur.types import DataError

#: random places looked at, those that are followed for some steps, and those followed to the end
LOOKED_AT, FOLLOWED, FINISHED = 400, 12, 3
#: a direction in which the log of no row moves by more than this, relative to the others, is one the table cannot see
BLIND = 1e-9


class Problem:
    """`theta` holds the parameters that are not held, positive ones as logarithms, in the order of the law."""

    def __init__(self, formula: Formula, rows: Rows, held: Values) -> None:
        self.formula, self.held = formula, {name: np.float64(value) for name, value in held.items()}
        self.rows = {name: rows[name] for name in formula.columns}
        self.logs = np.log(rows[formula.target])
        self.free = [name for name in formula.starts if name not in held]
        ranges = np.array([formula.starts[name] for name in self.free]).reshape(-1, 2)
        self.positive = ranges[:, 0] > 0
        self.low, self.high = np.where(self.positive[:, None], np.log(np.where(ranges > 0, ranges, 1.0)), ranges).T

    def values(self, theta: np.ndarray) -> dict[str, Any]:
        """By name, and as numbers of numpy: one that has run to zero divides into infinity, and is left."""
        with np.errstate(all="ignore"):
            raw = np.where(self.positive, np.exp(theta), theta)
        found = self.held | dict(zip(self.free, raw, strict=True))
        return {name: found[name] for name in self.formula.starts}

    def residuals(self, theta: np.ndarray) -> np.ndarray:
        return self._said(theta) - self.logs

    def slopes(self, theta: np.ndarray) -> np.ndarray:
        """How the log of every row moves with every parameter: exact, by a complex step."""
        out, step = np.empty((len(self.logs), len(theta))), 1e-100
        for i in range(len(theta)):
            moved = theta.astype(complex)
            moved[i] += 1j * step
            out[:, i] = self._said(moved).imag / step
        return np.where(np.isfinite(out), out, 0.0)

    def _said(self, theta: np.ndarray) -> Any:
        with np.errstate(all="ignore"):
            return np.log(np.asarray(self.formula.value(self.rows, self.values(theta))) + np.zeros_like(self.logs))

    def cost(self, theta: np.ndarray, delta: float) -> float:
        """Huber's loss, summed over the rows."""
        z = np.abs(self.residuals(theta))
        total = float(np.where(z <= delta, z * z / 2, delta * (z - delta / 2)).sum())
        return total if np.isfinite(total) else np.inf

    def somewhere(self, rng: np.random.Generator) -> np.ndarray:
        return self.low + rng.random(len(self.low)) * (self.high - self.low)

    def best(self, rng: np.random.Generator) -> np.ndarray:
        """The least cost that is found from many random places: first with a wide `delta`, then with the law's own."""
        if not self.free:
            return np.empty(0)
        delta = self.formula.delta
        places = sorted((self.somewhere(rng) for _ in range(LOOKED_AT)), key=lambda x: self.cost(x, 10 * delta))
        if not np.isfinite(self.cost(places[0], 10 * delta)):
            raise DataError(
                f"{self.formula.name} gives no number for this table", "are the columns in the units that it expects?"
            )
        ways = [self.followed(place, 10 * delta, 60, close=1e-7) for place in places[:FOLLOWED]]
        ways = sorted(ways, key=lambda x: self.cost(x, 10 * delta))[:FINISHED]
        return min((self.followed(way, delta, 400) for way in ways), key=lambda x: self.cost(x, delta))

    def followed(self, theta: np.ndarray, delta: float, steps: int, close: float = 1e-12) -> np.ndarray:
        """Downhill by trust-region least squares, in squares up to `delta` and in lines beyond."""
        from scipy.optimize import least_squares

        if not self.free or not np.isfinite(self.residuals(theta)).all():
            return theta
        how: dict[str, Any] = {
            "jac": self.slopes,
            "ftol": close,
            "xtol": close,
            "gtol": close,
            "max_nfev": steps,
            "x_scale": "jac",
        }
        with np.errstate(all="ignore"):  # far from any minimum its own algebra overflows
            return least_squares(self.residuals, theta, loss="huber", f_scale=delta, **how).x

    def check(self, rng: np.random.Generator) -> None:
        """DataError with the parameters that no table with these columns could tell, whatever was measured."""
        seen = [self._blind(self.slopes(self.somewhere(rng))) for _ in range(8)]
        blind = min(seen, key=len) if self.free else set()
        if not blind:
            return
        names = [name for name in self.free if name in blind]
        counts = {name: len(set(column.tolist())) for name, column in self.rows.items()}
        why = [f"`{name}` is {self.rows[name][0]:g} in all rows" for name, n in counts.items() if n == 1]
        why = why or [f"`{name}` takes {n} values only" for name, n in counts.items() if n < 4]
        raise DataError(
            f"this table cannot tell {listed(names)} of {self.formula.name}{': ' * bool(why)}{', '.join(why)}",
            f"add rows with other values, or hold what is known: --hold {names[-1]}=VALUE ({self.formula.says})",
        )

    def _blind(self, slopes: np.ndarray) -> set[str]:
        """The parameters in directions along which no row moves."""
        norms = np.linalg.norm(slopes, axis=0)
        still = norms < 1e-12
        gone = {name for name, none in zip(self.free, still, strict=True) if none}
        left = [name for name in self.free if name not in gone]
        if not left:
            return gone
        _, sizes, directions = np.linalg.svd(slopes[:, ~still] / norms[~still], full_matrices=True)
        sizes = np.concatenate([sizes, np.zeros(len(left) - len(sizes))])
        for direction in directions[sizes < BLIND * sizes[0]]:
            gone |= {name for name, part in zip(left, direction, strict=True) if abs(part) > 1e-3}
        return gone
