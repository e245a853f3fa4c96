"""Survey: one pass over the network, and every edit of every unit has a price and an expected damage.

    forward          hidden states at every block, parked
    backward         from the head down: each block's factors, and the damage of every edit from them
    probes           the network at a few numbers of bits against itself, on text of its own: corrects the prediction

Blocks that are finished stay in the folder `.work` of the menu, so that a broken run goes on behind them. When the menu
is whole, only the factors stay there: applying a plan needs them. A menu that is there already is not made again.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from secateur import __version__
from secateur.cut.case import Case, Tell, about, silent
from secateur.cut.channels import Groups
from secateur.cut.correcting import correct
from secateur.cut.gathering import complete, modules_of, statistics
from secateur.cut.kept import factors_of, store_factors, store_row, stored_factors, stored_row, tidy
from secateur.cut.latency import PLAIN, timed
from secateur.cut.notes import notes
from secateur.cut.offers import offers
from secateur.cut.opening import open_case, usual_format
from secateur.cut.plans import with_plans
from secateur.cut.price import fixed, price, weights
from secateur.cut.runtime import with_roundings
from secateur.cut.shapes import even, joint
from secateur.cut.shapes.free import measure
from secateur.cut.shapes.one_shape import OneShape
from secateur.cut.shapes.singles import Offer, Singles
from secateur.cut.trials import at_shares
from secateur.cut.trunk import layers_of, with_trunks
from secateur.cut.work import work_folder
from secateur.export import Parts
from secateur.maths.forms import FAMILY
from secateur.model.factors import Factors
from secateur.model.load import trim
from secateur.model.matrix import view
from secateur.parts import damage as damages
from secateur.parts.correction import Correction
from secateur.parts.edits import asked, text
from secateur.parts.edits.channels import Channels
from secateur.parts.edits.keep import Keep
from secateur.parts.menus import load_menu, save_menu
from secateur.types import Edit, Matrix, Menu, Unit


def survey(
    model: str,
    data: str,
    *,
    format: str | None = None,
    out: str | Path | None = None,
    samples: int | None = None,
    seq_len: int | None = None,
    over: str = "all",
    keep: tuple[str, ...] = (),
    pin: Mapping[str, str] | None = None,
    damage: str = "kronecker",
    edits: str = "bits",
    clock: bool = False,
    seed: int = 0,
    device: str | None = None,
    resume: bool = True,
    tell: Tell | None = None,
) -> Menu:
    """The menu of a model: what every edit of every unit costs, and what it is expected to damage. Saved in `out`.

    `edits` are the kinds that it offers, `"bits,sparse,channels"`, or `"all"`. With a `clock` it has seconds as well,
    measured on this machine's processor.
    """
    device = "cpu" if clock and device is None else device
    case = open_case(model, data, format or usual_format(model), samples, seq_len, seed, device, asked(edits))
    how = {"over": over, "damage": damage, "samples": samples, "seq_len": seq_len, "seed": seed, "data": str(data)}
    with tempfile.TemporaryDirectory() as nowhere:
        folder, tell = Path(out or nowhere), tell or silent
        case = timed(case) if clock else case
        menu, _ = take_up(case, how, keep, dict(pin or {}), folder, resume, tell)
        return at_shares(case, menu, folder, tell) if clock else menu


def take_up(
    case: Case,
    how: Mapping[str, Any],
    keep: Sequence[str],
    pin: Mapping[str, str],
    folder: Path,
    resume: bool,
    tell: Tell,
) -> tuple[Menu, bool]:
    """The menu, and whether earlier work was taken up: all of it, or that of a broken run."""
    whole, case = case, replace(case, apart=True) if case.shaped else case
    menu, can, skipped = offers(case, how["over"], keep, pin)
    rule = damages.find(how["damage"])
    key = {
        "secateur": __version__,
        "fingerprint": case.checkpoint.fingerprint,
        "text": case.text,
        "format": case.format.name,
        **({"kinds": case.kinds} if case.shaped else {}),
        "edits": [text(edit) for edit in menu],
        "can": can,
        **{name: how[name] for name in ("over", "damage", "seed")},
        **({"timed": True} if case.clock else {}),
    }
    job = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    if resume and (folder / "menu.json").exists():
        found = load_menu(folder)
        if found.about.get("job") == job:
            return found, True
    work, begun = work_folder(folder, resume, {"job": job})
    _time(case, menu, can, tell)
    rows = with_roundings(case, menu, _rows(case, menu, can, rule, work, how["seed"], tell))
    _time(case, menu, can, tell)
    groups = _groups(case, work) if case.groups else None
    correction = _with_channels(groups, menu, can, rows, tell) if groups else correct(case, menu, rows, work, tell)
    left = [{"unit": name, "reason": why} for name, why in case.skipped]
    told = about(case, **how, job=job, skipped=skipped, left=left, kinds=",".join(case.kinds))
    if whole.shaped:
        made = _shaped(whole, Singles.of(case, menu, can, rows, skipped), correction, told, work, tell)
    else:
        made = _menu(case, menu, can, rows, correction, told)
    made = replace(made, notes=notes(whole, factors_of(case, work)))
    made = _on_the_clock(whole, made) if whole.clock else made
    if groups and case.trunks:
        kept = [one["unit"] for one in skipped if one["reason"].startswith("kept by --keep")]
        made = with_trunks(made, groups, layers_of(case, kept), correction, tell)
    made = with_plans(made, groups, tell) if groups else made
    save_menu(made, folder)
    tidy(work)
    return made, begun


def _time(case: Case, menu: tuple[Edit, ...], can: list[list[bool]], tell: Tell) -> None:
    """Let the clock of a case time what is offered, before the long part and after it."""
    if case.clock:
        rows = [(unit, row) for units, row in zip(case.rows.values(), can, strict=True) for unit in units]
        case.clock.study([(unit, e) for unit, row in rows for e, able in zip(menu, row, strict=True) if able], tell)


def _on_the_clock(case: Case, menu: Menu) -> Menu:
    """The menu with what the uncut network takes, whole and row by row."""
    plain = np.array([math.fsum(map(case.clock.plain, units)) for units in case.rows.values()])
    about = {"uncut_seconds": case.clock.rest + float(plain.sum()), "saved": 1.0, "trials": []}
    return replace(menu, notes={**menu.notes, PLAIN: plain}, about={**menu.about, **about})


def _rows(
    case: Case, menu: tuple[Edit, ...], can: list[list[bool]], rule: Any, work: Path, seed: int, tell: Tell
) -> dict[str, damages.Row]:
    """Damages of every unit. Rows, factors and probes of finished units lie in the work folder."""
    place = {unit.name: at for at, unit in enumerate(case.units)}
    offered = {
        unit.name: [edit if able else None for edit, able in zip(menu, row, strict=True)]
        for units, row in zip(case.rows.values(), can, strict=True)
        for unit in units
    }
    for units, factors in statistics(case, work, seed, tell, getattr(rule, "INPUTS_ALONE", False)):
        with case.stream.loaded(*modules_of(case, units)):
            _finished(case, units, factors, offered, rule, work)
        trim()
    return {unit.name: stored_row(work, place[unit.name]) for unit in case.units}


def _finished(
    case: Case,
    units: Sequence[Unit],
    factors: Mapping[str, Factors],
    offered: Mapping[str, Sequence[Edit | None]],
    rule: Any,
    work: Path,
) -> None:
    """Damages, factors and probes of loaded units, kept in the work folder."""
    found = {unit.name: complete(unit, factors) for unit in units}
    cut = [unit for unit in units if _any_cut(offered[unit.name])]
    matrices = {m.key: view(case.stream.network, m) for unit in cut for m in unit.matrices}
    told = {key: one for unit in cut for key, one in found[unit.name].items()}
    made = rule.rows(cut, _grids(offered), matrices, told, case.dtype)
    for unit in units:
        none = np.zeros(len(offered[unit.name]))
        at = case.units.index(unit)
        store_factors(work, at, found[unit.name])
        store_row(work, at, made.get(unit.name) or damages.Row(none, none))


def _any_cut(edits: Sequence[Edit | None]) -> bool:
    return any(edit is not None and not isinstance(edit, Keep) for edit in edits)


def _grids(offered: Mapping[str, Sequence[Edit | None]]) -> dict[str, list[Edit | None]]:
    """The edits of every unit without those that take channels away: rules know grids."""
    return {name: [None if isinstance(edit, Channels) else edit for edit in edits] for name, edits in offered.items()}


def _groups(case: Case, work: Path) -> Groups:
    """The coupled channels of an image model, with the factors that lie in the work folder."""
    known = [stored_factors(work, at, unit) or {} for at, unit in enumerate(case.units)]
    return Groups(case, {key: one for found in known for key, one in found.items()})


def _with_channels(
    groups: Groups, menu: tuple[Edit, ...], can: list[list[bool]], rows: dict[str, damages.Row], tell: Tell
) -> Correction:
    """Fill in what fewer channels damage, in place; the correction is that of all groups with fewer channels."""
    case = groups.case
    offered = dict(zip((unit.name for unit in case.row_units()), can, strict=True))
    for at, unit in enumerate(groups.units):
        tell("channels", at, len(groups.units))
        able = offered[unit.name]
        edits = [edit if one else None for edit, one in zip(menu, able, strict=True)]
        rows[unit.name] = groups.row(unit, edits, rows[unit.name])
    tell("channels", len(groups.units), len(groups.units))
    if len(case.check) == 0:
        return Correction()
    found = groups.probes(tell)
    expected = {
        keep: math.fsum(float(rows[unit.name].damage[menu.index(Channels(keep))]) for unit in groups.units)
        for keep in found
    }
    return Correction.fit(expected, found)  # type: ignore[arg-type]  # levels here are shares


# the menu


def _shaped(case: Case, singles: Singles, correction: Correction, told: dict[str, Any], work: Path, tell: Tell) -> Menu:
    """The menu with smaller shapes, and one row for both sides of what can lose its own where blocks may differ."""

    def factors(unit: Unit) -> Mapping[str, Factors]:
        found = stored_factors(work, case.units.index(unit), unit)
        assert found is not None
        return found

    over: str = told["over"]
    if case.one_shape:
        seen = even.measure(case, factors, work, tell, _rounded(case, singles.rows, work))
        shapes = OneShape(case, singles, seen, correction, over)
        told = told | {"one_shape": {"order": shapes.order}}
        rows: list[list[Offer]] = [shapes(units) for units in case.rows.values()]
    else:
        free = measure(case, factors, work, tell)
        rows = [joint.offers_of(case, units, singles, free, correction, over) for units in case.rows.values()]
    edits = tuple(dict.fromkeys(offer.edit for row in rows for offer in row))
    at, shape = {edit: e for e, edit in enumerate(edits)}, (len(rows), len(edits))
    cost = {name: np.full(shape, np.inf) for name in case.resources}
    damage, error = np.full(shape, np.inf), np.zeros(shape)
    for r, row in enumerate(rows):
        for offer in row:
            e = at[offer.edit]
            damage[r, e], error[r, e] = offer.damage, offer.error
            for name in cost:
                cost[name][r, e] = offer.cost[name]
    told = told | {"correction": correction.told(), "common_error": correction.error}
    return Menu(case.row_units(), edits, cost, damage, error, fixed(case, over), weights(case, over), {}, told)


def _rounded(case: Case, rows: Mapping[str, damages.Row], work: Path) -> even.Rounded | None:
    """The probe in the middle, where all units of the blocks have left one."""
    units = [(at, unit) for at, unit in enumerate(case.units) if unit.block is not None]
    told = [{level for level in rows[unit.name].expected if 1 < level < FAMILY} for _, unit in units]
    levels = sorted(set.intersection(*told) if told else ())
    if not levels:
        return None
    level = levels[len(levels) // 2]

    def cut(block: int) -> dict[Matrix, Tensor]:
        mine = [(unit, Parts(work / "probes").load(str(at))) for at, unit in units if unit.block == block]
        return {m: held[f"{level}/{m.key}"] for unit, held in mine for m in unit.matrices if f"{level}/{m.key}" in held}

    return even.Rounded(cut, {unit.name: rows[unit.name].expected[level] for _, unit in units})


def _menu(
    case: Case,
    menu: tuple[Edit, ...],
    can: list[list[bool]],
    rows: Mapping[str, damages.Row],
    correction: Correction,
    told: dict[str, Any],
) -> Menu:
    shape, over = (len(case.rows), len(menu)), told["over"]
    cost = {name: np.full(shape, np.inf) for name in case.resources}
    damage, error = np.full(shape, np.inf), np.zeros(shape)
    for r, units in enumerate(case.rows.values()):
        for e in np.flatnonzero(can[r]):
            prices = [price(case, unit, menu[e], over) for unit in units]
            for name in cost:
                cost[name][r, e] = sum(one[name] for one in prices)
            damage[r, e] = math.fsum(rows[unit.name].damage[e] for unit in units)
            error[r, e] = math.hypot(*(rows[unit.name].error[e] for unit in units))
    told = told | {"correction": correction.told(), "common_error": correction.error}
    return Menu(case.row_units(), menu, cost, damage, error, fixed(case, over), weights(case, over), {}, told)
