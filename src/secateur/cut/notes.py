"""What a survey notes beside costs and damages: the scores of blocks and units that some allocators go by."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from secateur.cut.case import Case
from secateur.methods.prune.ecoflap import expected
from secateur.methods.prune.global_mp import quantiles
from secateur.methods.prune.owl import outliers
from secateur.methods.quantize.layerwise_quant import lim, zd
from secateur.model.factors import Factors
from secateur.model.matrix import view
from secateur.model.watch import watch
from secateur.types import Matrix

#: blocks are walked over with so many windows
WINDOWS = 8


def notes(case: Case, factors: Callable[[Matrix], Factors | None]) -> dict[str, np.ndarray]:
    """Arrays with one row for every row of the menu; scores of whole blocks are nan outside blocks."""
    out = _of_blocks(case) if len(case.stream.blocks) > 1 else {}  # scores compare blocks: of one there is none to say
    return out | _of_units(case, factors) if "sparse" in case.kinds else out


def _of_blocks(case: Case) -> dict[str, np.ndarray]:
    stream, masks = case.stream, "sparse" in case.kinds
    hidden = stream.embed(case.calib[:WINDOWS])
    by_block: dict[str, list[float]] = {"lim": [], "zd": []} | ({"outliers": []} if masks else {})
    for i, path in enumerate(stream.blocks):
        matrices = [m for unit in case.units if unit.block == i for m in unit.matrices]
        energy: dict[str, Tensor] = {}
        with stream.loaded(path), watch(stream.network, matrices if masks else (), _adding_to(energy)):
            leaving = stream.through(i, hidden)
            weights = [view(stream.network, m) for m in matrices]
            by_block["lim"].append(lim(hidden[:], leaving[:]))
            by_block["zd"].append(zd(weights) if matrices else math.nan)
            if masks:
                seen = [(w, energy[m.tap].sqrt()) for m, w in zip(matrices, weights, strict=True) if m.tap in energy]
                by_block["outliers"].append(outliers(seen) if seen else math.nan)
        hidden = leaving
    blocks = [units[0].block for units in case.rows.values()]
    return {
        name: np.array([math.nan if block is None else values[block] for block in blocks])
        for name, values in by_block.items()
    }


def _adding_to(energy: dict[str, Tensor]) -> Callable[[str, Tensor], None]:
    """Sums of squares of every input, by tap."""

    def see(tap: str, x: Tensor) -> None:
        energy[tap] = energy.get(tap, 0) + x.float().flatten(0, -2).square().sum(0)

    return see


def _of_units(case: Case, factors: Callable[[Matrix], Factors | None]) -> dict[str, np.ndarray]:
    sizes, steep = [], []
    for units in case.rows.values():
        matrices = [m for unit in units for m in unit.matrices]
        sizes.append(quantiles([_stored(case, m) for m in matrices]))
        known = filter(None, map(factors, matrices))
        steep.append(math.fsum(expected(one.a, one.g) for one in known))
    return {"magnitudes": np.stack(sizes), "gradients": np.array(steep)}


def _stored(case: Case, matrix: Matrix) -> Tensor:
    """A matrix's numbers, in whatever shape."""
    held = case.checkpoint.read(matrix.tensor)
    return held if matrix.index is None else held[matrix.index]
