"""Any layer as rows x cols, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from secateur.model.matrix import Place, place, put, view
from secateur.types import Matrix


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.conv1d = Conv1D(2, 3)  # 3 inputs, 2 outputs, stored 3 x 2
        self.conv2d = nn.Conv2d(3, 4, (2, 5))
        self.table = nn.Embedding(7, 3)
        self.experts = nn.ParameterDict(
            {"up": torch.arange(24.0).reshape(2, 4, 3), "turned": torch.arange(24.0).reshape(2, 3, 4)}
        )


NET = Net()
CASES = {
    "linear": (Matrix("linear.weight", 2, 3, "linear"), lambda n: n.linear.weight),
    "transposed": (Matrix("conv1d.weight", 2, 3, "conv1d", transposed=True), lambda n: n.conv1d.weight.T),
    "convolution": (Matrix("conv2d.weight", 4, 30, "conv2d"), lambda n: n.conv2d.weight.flatten(1)),
    "embedding": (Matrix("table.weight", 7, 3, "table"), lambda n: n.table.weight),
    "expert": (Matrix("experts.up", 4, 3, "experts.up#1", index=1), lambda n: n.experts["up"][1]),
    "turned expert": (
        Matrix("experts.turned", 4, 3, "experts.turned#0", index=0, transposed=True),
        lambda n: n.experts["turned"][0].T,
    ),
    "half an expert under another name": (
        Matrix("e.1.w3", 2, 3, "experts.up#1", place="experts.up#1[2:4]"),
        lambda n: n.experts["up"][1][2:4],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_view_and_put(name):
    matrix, direct = CASES[name]
    assert view(NET, matrix).shape == (matrix.rows, matrix.cols)
    assert torch.equal(view(NET, matrix), direct(NET))
    before = {n: p.detach().clone() for n, p in NET.named_parameters()}
    values = torch.randn(matrix.rows, matrix.cols)
    put(NET, matrix, values)
    assert torch.equal(direct(NET), values)
    changed = sum(int((before[n] != p).sum()) for n, p in NET.named_parameters())
    assert changed == matrix.size  # and nothing else


def test_put_casts_to_the_networks_type():
    layer = nn.Sequential(nn.Linear(3, 2, dtype=torch.float16))
    matrix = Matrix("0.weight", 2, 3, "0")
    put(layer, matrix, torch.full((2, 3), 1 / 3, dtype=torch.float64))
    assert layer[0].weight.dtype == torch.float16 and layer[0].weight[0, 0].item() == pytest.approx(1 / 3, abs=1e-3)


@pytest.mark.parametrize("text", ["a.b.weight", "a.b#3", "a.b#3[0:64]", "a.b[2:4]"])
def test_a_place_reads_back(text):
    assert str(place(Matrix("x", 1, 1, "a", place=text))) == text


def test_place_of_a_fused_tensor_is_its_key():
    assert place(Matrix("a.experts.down", 4, 3, "t", index=2)) == Place("a.experts.down", 2)
    assert place(Matrix("a.experts.down", 4, 3, "t", index=2)).module == "a.experts"


def test_a_bad_place():
    with pytest.raises(ValueError, match="not a place"):
        place(Matrix("x", 1, 1, "a", place="a#b"))
