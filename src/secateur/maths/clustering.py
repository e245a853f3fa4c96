"""Groups of points: k-means, and the rounds in which every centre takes the nearest point that nobody has yet.

Vectors are [points, numbers], float32; distances are computed in pieces, so memory grows with the points alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

#: distances in memory at once: 32 MB in float32
_ROOM = 1 << 23


def scaled(x: Tensor, like: Tensor | None = None) -> Tensor:
    """Every column at mean 0 and spread 1, as it is in `like` (in x itself if not said); one that says nothing is 0.

    In the hidden states of a language model a few columns are so large that any two vectors point the same way.
    """
    base = (x if like is None else like).double()
    spread = base.std(0, correction=0)
    least = 1e-9 * max(float(spread.max()) if spread.numel() else 0.0, 1e-300)
    return ((x.double() - base.mean(0)) / torch.where(spread > least, spread, torch.inf)).float()


def directions(x: Tensor) -> Tensor:
    """Every vector at length one; what is zero stays zero."""
    x = x.float()
    return x / x.norm(dim=1, keepdim=True).clamp_min(1e-12)


def nearest(x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Of every point the nearest centre (of equal ones the first), and its squared distance."""
    step = max(1, _ROOM // max(len(centres), 1))
    own = (centres * centres).sum(1)
    found = [torch.min(own - 2 * part @ centres.mT, 1) for part in x.split(step)]
    at, half = (torch.cat([one[i] for one in found]) for i in (1, 0))
    return at, (half + (x * x).sum(1)).clamp_min(0)


def kmeans(x: Tensor, k: int, random: torch.Generator, rounds: int = 50) -> tuple[Tensor, Tensor]:
    """Centres [k, numbers] and the group of every point (Lloyd, from seeds drawn far apart: k-means++).

    Where there are no more than k points, each is its own centre. A group that runs empty begins anew at the point that
    lies furthest from its centre. Drawn on the CPU, so that every device draws alike.

    >>> centres, group = kmeans(torch.tensor([[0.0], [1.0], [10.0]]), 2, torch.Generator().manual_seed(0))
    >>> sorted(centres.flatten().tolist()), group[0] == group[1], group[0] == group[2]
    ([0.5, 10.0], tensor(True), tensor(False))
    """
    x = x.float()
    if len(x) <= k:
        return x.clone(), torch.arange(len(x), device=x.device)
    centres = _far_apart(x, k, random)
    group = torch.full((len(x),), -1, device=x.device)
    for _ in range(rounds):
        now, far = nearest(x, centres)
        if torch.equal(now, group):
            break
        group = now
        counts = torch.bincount(group, minlength=k)
        sums = torch.zeros(k, x.shape[1], dtype=torch.float64, device=x.device).index_add_(0, group, x.double())
        centres = (sums / counts.clamp_min(1)[:, None]).float()
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty):
            centres[empty] = x[far.topk(len(empty)).indices]
    return centres, group


def _far_apart(x: Tensor, k: int, random: torch.Generator) -> Tensor:
    """k of the points, each drawn with a chance that grows with the square of its distance from those before it."""
    chosen = [int(torch.randint(len(x), (1,), generator=random))]
    far = torch.full((len(x),), torch.inf, device=x.device)
    while len(chosen) < k:
        far = torch.minimum(far, nearest(x, x[chosen[-1:]])[1])
        chance = far.double().cpu().cumsum(0)
        draw = torch.rand(1, generator=random, dtype=torch.float64) * chance[-1]
        # where all that is left lies on a centre, any point is as good
        at = int(torch.searchsorted(chance, draw, right=True)) if chance[-1] > 0 else len(chosen)
        chosen.append(min(at, len(x) - 1))
    return x[chosen]


def rounds(alike: Tensor) -> Iterator[tuple[Tensor, float]]:
    """Round after round the points that are taken, and the mean of how alike centre and point were.

    `alike` is [centres, points]. In every round each centre takes the point that is most alike and was not taken in a
    round before (of equal ones the first); two may take the same one. Until all are taken.
    """
    order = alike.argsort(dim=1, descending=True, stable=True).cpu()
    value = alike.cpu()
    k, n = value.shape
    taken, at = torch.zeros(n, dtype=torch.bool), [0] * k
    while not bool(taken.all()):
        picked = []
        for centre in range(k):
            while taken[order[centre, at[centre]]]:
                at[centre] += 1
            picked.append(int(order[centre, at[centre]]))
        mean = float(value[torch.arange(k), picked].double().mean())
        some = torch.tensor(list(dict.fromkeys(picked)))
        taken[some] = True
        yield some, mean
