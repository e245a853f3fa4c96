"""Two networks abreast: what either sees and gives, and that a change reaches everything behind it."""

from __future__ import annotations

import copy

import torch
import torch.fx as fx
import torch.nn.functional as F
from torch import nn

from secateur.model.abreast import FEWEST, abreast, enough


class Net(nn.Module):
    """A branch that is added, a function, a method, a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1), nn.Linear(2, 3)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        x = F.relu(self.a(x)) * self.scale
        x = x + self.b(x)
        return self.c(x.mean((2, 3)))


def test_every_layer_is_met_with_what_it_sees_and_gave():
    torch.manual_seed(0)
    before, x = Net().eval(), torch.randn(150, 1, 5, 5)
    network, met = copy.deepcopy(before), {}

    def change(path, module, xs, ys, differs):
        met[path] = torch.cat(list(xs)), torch.cat(list(ys)), differs
        if path != "b":
            return ()
        module.weight.mul_(3.0)
        return (path,)

    abreast(fx.symbolic_trace(before).graph, before, network, x, change)
    assert [differs for _, _, differs in met.values()] == [False, False, True]
    seen = F.relu(before.a(x)) * 2
    assert torch.allclose(met["b"][0], seen) and torch.allclose(met["b"][1], before.b(seen))
    assert torch.allclose(met["c"][1], before(x)) and not torch.allclose(
        met["c"][0], (seen + before.b(seen)).mean((2, 3))
    )
    assert torch.allclose(network.c(met["c"][0]), network(x), atol=1e-5)


def test_as_many_as_there_is_room_for():
    net = Net()
    assert enough(net, torch.zeros(100, 1, 5, 5)) == 100
    assert enough(nn.Conv2d(1, 4096, 1), torch.zeros(FEWEST + 8, 1, 64, 64)) == FEWEST
