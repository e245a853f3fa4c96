"""How the scalar block types of ggml lie in bytes: a block is a row of segments, each holding bits of one field.

Fields of n blocks, all counted from zero: `codes` [n, weights], `subs` [n, groups], the whole numbers that scales are
multiples of (those of offsets behind them), both uint8; `d` and `m` [n, 1] float16, scales of the whole block (MXFP4
has its exponent as uint8 `d`).

>>> import torch
>>> nibbles = Bits("codes", 4, planes=2, width=2)  # of four codes the first two lie in the low halves
>>> nibbles.write({"codes": torch.tensor([[1, 2, 3, 4]], dtype=torch.uint8)})  # 1 + 3*16, 2 + 4*16
tensor([[49, 66]], dtype=torch.uint8)
>>> nibbles.read(torch.tensor([[49, 66]], dtype=torch.uint8))
tensor([[1, 2, 3, 4]], dtype=torch.uint8)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Segment(Protocol):
    """Some bytes of every block that hold bits of one field; what is read from several is added up."""

    @property
    def field(self) -> str: ...
    def bytes(self, weights: int, subs: int) -> int: ...
    def write(self, fields: Mapping[str, Tensor]) -> Tensor: ...
    def read(self, raw: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Bits:
    """`bits` of every number of a field from bit `above` up. Numbers go in runs of planes x width: byte i of a run
    holds number i of every plane, the first plane lowest."""

    field: str
    bits: int
    planes: int
    width: int
    above: int = 0

    def bytes(self, weights: int, subs: int) -> int:
        return (weights if self.field == "codes" else subs) // self.planes

    def write(self, fields: Mapping[str, Tensor]) -> Tensor:
        x = fields[self.field]
        x = ((x >> self.above) & (2**self.bits - 1)).view(len(x), -1, self.planes, self.width)
        return _merged([x[:, :, plane] << (self.bits * plane) for plane in range(self.planes)]).flatten(1)

    def read(self, raw: Tensor) -> Tensor:
        x = raw.view(len(raw), -1, 1, self.width)
        x = torch.cat([x >> (self.bits * plane) for plane in range(self.planes)], 2)
        return (x.flatten(1) & (2**self.bits - 1)) << self.above


@dataclass(frozen=True)
class Signed:
    """One byte a number, in two's complement: 128 is zero."""

    field: str

    def bytes(self, weights: int, subs: int) -> int:
        return weights if self.field == "codes" else subs

    def write(self, fields: Mapping[str, Tensor]) -> Tensor:
        return fields[self.field] ^ 128

    def read(self, raw: Tensor) -> Tensor:
        return raw ^ 128


@dataclass(frozen=True)
class Half:
    """A float16."""

    field: str

    def bytes(self, weights: int, subs: int) -> int:
        return 2

    def write(self, fields: Mapping[str, Tensor]) -> Tensor:
        return fields[self.field].contiguous().view(torch.uint8)

    def read(self, raw: Tensor) -> Tensor:
        return raw.contiguous().view(torch.float16)


@dataclass(frozen=True)
class Exponent:
    """A byte of its own."""

    field: str = "d"

    def bytes(self, weights: int, subs: int) -> int:
        return 1

    def write(self, fields: Mapping[str, Tensor]) -> Tensor:
        return fields[self.field]

    def read(self, raw: Tensor) -> Tensor:
        return raw


@dataclass(frozen=True)
class Sixes:
    """Eight scales and eight offsets of 6 bits in 12 bytes: the first four of each whole, their bytes' upper two bits
    and the last four bytes for the others."""

    field: str = "subs"

    def bytes(self, weights: int, subs: int) -> int:
        return 12

    def write(self, fields: Mapping[str, Tensor]) -> Tensor:
        x = fields[self.field].view(-1, 2, 2, 4)  # [n, scales or offsets, first or last, 4]
        whole = x[:, :, 0] | (x[:, :, 1] >> 4 << 6)
        rest = (x[:, 0, 1] & 15) | (x[:, 1, 1] << 4)
        return torch.cat((whole.flatten(1), rest), 1)

    def read(self, raw: Tensor) -> Tensor:
        whole, rest = raw[:, :8].reshape(-1, 2, 4), raw[:, 8:]
        rest = torch.stack((rest & 15, rest >> 4), 1)
        return torch.stack((whole & 63, rest | (whole >> 6 << 4)), 2).flatten(1)


