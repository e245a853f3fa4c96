"""What a sum of predicted damages will be when it is measured, learned from a few probes of the same network.

Gradients of neighbouring tokens are correlated and the second order is not all, so sums come out too low, and by a
factor that changes with their size. A curve through the probes in log-log (straight between them, proportional below
the smallest, where the second order is all there is) sets that right; it only grows, so the plan with the least sum
stays the plan with the least damage.

Masks and low ranks err in their own ways: what a low rank leaves out points in few directions, and damages more than
its second order says. Probes of such a family say by how much all its predictions are to be multiplied, so that its
sums stand for the divergences that sums of rounding stand for.

What the probes are held against is the divergence from the uncut network, which is what sampled labels predict. The
loss on real text rises by that times a factor of its own (`rise`): near 1 on text the network has never seen, more on
text that it was trained on. About that it wanders (`drift`): a network that is not trained to its end has a gradient
left, along which a change of the weights gains or loses as its own size does, which is the root of the divergence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from secateur.maths.forms import FAMILY
from secateur.measure.compare import Comparison


@dataclass(frozen=True)
class Correction:
    """`sums` predicted and `measured` (KL, nats per token) of the probes, both growing; `rise` is loss per KL and
    `rise_error` its standard error; `error` is the relative error of a corrected sum, that of the probes in it; `drift`
    how far the loss wanders, in nats per root of a nat."""

    sums: tuple[float, ...] = ()
    measured: tuple[float, ...] = ()
    rise: float = 1.0
    rise_error: float = 0.0
    error: float = 0.5
    drift: float = 0.0

    @classmethod
    def fit(cls, expected: Mapping[int, float], found: Mapping[int, Comparison]) -> Correction:
        """From the sums that were expected of each probe and what was found of it."""
        points: list[tuple[float, float]] = []
        for level in sorted(expected, key=lambda level: expected[level]):
            x, y = expected[level], found[level].kl
            if x > 0 and y > 0 and (not points or (x > 1.05 * points[-1][0] and y > points[-1][1])):
                points.append((x, y))
        if not points:
            return cls()
        rise, error = _rise(list(found.values()))
        sums, measured = zip(*points, strict=True)
        told = [one.kl_error / one.kl for one in found.values() if one.kl > 0 and math.isfinite(one.kl_error)]
        doubt = math.hypot(0.1, error / rise, math.fsum(told) / max(len(told), 1))
        return cls(sums, measured, rise, error, doubt, _drift(list(found.values()), rise))

    def factors(self, expected: Mapping[int, float], found: Mapping[int, Comparison]) -> dict[int, float]:
        """By level: what predictions like that probe's are to be multiplied by, to be sums of this curve."""
        told = {level: (expected[level], found[level].kl) for level in expected}
        return {level: self.total(kl) / sum_ for level, (sum_, kl) in told.items() if sum_ > 0 and kl > 0}

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Correction:
        """As a menu remembers it; without probes sums stay as they are."""
        told = dict(about.get("correction") or {})
        sums, measured = (tuple(told.pop(side, ())) for side in ("sums", "measured"))
        return cls(sums, measured, **told)

    def told(self) -> dict[str, Any]:
        return asdict(self)

    def kl(self, total: float) -> float:
        """The divergence that a sum of predictions stands for."""
        if total <= 0 or not self.sums:
            return max(total, 0.0)
        x = math.log(total)
        xs, ys = [[math.log(v) for v in side] for side in (self.sums, self.measured)]
        if x <= xs[0]:
            return math.exp(ys[0] + x - xs[0])
        at = min(_segment(xs, x), len(xs) - 2)
        slope = (ys[at + 1] - ys[at]) / (xs[at + 1] - xs[at]) if len(xs) > 1 else 1.0
        at = max(at, 0)
        return math.exp(ys[at] + slope * (x - xs[at]))

    def total(self, kl: float) -> float:
        """The sum of predictions that stands for a divergence: `kl` turned round."""
        if kl <= 0 or not self.sums:
            return max(kl, 0.0)
        low, high = 1e-12 * self.sums[0], 1e12 * self.sums[-1]
        for _ in range(100):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self.kl(middle) < kl else (low, middle)
        return math.sqrt(low * high)

    def loss(self, total: float) -> float:
        """The rise of the loss that a sum of predictions stands for."""
        return self.rise * self.kl(total)

    def spread(self, total: float, error: float) -> float:
        """The standard error of that rise, where the sum's own is `error`."""
        return math.hypot(self.slope(total) * error, self.drift * math.sqrt(self.kl(total)))

    def slope(self, total: float) -> float:
        """How fast the loss grows with the sum."""
        step = 1e-4
        return (self.loss(total * (1 + step)) - self.loss(total)) / (total * step) if total > 0 else 0.0


def factor_at(factors: Mapping[int, float], level: int) -> float:
    """The factor of a family at a level: straight, in its logarithm, between the levels that were probed; 1 where none
    of its family was."""
    mine = sorted(known for known in factors if known // FAMILY == level // FAMILY)
    if not mine:
        return 1.0
    return math.exp(float(np.interp(level, mine, [math.log(factors[known]) for known in mine])))


def _segment(xs: Sequence[float], x: float) -> int:
    return max(i for i, v in enumerate(xs) if v <= x)


def _rise(found: Sequence[Comparison]) -> tuple[float, float]:
    """Rise of the loss per KL over the probes, each weighed by how well it is known, and its standard error.

    A belief in 1 +- 0.3 stands against noise.
    """
    value, weight = 1 / 0.3**2, 1 / 0.3**2
    for one in found:
        error = one.rise_error / one.kl if one.kl > 0 else math.inf
        if math.isfinite(error):
            precision = 1 / max(error, 0.05) ** 2 / len(found)  # probes share their windows: not independent
            value, weight = value + precision * one.rise / one.kl, weight + precision
    return min(max(value / weight, 0.7), 1.6), weight**-0.5


def _drift(found: Sequence[Comparison], rise: float) -> float:
    """How far the probes' losses are from where their divergences put them, per root of the divergence.

    Small probes say most: in large ones what is beyond the second order is larger than what a gradient does.
    """
    square = weight = 0.0
    for one in found:
        if one.kl > 0 and math.isfinite(one.rise_error):
            away = math.hypot(one.rise - rise * one.kl, one.rise_error)
            square, weight = square + away**2 / one.kl**2, weight + 1 / one.kl
    return math.sqrt(square / weight) if weight else 0.0
