"""The codebooks of ggml's vector types, and how their blocks lie in a file.

Every weight is `sign * entry * d / unit * (2 s + 1)`: an entry of the codebook for four or eight weights at once, a
whole number `s` for every group of 16 or 32, and one float16 `d` for 256. All products are exact in float32, so it does
not matter in which order a reader takes them. The tables are part of the format; the `gguf` package has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from secateur.types import SecateurError

#: weights in a block
BLOCK = 256


@dataclass(frozen=True)
class Book:
    """What the codes of one type mean."""

    kind: str
    group: int  # weights that share a whole-number scale
    step: int  # weights that are coded together
    wide: int  # weights of one entry
    unit: float
    n_scales: int
    signs: str = "free"  # or "even": seven bits hold eight, an even number is negative; or "none": entries are signed
    halves: bool = False  # the first half of the entries is for scales above zero, the second for those below

    @property
    def table(self) -> Tensor:
        """The entries [entries, wide], magnitudes where signs stand beside them; float32."""
        return _table(self.kind)

    @property
    def large(self) -> bool:
        """So many entries that a short list of them is worth its while."""
        return len(self.table) > 64 * self.wide

    def index(self, sizes: Tensor) -> Tensor:
        """Which entry whole magnitudes [..., wide] are; all of them must be in the book."""
        levels, lookup = _lookup(self.kind)
        digits = torch.bucketize(sizes, levels.to(sizes.device) - 0.1) - 1
        place = len(levels) ** torch.arange(self.wide, device=sizes.device)
        return lookup.to(sizes.device)[(digits * place).sum(-1)].long()


BOOKS = {
    book.kind: book
    for book in (
        Book("iq3_s", 32, 4, 4, 1.0, 16),
        Book("iq3_xxs", 32, 8, 4, 4.0, 16, "even"),
        Book("iq2_s", 16, 8, 8, 8.0, 16),
        Book("iq2_xs", 16, 8, 8, 8.0, 16, "even"),
        Book("iq2_xxs", 32, 8, 8, 8.0, 16, "even"),
        Book("iq1_m", 16, 8, 8, 1.0, 8, "none"),
        Book("iq1_s", 32, 8, 8, 1.0, 8, "none", halves=True),
    )
}


@cache
def _table(kind: str) -> Tensor:
    try:
        from gguf import quants
    except ImportError:
        raise SecateurError(
            f"the codebook of {kind} comes with the package gguf, which is not installed",
            "pip install 'secateur[gguf]'",
        ) from None
    found = getattr(quants, kind.upper())
    found = quants.IQ1_S if kind == "iq1_m" else found  # one table for both
    found.init_grid()
    table = torch.tensor(found.grid).view(found.grid_shape)
    shift = getattr(found, "delta", None)  # the ternary entries of IQ1 all lie an eighth higher, or lower
    return table if shift is None else torch.cat([table + float(shift), table - float(shift)])


@cache
def _lookup(kind: str) -> tuple[Tensor, Tensor]:
    """The magnitudes that occur, and for every choice of them (the first counts least) the entry, or -1."""
    table = _table(kind)
    levels = table.unique()
    digits = torch.bucketize(table, levels - 0.1) - 1
    lookup = torch.full((len(levels) ** table.shape[1],), -1, dtype=torch.int16)
    lookup[(digits * len(levels) ** torch.arange(table.shape[1])).sum(1)] = torch.arange(len(table)).short()
    return levels, lookup


def pack(book: Book, entries: Tensor, signs: Tensor, scales: Tensor, d: Tensor) -> Tensor:
    """Blocks as the file holds them, uint8 [blocks, bytes].

    `entries` [blocks, 256 / wide], `signs` [blocks, 32] (a bit for each of eight weights, the first the lowest),
    `scales` [blocks, 256 / group], all whole numbers; `d` [blocks] float16.
    """
    n = len(d)
    head = d.view(n, 1).to(torch.float16).view(torch.uint8)
    low = (entries & 255).to(torch.uint8)
    if book.signs == "none":
        return _pack_ternary(book, entries, low, scales, head)
    if book.group == 32 and book.signs == "even":  # four times seven signs and a scale share 32 bits
        word = (signs.view(n, 8, 4) & 127) << torch.arange(0, 28, 7, device=d.device)
        word = _little(word.sum(-1) | scales << 28, 4)
        if book.wide == 4:
            return torch.cat([head, low, word.view(n, -1)], 1)
        return torch.cat([head, torch.cat([low.view(n, 8, 4), word], -1).view(n, -1)], 1)
    nibbles = (scales[:, 0::2] | scales[:, 1::2] << 4).to(torch.uint8)
    if book.signs == "even":
        return torch.cat([head, _little(entries | (signs & 127) << 9, 2).view(n, -1), nibbles], 1)
    high = _bits(entries >> 8, 1 if book.wide == 4 else 2)
    whole = signs.to(torch.uint8)
    return torch.cat([head, low, *((high, whole) if book.wide == 4 else (whole, high)), nibbles], 1)


def _pack_ternary(book: Book, entries: Tensor, low: Tensor, scales: Tensor, head: Tensor) -> Tensor:
    """IQ1: three high bits of an entry, and whether it is from the lower half, for one cell (M) or for a group (S)."""
    n, device = len(head), head.device
    lower, high = entries >> 11, entries >> 8 & 7
    if book.halves:
        word = (high.view(n, 8, 4) << torch.arange(0, 12, 3, device=device)).sum(-1)
        return torch.cat([head, low, _little(word | scales << 12 | lower[:, ::4] << 15, 2).view(n, -1)], 1)
    word = (scales.view(n, 4, 4) << torch.arange(0, 12, 3, device=device)).sum(-1)
    parts = _nibbles(head)  # d goes in the four highest bits of four words of scales
    return torch.cat([low, _bits(high | lower << 3, 4), _little(word | parts << 12, 2).view(n, -1)], 1)


def _nibbles(x: Tensor) -> Tensor:
    """Bytes [n, m] as halves of bytes [n, 2 m], the lower first."""
    return torch.stack([x & 15, x >> 4], -1).flatten(1).long()


def _little(x: Tensor, n_bytes: int) -> Tensor:
    """Whole numbers [...] as their bytes [..., n_bytes], the lowest first."""
    return (x.unsqueeze(-1) >> 8 * torch.arange(n_bytes, device=x.device) & 255).to(torch.uint8)


def _bits(x: Tensor, width: int) -> Tensor:
    """Whole numbers [blocks, n] of `width` bits in bytes, the first lowest."""
    parts = x.view(len(x), -1, 8 // width) << torch.arange(0, 8, width, device=x.device)
    return parts.sum(-1).to(torch.uint8)
