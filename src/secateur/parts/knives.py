"""Cuts that are tried on a loaded block and taken back: fewer channels, heads or experts, or a part left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from secateur.maths.channels import Removal, refitted
from secateur.model.factors import Factors
from secateur.model.matrix import place, put, view
from secateur.model.resize import fewer_experts
from secateur.parts.experts import Experts, first
from secateur.parts.left import columns, count, removal
from secateur.types import Unit


class Knife(Protocol):
    """One part of a loaded block."""

    @property
    def removal(self) -> Removal | None:
        """The order in which its channels, heads or experts go; None where it can only go whole."""
        ...

    def cut(self, left: int, merged: bool) -> AbstractContextManager[None]:
        """Inside, so many are left, or nothing (0)."""
        ...


@dataclass(frozen=True)
class OfChannels:
    """An attention or an MLP: what mixes its channels is refitted to those that are left."""

    network: Any
    unit: Unit
    w: Tensor
    factors: Factors
    removal: Removal | None

    @classmethod
    def of(cls, network: Any, unit: Unit, factors: Mapping[str, Factors], known: Removal | None) -> OfChannels:
        """`known` is the order in which they go, where somebody has found it."""
        (m,) = unit.matrices
        w = view(network, m).clone()
        known = removal(unit, w, factors[m.key]) if known is None and count(unit) else known
        return cls(network, unit, w, factors[m.key], known)

    @contextmanager
    def cut(self, left: int, merged: bool = False) -> Iterator[None]:
        (m,) = self.unit.matrices
        values = self.w.new_zeros(self.w.shape)
        if left and self.removal is not None:
            some = columns(self.removal.kept(left), sum(self.unit.side.per[0])).to(self.w.device)  # type: ignore[union-attr]
            values[:, some] = refitted(self.w, self.factors.a.to(self.w.device), some)
        bias = getattr(self.network.get_submodule(place(m).module), "bias", None) if not left else None
        before = None if bias is None else bias.detach().clone()
        put(self.network, m, values)
        if bias is not None:
            bias.detach().zero_()
        try:
            yield
        finally:
            put(self.network, m, self.w)
            if bias is not None and before is not None:
                bias.detach().copy_(before)


@dataclass(frozen=True)
class OfExperts:
    """A layer of experts: some are left out, or merged."""

    network: Any
    experts: Experts

    @classmethod
    def of(cls, network: Any, makers: Unit, mixer: Unit, factors: Mapping[str, Factors]) -> OfExperts:
        weights = {m.key: view(network, m) for unit in (makers, mixer) for m in unit.matrices}
        router = network.get_submodule(makers.side.router).weight.detach()  # type: ignore[union-attr]
        return cls(network, Experts(makers, mixer, weights, factors, router))

    @property
    def removal(self) -> Removal:
        return self.experts.removal

    @contextmanager
    def cut(self, left: int, merged: bool) -> Iterator[None]:
        fewer, side = self.experts.fewer(left, merged), self.experts.makers.side
        assert side is not None
        with fewer_experts(self.network, side.part, side.router, left):
            self.network.get_submodule(side.router).weight.copy_(fewer.router)
            for unit in (self.experts.makers, self.experts.mixer):
                values = fewer.weights(unit)
                for m in first(unit, left).matrices:
                    put(self.network, m, values[m.key])
            yield


@dataclass(frozen=True)
class OfBlock:
    """A whole block, which goes or stays."""

    stream: Any
    index: int
    removal: Removal | None = None

    def cut(self, left: int, merged: bool) -> AbstractContextManager[None]:
        return self.stream.without(self.index)
