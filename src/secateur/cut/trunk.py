"""Narrower trunks on the menu: how wide they may be left, what that is expected to cost, and all prices with it.

A residual stage's channels are columns of one layer of every block and rows of another: what a block's own channels
cost hangs on how many of them are left. So trunks are no row whose price adds to others'. A few combinations of their
widths are chosen, each with a menu of its own: the same rows and edits at the prices that hold there, and the damage of
the combination on the row `trunks`. A plan is the best that any of these menus has.

Each trunk is measured by itself at a few widths, with everything behind it fitted anew, and the curve of the second
order is bent through that. Combinations are those that save most FLOPs for what they lose, at every rate of exchange.
What they lose is then measured on a few of them in a network whose blocks have half of their own channels, as they are
when trunks are wanted: on `resnet20_jpeg` at 40% of the FLOPs, going by what trunks lose by themselves took 11 of 16
channels of the first and was 1.5 points worse than leaving them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from secateur.cut.case import Case, Tell
from secateur.cut.channels import Groups
from secateur.cut.price import fixed, price
from secateur.model.matrix import place
from secateur.model.trunk import Trunk
from secateur.parts.correction import Correction
from secateur.parts.edits.channels import SHARES, Channels
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.trunks import ROW, Trunks
from secateur.parts.trunk import fits
from secateur.types import Edit, Menu, Unit

#: shares at which every trunk is measured, how many combinations are offered, how many of them are measured, and what
#: blocks keep of their own channels meanwhile
ALONE, OFFERED, MEASURED, AMONG = (0.75, 0.5), 12, 3, 0.5
#: KL in nats per example above which no combination is offered: by then other edits have long been cheaper
MOST = 0.5
#: examples that are walked with to measure
WALKED = 256
#: relative error of a combination's damage
ERROR = 0.15

#: how many channels are left of every trunk
Widths = Mapping[str, int]


def with_trunks(menu: Menu, groups: Groups, still: Collection[str], correction: Correction, tell: Tell) -> Menu:
    """The menu with a row for the trunks, and the narrower menus; as it is where no trunk can go. Those with layers in
    `still`, which somebody wants as they are, stay whole."""
    case = groups.case
    free = [t for t in case.trunks if not {*t.makers, *t.takers} & set(still)]
    if not free or not len(case.check):
        return menu
    losses = _losses(groups, free, tell)
    if not losses:
        return menu
    edits = {Trunks(" ".join(map(str, widths.values()))): (widths, kl) for widths, kl in losses}
    rows = (*menu.units, Unit(ROW, ROW, (), 0))
    every = (*menu.edits, *edits)
    keep = menu.edits.index(Keep())

    def wide(table: np.ndarray, fill: float) -> np.ndarray:
        out = np.full((len(rows), len(every)), fill)
        out[:-1, : len(menu.edits)] = table
        return out

    plain = wide(menu.damage, np.inf)
    plain[-1, keep] = 0.0
    cost = {name: wide(table, np.inf) for name, table in menu.cost.items()}
    for table in cost.values():
        table[-1, keep] = 0.0
    notes = {name: np.concatenate([note, np.full((1, *note.shape[1:]), np.nan)]) for name, note in menu.notes.items()}
    whole = replace(menu, units=rows, edits=every, cost=cost, damage=plain, error=wide(menu.error, 0.0), notes=notes)
    narrower = []
    for at, (widths, kl) in enumerate(edits.values()):
        tell("prices", at, len(edits))
        narrower.append(_priced(at_widths(case, widths), whole, len(menu.edits) + at, kl, correction))
    return replace(whole, narrower=tuple(narrower))


def at_widths(case: Case, widths: Widths) -> Case:
    """The same case with so many channels left of its trunks."""
    made = replace(case, widths=dict(widths))
    return replace(made, clock=replace(case.clock, case=made)) if case.clock else made


def _priced(case: Case, whole: Menu, column: int, kl: float, correction: Correction) -> Menu:
    """The menu at the widths of a case."""
    over = str(whole.about.get("over", "all"))
    damage, error = np.full_like(whole.damage, np.inf), whole.error.copy()
    cost = {name: np.full_like(table, np.inf) for name, table in whole.cost.items()}
    for r, units in enumerate(case.rows.values()):
        for e in np.flatnonzero(np.isfinite(whole.damage[r])):
            if any(case.refuses(unit, whole.edits[e]) for unit in units):
                continue
            damage[r, e] = whole.damage[r, e]
            prices = [price(case, unit, whole.edits[e], over) for unit in units]
            for name, table in cost.items():
                table[r, e] = sum(one[name] for one in prices)
    damage[-1, column] = correction.total(kl)
    error[-1, column] = ERROR * damage[-1, column]
    for table in cost.values():
        table[-1, column] = 0.0
    return replace(whole, cost=cost, damage=damage, error=error, fixed=fixed(case, over), narrower=())


def _losses(groups: Groups, free: Sequence[Trunk], tell: Tell) -> list[tuple[dict[str, int], float]]:
    """Combinations of widths, from wide to narrow, and the KL that each is expected to cost, nats per example."""
    case, steps = groups.case, len(free) * len(ALONE) + 1 + MEASURED
    curves: dict[str, Correction] = {}
    for at, trunk in enumerate(free):
        points: list[tuple[float, float]] = []
        for i, keep in enumerate(ALONE):
            tell("trunks", at * len(ALONE) + i, steps)
            n = Channels(keep).left(trunk.width)
            x, kl = groups.thinnings[trunk.name].left(n), _measured(groups, {trunk.name: n})
            if x > 0 and kl > 0 and (not points or (x > points[-1][0] and kl > points[-1][1])):
                points.append((x, kl))
        curves[trunk.name] = Correction(tuple(x for x, _ in points), tuple(y for _, y in points))

    def lost(widths: Widths) -> float:
        return math.fsum(curves[t.name].kl(groups.thinnings[t.name].left(widths[t.name])) for t in free)

    some = _combinations(case, free, lost)
    if not some:
        return []
    sums, seen = [lost(widths) for widths in some], []
    blocks = dict.fromkeys((unit.name for unit in groups.units), Channels(AMONG))
    tell("trunks", len(free) * len(ALONE), steps)
    before = _measured(groups, {}, blocks)
    for i in range(MEASURED):
        tell("trunks", len(free) * len(ALONE) + 1 + i, steps)
        at = max(0, round((i + 1) * len(some) / MEASURED) - 1)
        kl = max(_measured(groups, some[at], blocks) - before, sums[at])
        if sums[at] > 0 and kl > 0 and (not seen or (sums[at] > seen[-1][0] and kl > seen[-1][1])):
            seen.append((sums[at], kl))
    tell("trunks", steps, steps)
    how = Correction(tuple(x for x, _ in seen), tuple(y for _, y in seen))
    return [(widths, how.kl(total)) for widths, total in zip(some, sums, strict=True)]


def _combinations(case: Case, free: Sequence[Trunk], lost) -> list[dict[str, int]]:
    """Widths of all trunks at falling rates of nats for FLOPs, those that differ; a trunk that may not lose channels
    keeps all."""
    whole = {trunk.name: trunk.width for trunk in case.trunks}
    everything = _flops(case, whole)
    levels = {t.name: dict.fromkeys([t.width, *(Channels(keep).left(t.width) for keep in SHARES)]) for t in free}
    options: dict[str, list[tuple[int, float, float]]] = {}
    for name, some in levels.items():
        each = [(n, lost(whole | {name: n}), everything - _flops(case, whole | {name: n})) for n in some]
        options[name] = each
    found: dict[tuple[int, ...], dict[str, int]] = {}
    for rate in np.geomspace(1e-3, 1e2, 120) / everything:
        best = {name: min(some, key=lambda one: one[1] - rate * one[2])[0] for name, some in options.items()}
        widths = fits(case.trunks, whole | best)
        if widths != whole:
            found.setdefault(tuple(widths.values()), widths)
    some = sorted((w for w in found.values() if lost(w) <= MOST), key=lambda widths: -_flops(case, widths))
    step = max(1.0, len(some) / OFFERED)
    return [some[int(i * step)] for i in range(min(OFFERED, len(some)))]


def _flops(case: Case, widths: Widths) -> float:
    narrow = replace(case, widths=dict(widths))
    return math.fsum(narrow.flops(unit, Keep()) for unit in case.units)


def _measured(groups: Groups, widths: Widths, edits: Mapping[str, Edit] | None = None) -> float:
    """KL of the network with narrower trunks, blocks cut as `edits` say, nats per example."""
    plain, all_ = groups.plain, fits(groups.case.trunks, widths) if widths else {}
    with groups.case.stream.loaded():
        groups.take(edits or {}, widths=all_, examples=WALKED)
        return groups.compared(plain).kl


def layers_of(case: Case, rows: Collection[str]) -> set[str]:
    """Modules of the units in these rows of the menu."""
    return {place(m).module for row in rows for unit in case.rows.get(row, ()) for m in unit.matrices}
