"""Which units of a language model lose channels or heads together: both sides of every attention and MLP of a block.

Q, k and v make heads, and o mixes them; gate and up make channels, and down mixes them; experts have both in stacks.
A KV head goes with all the query heads that read it, so that a reader who counts query heads per KV head counts as
before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from secateur.model.anatomy import Anatomy
from secateur.model.families import Part, family
from secateur.model.matrix import place
from secateur.types import Matrix, Side, Unit


def with_sides(found: Anatomy, network: nn.Module, experts: bool = False, heads: bool = True) -> Anatomy:
    """The anatomy with the `side` of every unit that has one, and with the vectors that go where its channels go; with
    `experts`, their router is such a one. Without `heads` an attention goes whole or not at all."""
    config: Any = network.config.get_text_config()  # type: ignore[operator,union-attr]
    sided: dict[str, Unit] = {}
    for part in family(str(network.config.model_type)).parts:  # type: ignore[union-attr]
        part = part if heads or part.by != "heads" else replace(part, by="")
        for at, block in enumerate(found.blocks):
            units = [unit for unit in found.units if unit.block == at]
            if part.by == "experts":
                stacks = [unit for unit in units if _within(unit, f"{block}.{part.mixer}")]
                if experts and len(stacks) == 2:
                    sided |= {unit.name: unit for unit in _of_experts(found, config, block, part, *stacks)}
                continue
            makers = _of(units, [f"{block}.{path}" for path in part.makers])
            mixer = _of(units, [f"{block}.{part.mixer}"])
            if makers is not None and mixer is not None:
                sided |= {unit.name: unit for unit in _sides(found, config, block, part, makers, mixer)}
    return replace(found, units=tuple(sided.get(unit.name, unit) for unit in found.units))


def with_blocks(found: Anatomy) -> Anatomy:
    """The anatomy with whole blocks as parts: all units of a block that have no other side that can lose something, and
    with the first of them all else that is stored of it."""
    sided: dict[str, Unit] = {}
    for at, block in enumerate(found.blocks):
        units = [unit for unit in found.units if unit.block == at]
        units = [unit if unit.side is not None and unit.side.by else replace(unit, side=None) for unit in units]
        own = {m.tensor for unit in units for m in unit.matrices} | {name for unit in units for name in unit.vectors}
        own |= {name for unit in units if unit.side is not None for name in unit.side.also}
        pieces = [one for path, some in found.sources.items() if path.startswith(f"{block}.") for one in some]
        also = tuple(tensor for tensor in dict.fromkeys(piece.tensor for piece in pieces) if tensor not in own)
        for i, unit in enumerate(units):
            last, more = i == len(units) - 1, () if i else also
            own_side = unit.side or Side(block, "block", -1 if last else i)
            sided[unit.name] = replace(unit, side=replace(own_side, also=(*own_side.also, *more)))
    return replace(found, units=tuple(sided.get(unit.name, unit) for unit in found.units))


def _of(units: Sequence[Unit], paths: Sequence[str]) -> Unit | None:
    """The unit whose matrices are those of these modules, and no others."""
    return next((unit for unit in units if [place(m).module for m in unit.matrices] == list(paths)), None)


def _within(unit: Unit, path: str) -> bool:
    """Whether a unit is a stack of the experts in this module."""
    return unit.kind == "experts" and all(place(m).module == path and place(m).index is not None for m in unit.matrices)


def _of_experts(found: Anatomy, config: Any, block: str, part: Part, makers: Unit, mixer: Unit) -> tuple[Unit, Unit]:
    """Both stacks of a layer of experts, the router's rows with the first."""
    name, router = f"{block}.{part.mixer}", f"{block}.{part.router}"
    rows = tuple(piece.tensor for piece in found.sources[f"{router}.weight"])
    least = int(config.num_experts_per_tok)
    return (
        replace(makers, vectors=rows, side=Side(name, "experts", 0, least=least, router=router)),
        replace(mixer, side=Side(name, "experts", -1, least=least)),
    )


def _sides(found: Anatomy, config: Any, block: str, part: Part, makers: Unit, mixer: Unit) -> tuple[Unit, Unit]:
    """Both units of a part. Its norms and what else is stored under its name go with the makers when all goes."""
    name = f"{block}.{part.mixer.rpartition('.')[0]}" if "." in part.mixer else f"{block}.{part.mixer}"
    by, made, mixed, cached = part.by, *_per(config, part, makers, mixer)
    by = by if made else ""
    biases = {_bias(found, m): m for m in makers.matrices if _bias(found, m)} if by else {}
    behind = tuple(filter(None, [_bias(found, mixer.matrices[0])]))
    under = [f"{block}.{norm}." for norm in part.norms] + ([f"{name}."] if "." in part.mixer else [])
    under += [f"{block}.{path}." for path in part.makers]
    stored = [
        piece.tensor for path, pieces in found.sources.items() if path.startswith(tuple(under)) for piece in pieces
    ]
    own = {m.tensor for unit in (makers, mixer) for m in unit.matrices} | {*biases, *behind}
    also = tuple(tensor for tensor in dict.fromkeys(stored) if tensor not in own)
    return (
        replace(makers, vectors=tuple(biases), side=Side(name, by, 0, made, also, cached=cached)),
        replace(mixer, side=Side(name, by, -1, mixed, behind)),
    )


def _bias(found: Anatomy, matrix: Matrix) -> str:
    """The stored bias of a matrix's layer, or nothing."""
    pieces = found.sources.get(f"{place(matrix).module}.bias", ())
    return pieces[0].tensor if pieces else ""


def _per(
    config: Any, part: Part, makers: Unit, mixer: Unit
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...], int]:
    """Rows of what makes and columns of what mixes that one channel or KV head takes, empty where they do not fit; and
    how many of these rows are keys and values that lie with the queries, head by head."""
    n, cols = mixer.matrices[0].cols, mixer.matrices[0].cols
    if part.by != "channels":
        n = getattr(config, "num_attention_heads", 0)
        n = getattr(config, "num_key_value_heads", None) or n if part.heads_told else n  # no others share their keys
    if not n or part.by == "" or any(m.rows % n for m in makers.matrices) or cols % n:
        return (), (), 0
    mixed = ((cols // n,),)
    if part.by == "channels":  # a tensor with twice as many rows as channels holds gate and up, one below the other
        return tuple((1,) * (m.rows // n) for m in makers.matrices), mixed, 0
    (first, *_) = (m.rows // n for m in makers.matrices)
    if part.fused == "below":
        key = (first - cols // n) // 2
        return ((cols // n, key, key),), mixed, 0
    return tuple((m.rows // n,) for m in makers.matrices), mixed, first - cols // n if part.fused else 0
