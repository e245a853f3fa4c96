"""Small whole numbers, packed: little-endian bits in bytes and words, and base-n digits where bits would waste.

>>> import torch
>>> pack(torch.tensor([2, 0, 1, 1, 2]), 3)  # five digits of base 3 in one byte: 2 + 0*3 + 1*9 + 1*27 + 2*81
tensor([200], dtype=torch.uint8)
>>> pack(torch.tensor([1, 2, 3, 0]), 4)  # four times two bits: 1 + 2*4 + 3*16
tensor([57], dtype=torch.uint8)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: codes expanded at a time (an expanded code takes up to 16 bytes); divides into whole bytes for bits and any digits
_CHUNK = 8 * 5 * 3 * 8192


def packed_bytes(n: int, levels: int) -> int:
    """Bytes of `n` codes of `levels` levels, without gaps; the last byte is filled up with zeros."""
    digits = digits_of(levels)
    return -(-n // digits) if digits else -(-n * bits_of(levels) // 8)


def pack(codes: Tensor, levels: int) -> Tensor:
    """Codes 0 to levels - 1 (any shape, row after row) as uint8 bytes, the first code lowest."""
    flat = codes.reshape(-1).numpy()
    encode = _digits_to_bytes if digits_of(levels) else _bits_to_bytes
    parts = [encode(flat[at : at + _CHUNK], levels) for at in range(0, flat.size, _CHUNK)]
    return torch.from_numpy(np.concatenate(parts) if parts else np.empty(0, np.uint8))


def unpack(packed: Tensor, levels: int, n: int) -> Tensor:
    """The `n` codes in `packed`: int16, or int32 above 2^15 levels."""
    size = packed_bytes(_CHUNK, levels)
    decode = _bytes_to_digits if digits_of(levels) else _bytes_to_bits
    flat = packed.reshape(-1).numpy()
    parts = [decode(flat[at : at + size], levels) for at in range(0, flat.size, size)]
    kind = np.int16 if levels <= 1 << 15 else np.int32
    return torch.from_numpy(np.concatenate(parts)[:n].astype(kind) if parts else np.empty(0, kind))


def pack_words(codes: Tensor, bits: int) -> Tensor:
    """Codes [rows, cols] as int32 [rows, ceil(cols * bits / 32)]: code i at bit i * bits of its row, lowest first.

    Codes straddle words where `bits` does not divide 32: the dense layout of compressed-tensors since 2026.
    """
    rows, cols = codes.shape
    words = -(-cols * bits // 32)
    out = np.zeros((rows, words * 4), np.uint8)
    step = max(1, _CHUNK // max(cols, 1))
    for at in range(0, rows, step):
        block = np.ascontiguousarray(codes[at : at + step].numpy().astype(np.uint8))
        expanded = np.unpackbits(block[..., None], axis=-1, count=bits, bitorder="little")
        packed = np.packbits(expanded.reshape(len(block), -1), axis=-1, bitorder="little")
        out[at : at + step, : packed.shape[1]] = packed
    return torch.from_numpy(out.view("<i4").astype(np.int32, copy=False))


def unpack_words(words: Tensor, bits: int, cols: int) -> Tensor:
    """The codes [rows, cols] of `pack_words`, as uint8."""
    raw = np.ascontiguousarray(words.numpy().astype("<i4", copy=False)).view(np.uint8)
    rows = raw.shape[0]
    out = np.zeros((rows, cols), np.uint8)
    step = max(1, _CHUNK // max(cols, 1))
    for at in range(0, rows, step):
        expanded = np.unpackbits(raw[at : at + step], axis=-1, count=cols * bits, bitorder="little")
        block = np.packbits(expanded.reshape(-1, cols, bits), axis=-1, bitorder="little")
        out[at : at + step] = block[..., 0]
    return torch.from_numpy(out)


def pack_nibbles(codes: Tensor) -> Tensor:
    """4-bit codes [rows, cols] as uint8 [rows, cols / 2], the even column in the low half."""
    low, high = codes.to(torch.uint8).unflatten(-1, (-1, 2)).unbind(-1)
    return low | (high << 4)


def unpack_nibbles(packed: Tensor) -> Tensor:
    """The 4-bit codes [rows, cols] of `pack_nibbles`."""
    return torch.stack((packed & 15, packed >> 4), -1).flatten(-2)


def unpack_exponents(codes: Tensor) -> Tensor:
    """E8M0 scales: the powers of two, in float32, whose exponents plus 127 are the uint8 `codes`."""
    exponents = codes.int() - 127
    return torch.ldexp(torch.ones_like(exponents, dtype=torch.float32), exponents)


def bits_of(levels: int) -> int:
    return max(1, (levels - 1).bit_length())


def digits_of(levels: int) -> int:
    """How many base-`levels` digits go into a byte, where that beats bits (3 levels: five, not four); otherwise 0."""
    digits = 0
    while levels ** (digits + 1) <= 256:
        digits += 1
    return digits if digits > 8 // bits_of(levels) else 0


def _bits_to_bytes(codes: np.ndarray, levels: int) -> np.ndarray:
    raw = codes.astype("<u1" if levels <= 256 else "<u4").reshape(-1, 1).view(np.uint8)
    expanded = np.unpackbits(raw, axis=1, count=bits_of(levels), bitorder="little")
    return np.packbits(expanded, bitorder="little")


def _bytes_to_bits(raw: np.ndarray, levels: int) -> np.ndarray:
    bits = bits_of(levels)
    n = raw.size * 8 // bits
    expanded = np.unpackbits(raw, count=n * bits, bitorder="little").reshape(n, bits)
    packed = np.packbits(expanded, axis=1, bitorder="little").astype(np.int64)
    return (packed << (8 * np.arange(packed.shape[1]))).sum(1)


def _digits_to_bytes(codes: np.ndarray, levels: int) -> np.ndarray:
    digits = digits_of(levels)
    padded = np.zeros((-(-codes.size // digits), digits), np.int64)
    padded.reshape(-1)[: codes.size] = codes
    return (padded @ levels ** np.arange(digits)).astype(np.uint8)


def _bytes_to_digits(raw: np.ndarray, levels: int) -> np.ndarray:
    return (raw[:, None].astype(np.int64) // levels ** np.arange(digits_of(levels)) % levels).reshape(-1)
