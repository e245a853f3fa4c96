"""A model, a text and a format, opened together: what surveying and applying both start from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch

from secateur.export import Format
from secateur.export._widths import unreadable
from secateur.export._write import Layout
from secateur.model.checkpoint import Checkpoint
from secateur.model.held import Held
from secateur.model.latent import KEYS, VALUES, caches
from secateur.model.matrix import place
from secateur.model.trunk import Trunk
from secateur.model.whole import Whole
from secateur.parts import edits as edits_
from secateur.parts.edits.channels import Channels
from secateur.parts.edits.drop import Drop
from secateur.parts.edits.each import Each
from secateur.parts.edits.experts import Experts
from secateur.parts.edits.half import Half
from secateur.parts.edits.heads import Heads
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.rank import Rank
from secateur.parts.left import Shaping, count, is_bias, narrowed
from secateur.parts.trunk import length, thinned
from secateur.types import Edit, Matrix, ModelError, Unit

#: windows of tokens, or examples with labels
Samples = Any
#: `tell(stage, done, total)`: how far things are
Tell = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Case:
    """Everything about one job that does not depend on the budget. Token windows are `windows x length`."""

    checkpoint: Checkpoint | Held
    stream: Any  # a `Stream`, or a `Whole` where the network is small; samples are what it walks over
    format: Format
    dtype: str  # of most of the model's weights, as a config names it
    calib: Samples  # to gather statistics on
    check: Samples  # to correct the prediction on; empty where there is little text
    held: Samples  # to report on
    device: torch.device
    kinds: tuple[str, ...] = (edits_.BITS,)  # of edits, that menus are to offer
    apart: bool = False  # every unit is a row of the menu, also where two can lose their shape together
    clock: Any = None  # a `Latency`, where seconds are to be priced
    widths: Mapping[str, int] = field(default_factory=dict)  # channels left of an image model's trunks

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """What the format can write at all; tensor by tensor, where its runtime reads each on its own."""
        units = (unit for unit in self.stream.anatomy.units if self.format.refuses(unit, Keep()) is None)
        split = getattr(self.format, "tensors_apart", False)
        return tuple(one for unit in units for one in (by_layer(unit) if split else (unit,)))

    @cached_property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """What could have been weights to cut, and why it goes into the file as it is."""
        units = ((unit, self.format.refuses(unit, Keep())) for unit in self.stream.anatomy.units)
        return (*((unit.name, why) for unit, why in units if why), *self.stream.anatomy.skipped)

    @cached_property
    def rest(self) -> tuple[str, ...]:
        """Stored tensors that go into the file as they are: in no unit, in use, and no copies of others."""
        unwanted = ("a copy of", "this architecture")
        dropped = {name for name, why in self.stream.anatomy.skipped if why.startswith(unwanted)}
        cut = {matrix.tensor for unit in self.units for matrix in unit.matrices}
        cut |= {name for unit in self.units for name in (*unit.vectors, *also(unit))}
        return tuple(sorted(set(self.checkpoint.tensors) - cut - dropped))

    @cached_property
    def rows(self) -> Mapping[str, tuple[Unit, ...]]:
        """The units of every row of the menu, by its name: one, all those to which the format gives one edit, or both
        sides of what can lose its shape (but where a format holds one shape for all)."""
        groups = self.format.alike(self.units)
        group_of = {name: group for group in groups for name in group}
        found: dict[tuple[str, ...], list[Unit]] = {}
        for unit in self.units:
            key = group_of.get(unit.name, (unit.name,))
            if unit.side is not None and not self.apart and not self.one_shape:
                key = (unit.side.part,)
            found.setdefault(key, []).append(unit)
        return {joined(units).name: tuple(units) for units in found.values()}

    @property
    def rest_layout(self) -> dict[str, Layout]:
        """What `rest` is: types and shapes, as they will be."""
        out: dict[str, Layout] = {}
        for name in self.rest:
            one = self.checkpoint.tensors[name]
            first = (length(name, one.shape[0], self.trunks, self.widths),) if one.shape else ()
            out[name] = one.dtype, (*first, *one.shape[1:])
        return out

    @property
    def shaped(self) -> bool:
        """Whether attentions and MLPs of a language model may get smaller."""
        return any(unit.side is not None for unit in self.units)

    @property
    def one_shape(self) -> bool:
        """Whether all blocks of the file must have the same shape."""
        return shapes_of(self.format) == "same"

    @property
    def whole_blocks(self) -> bool:
        """Whether what can be left out are whole blocks."""
        return self.one_shape and "drop" in self.kinds and self.shaped

    @property
    def resources(self) -> tuple[str, ...]:
        """What a menu prices: FLOPs (of image models where channels can go), KV bytes a token, seconds if asked for."""
        timed = ("seconds",) if self.clock else ()
        if isinstance(self.stream, Whole):
            return ("bytes", "payload", *(("flops",) if self.stream.groups else ()), *timed)
        return ("bytes", "payload", "flops", "kv", *timed)

    @property
    def groups(self) -> Mapping[str, Any]:
        """Coupled layers of an image model whose channels can go."""
        return getattr(self.stream, "groups", {})

    @property
    def trunks(self) -> tuple[Trunk, ...]:
        """Channels of an image model that several layers share, and that can go."""
        return getattr(self.stream, "trunks", ())

    def left(self, unit: Unit, edit: Edit) -> tuple[Unit, Edit]:
        """The unit with the matrices that stay, and the edit that is theirs."""
        left, inner = narrowed(unit, edit)
        return thinned(left, self.trunks, self.widths), inner

    def refuses(self, unit: Unit, edit: Edit) -> str | None:
        """Why this unit cannot have this edit, in words; None when it can."""
        if why := self._stays(unit, edit) or _misfit(unit, edit) or _unfit(unit, edit) or self._untold(unit, edit):
            return why
        left, inner = self.left(unit, edit)
        if not left.matrices:
            return getattr(self.format, "keeps", lambda unit: None)(unit)
        if isinstance(inner, Half) and self.dtype_of(unit, Keep()) != "float32":
            return "it is stored in 16 bits already"
        return (inner is not edit and _unfit(left, inner)) or self.format.refuses(left, inner)

    def _stays(self, unit: Unit, edit: Edit) -> str | None:
        """Why a unit cannot go at all, or None."""
        if not isinstance(edit, Drop) or unit.side is None:
            return None
        if self.whole_blocks and unit.block == 0:
            return "the first block stays, so that there is one"
        if not self.whole_blocks and unit.side.by == "experts":
            return "a layer of experts can have fewer, but not none"
        return None

    def _untold(self, unit: Unit, edit: Edit) -> str | None:
        """Why no config could say that every block has so few heads, or None."""
        if not (self.one_shape and isinstance(edit, Heads)):
            return None
        return unreadable(self.checkpoint.config, edit.left(count(unit)))

    def layout(self, unit: Unit, edit: Edit) -> dict[str, Layout]:
        """Every tensor that the file will hold for this unit."""
        left, inner = self.left(unit, edit)
        if not left.matrices:
            return {}
        out = self.format.layout(left, inner, self.dtype_of(unit, edit))
        n, stored = count(unit), self.checkpoint.tensors
        share = Fraction(edit.left(n), n) if n and isinstance(edit, Shaping) else 1
        beside = {name: (stored[name].dtype, _shorter(stored[name].shape, share)) for name in unit.vectors}
        beside |= {name: (stored[name].dtype, stored[name].shape) for name in also(unit)}
        own = self.format.disk.layout_rest({})  # the file's own tensors are no unit's
        return out | {name: one for name, one in self.format.disk.layout_rest(beside).items() if name not in own}

    def flops(self, unit: Unit, edit: Edit) -> int:
        """What a unit computes for one token, or for one example of an image model."""
        left, inner = self.left(unit, edit)
        own = None if getattr(self.format, "dense", False) else getattr(inner, "flops", None)
        pairs = zip(unit.matrices, left.matrices, strict=False)  # nothing is left of what is gone
        whole = left if unit.kind == "experts" else unit  # a token meets as many of few experts as of many
        each = (self.stream.per_weight(whole, m) * (own(one) if own else one.size) for m, one in pairs)
        router = left.matrices and unit.side is not None and unit.side.router
        routed = 2 * count(left) * left.matrices[0].cols if router else 0
        return round(math.fsum(each)) + routed

    def kv(self, unit: Unit, edit: Edit) -> int:
        """Bytes of keys and values that a token leaves behind for a unit, at 16 bits a number."""
        if unit.side is not None and unit.side.by == "block":  # all of a block's are counted with its first unit
            return self.stream.kv // len(self.stream.blocks) if unit.side.at == 0 and not isinstance(edit, Drop) else 0
        latent = 0 if isinstance(edit, Drop) else self._latent(unit, edit)
        if unit.side is None:  # no shape is on the menu, but ranks may be
            return 2 * latent
        if unit.side.by != "heads" or unit.side.mixes or isinstance(edit, Drop):
            return 0
        # rows of q, k and v that a KV head takes, of those of the three that this unit has
        widths, n = [width for section in unit.side.per for width in section], count(unit)
        kept = unit.side.cached or sum(widths[max(0, 1 - unit.side.at) :])
        whole = kept * (edit.left(n) if isinstance(edit, Shaping) else n)
        return 2 * min(whole, latent or whole)

    def _latent(self, unit: Unit, edit: Edit) -> int:
        """How many numbers of a token are kept for keys or values, where the file's reader caches latents; else 0."""
        if not self.latents or place(unit.matrices[0]).module.rpartition(".")[2] not in (KEYS, VALUES):
            return 0
        left, inner = self.left(unit, edit)
        rows, cols = left.matrices[0].rows, left.matrices[0].cols
        return inner.rank(rows, cols) if isinstance(inner, Rank) else rows

    @property
    def latents(self) -> bool:
        """Whether the file's reader has a cache that keeps what lies between the factors of keys and values."""
        return getattr(self.format, "latents", False) and caches(self.checkpoint.config)

    def dtype_of(self, unit: Unit, edit: Edit) -> str:
        """The number type of a unit in the file: kept, it stays as it is, also where that is not the model's."""
        held = {number_type(self.checkpoint, matrix.tensor) for matrix in unit.matrices}
        if not isinstance(narrowed(unit, edit)[1], Keep):
            return self.dtype
        return held.pop() if len(held) == 1 else "float32"

    def row_units(self) -> tuple[Unit, ...]:
        """The rows of the menu as units."""
        return tuple(joined(units) for units in self.rows.values())

    @cached_property
    def text(self) -> str:
        """A short hash of the windows that statistics are gathered on."""
        return self.stream.digest(self.calib, self.check)


