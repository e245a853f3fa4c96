"""Does rounding cost more the longer a network was trained, the fewer the bits, the smaller it is; does the law know?

    PYTHONPATH=src python -m benchmarks.claims.qid-law

On the networks of `benchmarks/law_runs.py`: three widths, five moments of one training each, rounded to nearest at 2, 3
and 4 bits, a seed its own networks. The last question fits the law to what all seeds' networks lost until half of the
training, and predicts what each seed's lost at its end; against it the plain guess that they lose what they lost at
half. The error is the mean distance of the logarithms: 0.1 is a tenth off.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from benchmarks.law_runs import BATCH, MOMENTS, SEEDS, WIDTHS, rise
from benchmarks.tiny import WINDOW

from benchmarks import harness, law_runs
from secateur.maths.fitting import fit
from secateur.maths.formula import Rows
from secateur.parts.laws import KUMAR, QID

NARROW, WIDE, FIRST, HALF, LAST = WIDTHS[0], WIDTHS[-1], MOMENTS[2], MOMENTS[-2], MOMENTS[-1]
LAWS = {"qid": QID, "kumar": KUMAR}
ABOUT: dict[str, Any] = {}


def over(seed: int, bits: int, widths: tuple[int, ...] = WIDTHS, moment: int = LAST) -> float:
    """The mean rise of a seed's networks, nats per token."""
    return float(np.mean([rise(seed, width, moment, bits) for width in widths]))


def longer(seed: int, bits: int) -> tuple[float, float]:
    return over(seed, bits), over(seed, bits, moment=FIRST)


def fewer(seed: int) -> tuple[float, float]:
    return over(seed, 2), over(seed, 3)


def wider(seed: int, bits: int) -> tuple[float, float]:
    return over(seed, bits, (WIDE,)), over(seed, bits, (NARROW,))


@cache
def known(name: str) -> dict[str, float]:
    """The law of that name as it is known at half of the training."""
    formula = LAWS[name]
    rows = [row for seed in range(SEEDS) for row in law_runs.of(seed)]
    rows = [r for r in rows if r["bits"] < 16 and FIRST <= r["tokens"] / BATCH / WINDOW <= HALF and r["rise"] > 0]
    columns: Rows = {one: np.array([float(r[one]) for r in rows]) for one in (*formula.columns, "rise")}
    values = fit(formula, columns, draws=0).values
    ABOUT[f"{name}, known at half"] = {one: float(f"{value:.4g}") for one, value in values.items()}
    return values


def ahead(seed: int, name: str = "qid") -> tuple[float, float]:
    """The error of the law at the end, and of the guess that nothing changes any more."""
    law, same = [], []
    for row in law_runs.of(seed):
        if row["bits"] < 16 and row["tokens"] == LAST * BATCH * WINDOW and row["rise"] > 0:
            before = rise(seed, row["width"], HALF, row["bits"])
            law.append(abs(np.log(float(LAWS[name].at(row, known(name))) / row["rise"])))
            same.append(abs(np.log(max(before, 1e-4) / row["rise"])))
    return float(np.mean(law)), float(np.mean(same))


if __name__ == "__main__":
    ABOUT |= {"widths": WIDTHS, "steps": MOMENTS, "bits of the grid": f"groups of {law_runs.GROUP}"}
    ask = {"seeds": SEEDS, "about": ABOUT}
    text = "four times as many steps make rounding to 3 bits cost more"
    harness.claim("qid-law", text, lambda seed: longer(seed, 3), better="higher", **ask)
    text = "four times as many steps make rounding to 2 bits cost more"
    harness.claim("qid-law", text, lambda seed: longer(seed, 2), better="higher", **ask)
    harness.claim("qid-law", "2 bits cost more than 3 bits", fewer, better="higher", **ask)
    for bits in (3, 2):
        text = f"networks of four times the width lose less at {bits} bits"
        harness.claim("qid-law", text, lambda seed, bits=bits: wider(seed, bits), **ask)
    text = "the law, known at half of the training, predicts the end better than the loss at half"
    harness.claim("qid-law", text, ahead, **ask)
    text = "the law predicts the end better than Kumar et al.'s"
    harness.claim("qid-law", text, lambda seed: (ahead(seed)[0], ahead(seed, "kumar")[0]), **ask)
