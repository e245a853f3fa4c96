"""One training of many networks, each the first channels, heads and blocks of the next.

Paper: Valipour et al., SortedNet, a Place for Every Network and Every Network in its Place: Towards a Generalized
    Solution for Training Many-in-One Neural Networks (arXiv 2309.00255, 2023)
Wing: elastic
Shape: train
Applies to: language models with MLPs and attentions, image models with channels that only one layer makes and mixes
Use: secateur train MODEL --data text.txt --elastic width,depth --method sortednet --steps 300 -o out

What can be of several sizes is ordered once, and a sub-network keeps the first so many of each: so each lies inside the
next. A step draws a few of them, each learns from a batch of its own with the loss on the true labels, their gradients
add up in the weights that they share, and one step of the optimiser is taken. There is no teacher, no search and no
order to be found. Afterwards any slice can be taken out: the largest within a budget is the network for it.

Where we differ: gradients are averaged over the passes of a step, not added, so that the rate does not hang on their
number. Normalisations have statistics of their own for every slice, renewed when it is taken. The command puts channels
and heads of a network that has learned in order first (`model/ordered.py`), which does not change what it says.
`policy` may be other than the paper's uniform one: `sandwich`, `fair`, or `whole`, which is an ordinary training.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import nn

from secateur.model.elastic import Supernet, sliced
from secateur.model.fit import Moment, Plugs
from secateur.parts.slices import policy


@dataclass(frozen=True)
class Sortednet:
    """Every pass of a step trains a slice that `policy` draws (`parts/slices.py`)."""

    policy: str = "uniform"

    def __call__(self, network: nn.Module, net: Supernet) -> Plugs:
        """The plugs for a network and what of it is elastic."""
        draw = policy(self.policy)

        def dress(now: Moment) -> AbstractContextManager[None]:
            chosen = draw(net.axes, now.parts, now.random("slices"))
            return sliced(network, net, chosen[now.part])

        return Plugs(dress=dress)


sortednet = Sortednet()
