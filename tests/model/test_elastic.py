"""Supernets: prefixes by hand, a slice that leaves no trace, gradients that stay inside it, and masks that agree."""

import pytest
import torch
from torch import nn

from secateur.model import axes
from secateur.model.anatomy import anatomy, load_block, skeleton
from secateur.model.checkpoint import open_checkpoint
from secateur.model.elastic import (
    Axis,
    Group,
    Lane,
    Slice,
    Stack,
    Supernet,
    counts,
    full,
    least,
    parse,
    shapes,
    sliced,
    state,
)
from secateur.model.norms import renew, renewed
from secateur.model.watch import glance
from secateur.types import ModelError

ALL = parse("width,heads,depth")
FAMILIES = ("llama", "qwen3", "gemma2", "phi3", "gpt2", "gpt_neox", "opt")


@pytest.fixture(scope="module")
def family(tiny):
    """`family("llama")` -> a tiny network and its supernet."""
    made = {}

    def get(name):
        if name not in made:
            checkpoint = open_checkpoint(tiny(name))
            network = skeleton(checkpoint)
            found = anatomy(checkpoint, network)
            load_block(checkpoint, found, "", network)
            made[name] = network.eval(), axes.of_blocks(found, network, ALL)
        return made[name]

    return get


class Net(nn.Module):
    """Two stages of residual blocks whose inner channels only they know."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.stage = nn.Sequential(Block(), Block(), Block())
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.stage(torch.relu(self.conv(x))).mean((2, 3)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.deep = nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 1, 1, 1, 8)
        self.b = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return torch.relu(x + self.b(torch.relu(self.deep(torch.relu(self.norm(self.a(x)))))))


@pytest.fixture
def pictures():
    torch.manual_seed(0)
    net = Net().eval()
    example = torch.randn(2, 3, 6, 6)
    return net, axes.of_pictures(net, parse("width,depth:3"), example), example


def before(network):
    held = {name: value.clone() for name, value in network.state_dict().items()}
    return held, [(name, str(module)) for name, module in network.named_modules()]


def untouched(network, held) -> bool:
    same = all(torch.equal(held[0][name], value) for name, value in network.state_dict().items())
    return same and held[1] == [(name, str(module)) for name, module in network.named_modules()]


def test_prefixes_by_hand():
    net = nn.Sequential(nn.Linear(1, 4, bias=False), nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
        net[1].weight.copy_(torch.tensor([[1.0, 10.0, 100.0, 1000.0]]))
    lanes = Lane("0.weight", 0), Lane("1.weight", 1)
    sup = Supernet((Axis("width", (0.25, 0.5, 1.0)),), (Group("width", 4, lanes),))
    outs = []
    for one in sup.grid():
        with sliced(net, sup, one):
            outs.append(net(torch.ones(1, 1)).item())
    assert outs == [1.0, 21.0, 4321.0]


def test_sections_lie_one_below_the_other():
    """q, k and v in one matrix: of two heads with 2, 1 and 1 rows, the first is rows 0, 1, 4 and 6."""
    net = nn.Linear(1, 8, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.arange(8.0)[:, None])
    sup = Supernet((Axis("heads", (0.5, 1.0)),), (Group("heads", 2, (Lane("weight", 0, (2, 1, 1)),)),))
    assert state(net, sup, least(sup.axes))["weight"].flatten().tolist() == [0.0, 1.0, 4.0, 6.0]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_slice_is_smaller_runs_and_leaves_no_trace(family, name):
    network, net = family(name)
    ids = torch.arange(12).reshape(2, 6)
    held, logits = before(network), network(ids).logits
    for one in (net.grid()[0], net.grid()[len(net.grid()) // 2]):
        with sliced(network, net, one):
            assert network(ids).logits.shape == logits.shape
            small = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        assert small == shapes(network, net, one)
        assert sum(map(len, small.values())) and len(small) <= len(held[0])
    assert untouched(network, held) and torch.equal(network(ids).logits, logits)


def test_a_slice_leaves_no_trace_where_it_breaks(family):
    network, net = family("llama")
    held = before(network)
    with pytest.raises(RuntimeError, match="now"), sliced(network, net, least(net.axes)):
        raise RuntimeError("now")
    assert untouched(network, held)


@pytest.mark.parametrize("name", FAMILIES)
def test_slices_lie_inside_one_another(family, name):
    network, net = family(name)
    small, large = (state(network, net, one) for one in (net.grid()[0], full(net.axes)))
    sizes = shapes(network, net, net.grid()[0])
    assert set(small) <= set(large)
    for key, value in small.items():
        assert tuple(value.shape) == sizes[key]
        if "c_attn" not in key and "qkv" not in key and "gate_up" not in key:  # sections: test above
            assert torch.equal(value, large[key][tuple(slice(n) for n in value.shape)])


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_stay_inside_the_slice(family, name):
    network, net = family(name)
    one = Slice((("width", 0.5), ("heads", 0.5), ("depth", 0.5)))
    with sliced(network, net, one):
        network(torch.arange(12).reshape(2, 6)).logits.square().mean().backward()
    whole = dict(network.named_parameters())
    outside = 0
    for group in net.groups:
        for lane in group.lanes:
            grad = whole[lane.tensor].grad
            grad = torch.zeros(1) if grad is None else grad.movedim(lane.dim, 0)
            if len(lane.per) == 1 and len(grad) > 1:
                rest = grad[(group.n + 1) // 2 * lane.per[0] :]
                outside += rest.numel()
                assert not rest.any() and grad.any(), lane
    assert outside
    last = f"{net.stacks[0].path}.{net.stacks[0].n - 1}."
    assert all(p.grad is None for key, p in whole.items() if key.startswith(last))
    network.zero_grad()


@pytest.mark.parametrize("name", ("llama", "gpt2", "phi3"))
def test_it_is_the_masked_network(family, name):
    """Channels behind the activation, and heads behind the attention, are set to zero; blocks add nothing."""
    network, net = family(name)
    one, ids = Slice((("width", 0.5), ("heads", 0.5), ("depth", 1.0))), torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        with sliced(network, net, one):
            ours = network(ids).logits
        held = {key: value.clone() for key, value in network.state_dict().items()}
        for group in net.groups:
            mixer = group.lanes[-1]  # what mixes: its columns of what is gone give nothing
            columns = network.get_parameter(mixer.tensor).movedim(mixer.dim, 0)
            columns[(group.n + 1) // 2 * mixer.per[0] :] = 0.0
        masked = network(ids).logits
        network.load_state_dict(held)
    assert torch.allclose(ours, masked, atol=1e-6 * float(masked.abs().max()), rtol=0.0)


def test_masked_bit_for_bit_where_sums_are_exact(pictures):
    """Small whole numbers add up to the same bits in any order."""
    net, sup, _ = pictures
    with torch.no_grad():
        for value in net.state_dict().values():
            value.copy_(torch.randint(-2, 3, value.shape)) if value.is_floating_point() else None
        for block in net.stage:
            block.norm.running_var.fill_(1.0)
            block.norm.eps = 0.0
        x = torch.randint(-2, 3, (2, 3, 6, 6)).float()
        one = Slice((("width", 0.5), ("depth", 1.0)))
        with sliced(net, sup, one):
            ours = net(x)
        for block in net.stage:
            block.b.weight[:, 4:] = 0.0
        assert torch.equal(ours, net(x)) and ours.any()


def test_pictures_lose_channels_and_blocks(pictures):
    net, sup, x = pictures
    assert {group.n for group in sup.groups} == {8} and sup.stacks == (Stack("stage", 3),)
    held, out = before(net), net(x)
    with sliced(net, sup, least(sup.axes)):
        assert len(net.stage) == 1 and net.stage[0].deep.groups == 2 and net.stage[0].norm.num_features == 2
        assert net(x).shape == out.shape
    assert untouched(net, held) and torch.equal(net(x), out)
    assert counts(sup, least(sup.axes)) == {"width": "2 of 8", "depth": "1 of 3"}


def test_statistics_are_renewed_and_put_back(pictures):
    net, sup, _ = pictures
    data = [torch.randn(16, 3, 6, 6) * 3 + 1 for _ in range(3)]
    held, one = before(net), least(sup.axes)
    with sliced(net, sup, one), renewed(net, data):
        norm, seen = net.stage[0].norm, []
        glance(net, torch.cat(data), (nn.BatchNorm2d,), lambda _, __, x, ___: seen.append(x))
        assert torch.allclose(norm.running_mean, seen[0].mean((0, 2, 3)), atol=1e-5)
        assert torch.allclose(norm.running_var, seen[0].var((0, 2, 3)), rtol=0.05)
    assert untouched(net, held)
    renew(net, data)
    assert not torch.equal(held[0]["stage.0.norm.running_mean"], net.stage[0].norm.running_mean)
    assert net.stage[0].norm.momentum == 0.1 and not net.stage[0].norm.training


def test_what_cannot_be_sliced_is_said(family, pictures):
    _, net = family("llama")
    with pytest.raises(ModelError, match="no heads that can be sliced"):
        axes.of_pictures(pictures[0], parse("width,heads"), pictures[2])
    for text in ("with", "width:1", "width:x"):
        with pytest.raises(ModelError, match="cannot read the axis"):
            parse(text)
    assert str(net.grid()[-1]) == "width 1, heads 1, depth 1"
