"""Which kinds of edits a budget calls for."""

from __future__ import annotations

import pytest

from secateur.cut.price import needed
from secateur.export import find
from secateur.types import Budget

SHAPES = ("channels", "heads", "drop")


@pytest.mark.parametrize(
    ("budget", "format", "more"),
    [
        ("4 bits/weight", "packed", ()),
        ("60% flops", "packed", ("rank", *SHAPES)),
        ("60% flops", "compressed-tensors", SHAPES),
        ("20 ms", "torch-export", ("rank", *SHAPES)),
        ("20 ms", "onnx", ()),  # one shape, and codes
        ("kv 24 KB/token", "packed", ("rank", *SHAPES[1:])),
        ("kv 24 KB/token", "torch-export", SHAPES[1:]),
        ("60% flops, kv 24 KB/token", "gguf", SHAPES),
    ],
)
def test_what_a_budget_adds_where_the_format_holds_it(budget, format, more):
    assert needed(Budget.parse(budget), ("bits",), find(format)) == ("bits", *more)


@pytest.mark.parametrize("said", ["rank", "heads"])
def test_who_says_which_gets_no_others(said):
    assert needed(Budget.parse("60% flops"), ("bits", said), find("packed")) == ("bits", said)


def test_pictures_lose_channels():
    for budget in ("60% flops", "20 ms"):
        assert needed(Budget.parse(budget), ("bits",), find("onnx"), pictures=True) == ("bits", "channels")
