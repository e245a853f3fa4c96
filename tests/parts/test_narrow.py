"""Networks with fewer channels: the tensors that stay, the refit, and that taking zeros out changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateur.maths.channels import Removal
from secateur.model.coupled import coupled, merged
from secateur.model.resize import resized
from secateur.parts.edits.channels import Channels, offered
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.parts.left import columns, narrowed, stays
from secateur.parts.narrow import Fewer, alone, moments, removal, together
from secateur.types import Matrix, PlanError, Unit


class Net(nn.Module):
    """Two groups, the first through a depthwise layer into a layer with a normalisation, the second into a bias."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, groups=8)
        self.b, self.behind = nn.Conv2d(8, 5, 3, bias=False), nn.BatchNorm2d(5)
        self.c, self.head = nn.Conv2d(5, 6, 1), nn.Linear(6, 3)

    def forward(self, x):
        x = F.relu(self.deep(F.relu(self.norm(self.a(x)))))
        x = F.relu(self.behind(self.b(x)))
        return self.head(F.relu(self.c(x)).mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    made = Net().eval().requires_grad_(False)
    for norm in (made.norm, made.behind):
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.3, 1.0)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.3)
    return made


def units_of(net):
    layers = [(name, m) for name, m in net.named_children() if isinstance(m, nn.Conv2d | nn.Linear)]
    units = [
        Unit(name, "conv", (Matrix(f"{name}.weight", len(m.weight), m.weight[0].numel(), name, stored=stored(m)),), 0)
        for name, m in layers
    ]
    groups, _ = coupled(net)
    return merged(units, [g for g in groups if g.first in ("a", "c")], net)


def stored(module):
    return tuple(module.weight.shape) if module.weight.dim() > 2 else ()


def inputs(n=64):
    return torch.randn(n, 2, 9, 9, generator=torch.Generator().manual_seed(1))


def test_the_tensors_that_stay(net):
    (unit, other), _ = units_of(net)
    left, inner = narrowed(unit, Channels(0.5, "int(bits=4, group=0)"))
    assert inner == Int(4, 0)
    assert [(m.rows, m.cols, m.stored) for m in left.matrices] == [
        (4, 18, (4, 2, 3, 3)),
        (4, 9, (4, 1, 3, 3)),
        (5, 36, (5, 4, 3, 3)),
    ]
    assert narrowed(other, Channels(0.34))[0].matrices[-1].cols == 2 and narrowed(unit, Keep()) == (unit, Keep())
    kept = torch.tensor([1, 6])
    assert stays(unit, unit.matrices[0], kept)[0].tolist() == [1, 6]
    assert stays(unit, unit.matrices[-1], kept)[1].tolist() == [*range(9, 18), *range(54, 63)]


def test_an_edit_says_what_it_costs_and_what_it_may_be(net):
    (unit, _), _ = units_of(net)
    assert Channels(0.5).cost(unit)["bytes"] == 2 * (4 * 18 + 4 * 9 + 5 * 36)
    assert Channels(0.01).left(8) == 1
    for wrong in (lambda: Channels(1.0), lambda: Channels(0.5, "channels(keep=0.5)"), lambda: Channels(0.5, "nothing")):
        with pytest.raises(PlanError):
            wrong()
    found = offered((Keep(), Int(8, 0)))
    assert Channels(0.5) in found and Channels(0.5, "int(bits=8, group=0)") in found


def test_moments_are_those_of_what_the_mixing_layer_sees(net):
    units, _ = units_of(net)
    found = moments(net, units, inputs())["c"]
    x = inputs()
    x = F.relu(net.deep(F.relu(net.norm(net.a(x)))))
    x = F.relu(net.c(F.relu(net.behind(net.b(x))))).mean((2, 3))
    assert found.n == 64
    assert torch.allclose(found.covariance().float(), torch.cov(x.T, correction=0), atol=1e-5)


def test_two_channels_that_are_one(net):
    """A channel and its double: one goes as if it were none, and nothing is lost."""
    for module in (net.a, net.deep):
        module.weight[7] = module.weight[2]
    net.deep.bias[7] = net.deep.bias[2]
    for vector in (net.norm.weight, net.norm.bias, net.norm.running_mean, net.norm.running_var):
        vector[7] = vector[2]
    (unit, _), of = units_of(net)
    before, seen = net(inputs()), moments(net, [unit], inputs())["a"]
    found = removal(net, unit, seen, torch.ones(5))
    at = min(found.order.tolist().index(one) for one in (2, 7))
    assert found.left(8 - at - 1) < 1e-3 * found.left(1)
    alone(net, Fewer(unit, of["a"], found.kept(8 - at - 1)), seen)
    assert torch.allclose(net(inputs()), before, atol=2e-3)


@pytest.mark.parametrize("how", ["alone", "together"])
def test_refitted_outputs_have_the_mean_they_had(net, how):
    units, of = units_of(net)
    before = copy.deepcopy(net)
    seen = moments(net, units, inputs())
    fewer = [Fewer(unit, of[unit.name], removal(net, unit, seen[unit.name], torch.ones(9)[: unit.matrices[-1].rows])
                   .kept(3)) for unit in units]  # fmt: skip
    if how == "alone":
        alone(net, fewer[1], seen["c"])
    else:
        together(net, fewer, inputs())
    assert torch.allclose(net(inputs()).mean(0), before(inputs()).mean(0), atol=1e-4)
    assert net.norm.training is False and net.norm.momentum == 0.1


def test_together_is_better_than_not_at_all(net):
    units, of = units_of(net)
    seen, before = moments(net, units, inputs()), net(inputs())
    fewer = [
        Fewer(unit, of[unit.name], removal(net, unit, seen[unit.name], torch.ones(unit.matrices[-1].rows)).kept(3))
        for unit in units
    ]
    zeroed = copy.deepcopy(net)
    for one in fewer:
        weight = zeroed.get_submodule(one.group.last).weight.flatten(1)
        gone = torch.ones(weight.shape[1], dtype=torch.bool)
        gone[one.columns] = False
        weight[:, gone] = 0.0
    together(net, fewer, inputs())
    error, without = (float((one(inputs()) - before).square().mean()) for one in (net, zeroed))
    assert error < 0.5 * without


def test_taking_the_zeros_out_changes_nothing(net):
    units, of = units_of(net)
    together(net, [Fewer(unit, of[unit.name], torch.tensor([0, 2, 5])) for unit in units], inputs())
    state = net.state_dict()
    small = {}
    for name, value in state.items():
        for unit in units:
            for m in unit.matrices:
                if name == m.tensor:
                    rows, cols = stays(unit, m, torch.tensor([0, 2, 5]))
                    left = next(x for x in narrowed(unit, Channels(3 / unit.matrices[0].rows))[0].matrices
                                if x.tensor == m.tensor)  # fmt: skip
                    value = value.flatten(1)[rows][:, cols].reshape(left.stored or (left.rows, left.cols))
            if name in unit.vectors:
                value = value[[0, 2, 5]]
        small[name] = value
    narrow = resized(copy.deepcopy(net), {name: tuple(value.shape) for name, value in small.items()})
    narrow.load_state_dict(small)
    assert narrow.a.out_channels == narrow.deep.groups == 3 and narrow.head.in_features == 3
    assert torch.allclose(narrow(inputs()), net(inputs()), atol=1e-5)


def test_columns_of_channels():
    assert columns(torch.tensor([0, 2]), 3).tolist() == [0, 1, 2, 6, 7, 8]
    assert Removal(torch.tensor([3, 1, 0, 2]), torch.zeros(4)).kept(2).tolist() == [0, 2]
