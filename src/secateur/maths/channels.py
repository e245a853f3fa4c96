"""Which inputs of a matrix can go, one group of columns after the other, while the rest make up for them.

Let y = W x, A the covariance of x, and the columns lie in groups (the kernel of one channel, one neuron). Taking a
group away and refitting the others by least squares leaves the error 1/2 tr(G W_g [(A^-1)_gg]^-1 W_g'), and then both W
and A^-1 have a closed update (Optimal Brain Surgeon, block by block). Greedy: the group with the least error goes, and
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .factor import damped

#: added to A's diagonal, as a share of its mean, and what that mean is at least, where nothing is ever seen
DAMP, LEAST = 1e-3, 1e-30


@dataclass(frozen=True)
class Removal:
    """Groups in the order in which they go, [groups], and the damage when each has gone as well, [groups], growing."""

    order: Tensor
    damage: Tensor

    def kept(self, n: int) -> Tensor:
        """The `n` groups that stay the longest, in the network's order."""
        return self.order[len(self.order) - n :].sort().values

    def left(self, n: int) -> float:
        """The damage with `n` groups left."""
        return float(self.damage[len(self.damage) - n - 1]) if n < len(self.damage) else 0.0


def refitted(w: Tensor, a: Tensor, columns: Tensor, damp: float = DAMP) -> Tensor:
    """The matrix on some of its columns, [rows, columns], that comes nearest to `w` x for inputs x with E[x x'] = A.

    Which outputs count more makes no difference: every row has its own least squares.
    """
    a = damped(a.double(), damp, LEAST)
    cross = w.double() @ a[:, columns]
    return torch.linalg.solve(a[columns][:, columns], cross, left=False).to(w.dtype)


