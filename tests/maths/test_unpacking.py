"""The same codes as through numpy, in operations that a graph can hold."""

from __future__ import annotations

import pytest
import torch

from secateur.maths.packing import pack, unpack
from secateur.maths.unpacking import unpacked

LEVELS = (2, 3, 4, 5, 6, 7, 8, 16, 17, 32, 64, 100, 128, 200, 256, 512, 4096, 1 << 14)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("n", [1, 7, 8, 64, 1001])
def test_contract_what_was_packed_comes_back(levels, n):
    codes = torch.randint(levels, (n,), generator=torch.Generator().manual_seed(n))
    packed = pack(codes, levels)
    assert torch.equal(unpacked(packed, levels, n).long(), codes)
    assert torch.equal(unpacked(packed, levels, n).long(), unpack(packed, levels, n).long())


def test_by_hand():
    assert unpacked(torch.tensor([200], dtype=torch.uint8), 3, 5).tolist() == [2, 0, 1, 1, 2]
    assert unpacked(torch.tensor([0b10_001_000, 0b1_011_010, 0], dtype=torch.uint8), 8, 5).tolist() == [0, 1, 2, 5, 5]


@pytest.mark.parametrize("levels", [3, 8, 16, 32])
def test_a_graph_can_hold_it(levels):
    class Unpack(torch.nn.Module):
        def forward(self, packed):
            return unpacked(packed, levels, 100)

    packed = pack(torch.arange(100) % levels, levels)
    program = torch.export.export(Unpack(), (packed,))
    assert torch.equal(program.module()(packed), unpacked(packed, levels, 100))
