"""The block types of ggml (llama.cpp): how many weights a block holds, in how many bytes, and who fits it.

A row is cut into blocks that stand alone: scales and codes of one block lie together. Scalar types give every weight
a number of its own (`scalars.py`), vector types give every eight or four weights an entry of a codebook (`vectors.py`).

>>> row_bytes("q4_k", 512)
288
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from secateur.types import PlanError

if TYPE_CHECKING:
    from torch import Tensor

    from . import Grid

#: weights and bytes of a block
SCALARS = {
    "q4_0": (32, 18),
    "q4_1": (32, 20),
    "q5_0": (32, 22),
    "q5_1": (32, 24),
    "q8_0": (32, 34),
    "q2_k": (256, 84),
    "q3_k": (256, 110),
    "q4_k": (256, 144),
    "q5_k": (256, 176),
    "q6_k": (256, 210),
    "iq4_nl": (32, 18),
    "iq4_xs": (256, 136),
    "mxfp4": (32, 17),
    "tq1_0": (256, 54),
    "tq2_0": (256, 66),
}
VECTORS = {
    "iq3_s": (256, 110),
    "iq3_xxs": (256, 98),
    "iq2_s": (256, 82),
    "iq2_xs": (256, 74),
    "iq2_xxs": (256, 66),
    "iq1_m": (256, 56),
    "iq1_s": (256, 50),
}
KINDS = SCALARS | VECTORS


def block_weights(kind: str) -> int:
    """Weights in a block: what the length of a row must be a multiple of."""
    return KINDS[kind][0]


def row_bytes(kind: str, cols: int) -> int:
    """Bytes of a row of `cols` weights; a block that is begun counts whole."""
    weights, size = KINDS[kind]
    return -(-cols // weights) * size


def grid(kind: str) -> Grid:
    """The grid of this type, to be fitted to a matrix whose rows are whole blocks."""
    return _home(kind).Scalars(kind) if kind in SCALARS else _home(kind).Vectors(kind)


def decode(kind: str, blocks: Tensor) -> Tensor:
    """What every reader makes of uint8 `blocks` [rows, bytes]: float32 [rows, cols]."""
    return _home(kind).decode(kind, blocks)


def _home(kind: str) -> Any:
    name = "scalars" if kind in SCALARS else "vectors"
    try:
        return import_module(f"{__package__}.{name}")
    except ModuleNotFoundError as missing:
        if missing.name != f"{__package__}.{name}":
            raise
        raise PlanError(f"Secateur cannot put weights on {kind} yet", f"there are {', '.join(SCALARS)}") from None
