"""Narrower trunks: which channels stay and where, units with fewer, and that taking zeros out changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch

from secateur.maths.channels import Mixing, Removal, greedy, jointly
from secateur.model.builtin import filled, find
from secateur.model.resize import resized
from secateur.model.trunk import Trunk, trunks
from secateur.parts.edits import parse, text
from secateur.parts.edits.trunks import ROW, Trunks, left_of
from secateur.parts.narrow import Thinner, met, thinning, together
from secateur.parts.trunk import chosen, fits, length, thinned, vector
from secateur.types import Matrix, PlanError, Unit

A, B = Trunk("a", 4, ("a", "b"), ("norm",), ("c",)), Trunk("c", 8, ("c",), (), ("d",), "a")


def removal(*order):
    return Removal(torch.tensor(order), torch.arange(1.0, len(order) + 1))


def test_where_a_shortcut_brings_channels_they_stay_in_the_middle():
    order = {"a": removal(1, 0, 2, 3), "c": removal(4, 0, 1, 2, 3, 5, 6, 7)}
    kept = chosen((A, B), order, {"a": 2, "c": 5})
    assert kept["a"].tolist() == [2, 3]
    # channels 4 and 5 of the wider trunk take 2 and 3: they stay, though 4 would have been the first to go
    assert kept["c"].tolist() == [3, 4, 5, 6, 7]
    # a channel that has lost its shortcut lies beside the others, also where none goes: 3 was the twin of 1
    assert chosen((A, B), order, {"a": 3})["c"].tolist() == [0, 1, 2, 4, 5, 3, 6, 7]
    assert fits((A, B), {"a": 4, "c": 3}) == {"a": 4, "c": 4}


def test_units_and_vectors_with_fewer():
    unit = Unit("c", "conv", (Matrix("c.weight", 8, 36, "c", stored=(8, 4, 3, 3)),), 0)
    (left,) = thinned(unit, (A, B), {"a": 2, "c": 5}).matrices
    assert (left.rows, left.cols, left.stored) == (5, 18, (5, 2, 3, 3))
    assert thinned(unit, (A, B), {}) is unit
    assert length("norm.bias", 4, (A, B), {"a": 2}) == 2 and length("d.bias", 3, (A, B), {"a": 2}) == 3
    kept = {"a": torch.tensor([3, 1])}
    assert vector("b.bias", torch.arange(4), (A, B), kept).tolist() == [3, 1]
    assert vector("d.bias", torch.arange(3), (A, B), kept).tolist() == [0, 1, 2]


def test_the_edit_says_all_widths():
    edit = parse("trunks('12 28 64')")
    assert edit == Trunks("12 28 64") and text(edit) == "trunks('12 28 64')"
    assert left_of((A, B), {ROW: Trunks("2 5")}) == {"a": 2, "c": 5} and left_of((A, B), {}) == {}
    with pytest.raises(PlanError, match="speaks of 1 trunks, and this network has 2"):
        left_of((A, B), {ROW: Trunks("2")})
    for wrong in ("", "12 x", "0 3"):
        with pytest.raises(PlanError, match="says no widths"):
            Trunks(wrong)


def test_several_matrices_decide_together():
    draw = torch.Generator().manual_seed(0)
    w, x = torch.randn(3, 4, generator=draw), torch.randn(99, 4, generator=draw)
    a = (x.mT @ x / 99).double()
    one, both = greedy(w, a), jointly([Mixing(w, a), Mixing(2 * w, a)])
    assert both.order.tolist() == one.order.tolist()
    assert both.damage.tolist() == pytest.approx([5 * d for d in one.damage.tolist()], rel=1e-9)


@pytest.fixture(scope="module")
def small():
    """A residual network of one block a stage, random weights."""
    draw = torch.Generator().manual_seed(0)
    tensors = {}
    for conv, norm, rows, cols in (
        ("conv1", "bn1", 6, 3),
        *((f"layer{s}.0.conv{i}", f"layer{s}.0.bn{i}", w, w if i == 2 else v)
          for s, v, w in ((1, 6, 6), (2, 6, 10), (3, 10, 16)) for i in (1, 2)),
    ):  # fmt: skip
        tensors[f"{conv}.weight"] = torch.randn(rows, cols, 3, 3, generator=draw) / (9 * cols) ** 0.5
        for part, around in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            tensors[f"{norm}.{part}"] = torch.randn(rows, generator=draw) * 0.2 + around
    tensors |= {"linear.weight": torch.randn(5, 16, generator=draw), "linear.bias": torch.zeros(5)}
    network = find("resnet").build({name: tuple(value.shape) for name, value in tensors.items()})
    return filled(network, tensors, "small").requires_grad_(False)


def narrowed(network, widths, x):
    """The network with narrower trunks in its old shapes, and in its new ones."""
    along, _ = trunks(network)
    takers = [path for trunk in along for path in trunk.takers]
    seen = met(network, takers, x)
    ones = {path: torch.ones(len(network.get_submodule(path).weight)) for path in takers}
    kept = chosen(along, {t.name: thinning(network, t, seen, ones) for t in along}, widths)
    cut = copy.deepcopy(network)
    together(cut, [], x, (), [Thinner(t, kept[t.name]) for t in along])
    state = {}
    for name, value in cut.state_dict().items():
        path, rows = name.rpartition(".")[0], slice(None)
        for trunk in along:
            if path in trunk.along:
                value = value[kept[trunk.name]]
            if path in trunk.takers and value.dim() > 1:
                value = value[:, kept[trunk.name]]
        state[name] = value[rows]
    small = resized(copy.deepcopy(network), {name: tuple(value.shape) for name, value in state.items()})
    return cut, filled(small, state, "less")


def test_taking_the_zeros_out_changes_nothing(small):
    x = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    cut, less = narrowed(small, {"conv1": 4, "layer2.0.conv2": 7, "layer3.0.conv2": 11}, x)
    assert less.conv1.out_channels == 4 and less.linear.in_features == 11
    assert torch.allclose(less(x), cut(x), atol=1e-4)
    assert not torch.allclose(less(x), small(x), atol=1e-2)


def test_all_that_is_left_is_the_network_that_it_was(small):
    x = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    cut, less = narrowed(small, {}, x)
    assert torch.allclose(cut(x), small(x), atol=1e-4) and torch.allclose(less(x), small(x), atol=1e-4)


def test_what_mixes_makes_up_for_a_double(small):
    """A channel of the last trunk and its double, both beside the shortcut: without one of them nothing is lost."""
    net = copy.deepcopy(small)
    for module in (net.layer3[0].conv2, net.layer3[0].bn2):
        for value in module.state_dict().values():
            if value.dim():
                value[15] = value[0]
    x = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    cut, _ = narrowed(net, {"layer3.0.conv2": 15}, x)
    assert float((cut(x) - net(x)).square().mean()) < 1e-3 * float(net(x).square().mean())
