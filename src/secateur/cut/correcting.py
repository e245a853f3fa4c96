"""How a survey's predictions must be corrected: the network cut whole as its probes say, against itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from secateur.cut.case import Case, Tell
from secateur.cut.comparing import compare
from secateur.export import Parts
from secateur.maths.forms import FAMILY
from secateur.measure.compare import Comparison
from secateur.parts.correction import Correction, factor_at
from secateur.parts.damage import Row
from secateur.types import Edit, Matrix, Menu, Plan


def correct(case: Case, menu: Sequence[Edit], rows: dict[str, Row], work: Path, tell: Tell) -> Correction:
    """How predictions must be corrected, from the network cut whole to each number of bits that was probed. Predictions
    for masks and low ranks are brought to the same curve first, in place, by probes of their own."""
    told = [set(row.expected) for row in rows.values() if row.expected]
    all_cut = set.intersection(*told) if told else set()
    bits = {level for level in all_cut if 1 < level < FAMILY}  # at one bit nothing is left
    others = {level for levels in told for level in levels if level > FAMILY}
    levels = sorted(bits | others)
    if not levels or len(case.check) == 0:
        return Correction()
    expected = {level: math.fsum(row.expected.get(level, 0.0) for row in rows.values()) for level in levels}
    found = probe(case, work, levels, tell)
    curve = bits or {level for level in others if level // FAMILY == min(others) // FAMILY}
    correction = Correction.fit({level: expected[level] for level in sorted(curve)}, found)
    known = correction.factors({level: expected[level] for level in levels if level not in curve}, found)
    factor = np.array([_factor(edit, known, case.dtype) for edit in menu])
    for name, row in rows.items():
        rows[name] = replace(row, damage=factor * row.damage, error=factor * row.error)
    return correction


def _factor(edit: Edit, known: Mapping[int, float], dtype: str) -> float:
    """What an edit's predictions are to be multiplied by: that of its family, if it is of one."""
    level = getattr(edit.grid(dtype), "level", 0) if hasattr(edit, "grid") else 0  # type: ignore[attr-defined]
    return factor_at(known, level)


def corrected(menu: Menu, chosen: Plan) -> Plan:
    """The plan with its damage, error and floor as the survey's probes say that they will be measured."""
    how = Correction.of(menu.about)
    return replace(
        chosen,
        damage=how.loss(chosen.damage),
        error=how.spread(chosen.damage, chosen.error),
        bound=how.loss(chosen.bound),
        about={**menu.about, **chosen.about, "kl_predicted": how.kl(chosen.damage)},
    )


def probe(case: Case, work: Path, levels: Sequence[int], tell: Tell) -> dict[int, Comparison]:
    """The network with every unit cut as the survey's probes, against itself, on the windows for correction."""
    stream, check, plain = case.stream, case.check, 0  # level 0 is the network as it is

    def cut(level: int, block: int | None) -> dict[Matrix, Tensor]:
        out = {}
        for at, unit in enumerate(case.units):
            if level != plain and unit.block == block:
                held = Parts(work / "probes").load(str(at))
                out |= {m: held[f"{level}/{m.key}"] for m in unit.matrices if f"{level}/{m.key}" in held}
        return out

    states = {
        level: stream.embed(check, work / f"probe-{level}", cut(level, None), copies=len(levels) + 1)
        for level in (plain, *levels)
    }
    for i, path in enumerate(stream.blocks):
        tell("probes", i, len(stream.blocks))
        for level, hidden in states.items():
            with stream.loaded(path, cut=cut(level, i)):
                states[level] = stream.through(i, hidden, hidden)
    tell("probes", len(stream.blocks), len(stream.blocks))
    return {level: compare(case, check, states[plain], states[level], cut(level, None)) for level in levels}
