"""The vector block types of ggml (IQ3_S to IQ1_S): four or eight weights share an entry of a codebook.

Entries hold magnitudes, signs stand beside them: a bit for each, or seven bits for eight weights, of which an even
number is negative then; those of IQ1 are signed. A cell is all that is chosen together, `step` weights.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from . import Coded
from .blocks import row_bytes
from .codebooks import BLOCK, BOOKS, Book, pack
from .entries import nearest_entries

#: scales to try for numbers that are free of the codebook, as shares of a group's root mean square over the book's
SHARES = tuple(0.6 + 0.1 * k for k in range(12))
#: factors for 256 weights to try, as shares of the one that makes the largest scale the largest number there is
FACTORS = tuple(0.75 + 0.025 * k for k in range(23))


@dataclass(frozen=True)
class FittedVectors:
    """`scale` [rows, cols] is what a float16 number for 256 weights and whole numbers for groups of them can make;
    below zero it means the other half of a book that has two.

    `heed` [rows or 1, groups] says how much the weights of each group matter: other scales are held so that the groups
    that matter most come nearest.
    """

    book: Book
    scale: Tensor
    heed: Tensor
    zero: None = None
    zeros: None = None

    @property
    def manner(self) -> Hashable:
        return self.book

    @property
    def group(self) -> int:
        return self.book.group

    @property
    def step(self) -> int:
        return self.book.step

    def snap(self, x: Tensor, scale: Tensor, zero: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """Every cell along the last axis on its nearest entry, with the errors of its parts weighed by `weight`."""
        return nearest_entries(self.book, x, scale, weight)

    def codes(self, values: Tensor) -> Tensor:
        """The signed magnitudes, which are whole eighths; zero where a block is nothing but zeros."""
        return (8 * values / self.scale).round() / 8

    def rescaled(self, scale: Tensor, shift: Tensor | None = None) -> FittedVectors:
        """The same grid with scales near these [rows, groups], as the file can hold them."""
        return held(self.book, scale, self.heed)

    def code(self, values: Tensor) -> Coded:
        book, rows = self.book, len(values)
        codes = self.codes(values).view(-1, BLOCK)
        nothing = (codes == 0).all(1)  # zeros are on no grid; a block of them is one whose d is zero
        scale = self.scale[:, :: self.group].reshape(len(codes), -1)
        sizes = codes * scale.sign().repeat_interleave(self.group, 1) if book.signs == "none" else codes.abs()
        sizes = torch.where(nothing[:, None], book.table[0].repeat(BLOCK // book.wide).to(codes), sizes)
        entries = book.index(sizes.view(len(codes), -1, book.wide))
        signs = ((codes < 0).view(-1, 32, 8) << torch.arange(8, device=codes.device)).sum(-1)
        d, odd = _factors(book, scale.abs())
        blocks = pack(book, entries, signs, (odd.long() - 1) // 2, torch.where(nothing, 0, d).half())
        return Coded(codes.view_as(values) * self.scale, {"blocks": blocks.view(rows, -1)})


def held(book: Book, scale: Tensor, heed: Tensor) -> FittedVectors:
    """The grid with scales near these [rows, groups]: those d and whole numbers that miss them least."""
    rows, groups = scale.shape
    want = scale.abs().view(rows, -1, BLOCK // book.group)
    d, odd = _nearest_factors(book, want, heed.expand(rows, groups).reshape(want.shape))
    return _made(book, d, odd, heed, _side(scale))


def _odd(x: Tensor, book: Book) -> Tensor:
    """The nearest odd number, 1 to 2 n_scales - 1."""
    return ((x - 1) / 2).round_().clamp_(0, book.n_scales - 1).mul_(2).add_(1)


def _factors(book: Book, scale: Tensor) -> tuple[Tensor, Tensor]:
    """d [blocks] and odd numbers [blocks, groups] that `scale` [blocks, groups] was made of, or others that make it."""
    top = scale.amax(1)
    d, odd, seen = torch.zeros_like(top), torch.ones_like(scale), torch.zeros_like(top, dtype=torch.bool)
    for largest in range(2 * book.n_scales - 1, 0, -2):
        unit = _half(top * book.unit / largest)
        near = _odd(scale * book.unit / unit[:, None], book)
        makes = (unit[:, None] * near / book.unit == scale).all(1) & ~seen
        d, odd, seen = torch.where(makes, unit, d), torch.where(makes[:, None], near, odd), seen | makes
    assert bool(seen.all()), "scales that no file can hold"
    return d, odd


def _nearest_factors(book: Book, want: Tensor, heed: Tensor) -> tuple[Tensor, Tensor]:
    """d [rows, blocks] and odd numbers [rows, blocks, groups] whose products come nearest to `want`, a positive one."""
    top = want.amax(-1) / (2 * book.n_scales - 1)
    best = torch.full_like(top, torch.inf)
    d, odd = torch.ones_like(top), torch.ones_like(want)
    for share in FACTORS:
        unit = _half(share * top * book.unit)
        near = _odd(want * book.unit / unit[..., None], book)
        miss = (heed * (unit[..., None] / book.unit * near - want).square()).sum(-1)
        better = miss < best
        best, d = torch.where(better, miss, best), torch.where(better, unit, d)
        odd = torch.where(better[..., None], near, odd)
    return d, odd


def _half(x: Tensor) -> Tensor:
    """Float16 numbers above zero, as float32."""
    info = torch.finfo(torch.float16)
    return x.clamp(info.smallest_normal / 1024, info.max).half().float()


def _side(scale: Tensor) -> Tensor:
    return torch.where(scale < 0, -1.0, 1.0)


def _made(book: Book, d: Tensor, odd: Tensor, heed: Tensor, side: Tensor) -> FittedVectors:
    scale = (d[..., None] * odd / book.unit).flatten(1) * side
    return FittedVectors(book, scale.repeat_interleave(book.group, 1), heed)


@dataclass(frozen=True)
class _Search:
    """One matrix, to be coded with many scales. Numbers of groups are [rows, groups]."""

    book: Book
    x: Tensor
    weight: Tensor | None
    energy: Tensor

    @classmethod
    def of(cls, book: Book, x: Tensor, weight: Tensor | None) -> _Search:
        if weight is not None:  # what nobody hears is fitted all the same
            weight = weight.float().expand_as(x)
            weight = weight + 1e-8 * weight.mean(1, keepdim=True).clamp_min(1e-30)
        return cls(book, x, weight, _grouped(x * x, weight, book))

    def free(self) -> tuple[Tensor, Tensor]:
        """The scales that would suit without a codebook, each weight on its nearest magnitude, and how they matter."""
        book, size = self.book, self.x if self.book.signs == "none" else self.x.abs()
        levels = book.table.unique().to(size)
        total = _grouped(torch.ones_like(size), self.weight, book).clamp_min(1e-30)
        spread = (self.energy / total).sqrt().clamp_min(1e-30) / book.table.square().mean().sqrt().item()
        least, best = torch.full_like(spread, torch.inf), spread
        for share in SHARES:
            ratio = size / (share * spread).repeat_interleave(book.group, 1)
            codes = levels[torch.bucketize(ratio, (levels[1:] + levels[:-1]) / 2)]
            suits, matters = self._suiting(size, codes)
            error = self.energy - suits * suits * matters
            better = error < least
            least, best = torch.where(better, error, least), torch.where(better, suits, best)
        return best, total

    def __call__(self, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """With these scales: the error, the size of scale that suits the entries found best, and how it matters."""
        spread = scale.repeat_interleave(self.book.group, 1)
        found = nearest_entries(self.book, self.x, spread, self.weight, self.book.large)
        suits, matters = self._suiting(self.x, found / spread.abs())
        scale = scale.abs()
        return self.energy + (scale - 2 * suits) * scale * matters, suits, matters

    def _suiting(self, x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Least squares: the scales that fit `codes` to `x` best, and the curvature of the error in them."""
        matters = _grouped(codes * codes, self.weight, self.book).clamp_min(1e-30)
        return (_grouped(x * codes, self.weight, self.book) / matters).clamp_min(1e-30), matters