def swift(
    w: Tensor, a: Tensor, g: Tensor | None = None, group: int = 1, share: float = 1 / 64, damp: float = DAMP
) -> Removal:
    """`greedy`, a share of the groups that are left at a time, at least one. What is gone is taken out of the matrices,
    so that thousands of columns take seconds. Inside a step damage is told evenly."""
    w = _rooted(w.double(), g)
    inverse = torch.linalg.inv(damped(a.double(), damp, LEAST))
    alive = torch.arange(w.shape[1] // group, device=w.device)
    order: list[Tensor] = []
    damage: list[Tensor] = []
    total = 0.0
    while len(alive):
        n, step = len(alive), max(1, int(len(alive) * share))
        at = torch.arange(n * group, device=w.device).view(n, group)
        blocks = inverse[at[:, :, None], at[:, None, :]]
        pieces = w.view(len(w), n, group).transpose(0, 1)
        solved = torch.linalg.solve(blocks, pieces, left=False)
        some = (solved * pieces).sum((1, 2)).argsort(stable=True)[:step]
        mine, stay = at[some].flatten(), torch.ones(n * group, dtype=torch.bool, device=w.device)
        stay[mine] = False
        taken = torch.linalg.solve(inverse[mine][:, mine], w[:, mine], left=False)
        lost = max(0.5 * float((taken * w[:, mine]).sum()), 0.0)
        damage.append(total + lost * torch.arange(1, step + 1, dtype=torch.float64) / step)
        order.append(alive[some])
        total += lost
        w = (w - taken @ inverse[mine])[:, stay]
        back = torch.linalg.solve(inverse[mine][:, mine], inverse[mine])
        inverse = (inverse - inverse[:, mine] @ back)[stay][:, stay]
        alive = alive[stay.view(n, group)[:, 0]]
    return Removal(torch.cat(order).cpu(), torch.cat(damage))


@dataclass(frozen=True)
class Mixing:
    """A matrix `w` [rows, cols] that mixes groups of `group` columns, its inputs' covariance `a`, and how its outputs
    count, `g`: [rows, rows], its diagonal, or None for the identity."""

    w: Tensor
    a: Tensor
    g: Tensor | None = None
    group: int = 1


def greedy(w: Tensor, a: Tensor, g: Tensor | None = None, group: int = 1, damp: float = DAMP) -> Removal:
    """The order in which groups of `group` columns of `w` [rows, cols] go. Damage is 1/2 tr(G E A E') of all that has
    gone, refitted; `g` is [rows, rows], its diagonal, or None for the identity. In float64; ties go to the earlier.

    >>> greedy(torch.tensor([[1.0, 3.0, 2.0]]), torch.eye(3), damp=0.0).order.tolist()
    [0, 2, 1]
    """
    return jointly([Mixing(w, a, g, group)], damp)


def jointly(mixers: Sequence[Mixing], damp: float = DAMP) -> Removal:
    """The order in which channels go that several matrices mix, each a group of columns of every one. Damages add up.

    >>> one, two = torch.tensor([[1.0, 3.0]]), torch.tensor([[3.0, 0.0]])
    >>> jointly([Mixing(one, torch.eye(2)), Mixing(two, torch.eye(2))], damp=0.0).order.tolist()
    [1, 0]
    """
    n = mixers[0].w.shape[1] // mixers[0].group
    left = [_Left(one, damp) for one in mixers]
    gone = torch.zeros(n, dtype=torch.bool, device=mixers[0].w.device)
    order, damage, total = [], [], 0.0
    for _ in range(n):
        cost = torch.stack([one.costs(gone) for one in left]).sum(0)
        at = int(cost.argmin())
        total += float(cost[at].clamp_min(0.0))
        for one in left:
            one.take(at)
        gone[at] = True
        order.append(at)
        damage.append(total)
    return Removal(torch.tensor(order), torch.tensor(damage, dtype=torch.float64))


class _Left:
    """What is left of a matrix and of the inverse of its inputs' covariance, while groups of columns go."""

    def __init__(self, mixing: Mixing, damp: float):
        self.w = _rooted(mixing.w.double(), mixing.g)
        self.inverse = torch.linalg.inv(damped(mixing.a.double(), damp, LEAST))
        self.group, cols = mixing.group, mixing.w.shape[1]
        self.at = torch.arange(cols, device=self.w.device).view(-1, self.group)

    def costs(self, gone: Tensor) -> Tensor:
        """What taking each group away loses, [groups]; infinite where it is gone."""
        self.blocks = self.inverse[self.at[:, :, None], self.at[:, None, :]]
        self.blocks[gone] = torch.eye(self.group, dtype=self.w.dtype, device=self.w.device)
        pieces = self.w.view(len(self.w), len(gone), self.group).transpose(0, 1)  # [groups, rows, group]
        self.solved = torch.linalg.solve(self.blocks, pieces, left=False)
        cost = 0.5 * (self.solved * pieces).sum((1, 2))
        cost[gone] = torch.inf
        return cost

    def take(self, one: int) -> None:
        """Take a group away, as `costs` has last seen it."""
        mine = self.at[one]
        self.w = self.w - self.solved[one] @ self.inverse[mine]
        self.w[:, mine] = 0.0
        self.inverse = self.inverse - self.inverse[:, mine] @ torch.linalg.solve(self.blocks[one], self.inverse[mine])


@dataclass
class Moments:
    """Sums over places of inputs x and of what is to be met, y: E[x x'], E[y x'] and both means. Two halves add up."""

    xx: Tensor
    yx: Tensor
    x: Tensor
    y: Tensor
    n: int = 0

    @classmethod
    def empty(cls, rows: int, cols: int, device: torch.device | str = "cpu") -> Moments:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(zeros(cols, cols), zeros(rows, cols), zeros(cols), zeros(rows))

    def update(self, x: Tensor, y: Tensor) -> None:
        """Add places: `x` [places, cols], `y` [places, rows]. Products in float32, sums in float64."""
        x, y = x.float(), y.float()
        self.xx += x.mT @ x
        self.yx += y.mT @ x
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.n += len(x)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.xx + other.xx, self.yx + other.yx, self.x + other.x, self.y + other.y, self.n + other.n)

    def covariance(self) -> Tensor:
        """Of the inputs, [cols, cols]."""
        mean = self.x / self.n
        return self.xx / self.n - mean[:, None] * mean

    def refit(self, columns: Tensor, damp: float = DAMP) -> tuple[Tensor, Tensor]:
        """The matrix on some columns, [rows, len(columns)], and the shift [rows], that come nearest to y."""
        mean, goal = self.x / self.n, self.y / self.n
        cross = self.yx[:, columns] / self.n - goal[:, None] * mean[columns]
        own = damped(self.covariance()[columns][:, columns], damp, LEAST)
        w = torch.linalg.solve(own, cross, left=False)
        return w.float(), (goal - w @ mean[columns]).float()


def _rooted(w: Tensor, g: Tensor | None) -> Tensor:
    """R' W with G = R R', so that squares of the result are squares in the metric of G."""
    if g is None:
        return w
    if g.ndim == 1:
        return g.double().clamp_min(0).sqrt()[:, None] * w
    values, vectors = torch.linalg.eigh(g.double())
    return values.clamp_min(0).sqrt()[:, None] * (vectors.mT @ w)
