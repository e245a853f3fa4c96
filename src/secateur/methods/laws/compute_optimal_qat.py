"""How much of a training budget should go to training with rounded weights, and what a plan wastes that does otherwise.

Paper: Compute-Optimal Quantization-Aware Training (arXiv 2509.22935, 2025)
Wing: laws
Shape: law
Applies to: language models trained in full precision first and with rounded weights then; a size, tokens and bits, or a
    table of runs
Use: secateur law compute-optimal-qat --at "params=1B, tokens=100B, bits=4"

What counts is S, the training tokens for each byte of the rounded parameters: the best share of the tokens is
exp(-a / ln S), far above the tenth that was the custom once S is large. A table of runs with `fraction` and `loss`
gives the whole law: Chinchilla, and what rounding adds to it. From that follow the best share for such runs, and how
many tokens of a plan are wasted: those beyond what the best plan needs for the same loss.

Where we differ: of the paper's own fits we could find one constant, a; those of the loss have to be fitted. The paper
descends by gradients, here it is the one fitter of all laws. Full-precision runs have `fraction` 0, where rounding adds
nothing; at 1 the interaction as published is not finite, so such rows are refused.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from secateur.maths.formula import Array, Formula, Values
from secateur.maths.inverting import crossings
from secateur.parts.laws import CHINCHILLA, Law, Published, counted

#: the paper's fit of the best share
FOUND = {"a": 6.7297}
#: shares that are tried for the best one
SHARES = np.concatenate([np.geomspace(1e-3, 0.1, 60)[:-1], np.linspace(0.1, 0.999, 400)])


def per_byte(params: float | Array, tokens: float | Array, bits: float | Array) -> float | Array:
    """Training tokens for each byte of the rounded parameters."""
    return tokens / (params * bits / 8)


def best_fraction(params: float, tokens: float, bits: float, values: Values = FOUND) -> float:
    """Which share of the tokens should be trained on with rounded weights; not a number up to one token a byte."""
    return float(FRACTION.at({"params": params, "tokens": tokens, "bits": bits}, values))


def best_plan(at: Values, values: Values) -> tuple[float, float]:
    """By the law of the loss the best share, and the loss with it, of a size, tokens and bits."""
    losses = LOSS.at({**at, "fraction": SHARES}, values)
    least = int(np.nanargmin(losses))
    return float(SHARES[least]), float(losses[least])


def wasted(at: Values, values: Values) -> float:
    """Tokens of a plan (params, tokens, bits, fraction) beyond what the best one needs for the same loss."""
    loss = float(LOSS.at(at, values))

    def best(tokens: Array) -> Array:
        return np.array([best_plan({**at, "tokens": one}, values)[1] for one in tokens])

    enough = crossings(best, loss, at["tokens"] * 1e-3, at["tokens"] * 1.001)
    return max(at["tokens"] - enough[0], 0.0) if enough else float("nan")


def _fraction(rows: Mapping[str, Array], p: Values) -> Array:
    s = per_byte(rows["params"], rows["tokens"], rows["bits"])
    return np.exp(-p["a"] / np.log(np.where(s > 1, s, np.nan)))


def _loss(rows: Mapping[str, Array], p: Values) -> Array:
    n, bits, share = rows["params"], rows["bits"], rows["fraction"]
    s = per_byte(n, rows["tokens"], bits)
    qat, full = np.where(share > 0, s * share, 1.0), s * (1 - share)
    rounded = p["theta"] * 2 ** (-p["kappa"] * bits)
    pure = p["phi"] * 2 ** (-p["chi"] * bits) / (n ** p["psi"] * qat ** p["omega"])
    both = p["lambda"] * 2 ** (-p["mu"] * bits) / (n ** p["nu"] * full ** p["xi"] * qat ** p["rho"])
    whole = p["A"] / n ** p["alpha"] + p["B0"] / rows["tokens"] ** p["beta"] + p["E"]
    return whole + np.where(share > 0, 1.0, 0.0) * (rounded + pure + both)


FRACTION = Formula(
    "best fraction",
    "fraction = exp(-a / ln S), S = tokens / (params bits / 8)",
    ("params", "tokens", "bits"),
    "fraction",
    {"a": (0.3, 60.0)},
    _fraction,
    delta=0.1,
    below={"fraction": 1.0},
)
LOSS = Formula(
    "qat loss",
    "loss = A / params^alpha + B0 / tokens^beta + E + theta 2^(-kappa bits) "
    "+ phi 2^(-chi bits) / (params^psi Sq^omega) + lambda 2^(-mu bits) / (params^nu Sf^xi Sq^rho), "
    "Sq = fraction S, Sf = (1 - fraction) S, S = tokens / (params bits / 8)",
    ("params", "tokens", "bits", "fraction"),
    "loss",
    {
        "A": (1.0, 1e5),
        "alpha": (0.05, 1.0),
        "B0": (1.0, 1e6),
        "beta": (0.05, 1.0),
        "E": (0.3, 4.0),
        "theta": (0.01, 10.0),
        "phi": (0.01, 1e3),
        "lambda": (0.01, 1e3),
        **dict.fromkeys(("kappa", "chi", "mu"), (0.2, 3.0)),
        **dict.fromkeys(("psi", "omega", "nu", "xi", "rho"), (0.02, 1.0)),
    },
    _loss,
    zero=("fraction",),
    below={"fraction": 1.0},
)


def _phases(at: Values, values: Values) -> dict[str, float]:
    share = best_fraction(**at, values=values)
    return {
        "tokens a byte": float(per_byte(**at)),
        "tokens rounded": share * at["tokens"],
        "tokens full": (1 - share) * at["tokens"],
    }


def _told_fraction(at: Values, value: float, more: Values) -> str:
    return (
        f"train {counted(more['tokens full'])} tokens in full precision and {counted(more['tokens rounded'])}, "
        f"{value:.1%}, with weights of {at['bits']:g} bits: {counted(at['params'])} parameters get "
        f"{more['tokens a byte']:.3g} tokens for each of their bytes"
    )


def _settled(at: Values, values: Values) -> dict[str, float]:
    return {"fraction": best_plan(at, values)[0]}


def _spent(at: Values, values: Values) -> dict[str, float]:
    best, least = best_plan({name: at[name] for name in FRACTION.columns}, values)
    return {"best fraction": best, "loss with it": least, "wasted tokens": wasted(at, values)}


def _told_loss(at: Values, value: float, more: Values) -> str:
    plan = f"{at['fraction']:.1%} of {counted(at['tokens'])} tokens at {at['bits']:g} bits"
    words = f"a loss of {value:.4g} nats per token is predicted with {plan}"
    if more["wasted tokens"] < 0.01 * at["tokens"]:
        return f"{words}, the best that this budget can have"
    return f"{words}; with {more['best fraction']:.1%} {counted(more['wasted tokens'])} tokens less would do"


laws: tuple[Law, ...] = (
    Law(
        FRACTION,
        unit="share of the tokens",
        published=Published(
            FOUND, "757 runs of 86M to 2.2B", {"params": (8.6e7, 2.2e9), "tokens": (2.3e9, 1.4e12), "bits": (1, 6)}
        ),
        more=_phases,
        told=_told_fraction,
    ),
    Law(LOSS, beside=(CHINCHILLA,), chosen=("fraction",), settled=_settled, more=_spent, told=_told_loss),
)
