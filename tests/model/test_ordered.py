"""Channels and heads in order: by hand, and the same function."""

import pytest
import torch
from torch import nn

from secateur.model import axes
from secateur.model.anatomy import anatomy, load_block, skeleton
from secateur.model.checkpoint import open_checkpoint
from secateur.model.elastic import Axis, Group, Lane, Supernet, parse
from secateur.model.ordered import put_in_order, weight


def test_by_hand():
    """Norms of rows 1, 2, 3 times those of columns 5, 1, 2: 5, 2 and 6."""
    net = nn.Sequential(nn.Linear(1, 3), nn.Linear(3, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [-2.0], [3.0]]))
        net[0].bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
        net[1].weight.copy_(torch.tensor([[5.0, 1.0, -2.0]]))
    group = Group("width", 3, (Lane("0.weight", 0), Lane("0.bias", 0), Lane("1.weight", 1)))
    assert weight(net, group).exp().sqrt().tolist() == pytest.approx([5.0, 2.0, 6.0])
    put_in_order(net, Supernet((Axis("width", (1.0,)),), (group,)))
    assert net[0].weight.flatten().tolist() == [3.0, 1.0, -2.0] and net[1].weight.tolist() == [[-2.0, 5.0, 1.0]]
    assert net[0].bias.tolist() == pytest.approx([0.3, 0.1, 0.2])


@pytest.mark.parametrize("name", ("llama", "gpt2", "phi3", "opt", "gpt_neox"))
def test_the_function_stays(tiny, name):
    checkpoint = open_checkpoint(tiny(name))
    network = skeleton(checkpoint)
    found = anatomy(checkpoint, network)
    load_block(checkpoint, found, "", network)
    net, ids = axes.of_blocks(found, network, parse("width,heads")), torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        before, first = network(ids).logits, {name: value.clone() for name, value in network.state_dict().items()}
        put_in_order(network, net)
        assert any(not torch.equal(value, first[key]) for key, value in network.state_dict().items())
        assert torch.allclose(network(ids).logits, before, atol=1e-5)
    assert all(weight(network, group).diff().le(1e-9).all() for group in net.groups)
