"""What laws are made of: the formulas that several papers use, what a paper found for one, and how counts are written.

`params` and `tokens` are counts, `bits` the width of a weight. `loss` and `rise` are nats per token: what a network
loses, and what a rounded one loses more than the network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from secateur.maths.formula import Array, Formula, Values
from secateur.types import SecateurError

_SUFFIXES = (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3))
_FACTORS = {**{suffix.lower(): factor for suffix, factor in _SUFFIXES}, "g": 1e9, "": 1.0}


@dataclass(frozen=True)
class Published:
    """What a paper found for a law: its parameters, what they were fitted `of`, and between what (None: not told)."""

    values: Mapping[str, float]
    of: str
    inside: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)


def nothing(at: Values, values: Values) -> dict[str, float]:
    """What a law has to say besides its value."""
    return {}


def bare(at: Values, value: float, more: Values) -> str:
    """A prediction in plain words, of a law that has none of its own."""
    return f"the law predicts {value:.4g} at {said(at)}"


@dataclass(frozen=True)
class Law:
    """A formula as a paper uses it. `beside` are fitted to the same rows, always. `usual` are values of columns that a
    question may leave out. `target` is what a question for the other direction means if it does not say.

    `chosen` are columns that the law itself chooses where a question leaves them out, by `settled(at, values)`;
    `more(at, values)` gives further numbers by their names, `told(at, value, more)` the prediction in plain words.
    """

    formula: Formula
    unit: str = "nats per token"
    beside: tuple[Formula, ...] = ()
    published: Published | None = None
    usual: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    target: float | None = None
    chosen: tuple[str, ...] = ()
    settled: Callable[[Values, Values], dict[str, float]] = nothing
    more: Callable[[Values, Values], dict[str, float]] = nothing
    told: Callable[[Values, float, Values], str] = bare


def _openai(rows: Mapping[str, Array], p: Values) -> Array:
    return ((p["Nc"] / rows["params"]) ** (p["aN"] / p["aD"]) + p["Dc"] / rows["tokens"]) ** p["aD"]


def _chinchilla(rows: Mapping[str, Array], p: Values) -> Array:
    return p["A"] / rows["params"] ** p["a"] + p["B"] / rows["tokens"] ** p["b"] + p["E"]


def _chinchilla_qid(rows: Mapping[str, Array], p: Values) -> Array:
    return _chinchilla(rows, p) + p["k"] * rows["tokens"] ** p["beta"] / rows["params"] ** p["alpha"]


def _qid(rows: Mapping[str, Array], p: Values) -> Array:
    return p["k"] * rows["tokens"] ** p["beta"] / (rows["params"] ** p["alpha"] * rows["bits"] ** p["gamma"])


def _kumar(rows: Mapping[str, Array], p: Values) -> Array:
    return p["C"] * rows["tokens"] ** p["gD"] / rows["params"] ** p["gN"] * np.exp(-rows["bits"] / p["g"])


_SIZES = ("params", "tokens")
_CHINCHILLA = {"A": (1.0, 1e5), "a": (0.05, 1.0), "B": (1.0, 1e6), "b": (0.05, 1.0), "E": (0.3, 4.0)}

#: Kaplan et al., Scaling Laws for Neural Language Models (arXiv 2001.08361, 2020)
OPENAI = Formula(
    "openai",
    "loss = ((Nc / params)^(aN / aD) + Dc / tokens)^aD",
    _SIZES,
    "loss",
    {"Nc": (1e8, 1e16), "aN": (0.03, 0.4), "Dc": (1e8, 1e16), "aD": (0.03, 0.6)},
    _openai,
)
#: Hoffmann et al., Training Compute-Optimal Large Language Models (arXiv 2203.15556, 2022)
CHINCHILLA = Formula("chinchilla", "loss = A / params^a + B / tokens^b + E", _SIZES, "loss", _CHINCHILLA, _chinchilla)
#: the same with what rounding to one width adds
CHINCHILLA_QID = Formula(
    "chinchilla + qid",
    "loss = A / params^a + B / tokens^b + E + k tokens^beta / params^alpha",
    _SIZES,
    "loss",
    {**_CHINCHILLA, "k": (1e-8, 1.0), "beta": (0.1, 2.0), "alpha": (0.05, 1.0)},
    _chinchilla_qid,
)
#: Ouyang et al., Low-Bit Quantization Favors Undertrained LLMs (arXiv 2411.17691, 2024)
QID = Formula(
    "qid",
    "rise = k tokens^beta / (params^alpha bits^gamma)",
    (*_SIZES, "bits"),
    "rise",
    {"k": (1e-6, 1e3), "beta": (0.1, 2.0), "alpha": (0.05, 1.0), "gamma": (1.0, 8.0)},
    _qid,
    delta=0.1,
)
#: Kumar et al., Scaling Laws for Precision (arXiv 2411.04330, 2024), its part on rounding after training
KUMAR = Formula(
    "kumar",
    "rise = C tokens^gD / params^gN exp(-bits / g)",
    (*_SIZES, "bits"),
    "rise",
    {"C": (1e-6, 1e3), "gD": (0.1, 2.0), "gN": (0.05, 1.0), "g": (0.2, 3.0)},
    _kumar,
    delta=0.1,
)


def amount(text: str) -> float:
    """A count as people write it.

    >>> amount("7B"), amount("1.5e12"), amount("300M")
    (7000000000.0, 1500000000000.0, 300000000.0)
    """
    found = re.fullmatch(r"(\d*\.?\d+(?:e[+-]?\d+)?)\s*([kmbgt]?)", text.strip().replace("_", "").lower())
    if not found:
        raise SecateurError(f"cannot read the number `{text.strip()}`", "write it like 7B, 2T, 300M, 1.4e9 or 3.5")
    return float(found[1]) * _FACTORS[found[2]]


def counted(value: float) -> str:
    """A count as people say it.

    >>> counted(7e9), counted(3.82e12), counted(4), counted(0.35)
    ('7B', '3.82T', '4', '0.35')
    """
    for suffix, factor in _SUFFIXES:
        if factor <= value < 1000 * factor * (suffix != "T" or 1e3):
            return f"{value / factor:.3g}{suffix}"
    return f"{value:.3g}"


def said(at: Values) -> str:
    """A point in words: `params=7B, tokens=2T, bits=3`."""
    return ", ".join(f"{name}={counted(value)}" for name, value in at.items())
