"""What the two 4-bit float edits share: the numbers that a code stands for (E2M1, the sign in bit 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def decode_fp4(codes: Tensor, scale: Tensor, group: int) -> Tensor:
    """Codes 0 to 15 times the scale [rows, groups] of their group, in float32."""
    import torch

    sizes = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], device=codes.device)
    numbers = torch.cat((sizes, -sizes))[codes.long()]
    return numbers * scale.repeat_interleave(group, 1)
