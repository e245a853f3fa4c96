"""What do searched scales gain over the range of the weights, and what does weighing the inputs add?

    PYTHONPATH=src python -m benchmarks.claims.rtn

Ratios of KL at equal bits. Without data there is nothing to draw, so the first rows' seeds are fifths of the text that
is measured; in the last row a seed draws the calibration windows.
"""

from __future__ import annotations

from functools import cache

from torch import Tensor

from benchmarks import harness, patient
from secateur.maths.grids.affine import Affine
from secateur.methods.quantize.rtn import rtn

GROUP, PARTS = 128, 5


def from_the_range(w: Tensor, bits: int) -> Tensor:
    """The survey's symmetric rounding: the largest weight of a group lies at the end of its grid."""
    most = w.view(len(w), -1, GROUP).abs().amax(2)
    fitted = Affine(bits, GROUP).fit(w).rescaled(most / (2 ** (bits - 1) - 0.5))
    return fitted.snap(w, fitted.scale, None)


@cache
def rounded(bits: int, searched: bool) -> dict[str, Tensor]:
    weights = patient.small().weights().items()
    return {name: rtn(w, Affine(bits, GROUP)).values if searched else from_the_range(w, bits) for name, w in weights}


def search(bits: int, part: int) -> tuple[float, float]:
    ours, theirs = (patient.small().kl(rounded(bits, searched), slice(part, None, PARTS)) for searched in (True, False))
    return ours, theirs


@cache
def unweighed(bits: int) -> float:
    return patient.small().kl(rounded(bits, True))


def weigh(bits: int, seed: int) -> tuple[float, float]:
    one = patient.small()
    grams, grid = one.grams(one.draw(seed)), Affine(bits, GROUP)
    weighed = {name: rtn(w, grid, grams[name].diagonal()).values for name, w in one.weights().items()}
    return one.kl(weighed), unweighed(bits)


if __name__ == "__main__":
    about = {"model": patient.small().name, "group": GROUP, "tokens": patient.small().measuring.numel()}
    for bits in (2, 3, 4):
        text = f"scales by search beat the range of the weights, {bits} bits"
        harness.claim("rtn", text, lambda part, bits=bits: search(bits, part), PARTS, about=about)
    text = "scales that weigh inputs by their mean square beat those that do not, 3 bits"
    harness.claim("rtn", text, lambda seed: weigh(3, seed), 5, about=about)
