"""Networks of strangers as ONNX: normalisations whose numbers tracing takes for constants, and what fixes a size."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from secateur.cut import cut
from secateur.types import BudgetError, ExportError


class Grouped(nn.Module):
    """Two group normalisations that are alike to the bit, and one that is not."""

    preprocessing = {"shape": (1, 12, 12), "scale": 1 / 255}  # noqa: RUF012  # nn.Module reads it as it is

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3)
        self.one, self.two, self.three = (nn.GroupNorm(4, 16) for _ in range(3))
        nn.init.normal_(self.three.weight)
        self.out = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.two(self.b(torch.relu(self.one(self.a(x))))))
        return self.out(self.three(self.c(x)).mean((2, 3)))


class Fixed(Grouped):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + torch.zeros(1, 4).expand(len(x), 4)


class Recurrent(nn.Module):
    preprocessing = {"shape": (1, 12, 12), "scale": 1 / 255}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.GRU(12, 24, batch_first=True), nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.inner(x[:, 0])[0][:, -1])


@pytest.fixture
def data(tmp_path, monkeypatch):
    here = ModuleType("strangers")
    for kind in (Grouped, Fixed, Recurrent):

        def make(kind=kind):
            torch.manual_seed(0)
            return kind().eval()

        setattr(here, kind.__name__.lower(), make)
    monkeypatch.setitem(sys.modules, "strangers", here)
    random = np.random.default_rng(0)
    file = tmp_path / "data.npz"
    np.savez(file, images=random.integers(0, 256, (120, 12, 12, 1), np.uint8), labels=random.integers(0, 4, 120))
    return str(file)


def test_group_normalisations_keep_their_names(data, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    result = cut("strangers:grouped", data, "60% bytes", out=tmp_path / "out", format="onnx", samples=60)
    assert result["export"]["logit_error_exact"] < 1e-4
    assert result["export"]["bytes_priced"] == result["spent"]["bytes"]


def test_what_fixes_the_number_of_examples_is_said(data, tmp_path):
    with pytest.raises(ExportError) as caught:
        cut("strangers:fixed", data, "60% bytes", out=tmp_path / "out", format="torch-export", samples=60)
    assert "`len(x)` does, `x.shape[0]` does not" in caught.value.hint


def test_why_most_of_a_network_cannot_be_cut(data, tmp_path):
    with pytest.raises(BudgetError) as caught:
        cut("strangers:recurrent", data, "8 bits/weight", out=tmp_path / "out", format="packed", samples=60)
    assert "a bare parameter of GRU: nothing says how it is used" in caught.value.hint
