"""Second order with Kronecker factors: 1/2 tr(G E A E'), E as the rounding that will be used leaves it.

Rounding every matrix for every edit would cost as much as applying them all. But how much error feedback gains over
plain rounding hangs on the matrix and on the number of bits, and hardly on the size of the groups: so it is measured
once for every number of bits up to 4, all in one sweep, and every edit's plain error (elementwise, on a sample of rows)
is multiplied by the gain at its bits. On `lm-small` the gain at 4 bits holds to 8 bits within 14%. Families of grids
(integers, ggml's scalar blocks, its codebooks) gain differently, so each that is on the menu is measured on its own.
Forms (masks, low ranks) say themselves what they are expected to damage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.maths.factor import height
from secateur.maths.forms import Probed, is_form
from secateur.maths.rounding import nearest
from secateur.maths.settle import MANY, Effort, Metric, Metrics, at_once, row_pieces, swept, together, widened
from secateur.model.factors import Factors
from secateur.parts.damage import Row
from secateur.types import Edit, Unit

#: gains are measured up to this many bits; the relative error that taking them for other groups leaves
MEASURED, GAIN_ERROR = 4, 0.15
#: plain errors are taken on about so many rows of a matrix
ROWS = 32

#: number of bits, and family of grids
Kind = tuple[int, str]
#: for each kind of grid: damage after feedback over the plain damage, that damage, and the matrix rounded
Gains = Mapping[Kind, tuple[float, float, Tensor]]
#: for each level: the damage of the matrix in some form, and that matrix
Probes = Mapping[int, tuple[float, Tensor]]


def rows(
    units: Sequence[Unit],
    edits: Mapping[str, Sequence[Edit | None]],
    weights: Mapping[str, Tensor],
    factors: Mapping[str, Factors],
    dtype: str,
) -> dict[str, Row]:
    """Damages of every edit of some units, by name; their matrices are swept side by side."""
    grids = {
        unit.name: [edit.grid(dtype) if edit is not None else None for edit in edits[unit.name]]  # type: ignore[attr-defined]
        for unit in units
    }
    asked = [
        (m.key, weights[m.key].float(), factors[m.key], grids[unit.name])
        for unit in units
        for m in unit.matrices
        if any(grid is not None for grid in grids[unit.name])
    ]
    numbers = [(key, w, f, [None if is_form(grid) else grid for grid in some]) for key, w, f, some in asked]
    gains = _gains([(key, w, f, _typical(some)) for key, w, f, some in numbers])
    plains = _plains(numbers, gains)
    shaped: dict[str, Probes] = {}
    for key, w, f, some in asked:
        found, shaped[key] = _formed(w, f, some)
        plains[key] |= found
    return {unit.name: _row(unit, grids[unit.name], factors, gains, plains, shaped) for unit in units}


def _formed(w: Tensor, f: Factors, grids: Sequence[Any]) -> tuple[dict[int, float], Probes]:
    """The damage of every form on offer, by its place, those of a family together; and the probes that they leave."""
    families: dict[type, list[int]] = {}
    for at, grid in enumerate(grids):
        if is_form(grid):
            families.setdefault(type(grid), []).append(at)
    out: dict[int, float] = {}
    probes: dict[int, tuple[float, Tensor]] = {}
    for places in families.values():
        some = [grids[at] for at in places]
        if isinstance(some[0], Probed):
            losses, more = some[0].losses_and_probes(w, f.a, f.g, some)
            probes |= more
        else:
            losses = some[0].losses(w, f.a, f.g, some)
        out |= zip(places, losses, strict=True)
    return out, probes


def _row(
    unit: Unit,
    grids: Sequence[Any],
    factors: Mapping[str, Factors],
    gains: Mapping[str, Gains],
    plains: Mapping[str, Mapping[int, float]],
    shaped: Mapping[str, Probes],
) -> Row:
    """Damages of every edit of one unit: the sum over its matrices."""
    damage, square = np.zeros(len(grids)), np.zeros(len(grids))
    probes: dict[int, dict[str, Tensor]] = {}
    expected: dict[int, float] = {}
    for matrix in unit.matrices if any(grid is not None for grid in grids) else ():
        found = gains[matrix.key]
        for (bits, _), (gain, plain, values) in found.items():
            if matrix.key not in probes.setdefault(bits, {}):  # of two families the first
                probes[bits][matrix.key] = values
                expected[bits] = expected.get(bits, 0.0) + gain * plain
        for level, (damaged, values) in shaped[matrix.key].items():
            probes.setdefault(level, {})[matrix.key] = values.half()
            expected[level] = expected.get(level, 0.0) + damaged
        for at, plain in plains[matrix.key].items():
            expectation = plain if is_form(grids[at]) else plain * _at(found, grids[at])
            damage[at] += expectation
            square[at] += (expectation * np.hypot(factors[matrix.key].relative_error, GAIN_ERROR)) ** 2
    return Row(damage, np.sqrt(square), probes, expected)


def _plains(
    asked: Sequence[tuple[str, Tensor, Factors, Sequence[Any]]], gains: Mapping[str, Gains]
) -> dict[str, dict[int, float]]:
    """The damage of plain rounding of each matrix on every grid, from some of its rows; matrices of one width together.
    How some rows stand for all is known from the grids whose gains were measured: there all rows were rounded."""
    alike: dict[Any, list[tuple[str, Tensor, Factors]]] = {}
    for key, w, f, grids in asked:
        alike.setdefault((w.shape[1], tuple(grids)), []).append((key, w, f))
    out: dict[str, dict[int, float]] = {}
    for (_, grids), matrices in alike.items():
        some = [_Some.of(w, f) for _, w, f in matrices]
        x, weight = torch.cat([one.rows for one in some]), torch.cat([one.weight for one in some])
        heard = torch.cat([one.heard for one in some])
        found: list[dict[int, float]] = [{} for _ in some]
        for at, grid in enumerate(grids):
            if grid is not None:
                fit = grid.fit(x, weight)
                lost = 0.5 * ((x - nearest(x, fit, weight)).square() * weight).sum(1) * heard
                for one, part in zip(found, lost.split([len(one.rows) for one in some]), strict=True):
                    one[at] = float(part.sum())
        for (key, _, _), one, values in zip(matrices, some, found, strict=True):
            ratios = {
                kind: gains[key][kind][1] / max(values[grids.index(grid)], 1e-30)
                for kind, grid in _typical(grids).items()
            }
            out[key] = {
                at: value * (_nearest(ratios, grids[at]) if ratios else one.scale) for at, value in values.items()
            }
    return out


@dataclass(frozen=True)
class _Some:
    """Some rows of a matrix, what weighs their entries, how much each is heard, and by how much all are heard more."""

    rows: Tensor
    weight: Tensor
    heard: Tensor
    scale: float

    @classmethod
    def of(cls, w: Tensor, f: Factors) -> _Some:
        step = max(1, len(w) // ROWS)
        high = height(f.g)
        heard = high[::step] + 1e-3 * high.mean()  # so that none heard is not none at all
        rows = w[::step]
        return cls(rows, f.a.diagonal().expand_as(rows), heard, float(high.sum() / heard.sum().clamp_min(1e-30)))


def _plain(error: Tensor, weight: Tensor, high: Tensor) -> float:
    """The damage of uncorrelated errors: diagonals only."""
    return 0.5 * float(((error * error) @ weight * high).sum())


def _typical(grids: Sequence[Any]) -> dict[Kind, Any]:
    """For every kind that is measured, the grid in the middle of those offered; with fractional zeros, if there are."""
    found: dict[Kind, list[Any]] = {}
    for grid in grids:
        if getattr(grid, "bits", MEASURED + 1) <= MEASURED:
            found.setdefault((grid.bits, type(grid).__name__), []).append(grid)
    fine = {kind: [g for g in some if getattr(g, "zeros", None)] or some for kind, some in found.items()}
    return {kind: some[(len(some) - 1) // 2] for kind, some in sorted(fine.items())}


def _at(gains: Gains, grid: Any) -> float:
    """The gain for a grid: that of its bits, or of the nearest number of bits measured; 1 where none was."""
    return _nearest({kind: gain for kind, (gain, _, _) in gains.items()}, grid) if gains else 1.0


def _nearest(known: Mapping[Kind, float], grid: Any) -> float:
    """What is known of the grid's own family, if anything, at the nearest number of bits."""
    bits, family = getattr(grid, "bits", MEASURED), type(grid).__name__
    return known[min(known, key=lambda kind: (kind[1] != family, abs(kind[0] - bits), kind))]


