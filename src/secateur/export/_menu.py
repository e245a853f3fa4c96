"""The menu of formats that hold codes and scales of our own making."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secateur.parts.edits.fp8 import Fp8
from secateur.parts.edits.half import Half
from secateur.parts.edits.int import Int, narrow
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.mxfp4 import Mxfp4
from secateur.parts.edits.nvfp4 import Nvfp4

if TYPE_CHECKING:
    from secateur.model.anatomy import Anatomy
    from secateur.types import Edit


def usual(anatomy: Anatomy | None) -> tuple[Edit, ...]:
    """Whole numbers of 1 to 8 bits, small floats, and weights as they are or halved; the sizes of a model may ask for
    groups of their own."""
    few = narrow(anatomy.units if anatomy else ())
    return (Keep(), Half(), *few, Int(6, 128), Int(8, 128), Int(8, 0), Fp8(), Mxfp4(), Nvfp4())