def by_layer(unit: Unit) -> tuple[Unit, ...]:
    """The layers of a unit that runtimes fuse (q, k and v) as units of their own; others stay as they are."""
    if unit.kind != "linear" or len({m.tensor for m in unit.matrices}) < 2:
        return (unit,)
    layers: dict[str, list[Matrix]] = {}
    for matrix in unit.matrices:
        layers.setdefault(place(matrix).module, []).append(matrix)
    return tuple(
        replace(unit, name=name, matrices=tuple(some), **_sided(unit, some, at))
        for at, (name, some) in enumerate(layers.items())
    )


def _sided(unit: Unit, some: Sequence[Matrix], at: int) -> dict[str, Any]:
    """What is of one layer of a unit's side and vectors; what goes with all of it goes with the first."""
    if unit.side is None:
        return {}
    per = tuple(unit.side.per[unit.matrices.index(m)] for m in some) if unit.side.per else ()
    vectors = tuple(name for name in unit.vectors if any(is_bias(name, m) for m in some))
    return {"vectors": vectors, "side": replace(unit.side, at=at, per=per, also=() if at else unit.side.also)}


def joined(units: Sequence[Unit]) -> Unit:
    """Units that must be cut alike as one; its name has a `*` where theirs differ."""
    if len(units) == 1:
        return replace(units[0], side=None)
    words = zip(*(unit.name.split(".") for unit in units), strict=False)
    name = ".".join(same[0] if len(set(same)) == 1 else "*" for same in words)
    vectors = tuple(name for unit in units for name in unit.vectors)
    return Unit(name, units[0].kind, tuple(m for unit in units for m in unit.matrices), units[0].block, vectors)


