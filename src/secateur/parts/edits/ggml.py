"""The block types of ggml: what llama.cpp runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from secateur.maths.grids import blocks
from secateur.parts.edits import Part, payload_cost, text
from secateur.types import PlanError

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.maths.grids import Grid
    from secateur.types import Unit


@dataclass(frozen=True, repr=False)
class Ggml:
    """A block type by its name in llama.cpp, in small letters: `ggml('q4_k')`. The payload is the file's own bytes."""

    kind: str

    def __repr__(self) -> str:
        return text(self)

    def __post_init__(self) -> None:
        if self.kind not in blocks.KINDS:
            near = get_close_matches(str(self.kind).lower(), blocks.KINDS, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(blocks.KINDS)}"
            raise PlanError(f"ggml has no block type `{self.kind}`", hint)

    @property
    def group(self) -> int:
        """Weights in a block; rows are whole blocks."""
        return blocks.block_weights(self.kind)

    def refuses(self, unit: Unit) -> str | None:
        """Why this unit cannot have it, in words; None when it can."""
        odd = next((m.cols for m in unit.matrices if m.cols % self.group), None)
        return f"rows of {odd} weights are not whole blocks of {self.group}" if odd else None

    def cost(self, unit: Unit) -> dict[str, float]:
        return payload_cost(self, unit)

    def grid(self, dtype: str = "float16") -> Grid:
        """`dtype` does not matter: ggml's scales have types of their own."""
        return blocks.grid(self.kind)

    def payload(self, rows: int, cols: int) -> dict[str, Part]:
        return {"blocks": Part((rows, blocks.row_bytes(self.kind, cols)), dtype="U8")}

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return blocks.decode(self.kind, tensors["blocks"])
