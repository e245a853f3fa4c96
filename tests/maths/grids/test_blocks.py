"""The table of ggml's block types, held against the public Python package that reads them."""

import gguf
import pytest

from secateur.maths.grids import blocks


@pytest.mark.parametrize("kind", blocks.KINDS)
def test_sizes_are_ggml_s(kind):
    assert blocks.KINDS[kind] == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind.upper()]]


def test_a_block_begun_counts_whole():
    assert [blocks.row_bytes("q4_k", cols) for cols in (256, 257, 768)] == [144, 288, 432]
    assert blocks.row_bytes("q8_0", 96) == 3 * 34
