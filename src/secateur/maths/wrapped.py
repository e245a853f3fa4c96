"""A 2:4 core between two block-diagonal matrices: searched by turns of gradient steps and of exact steps on the mask.

W is nearly A (S * M) B with a mask M that keeps two of every four along a row. `Wrapping` is the search (arXiv
2510.05528; `methods/factorize/armor` tells it), `regrouped` its exact step, `FittedWrapped` what a file holds of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from .grids import Coded
from .patterns import Pattern
from .settle import Metric, Settled

TWO_OF_FOUR = Pattern(0, 2, 4)
#: the six ways to keep two of four
PAIRS = tuple(combinations(range(4), 2))


@dataclass(frozen=True)
class Wrapped:
    """`left` [rows / b, b, b] and `right` [cols / b, b, b] are blocks of A and B, `core` [rows, cols] is 2:4."""

    left: Tensor
    core: Tensor
    right: Tensor

    @property
    def values(self) -> Tensor:
        """The matrix, [rows, cols]."""
        return product(self.left, self.core, self.right)

    @property
    def numbers(self) -> int:
        """How many numbers are kept: half of the core, and the wrappers."""
        return self.core.numel() // 2 + self.left.numel() + self.right.numel()


def product(left: Tensor, core: Tensor, right: Tensor) -> Tensor:
    """A core B with block-diagonal A and B."""
    blocks = _blocks(core, left.shape[1])
    return torch.einsum("pij,pqjk,qkl->piql", left, blocks, right).reshape(core.shape)


def _blocks(x: Tensor, b: int) -> Tensor:
    """[rows, cols] as [rows / b, cols / b, b, b]."""
    return x.unflatten(0, (-1, b)).unflatten(2, (-1, b)).permute(0, 2, 1, 3)


def loss(wrapped: Wrapped, w: Tensor, h: Tensor) -> float:
    """The weighted error, as a share of the weighted size."""
    return float(((wrapped.values - w).square() @ h).sum() / (w.square() @ h).sum().clamp_min(1e-30))


@torch.no_grad()
def regrouped(now: Wrapped, w: Tensor, h: Tensor, row: Tensor, group: Tensor) -> Wrapped:
    """One group of four in every block gets its best mask and values: `row` and `group` [rows / b, cols / b] say which.

    Blocks do not touch each other, so all are solved at once; the error never rises.
    """
    b = now.left.shape[1]
    p, q = (torch.arange(n, device=w.device) for n in row.shape)
    p, q = p[:, None].expand_as(row), q[None].expand_as(row)
    core, at = _blocks(now.core, b).clone(), 4 * group[..., None] + torch.arange(4, device=w.device)
    here = (p[..., None], q[..., None], row[..., None], at)
    core[here] = 0
    root = h.sqrt().view(-1, 1, b)
    missing = _blocks(w, b) - torch.einsum("pij,pqjk,qkl->pqil", now.left, core, now.right)
    a = now.left[p, :, row]  # the column of A that the group's row goes through
    rows = (now.right * root)[q[..., None], at]  # the four rows of B, [.., 4, b]
    t = torch.einsum("pqkl,pqil,pqi->pqk", rows, missing * root, a)
    gram, size = rows @ rows.mT, a.square().sum(-1).clamp_min(1e-30)
    best = torch.full_like(size, -torch.inf)
    values = torch.zeros_like(t)
    for pair in PAIRS:
        two = list(pair)
        small = gram[..., two, :][..., two]
        ridge = 1e-9 * small.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-30)[..., None, None]
        x = torch.linalg.solve(small + ridge * torch.eye(2, dtype=w.dtype, device=w.device), t[..., two])
        gain = (t[..., two] * x).sum(-1) / size
        new = torch.zeros_like(t)
        new[..., two] = x / size[..., None]
        values = torch.where((gain > best)[..., None], new, values)
        best = torch.maximum(best, gain)
    core[here] = values
    return Wrapped(now.left, core.permute(0, 2, 1, 3).reshape(w.shape), now.right)


@dataclass(frozen=True)
class Wrapping:
    """`block` is the wrappers' b, `steps` and `rate` are Adam's."""

    block: int = 128
    steps: int = 5000
    rate: float = 1e-4

    def __call__(self, w: Tensor, h: Tensor, random: torch.Generator) -> Wrapped:
        """`w` [rows, cols], both divisible by the block; `h` [cols] = E[x_j^2]."""
        w, kind = w.float(), w.dtype
        columns = w.norm(dim=0).clamp_min(1e-12)
        rows = (w / columns).norm(dim=1).clamp_min(1e-12)
        plain, h = w / columns / rows[:, None], h.float()
        best = self._found(plain, h, random)
        left = best.left * rows.view(-1, self.block, 1)
        right = best.right * columns.view(-1, 1, self.block)
        return Wrapped(left.to(kind), best.core.to(kind), right.to(kind))

    def _found(self, w: Tensor, h: Tensor, random: torch.Generator) -> Wrapped:
        eye = torch.eye(self.block, device=w.device)
        left, right = (eye.repeat(n // self.block, 1, 1).requires_grad_() for n in w.shape)
        mask = TWO_OF_FOUR.mask(w.square() * h)
        core = (w * mask).requires_grad_()
        best = Wrapped(left.detach().clone(), core.detach().clone(), right.detach().clone())
        least, size = loss(best, w, h), (w.square() @ h).sum().clamp_min(1e-30)
        adam = torch.optim.Adam([left, core, right], self.rate)
        for _ in range(self.steps):
            masked = core * mask
            masked.retain_grad()
            adam.zero_grad()
            ((product(left, masked, right) - w).square() @ h).sum().div(size).backward()
            assert masked.grad is not None
            steep = masked.grad.abs()
            adam.step()
            now = Wrapped(left.detach(), core.detach() * mask, right.detach())
            now = regrouped(now, w, h, *self._drawn(steep, random))
            with torch.no_grad():
                core.copy_(now.core)
            mask = TWO_OF_FOUR.mask(now.core.abs())
            if (reached := loss(now, w, h)) < least:
                least = reached
                best = Wrapped(now.left.clone(), now.core.clone(), now.right.clone())
        return best

    def _drawn(self, steep: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """A row and a group of four in every block, by the size of the gradient there."""
        chances = _blocks(steep, self.block).unflatten(3, (-1, 4)).sum(-1).flatten(2)
        drawn = torch.multinomial(chances.flatten(0, 1).cpu() + 1e-30, 1, generator=random).view(chances.shape[:2])
        groups = self.block // 4
        drawn = drawn.to(steep.device)
        return drawn // groups, drawn % groups


#: steps and rate of the search that a plan is carried out with, and of the one that only asks for the damage
FULL, QUICK, RATE = 100, 30, 1e-2
#: what a full search leaves of the damage of plain 2:4 is what a quick one leaves to this power (1.2 to 1.4 on seven
#: matrices of `lm-small`), times the size of the blocks to that (0.6 to 1.1 between blocks of 32 and of 64)
LONGER, LARGER = 1.3, 0.85


@dataclass(frozen=True)
class WrappedForm:
    """Wrappers with blocks of `block` and a 2:4 core, all kept as `dtype`."""

    block: int
    dtype: torch.dtype = torch.float16

    def settle(self, w: Tensor, a: Tensor, g: Tensor | None, sides: int = 2) -> Settled:
        """The search looks at A's diagonal alone, whatever `sides`; the damage is counted in the whole metric."""
        found = self._found(w, a, FULL)
        held = FittedWrapped(*(x.to(self.dtype) for x in (found.left, found.core, found.right)))
        return Settled(held.values, held, _damage(w - held.values, a, g))

    def losses(self, w: Tensor, a: Tensor, g: Tensor | None, forms: Sequence[WrappedForm]) -> list[float]:
        """A short search for the smallest blocks; larger ones leave less of what plain 2:4 damages."""
        least = min(forms, key=lambda form: form.block)
        plain, found = (_damage(w - least._found(w, a, steps).values, a, g) for steps in (0, QUICK))
        left = min(found / plain, 1.0) if plain > 0 else 1.0
        return [plain * left ** (LONGER * (form.block / least.block) ** LARGER) for form in forms]

    def _found(self, w: Tensor, a: Tensor, steps: int) -> Wrapped:
        random = torch.Generator().manual_seed(0)
        return Wrapping(self.block, steps, RATE)(w.float(), a.diagonal().float().clamp_min(1e-12), random)


@dataclass(frozen=True)
class FittedWrapped:
    """What a file holds: both wrappers, and the core, each as the file's numbers."""

    left: Tensor
    core: Tensor
    right: Tensor

    @property
    def values(self) -> Tensor:
        return product(self.left.float(), self.core.float(), self.right.float())

    def code(self, values: Tensor) -> Coded:
        """The payload; `values` are those of `settle`. A core that holds a zero keeps it in its place."""
        mask = TWO_OF_FOUR.mask(self.core.float().abs())
        kept = {"left": self.left, "right": self.right, "values": self.core[mask], "mask": TWO_OF_FOUR.codes(mask)}
        return Coded(values, kept)


def _damage(error: Tensor, a: Tensor, g: Tensor | None) -> float:
    return float(Metric.of(a, g).damage(error))
