"""Plain output error: the share of each matrix's output that its rounding error is, E|E x|^2 / E|W x|^2.

What is known without a backward pass, in a third of the time. All outputs are worth the same here, whichever layer they
are of: a rank of layers more than a damage, which the survey's probes then bring to nats per token as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from secateur.maths.factor import height
from secateur.model.factors import Factors
from secateur.parts.damage import Row, kronecker
from secateur.types import Edit, Unit

#: the statistics are those of `model/inputs.py`
INPUTS_ALONE = True


def rows(
    units: Sequence[Unit],
    edits: Mapping[str, Sequence[Edit | None]],
    weights: Mapping[str, Tensor],
    factors: Mapping[str, Factors],
    dtype: str,
) -> dict[str, Row]:
    """Damages of every edit of some units, by name."""
    shares = {key: _of_output(one, weights[key].float()) for key, one in factors.items()}
    return kronecker.rows(units, edits, weights, shares, dtype)


def _of_output(f: Factors, w: Tensor) -> Factors:
    """The factors with G such that 1/2 tr(G E A E') is the share of the output's energy that is lost."""
    energy = ((w @ f.a) * w).sum(1) @ height(f.g)
    return replace(f, g=2 * height(f.g) / energy.clamp_min(1e-30))
