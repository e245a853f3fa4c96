"""What edits store, through the disk and back."""

from __future__ import annotations

import pytest

from secateur.maths.packing import pack, packed_bytes, unpack


@pytest.fixture
def stored():
    """`stored(edit, coded, rows, cols)`: the tensors as a reader finds them; they must be what the edit announced."""

    def through(edit, coded, rows, cols):
        parts = edit.payload(rows, cols)
        assert coded.tensors.keys() == parts.keys()
        found = {}
        for name, part in parts.items():
            held = coded.tensors[name]
            assert tuple(held.shape) == part.shape
            if part.levels:
                packed = pack(held.int() - part.low, part.levels)
                assert packed.numel() == packed_bytes(held.numel(), part.levels) == part.bits / 8
                held = (unpack(packed, part.levels, held.numel()) + part.low).view(part.shape)
            found[name] = held
        return found

    return through
