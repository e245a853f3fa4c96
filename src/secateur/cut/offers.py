"""Offers: which row of a menu can have which edit, by what the format holds and what the user wants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from secateur.cut.case import Case
from secateur.export._dense import is_plain
from secateur.parts import edits as edits_
from secateur.parts.edits.half import Half
from secateur.parts.edits.keep import Keep
from secateur.types import Edit, PlanError, SecateurError, Unit


def offers(
    case: Case, over: str, keep: Sequence[str], pin: Mapping[str, str]
) -> tuple[tuple[Edit, ...], list[list[bool]], list[dict[str, str]]]:
    """The edits of the menu, which row can have which, and the rows that can have none but `keep`, with reasons."""
    if over not in ("all", "linear"):
        raise SecateurError(f"`--over {over}` is not known", "say `all` or `linear`")
    pinned = {pattern: edits_.parse(words) for pattern, words in pin.items()}
    grids = tuple(kind for kind in case.kinds if not case.shaped or kind not in edits_.SHAPES)
    wide = any(case.dtype_of(unit, Keep()) == "float32" for unit in case.units)
    own = [edit for edit in case.format.edits() if wide or not isinstance(edit, Half)]
    menu = tuple(dict.fromkeys([*edits_.offered(grids, own), *pinned.values()]))
    within = [unit for unit in case.units if over == "all" or unit.block is not None]
    _all_match(pinned, within, " inside the blocks (--over linear)" if over == "linear" else "")
    _all_match(keep, case.units)
    can, skipped = [], []
    refused: dict[Edit, str | None] = {}
    for row, units in zip(case.row_units(), case.rows.values(), strict=True):
        fixed = {p: edit for p, edit in pinned.items() if any(_matches(p, u) for u in units if u in within)}
        refusals = [next(filter(None, (case.refuses(unit, edit) for unit in units)), None) for edit in menu]
        refused |= {e: why for e, why in zip(menu, refusals, strict=True) if refused.get(e, "") is not None}
        if fixed:
            can.append([edit == _pinned(row, fixed, menu, refusals) for edit in menu])
            continue
        why = _left_alone(units, over, keep)
        can.append([edit == Keep() if why else refusal is None for edit, refusal in zip(menu, refusals, strict=True)])
        if all(is_plain(edit) for edit, able in zip(menu, can[-1], strict=True) if able):
            reason = why or next(filter(None, refusals), None)  # none where nothing else is on the menu
            skipped += [{"unit": row.name, "reason": reason}] if reason else []
    if set(case.kinds) != set(edits_.kinds()):  # who asks for all takes what there is
        _all_held(case, grids, refused)
    return menu, can, skipped


def _all_held(case: Case, kinds: Sequence[str], refused: Mapping[Edit, str | None]) -> None:
    """PlanError if edits of a kind that was asked for fit no unit at all."""
    for kind in kinds:
        own = {edit: why for edit, why in refused.items() if edits_.text(edit).partition("(")[0] == kind}
        if own and all(own.values()):
            said = f"no unit can be `{kind}` in the format `{case.format.name}`: {next(iter(own.values()))}"
            raise PlanError(said, "`--format packed` holds any edit; or leave it out of --edits")


def _pinned(row: Unit, fixed: Mapping[str, Edit], menu: Sequence[Edit], refusals: Sequence[str | None]) -> Edit:
    """The one edit that a row is pinned to, if it can have it."""
    (first, edit), *others = fixed.items()
    if clash := next((pattern for pattern, other in others if other != edit), None):
        raise PlanError(f"`{first}` and `{clash}` pin `{row.name}` to two edits", "pin it once")
    if why := refusals[menu.index(edit)]:
        raise PlanError(f"`{row.name}` cannot be {edits_.text(edit)}: {why}", "pin another edit")
    return edit


def _left_alone(units: Sequence[Unit], over: str, keep: Sequence[str]) -> str | None:
    """Why the user wants these units left as they are, or None."""
    for pattern in keep:
        if any(_matches(pattern, unit) for unit in units):
            return f"kept by --keep {pattern}"
    outside = over == "linear" and all(unit.block is None for unit in units)
    return "not a linear layer of a block (--over linear)" if outside else None


def _all_match(patterns: Iterable[str], units: Sequence[Unit], where: str = "") -> None:
    for pattern in patterns:
        if not any(_matches(pattern, unit) for unit in units):
            example = units[len(units) // 2].name
            raise PlanError(f"`{pattern}` matches no unit{where}", f"units are named like `{example}`")


def _matches(pattern: str, unit: Unit) -> bool:
    """A pattern names a unit or one of its members, whole, with wildcards, or as a part between dots."""
    return any(fnmatchcase(f".{name}.", f"*.{pattern}.*") for name in (unit.name, *unit.members))