def _gains(asked: Sequence[tuple[str, Tensor, Factors, Mapping[Kind, Any]]]) -> Mapping[str, Gains]:
    """What feedback gains, for each of some matrices and each of its typical grids; a few sweeps at a time."""
    out: dict[str, dict[Kind, tuple[float, float, Tensor]]] = {key: {} for key, *_ in asked}
    sweeps = [
        (key, w[rows], f, f.g if f.g.ndim == 2 else f.g[rows], kind, grid)
        for key, w, f, grids in asked
        for kind, grid in grids.items()
        for rows in row_pieces(w, grid, f.g)
    ]
    found: dict[tuple[str, Kind], list[tuple[float, float, Tensor]]] = {}
    metrics: dict[str, Metrics] = {}
    most = at_once(sweeps[0][1].device) if sweeps else MANY
    for some in together(sweeps, lambda one: one[1].numel(), most):
        metrics = {key: metrics.get(key) or Metrics() for key, *_ in some}
        jobs: list[tuple[Metric, Tensor, Any]] = []
        plains: list[float] = []
        for key, w, f, g, kind, grid in some:
            weight = f.a.diagonal()
            fit = grid.fit(w, weight)
            plains.append(_plain(w - nearest(w, fit, weight), weight, height(g)))
            jobs.append((metrics[key].of(f.a, g, step=fit.step), w, widened(fit, Effort.for_bits(kind[0]).usual)))
        for (key, w, _, _, kind, _), (metric, *_), plain, values in zip(some, jobs, plains, swept(jobs), strict=True):
            # probes are kept in half precision: there are many of them
            found.setdefault((key, kind), []).append((float(metric.damage(w - values)), plain, values.half()))
    for (key, kind), parts in found.items():
        damage, plain = sum(damage for damage, _, _ in parts), sum(plain for _, plain, _ in parts)
        out[key][kind] = (damage / max(plain, 1e-30), plain, torch.cat([values for *_, values in parts]))
    return out
