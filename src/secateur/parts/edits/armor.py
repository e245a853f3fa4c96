"""A 2:4 core between two block-diagonal wrappers (arXiv 2510.05528)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from secateur.parts.edits import Part, payload_cost, text
from secateur.types import PlanError

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.types import Edit, Unit

#: sizes of the wrappers' blocks that menus offer
BLOCKS = (8, 16, 32, 128)


@dataclass(frozen=True, repr=False)
class Armor:
    """Two of every four weights, and wrappers of `block` x `block` on both sides that mix rows and columns.

    What is stored is the core's numbers and a number of six for every four, and both wrappers, in the model's own type.
    """

    block: int = 128

    def __repr__(self) -> str:
        return text(self)

    def __post_init__(self) -> None:
        if self.block < 4 or self.block % 4:
            raise PlanError(f"wrappers of {self.block} do not hold whole groups of four", "write armor(block=32)")

    def refuses(self, unit: Unit) -> str | None:
        """Why a unit cannot have it, in words, or None."""
        for m in unit.matrices:
            if odd := next((n for n in (m.rows, m.cols) if n % self.block), 0):
                return f"{odd} rows or columns do not divide into blocks of {self.block}"
            if 4 * self.block * (m.rows + m.cols) > m.size:
                return f"wrappers of {self.block} hold more than a quarter of {m.rows} x {m.cols} weights"
        return None

    def cost(self, unit: Unit) -> dict[str, float]:
        return payload_cost(self, unit)

    def grid(self, dtype: str = "float16") -> Any:
        """A form and no grid: it is chosen for the matrix as a whole."""
        import torch

        from secateur.maths.wrapped import WrappedForm

        return WrappedForm(self.block, getattr(torch, dtype))

    def payload(self, rows: int, cols: int) -> dict[str, Part]:
        from secateur.maths.wrapped import TWO_OF_FOUR

        b = self.block
        wrappers = {"left": Part((rows // b, b, b)), "right": Part((cols // b, b, b))}
        mask = Part(TWO_OF_FOUR.shape(rows, cols), TWO_OF_FOUR.levels)
        return {**wrappers, "mask": mask, "values": Part((TWO_OF_FOUR.kept(rows, cols),))}

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor:
        import torch

        from secateur.maths.wrapped import TWO_OF_FOUR, product

        left, right, values = (tensors[name].float() for name in ("left", "right", "values"))
        mask = TWO_OF_FOUR.spread(tensors["mask"])
        core = torch.zeros(mask.shape, device=values.device).masked_scatter(mask, values)
        return product(left, core, right)


def offered(inner: Sequence[Edit]) -> tuple[Armor, ...]:
    """Wrappers of a few sizes: small ones pay on small matrices."""
    return tuple(Armor(block) for block in BLOCKS)