def _grouped(x: Tensor, weight: Tensor | None, book: Book) -> Tensor:
    """Weighted sums over groups: [rows, groups]."""
    return (x if weight is None else x * weight).view(len(x), -1, book.group).sum(-1)


def _refined(book: Book, d: Tensor, odd: Tensor, side: Tensor, search: _Search) -> FittedVectors:
    """Every odd number [rows, blocks, groups] against the one where its entries want to be; then the d that suits."""
    unit = d[..., None] / book.unit
    error, suits, matters = (t.view_as(odd) for t in search((unit * odd).flatten(1) * side))
    other = (odd + torch.where(suits > unit * odd, 2, -2)).clamp(1, 2 * book.n_scales - 1)
    less, fits, counts = (t.view_as(odd) for t in search((unit * other).flatten(1) * side))
    better = less < error
    odd, matters = torch.where(better, other, odd), torch.where(better, counts, matters)
    along = (torch.where(better, fits, suits) * matters * odd).sum(-1)
    square = (matters * odd * odd).sum(-1).clamp_min(1e-30)
    suiting = _half(book.unit * along / square)

    def left(d: Tensor) -> Tensor:  # of the error, with the entries that there are
        return d / book.unit * (d / book.unit * square - 2 * along)

    d = torch.where(left(suiting) < left(d), suiting, d)
    return _made(book, d, odd, matters.flatten(1), side)


