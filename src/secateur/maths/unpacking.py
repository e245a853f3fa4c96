"""Packed whole numbers read back with tensor operations alone: what a graph can hold, and any device can run.

`packing.unpack` gives the same codes through numpy, a stretch at a time and in less memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.maths.packing import bits_of, digits_of


def unpacked(packed: Tensor, levels: int, n: int) -> Tensor:
    """The first `n` codes in uint8 bytes of `packing.pack`, as int32 (int64 where eight codes are wider than that).

    >>> unpacked(torch.tensor([57], dtype=torch.uint8), 4, 4)
    tensor([1, 2, 3, 0], dtype=torch.int32)
    """
    if digits_of(levels):
        return _digits(packed, levels)[:n]
    bits = bits_of(levels)
    if bits == 8:
        return packed.int()[:n]
    return (_words(packed, bits) if bits < 8 else _one_by_one(packed, bits))[:n]


def _digits(packed: Tensor, levels: int) -> Tensor:
    powers = torch.tensor([levels**i for i in range(digits_of(levels))], dtype=torch.int32, device=packed.device)
    return (packed.int()[:, None] // powers % levels).flatten()


def _words(packed: Tensor, bits: int) -> Tensor:
    """Eight codes of `bits` lie in `bits` bytes, or one byte holds some of them whole: a number, shifted and masked."""
    wide = torch.int64 if bits > 4 else torch.int32
    n_bytes = 1 if 8 % bits == 0 else bits
    words = torch.nn.functional.pad(packed, (0, -packed.shape[0] % n_bytes)).to(wide).reshape(-1, n_bytes)
    word = words[:, 0]
    for at in range(1, n_bytes):
        word = word | (words[:, at] << (8 * at))
    shifts = torch.arange(0, 8 * n_bytes, bits, dtype=wide, device=packed.device)
    return ((word[:, None] >> shifts) & (2**bits - 1)).flatten()


def _one_by_one(packed: Tensor, bits: int) -> Tensor:
    """Any width, at a number for every bit."""
    ones = (packed.int()[:, None] >> torch.arange(8, device=packed.device) & 1).flatten()
    ones = ones[: ones.numel() // bits * bits].reshape(-1, bits)
    return (ones << torch.arange(bits, device=packed.device)).sum(1, dtype=torch.int32)