def shapes_of(form: Any) -> str:
    """Which shapes a format holds: "any", the "same" in all blocks, or "" for those that the model has."""
    return getattr(form, "shapes", "")


def _unfit(unit: Unit, edit: Edit) -> str | None:
    """Why an edit itself cannot be had by a unit, whatever the format."""
    return edit.refuses(unit) if hasattr(edit, "refuses") else None  # type: ignore[attr-defined]


def _misfit(unit: Unit, edit: Edit) -> str | None:
    """Why a unit cannot lose its shape like this, or None."""
    if not isinstance(edit, Channels | Heads | Experts | Each | Drop) or (
        unit.kind == "channels" and isinstance(edit, Channels)
    ):
        return None
    by = unit.side.by if unit.side else ""
    if isinstance(edit, Channels) and by != "channels":
        return "its channels are not its own to give away"
    if isinstance(edit, Heads) and by != "heads":
        return "it has no heads that could go"
    if isinstance(edit, Experts) and by != "experts":
        return "it has no experts that could go"
    if unit.side is None:
        return "it does not stand beside the residual stream, so it cannot be left out"
    if isinstance(edit, Channels | Heads | Experts) and edit.left(count(unit)) >= count(unit):
        return "it would keep all that it has"
    if isinstance(edit, Experts) and edit.left(count(unit)) < unit.side.least:
        left, all_, least = edit.left(count(unit)), count(unit), unit.side.least
        return f"it would keep {left} of {all_} experts, and every token is sent to {least}"
    return None


def _shorter(shape: Sequence[int], share: Fraction | int) -> tuple[int, ...]:
    """A tensor with this share of its rows."""
    return (int(shape[0] * share), *shape[1:])


def also(unit: Unit) -> tuple[str, ...]:
    """Stored tensors that go only when all of a unit goes."""
    return unit.side.also if unit.side else ()


_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}


def number_type(checkpoint: Checkpoint | Held, tensor: str) -> str:
    stored = checkpoint.tensors[tensor].dtype
    if stored not in _DTYPES:
        raise ModelError(
            f"`{tensor}` is stored as {stored}, which cannot be cut", "save the model in float16, bfloat16 or float32"
        )
    return _DTYPES[stored]


def about(case: Case, **more: Any) -> dict[str, Any]:
    """What a menu or a plan must remember of the job it belongs to."""
    return {
        "model": str(case.checkpoint.folder),
        "fingerprint": case.checkpoint.fingerprint,
        "format": case.format.name,
        "dtype": case.dtype,
        **({"folded": n} if (n := folds(case)) else {}),
        **more,
    }


def folds(case: Case) -> int:
    """How many normalisations become part of the layer before them, where a format has none of its own."""
    return len(getattr(case.format, "folded", ()))