@dataclass(frozen=True)
class Vectors:
    """The grid of one vector type, by its name."""

    kind: str
    rowwise: ClassVar[bool] = True

    @property
    def book(self) -> Book:
        return BOOKS[self.kind]

    @property
    def bits(self) -> int:
        """About how many bits a weight gets, in the words of those who decide how hard to try."""
        return int(self.kind[2])

    def fit(self, w: Tensor, weight: Tensor | None = None) -> FittedVectors:
        """Scales that keep the weighted squared error small.

        For each group the scale that would suit if every weight had its nearest magnitude; a little below and above it
        (of signed entries, at it) the entries are found and the scale that suits them. These as the file can hold them,
        then each whole number against a neighbour, and d once more. The codebook is searched three or four times, a
        large one by short lists.
        """
        if w.shape[1] % BLOCK:
            raise ValueError(f"rows of {w.shape[1]} weights are not whole blocks of {BLOCK}")
        search = _Search.of(self.book, w.float(), weight)
        want, heed = search.free()
        least, best = torch.full_like(want, torch.inf), want
        near = (want,) if self.book.signs == "none" else (0.94 * want, 1.06 * want)
        for scale in (*near, *(-one for one in near if self.book.halves)):
            _, suits, matters = search(scale)
            error = search.energy - suits * suits * matters
            better = error < least
            least, heed = torch.where(better, error, least), torch.where(better, matters, heed)
            best = torch.where(better, suits.copysign(scale), best)
        blocks = (len(w), -1, BLOCK // self.book.group)
        found = _nearest_factors(self.book, best.abs().view(blocks), heed.view(blocks))
        return _refined(self.book, *found, _side(best), search)

    def payload_bits(self, rows: int, cols: int) -> float:
        return 8.0 * rows * row_bytes(self.kind, cols)


def decode(kind: str, blocks: Tensor) -> Tensor:
    """What every reader makes of uint8 `blocks` [rows, bytes]: float32 [rows, cols]."""
    from gguf import GGMLQuantizationType, quants

    values = quants.dequantize(blocks.cpu().numpy(), GGMLQuantizationType[kind.upper()])
    return torch.from_numpy(values).to(blocks.device)
