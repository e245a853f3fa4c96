"""A law with its parameters answers: what it says at a point, and where it gives what is wanted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.law.asking import SEARCHED, Point, outside
from secateur.maths.fitting import Fit, between
from secateur.maths.formula import Values
from secateur.maths.inverting import crossings, lowest
from secateur.parts.laws import Law, counted, said

#: where a column is searched that is none of those that most laws have
ANYWHERE = (1e-6, 1e15)


@dataclass(frozen=True)
class Answering:
    """A law with its parameters; `fit` where they were fitted to a table, so that there are intervals."""

    law: Law
    values: Values
    fit: Fit | None = None

    @property
    def inside(self) -> Mapping[str, tuple[float | None, float | None]]:
        """Of each column between what the law was fitted."""
        if self.fit is not None:
            return self.fit.inside
        return self.law.published.inside if self.law.published else {}

    def predict(self, given: Point) -> dict[str, Any]:
        """What the law gives at a point, in numbers and in words."""
        settled = self.law.settled(given, self.values) if set(given) < set(self.law.formula.columns) else {}
        at = {name: given.get(name, settled.get(name, math.nan)) for name in self.law.formula.columns}
        out: dict[str, Any] = {"at": at, "value": None, "interval": None, "more": {}}
        out["outside"] = outside(at, self.inside)
        value = float(self.law.formula.at(at, self.values))
        if not math.isfinite(value):
            return out | {"says": f"the law says nothing at {said(at)}"}
        more = self.law.more(at, self.values)
        words = self.law.told(at, value, more)
        if self.fit is not None:
            low, high = out["interval"] = list(self.fit.range(at))
            words += f"; 95% between {low:.3g} and {high:.3g}"
        return out | {"value": value, "more": more, "says": words}

    def turned(self, at: Point, find: str, target: float | None) -> dict[str, Any]:
        """The value of a column at which the law gives the target, or the least; further ones where it turns."""
        what = f"lowest {self.law.formula.target}" if target is None else f"{self.law.formula.target} of {target:.4g}"
        there = f" at {said(at)}" if at else ""
        out: dict[str, Any] = {"at": at, "find": find, "target": target, "value": None, "interval": None, "also": []}
        answers = self._answers(at, find, target, self.values)
        if not answers:
            low, high = map(counted, SEARCHED.get(find, ANYWHERE))
            return out | {"outside": [], "says": f"there is no {what}{there} for {find} from {low} to {high}"}
        first, also = answers[0], answers[1:]
        words = f"{'the' if target is None else 'a'} {what} is reached{there} with {find}={counted(first)}"
        if self.fit is not None:
            drawn = [self._answers(at, find, target, values) for values in self.fit.drawn]
            near = [min(some, key=lambda x: abs(math.log(x / first))) for some in drawn if some]
            low, high = out["interval"] = list(between(near))
            words += f", 95% between {counted(low)} and {counted(high)}"
            if len(near) < 0.95 * len(drawn):
                words += f" (and nowhere in {1 - len(near) / len(drawn):.0%} of the tables drawn)"
        words += f", and again with {find}={', '.join(map(counted, also))}" if also else ""
        return out | {"value": first, "also": also, "outside": outside({find: first, **at}, self.inside), "says": words}

    def _answers(self, at: Point, find: str, target: float | None, values: Values) -> list[float]:
        def along(x: np.ndarray) -> np.ndarray:
            if {*at, find} >= set(self.law.formula.columns):
                return self.law.formula.at({**at, find: x}, values)
            each = [{**at, find: float(one)} for one in x]
            return np.array([float(self.law.formula.at(one | self.law.settled(one, values), values)) for one in each])

        ends = SEARCHED.get(find, ANYWHERE)
        if target is not None:
            return crossings(along, target, *ends)
        least = lowest(along, *ends)
        return [] if least is None else [least]
