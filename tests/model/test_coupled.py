"""Coupled channels: found by tracing, refused in words, and really removable."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from secateur.model.coupled import Coupled, apart, coupled, merged
from secateur.types import Matrix, Unit


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.deep = nn.Conv2d(6, 6, 3, groups=6)
        self.b = nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(4 * 4, 2)

    def forward(self, x):
        x = self.b(F.relu(self.deep(F.relu(self.norm(self.a(x))))))
        return self.head(F.max_pool2d(x, 2).flatten(1))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)
        self.many = nn.Conv2d(4, 4, 1, groups=2)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.two(self.one(x).relu())
        return self.head(self.many(x).mean((2, 3)))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 2)

    def forward(self, x):
        return self.a(x) if x.sum() > 0 else x


def test_from_layer_to_layer():
    groups, why = coupled(Chain())
    assert groups == (Coupled("a", ("norm", "deep"), "b"), Coupled("b", (), "head"))
    assert why == {"head": "its outputs are the network's"}


def test_what_cannot_go_is_said():
    groups, why = coupled(Residual())
    assert groups == (Coupled("one", (), "two"),)
    assert "residual stream" in why["stem"] and "joins or reorders" in why["two"] and "grouped" in why["many"]
    groups, why = coupled(Branching())
    assert not groups and "cannot be traced" in why["a"]


def test_a_mixer_needs_something_to_take_up_a_shift():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2))
    groups, why = coupled(net)
    assert "neither a bias nor a normalisation" in why["0"]
    assert [group.first for group in groups] == ["1"]
    norm = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2))
    assert coupled(norm)[0] == (Coupled("0", (), "1", "2"),)


def test_groups_that_share_no_layer():
    groups = (Coupled("a", (), "b"), Coupled("b", (), "c"), Coupled("c", (), "d"))
    assert [g.first for g in apart(groups, {"a": 1, "b": 1, "c": 1, "d": 1})] == ["a", "c"]
    assert [g.first for g in apart(groups, {"a": 1, "b": 9, "c": 9, "d": 1})] == ["b"]


def test_layers_of_a_group_are_one_unit():
    net = Chain()
    shapes = {"a": (6, 27), "deep": (6, 9), "b": (4, 6), "head": (2, 16)}
    units = [Unit(name, "conv", (Matrix(f"{name}.weight", *shape, name),), 0) for name, shape in shapes.items()]
    found, of = merged(units, apart(coupled(net)[0], {"a": 9.0}), net)
    assert [unit.name for unit in found] == ["a", "head"] and of["a"].last == "b"
    assert found[0].members == ("a.weight", "deep.weight", "b.weight") and found[0].kind == "channels"
    assert found[0].vectors == ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "deep.bias")
