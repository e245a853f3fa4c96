"""Trunks: what shares channels along a residual stage, shortcuts included, and what cannot lose any, in words."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from secateur.model.trunk import Trunk, trunks


class Residual(nn.Module):
    """A stem, a block, a wider stage behind a projection, and a depthwise layer on the way."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.one, self.two = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)
        self.deep = nn.Conv2d(4, 4, 3, groups=4)
        self.side, self.main = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = self.deep(x + self.two(self.one(x).relu()))
        return self.head((self.side(x) + self.main(x)).mean((2, 3)))


class Padded(nn.Module):
    """A shortcut that adds empty channels on both sides."""

    shortcuts_by_width = True

    def __init__(self):
        super().__init__()
        self.stem, self.wide = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 6, 1)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        x = self.stem(x)
        more = self.wide.out_channels - self.wide.in_channels
        x = F.pad(x, (0, 0, 0, 0, more // 2, more - more // 2)) + self.wide(x)
        return self.head(x.mean((2, 3)))


class Fixed(Padded):
    """The same, where nobody says that the shortcut follows the widths."""

    shortcuts_by_width = False


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 1) for _ in range(3))
        self.many, self.twice = nn.Conv2d(8, 4, 1, groups=2), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = torch.cat([self.a(x), self.b(x)], 1)
        x = self.twice(self.twice(self.many(x)))
        return self.head(self.c(x).softmax(1).mean((2, 3)))


def test_what_is_added_up_shares_its_channels():
    found, why = trunks(Residual())
    assert found == (
        Trunk("stem", 4, ("stem", "two"), ("norm", "deep"), ("one", "side", "main")),
        Trunk("one", 6, ("one",), (), ("two",)),
        Trunk("side", 8, ("side", "main"), (), ("head",)),
    )
    assert why == {"head": "they are the network's outputs"}
    assert found[0].along == ("stem", "two", "norm", "deep")


def test_a_shortcut_of_empty_channels_joins_two():
    found, _ = trunks(Padded())
    assert found == (Trunk("stem", 2, ("stem",), (), ("wide",)), Trunk("wide", 6, ("wide",), (), ("head",), "stem"))
    assert "`pad`" in trunks(Fixed())[1]["stem"]


def test_what_cannot_go_is_said():
    found, why = trunks(Odd())
    assert not found
    assert "`cat` joins or reorders" in why["a"] and "`softmax` joins" in why["c"]
    assert "grouped" in why["many"] and "several times" in why["twice"]
