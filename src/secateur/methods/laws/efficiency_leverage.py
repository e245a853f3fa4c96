"""How much computing a mixture of experts saves against a dense network of the same loss.

Paper: Towards Greater Leverage: Scaling Laws for Efficient Mixture-of-Experts Language Models (arXiv 2507.17702, 2025)
Wing: laws
Shape: law
Applies to: the shape of a mixture of experts: the share of the experts that are active, their granularity, and the
    FLOPs of training
Use: secateur law efficiency-leverage --at "activation=0.031, granularity=12, flops=1e22"

Leverage is what a dense network needs in FLOPs over what the mixture needs. It is a power of the share A of experts
that are active, the shared ones counted with them: (A + A0)^(a + d log10 C + g log2(G)^2 + b log2 G), where G is twice
the width over that of an expert and C the FLOPs of the training. Fewer active experts save more, and in long trainings
more so; of granularities one is the best, 2^(-b / 2g), whatever the rest.

Where we differ: the paper does not tell the bases of its logarithms; these are the only ones that give its own examples
(above 7 at 3.1%, 12 and 1e22). Its saturation, with a constant of 5e16, changes no digit and is left out. So at A = 1
the leverage is 0.99, not 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from secateur.maths.formula import Array, Formula, Values
from secateur.parts.laws import Law, Published

#: the paper's table 2
FOUND = {"a": 1.23, "d": -7.61e-2, "g": 1.67e-2, "b": -1.17e-1, "A0": 1.63e-2}


def leverage(activation: float, granularity: float, flops: float, values: Values = FOUND) -> float:
    """FLOPs of a dense network for one of the mixture, at the same loss."""
    return float(LEVERAGE.at({"activation": activation, "granularity": granularity, "flops": flops}, values))


def best_granularity(values: Values = FOUND) -> float:
    """Twice the width over that of an expert, where the leverage is the largest."""
    return float(2 ** (-values["b"] / (2 * values["g"])))


def _leverage(rows: Mapping[str, Array], p: Values) -> Array:
    fine = np.log2(rows["granularity"])
    power = p["a"] + p["d"] * np.log10(rows["flops"]) + p["g"] * fine**2 + p["b"] * fine
    return (rows["activation"] + p["A0"]) ** power


LEVERAGE = Formula(
    "leverage",
    "leverage = (activation + A0)^(a + d log10 flops + g log2(granularity)^2 + b log2 granularity)",
    ("activation", "granularity", "flops"),
    "leverage",
    {"a": (-3.0, 3.0), "d": (-0.3, 0.3), "g": (-0.1, 0.1), "b": (-0.5, 0.5), "A0": (1e-3, 0.1)},
    _leverage,
    delta=0.05,
    below={"activation": 1.0 + 1e-9},
)


def _more(at: Values, values: Values) -> dict[str, float]:
    return {"as dense flops": leverage(**at, values=values) * at["flops"], "best granularity": best_granularity(values)}


def _told(at: Values, value: float, more: Values) -> str:
    mixture = f"{at['flops']:.3g} FLOPs with {at['activation']:.1%} of the experts active and granularity"
    worth = f"{more['as dense flops']:.3g} of a dense network, {value:.3g} times as many"
    return f"{mixture} {at['granularity']:g} are worth {worth}; the best granularity is {more['best granularity']:.3g}"


laws: tuple[Law, ...] = (
    Law(
        LEVERAGE,
        unit="times the FLOPs",
        published=Published(FOUND, "mixtures of experts trained by its authors"),
        more=_more,
        told=_told,
    ),
)