@dataclass(frozen=True)
class Digits:
    """Ternary codes, five to a byte: as a fraction of 256, so that times 3 the next digit overflows. Runs of 32, 16 and
    4 bytes (these of four digits) as planes of `Bits` do, the first plane leading."""

    field: str = "codes"
    runs: tuple[tuple[int, int], ...] = ((5, 32), (5, 16), (4, 4))

    def bytes(self, weights: int, subs: int) -> int:
        return sum(width for _, width in self.runs)

    def write(self, fields: Mapping[str, Tensor]) -> Tensor:
        x, out, at = fields[self.field].int(), [], 0
        for planes, width in self.runs:
            run = x[:, at : at + planes * width].view(-1, planes, width)
            number = sum(run[:, plane] * 3 ** (4 - plane) for plane in range(planes))
            out.append((number * 256 + 242) // 243)
            at += planes * width
        return torch.cat(out, 1).to(torch.uint8)

    def read(self, raw: Tensor) -> Tensor:
        out, at = [], 0
        for planes, width in self.runs:
            run = raw[:, at : at + width].int()
            out += [((run * 3**plane & 255) * 3 >> 8) for plane in range(planes)]
            at += width
        return torch.cat(out, 1).to(torch.uint8)


def _merged(parts: list[Tensor]) -> Tensor:
    out = parts[0]
    for part in parts[1:]:
        out = out | part
    return out


_LOW, _HIGH = Bits("codes", 4, 2, 16), Bits("codes", 1, 8, 1, above=4)
_TWO, _ONE = Bits("codes", 2, 4, 32), Bits("codes", 1, 8, 32, above=4)
_FOUR = Bits("codes", 4, 2, 32)
LAYOUTS: dict[str, tuple[Segment, ...]] = {
    "q4_0": (Half("d"), _LOW),
    "q4_1": (Half("d"), Half("m"), _LOW),
    "q5_0": (Half("d"), _HIGH, _LOW),
    "q5_1": (Half("d"), Half("m"), _HIGH, _LOW),
    "q8_0": (Half("d"), Signed("codes")),
    "q2_k": (Bits("subs", 4, 2, 16), _TWO, Half("d"), Half("m")),
    "q3_k": (
        Bits("codes", 1, 8, 32, above=2),
        _TWO,
        Bits("subs", 4, 2, 8),
        Bits("subs", 2, 4, 4, above=4),
        Half("d"),
    ),
    "q4_k": (Half("d"), Half("m"), Sixes(), _FOUR),
    "q5_k": (Half("d"), Half("m"), Sixes(), _ONE, _FOUR),
    "q6_k": (Bits("codes", 4, 2, 64), Bits("codes", 2, 4, 32, above=4), Signed("subs"), Half("d")),
    "iq4_nl": (Half("d"), _LOW),
    "iq4_xs": (Half("d"), Bits("subs", 2, 4, 1, above=4), Bits("subs", 4, 2, 1), _LOW),
    "mxfp4": (Exponent(), _LOW),
    "tq1_0": (Digits(), Half("d")),
    "tq2_0": (_TWO, Half("d")),
}


def write(kind: str, fields: Mapping[str, Tensor]) -> Tensor:
    """The fields of n blocks as uint8 [n, bytes]."""
    return torch.cat([segment.write(fields) for segment in LAYOUTS[kind]], 1)


def read(kind: str, raw: Tensor, weights: int, subs: int) -> dict[str, Tensor]:
    """The fields of blocks [n, bytes] of `weights` codes and `subs` whole numbers each."""
    out: dict[str, Tensor] = {}
    at = 0
    for segment in LAYOUTS[kind]:
        size = segment.bytes(weights, subs)
        part = segment.read(raw[:, at : at + size])
        out[segment.field] = out[segment.field] | part if segment.field in out else part
        at += size
    return out
