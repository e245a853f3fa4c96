"""By hand, by round trip, and against the layout that compressed-tensors reads."""

from __future__ import annotations

import doctest

import pytest
import torch

from secateur.maths import packing
from secateur.maths.packing import (
    pack,
    pack_nibbles,
    pack_words,
    packed_bytes,
    unpack,
    unpack_exponents,
    unpack_nibbles,
    unpack_words,
)


def test_examples():
    assert doctest.testmod(packing).failed == 0


def test_by_hand_three_bits_straddle_bytes():
    packed = pack(torch.tensor([7, 0, 5, 3]), 8)
    assert packed.tolist() == [(7 | 0 << 3 | 5 << 6 | 3 << 9) & 255, (7 | 5 << 6 | 3 << 9) >> 8]


LEVELS = [(2, 1.0), (3, 1.6), (4, 2.0), (5, 8 / 3), (6, 8 / 3), (7, 3.0), (256, 8.0), (4096, 12.0)]


@pytest.mark.parametrize(("levels", "bits"), LEVELS)
def test_bits_a_code(levels: int, bits: float):
    assert packed_bytes(240, levels) * 8 / 240 == pytest.approx(bits)


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 6, 7, 8, 11, 16, 32, 100, 256, 300, 4096, 65536])
@pytest.mark.parametrize("n", [0, 1, 2, 7, 120, 1001])
def test_round_trip(levels: int, n: int):
    codes = torch.randint(levels, (n,), generator=torch.Generator().manual_seed(n))
    packed = pack(codes, levels)
    assert packed.dtype == torch.uint8 and packed.numel() == packed_bytes(n, levels)
    assert torch.equal(unpack(packed, levels, n).long(), codes)


@pytest.mark.parametrize("levels", [3, 8, 4096])
def test_chunks_join_without_a_seam(levels: int, monkeypatch: pytest.MonkeyPatch):
    codes = torch.randint(levels, (1000,), generator=torch.Generator().manual_seed(0))
    whole = pack(codes, levels)
    monkeypatch.setattr(packing, "_CHUNK", 120)
    assert torch.equal(pack(codes, levels), whole)
    assert torch.equal(unpack(whole, levels, 1000).long(), codes)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("shape", [(1, 1), (3, 32), (5, 33), (7, 100), (2, 256)])
def test_words_round_trip_and_match_the_reader(bits: int, shape: tuple[int, int]):
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    codes = torch.randint(2**bits, shape, generator=torch.Generator().manual_seed(bits))
    words = pack_words(codes, bits)
    assert words.dtype == torch.int32 and words.shape == (shape[0], -(-shape[1] * bits // 32))
    assert torch.equal(unpack_words(words, bits, shape[1]).long(), codes)
    signed = (codes - 2 ** (bits - 1)).to(torch.int8)
    assert torch.equal(helpers.unpack_from_int32(words, bits, torch.Size(shape)), signed)
    assert torch.equal(helpers.pack_to_int32(signed, bits), words)


def test_words_in_chunks_of_rows(monkeypatch: pytest.MonkeyPatch):
    codes = torch.randint(8, (50, 40), generator=torch.Generator().manual_seed(1))
    whole = pack_words(codes, 3)
    monkeypatch.setattr(packing, "_CHUNK", 120)
    assert torch.equal(pack_words(codes, 3), whole)
    assert torch.equal(unpack_words(whole, 3, 40).long(), codes)


def test_exponents():
    assert unpack_exponents(torch.tensor([0, 126, 127, 130, 254], dtype=torch.uint8)).tolist() == [
        2.0**-127,
        0.5,
        1.0,
        8.0,
        2.0**127,
    ]


def test_nibbles():
    codes = torch.tensor([[1, 2, 3, 15]])
    assert pack_nibbles(codes).tolist() == [[0x21, 0xF3]]
    assert torch.equal(unpack_nibbles(pack_nibbles(codes)).long(), codes)
