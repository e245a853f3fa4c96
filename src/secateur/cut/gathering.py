"""Statistics of a network, block by block: what surveying and cutting both gather where it is not at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from secateur.cut.case import Case, Tell
from secateur.model.factors import Factors, backward
from secateur.model.inputs import forward
from secateur.model.matrix import place
from secateur.types import Unit


def statistics(
    case: Case, work: Path, seed: int, tell: Tell, inputs_alone: bool = False
) -> Iterator[tuple[tuple[Unit, ...], dict[str, Factors]]]:
    """The units of the head, of every block from the last, and of the embedding, with the factors of their matrices;
    from the first to the last, and from the inputs alone, where that is enough.

    Every tensor is looked through for NaN and infinity first: hours later it would be too late.
    """
    for at, name in enumerate(case.checkpoint.tensors):
        tell("reading", at, len(case.checkpoint.tensors))
        case.checkpoint.check_finite(name)
    tell("reading", len(case.checkpoint.tensors), len(case.checkpoint.tensors))
    if inputs_alone:
        yield from forward(case.stream, case.calib, case.units, work, tell)
    else:
        yield from backward(case.stream, case.calib, case.units, work, seed, tell)


def modules_of(case: Case, units: Sequence[Unit]) -> list[str]:
    """The modules to load to have the weights of units at hand."""
    blocks = case.stream.blocks
    return list(
        dict.fromkeys(
            place(m).module if unit.block is None else blocks[unit.block] for unit in units for m in unit.matrices
        )
    )


def complete(unit: Unit, factors: Mapping[str, Factors]) -> dict[str, Factors]:
    """Factors of every matrix; an expert that no token was sent to gets its siblings' mean, at one token's weight."""
    known = [factors[m.key] for m in unit.matrices if m.key in factors]
    out: dict[str, Factors] = {}
    for matrix in unit.matrices:
        alike = [f for f in known if f.a.shape[0] == matrix.cols and f.g.shape[0] == matrix.rows]
        if matrix.key in factors:
            out[matrix.key] = factors[matrix.key]
        elif alike:
            a, g = (torch.stack([getattr(f, side) for f in alike]).mean(0) for side in "ag")
            out[matrix.key] = Factors(a, g / max(sum(f.tokens for f in alike) / len(alike), 1.0), 0, 1.0)
        else:
            out[matrix.key] = Factors(torch.eye(matrix.cols), torch.full((matrix.rows,), 1e-12), 0, 1.0)
    return out
