"""Fewer experts: which stay, what they become, and how the router is told.

How much an expert matters is 1/2 tr(G W A W') of its last matrix, the second order of the loss when it falls silent.
The least go first. Where they are merged, each joins the one that stays whose router logits are most like its own
(cosines over tokens, as in M-SMoE, arXiv 2310.01334); its channels are laid beside that one's (`maths/matching`), and
all of them, their router rows too, become a mean weighed by how much they matter. Where M-SMoE counts tokens, this
counts what the loss minds; and it keeps the router's E outputs and a table of aliases, which no runtime reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from secateur.maths.channels import Removal
from secateur.maths.factor import heard, height
from secateur.maths.matching import cosines, matched
from secateur.model.factors import Factors
from secateur.types import Matrix, Unit


@dataclass(frozen=True)
class Experts:
    """All experts of a layer as they are: both units, weights and factors of their matrices, and the router's rows
    [experts, inputs]."""

    makers: Unit
    mixer: Unit
    weights: Mapping[str, Tensor]
    factors: Mapping[str, Factors]
    router: Tensor

    @cached_property
    def matter(self) -> Tensor:
        """How much each expert matters, [experts], in nats per token."""
        found = []
        for m in self.mixer.matrices:
            w, f = self.weights[m.key].double(), self.factors[m.key]
            a, g = f.a.to(w.device).double(), f.g.to(w.device).double()
            found.append(0.5 * (heard(w, g) * (w @ a)).sum())
        return torch.stack(found).clamp_min(0.0)

    @cached_property
    def removal(self) -> Removal:
        """The order in which experts go."""
        matter = self.matter.cpu()
        order = matter.argsort(stable=True)
        return Removal(order, matter[order].cumsum(0))

    def fewer(self, n: int, merge: bool) -> Fewer:
        """The layer with `n` experts: each of them the one that stays, and those that become part of it."""
        stay = self.removal.kept(n).tolist()
        groups = [[expert] for expert in stay]
        if merge:
            rows = self.router.double()
            alike = cosines(rows @ self._inputs @ rows.mT)
            for expert in self.removal.order[: len(rows) - n].tolist():
                groups[int(alike[expert, stay].argmax())].append(expert)
        turns = [[self._turn(group[0], expert) for expert in group] for group in groups]
        return Fewer(self, groups, turns)

    @cached_property
    def _inputs(self) -> Tensor:
        """E[x x'] of what the experts are given, weighed by how much the loss minds."""
        total: Tensor | float = 0.0
        for f in (self.factors[m.key] for m in self.makers.matrices):
            total = total + f.a.double() * height(f.g).double().sum()
        assert isinstance(total, Tensor)
        return total.to(self.router.device)

    def _turn(self, stays: int, expert: int) -> Tensor:
        """Which of an expert's channels stand in the places of those of the one that stays."""
        (mixes,) = by_expert(self.mixer)[expert]
        if expert == stays:
            return torch.arange(mixes.cols)
        sides = []
        for one in (stays, expert):
            made = [w for m in by_expert(self.makers)[one] for w in self.weights[m.key].split(mixes.cols)]
            sides.append([*made, self.weights[by_expert(self.mixer)[one][0].key].mT])
        return matched(*sides)


@dataclass(frozen=True)
class Fewer:
    """Experts that are left, numbered from 0: which old ones each is made of, and how their channels are turned."""

    of: Experts
    groups: Sequence[Sequence[int]]
    turns: Sequence[Sequence[Tensor]]

    @property
    def router(self) -> Tensor:
        """The router's rows, [experts that are left, inputs]."""
        rows = self.of.router
        found = [_shares(self.of.matter[group]) @ rows[group].double() for group in map(list, self.groups)]
        return torch.stack(found).to(rows.dtype)

    def weights(self, unit: Unit) -> dict[str, Tensor]:
        """Matrices of one of the units, by the keys that the first so many experts had."""
        return {new: self._weight(*told) for new, told in self._made(unit).items()}

    def factors(self, unit: Unit) -> dict[str, Factors]:
        """The factors of those matrices: of all tokens that their experts meet."""
        return {new: self._factor(*told) for new, told in self._made(unit).items()}

    def _made(self, unit: Unit) -> dict[str, tuple[list[Matrix], Tensor, Sequence[Tensor], bool]]:
        """By new key: the matrices that it is made of, their shares and turns, and whether it mixes channels."""
        old, mixes = by_expert(unit), unit.side is not None and unit.side.mixes
        return {
            new.key: ([old[one][k] for one in group], _shares(self.of.matter[list(group)]), turns, mixes)
            for at, (group, turns) in enumerate(zip(self.groups, self.turns, strict=True))
            for k, new in enumerate(old[at])
        }

    def _weight(self, some: list[Matrix], share: Tensor, turns: Sequence[Tensor], mixes: bool) -> Tensor:
        held = [self.of.weights[m.key] for m in some]
        if len(held) == 1:
            return held[0].float()
        parts = zip(share, held, turns, strict=True)
        turned = (p * (w[:, turn] if mixes else w[_rows(turn, len(w))]).double() for p, w, turn in parts)
        return torch.stack(list(turned)).sum(0).float()

    def _factor(self, some: list[Matrix], share: Tensor, turns: Sequence[Tensor], mixes: bool) -> Factors:
        held = [self.of.factors[m.key] for m in some]
        if len(held) == 1:
            return held[0]
        a, g = torch.zeros_like(held[0].a).double(), torch.zeros_like(held[0].g).double()
        for f, turn in zip(held, turns, strict=True):
            rows, cols = torch.arange(len(f.g)) if mixes else _rows(turn, len(f.g)), turn
            g += f.g[rows] if f.g.ndim == 1 else f.g[rows][:, rows]
            a += height(f.g).double().sum() * (f.a[cols][:, cols] if mixes else f.a)
        return Factors((a / height(g).sum().clamp_min(torch.finfo(g.dtype).tiny)).float(), g.float())


def first(unit: Unit, n: int) -> Unit:
    """The unit with its first `n` experts: the names, places and shapes of any `n` that are left."""
    return replace(unit, matrices=tuple(m for one in by_expert(unit)[:n] for m in one))


def by_expert(unit: Unit) -> list[list[Matrix]]:
    """The matrices of every expert."""
    found: dict[str, list[Matrix]] = {}
    for matrix in unit.matrices:
        found.setdefault(matrix.tap, []).append(matrix)
    return list(found.values())


def _rows(turn: Tensor, n: int) -> Tensor:
    """Rows of matrices one below the other (gate and up), each turned alike."""
    return torch.cat([turn + start for start in range(0, n, len(turn))])


def _shares(matter: Tensor) -> Tensor:
    """Of a mean, by how much each matters; the same for all where none does."""
    total = matter.sum()
    return matter / total if float(total) > 0 else torch.full_like(matter, 1 / len(matter))
