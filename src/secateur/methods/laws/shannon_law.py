"""The loss of a perturbed language model as the inverse of a noisy channel's capacity: it may rise again with training.

Paper: LLMs as Noisy Channels: A Shannon Perspective on Model Capacity and Scaling Laws (arXiv 2605.23901, 2026)
Wing: laws
Shape: law
Applies to: a table of sizes, training tokens and losses under one perturbation: rounded to one width, fine-tuned,
    noised
Use: secateur law shannon-law runs.csv --where "bits = 2" --find tokens --at "params=400K"

Parameters are bandwidth, tokens are signal, and there is noise that grows with both: capacity is
a N^alpha log2(1 + b D^beta / (c (D N)^gamma + d D^delta + e)), N and D in billions, and loss is one over it. Where the
noise grows faster than the signal the loss has a lowest point in the tokens, which laws that only fall cannot follow.

Where we differ: b, c, d and e share a factor that no loss depends on, so e is 1 and eight constants are left. The paper
does not say how it fits; here it is the one fitter of all laws. Chinchilla, Chinchilla with an additive term for
rounding, and OpenAI's law are fitted beside it: where losses follow the additive term it is as good.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from secateur.maths.formula import Array, Formula, Values
from secateur.maths.inverting import lowest
from secateur.parts.laws import CHINCHILLA, CHINCHILLA_QID, OPENAI, Law, counted

#: between what the best number of tokens is looked for
TOKENS = (1e3, 1e18)


def capacity(rows: Mapping[str, Array], values: Values) -> Array:
    """One over nats per token. `e`, the noise that is always there, is 1 where it is not given."""
    p, n, d = values, rows["params"] / 1e9, rows["tokens"] / 1e9
    noise = p["c"] * (d * n) ** p["gamma"] + p["d"] * d ** p["delta"] + values.get("e", 1.0)
    return p["a"] * n ** p["alpha"] * np.log1p(p["b"] * d ** p["beta"] / noise) / np.log(2)


def basin(params: float, values: Values) -> float | None:
    """After how many tokens the loss of so many parameters is the lowest; None where it only falls."""
    return lowest(lambda tokens: SHANNON.at({"params": params, "tokens": tokens}, values), *TOKENS)


def _loss(rows: Mapping[str, Array], values: Values) -> Array:
    return 1 / capacity(rows, values)


SHANNON = Formula(
    "shannon",
    "loss = 1 / (a N^alpha log2(1 + b D^beta / (c (D N)^gamma + d D^delta + 1))), N = params / 1e9, D = tokens / 1e9",
    ("params", "tokens"),
    "loss",
    {
        "a": (0.01, 3.0),
        "alpha": (0.005, 0.5),
        "b": (0.1, 1e6),
        "beta": (0.05, 2.0),
        "c": (1e-3, 1e3),
        "gamma": (0.02, 2.0),
        "d": (1e-3, 1e3),
        "delta": (0.05, 3.0),
    },
    _loss,
)


def _more(at: Values, values: Values) -> dict[str, float]:
    best = basin(at["params"], values)
    return {} if best is None else {"lowest at tokens": best}


def _told(at: Values, value: float, more: Values) -> str:
    whom = f"of {counted(at['params'])} parameters after {counted(at['tokens'])} tokens"
    words, best = f"a loss of {value:.4g} nats per token is predicted {whom}", more.get("lowest at tokens")
    if best is None:
        return f"{words}; more training only lowers it"
    turn = "it has risen since" if at["tokens"] > best else "it rises from there on"
    return f"{words}; the lowest is expected at {counted(best)} tokens, {turn}"


laws: tuple[Law, ...] = (Law(SHANNON, beside=(CHINCHILLA, CHINCHILLA_QID, OPENAI), more=_more, told=_told),)
