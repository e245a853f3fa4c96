"""What channels bear of the damage of rounding, by hand."""

from __future__ import annotations

import torch

from secateur.model.factors import Factors
from secateur.parts.left import bears
from secateur.types import Matrix, Side, Unit


def test_rows_bear_what_their_outputs_do_and_columns_what_their_inputs_do():
    g, a = torch.diag(torch.tensor([1.0, 2, 3, 4])), torch.eye(3)
    up = Unit("up", "linear", (Matrix("up", 4, 3, "x"),), 0, side=Side("mlp", "channels", 0, ((1, 1),)))  # gate over up
    assert bears(up, {"up": Factors(a, g)}).tolist() == [1 + 3, 2 + 4]
    assert bears(up, {"up": Factors(a, g.diagonal())}).tolist() == [4, 6]
    heads = Unit(
        "q", "linear", (Matrix("q", 4, 3, "x"), Matrix("k", 2, 3, "x")), 0, side=Side("attn", "heads", 0, ((2,), (1,)))
    )
    two = {"q": Factors(a, g), "k": Factors(a, torch.tensor([5.0, 6]))}
    assert bears(heads, two).tolist() == [1 + 2 + 5, 3 + 4 + 6]
    down = Unit("down", "linear", (Matrix("down", 3, 4, "y"),), 0, side=Side("mlp", "channels", -1, ((2,),)))
    assert bears(down, {"down": Factors(g, torch.ones(3))}).tolist() == [1 + 2, 3 + 4]
