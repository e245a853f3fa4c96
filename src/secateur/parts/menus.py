"""Menus and plans as files: a menu is a folder, a plan is a page that a person can read and correct.

    menu/menu.json           what it is of: units, edits, resources, and how it was made
    menu/arrays-1f0c….npz    costs, damages, errors and notes, units x edits
    plan.yaml                the budget, what it spends and is expected to damage, and one line per unit

Files appear whole or not at all; nothing that is read can run anything.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import yaml

from secateur.parts import allocate
from secateur.parts.edits import parse, text
from secateur.types import Budget, Edit, Matrix, Menu, Plan, PlanError, SecateurError, Unit

VERSION = 1


def save_menu(menu: Menu, folder: Path) -> None:
    """Write a menu into a folder, over the one that may be there; other files in it are left alone."""
    arrays = {f"notes/{name}": note for name, note in menu.notes.items()}
    for start, one in (("", menu), *((f"narrower/{k}/", one) for k, one in enumerate(menu.narrower))):
        arrays |= {f"{start}cost/{name}": cost for name, cost in one.cost.items()}
        arrays |= {f"{start}damage": one.damage, f"{start}error": one.error}
    packed = io.BytesIO()
    np.savez_compressed(packed, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
    name = f"arrays-{hashlib.sha256(packed.getvalue()).hexdigest()[:16]}.npz"
    head = {
        "secateur_menu": VERSION,
        "arrays": name,
        "weights": int(menu.weights),
        "fixed": {resource: float(amount) for resource, amount in menu.fixed.items()},
        "about": dict(menu.about),
        "resources": list(menu.cost),
        "edits": [text(edit) for edit in menu.edits],
        **({"narrower": [dict(one.fixed) for one in menu.narrower]} if menu.narrower else {}),
    }
    folder = Path(folder)
    _write(folder / name, packed.getvalue())
    # only now is it a menu; until here the old one was
    units = ",\n  ".join(json.dumps(_told(unit)) for unit in menu.units)
    head_text = json.dumps(head, indent=1, default=_plain).removesuffix("\n}")
    _write(folder / "menu.json", f'{head_text},\n "units": [\n  {units}\n ]\n}}\n'.encode())
    for old in folder.glob("arrays-*.npz"):
        if old.name != name:
            old.unlink()


def load_menu(folder: Path) -> Menu:
    """Read a menu back, every number as it was."""
    head_file = Path(folder) / "menu.json"
    again = f"make it again: secateur survey MODEL --data DATA -o {folder}"
    if not head_file.is_file():
        raise PlanError(f"there is no menu in `{folder}`", f"make one: secateur survey MODEL --data DATA -o {folder}")
    try:
        head = json.loads(head_file.read_bytes())
        if head["secateur_menu"] != VERSION:
            raise PlanError(f"the menu in `{folder}` is of version {head['secateur_menu']}, not {VERSION}", again)
        packed = (head_file.parent / Path(head["arrays"]).name).read_bytes()
        if hashlib.sha256(packed).hexdigest()[:16] not in head["arrays"]:
            raise ValueError("its arrays were changed")
        with np.load(io.BytesIO(packed), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        units = tuple(_unit(unit) for unit in head["units"])
        edits = tuple(parse(edit) for edit in head["edits"])
        notes = {name.removeprefix("notes/"): note for name, note in arrays.items() if name.startswith("notes/")}

        def one(start: str, fixed: Mapping[str, float]) -> Menu:
            cost = {name: arrays[f"{start}cost/{name}"] for name in head["resources"]}
            damage, error = arrays[f"{start}damage"], arrays[f"{start}error"]
            if any(array.shape != (len(units), len(edits)) for array in (damage, error, *cost.values())):
                raise ValueError("its arrays do not have one row per unit and one column per edit")
            return Menu(units, edits, cost, damage, error, fixed, head["weights"], notes, head["about"])

        narrower = (one(f"narrower/{k}/", fixed) for k, fixed in enumerate(head.get("narrower", ())))
        return replace(one("", head["fixed"]), narrower=tuple(narrower))
    except SecateurError:
        raise
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, BadZipFile) as why:
        raise PlanError(f"the menu in `{folder}` cannot be read: {_reason(why)}", again) from None


def save_plan(plan: Plan, file: Path) -> None:
    """Write a plan as a page of YAML: what was asked and is expected, then one line per unit."""
    chosen = {unit: text(edit) for unit, edit in plan.edits.items()}
    head = {
        "budget": plan.budget,
        "spent": dict(plan.spent),
        "damage": plan.damage,
        "error": plan.error,
        "floor": plan.bound,
        "about": dict(plan.about),
        "seal": _seal(plan.budget, chosen),
    }
    page = (
        "# A plan of Secateur: one edit for every unit. An edit may be changed here by hand; `apply` prices it again.\n"
        "# damage: the expected rise of the loss in nats per token, give or take `error`; no plan within the budget\n"
        "# stays below `floor`. seal: of the lines as they were planned.\n"
        f"{_yaml(head)}edits:\n"
    )
    lines = "".join(f"  {line}\n" for line in _yaml(chosen).splitlines())
    _write(Path(file), (page + lines).encode())


def load_plan(file: Path, menu: Menu | None = None, fingerprint: str | None = None) -> Plan:
    """Read a plan. With its menu it is priced anew and must keep to its budget; a fingerprint must be its model's.

    Without a menu a plan that was changed by hand has no price: `spent` is empty and damage, error and bound are nan.
    """
    file = Path(file)
    page = _page(file)
    edits, budget, about = page["edits"], str(page.get("budget") or ""), dict(page.get("about") or {})
    if fingerprint is None and menu is not None:
        fingerprint = menu.about.get("fingerprint")
    check_model(about, fingerprint, f"the plan `{file}`")
    as_planned = page.get("seal") == _seal(budget, edits)
    chosen = {unit: _edit(file, unit, words) for unit, words in edits.items()}
    if menu is not None:
        _check_menu(file, chosen, menu)
        named = str(about.get("allocate", "")) if as_planned else "by hand"
        priced = allocate.price(menu.that_offers(chosen), Budget.parse(budget).fixed_by(menu), chosen, named)
        # the floor that the planner proved may be higher than the one that prices prove; it holds while the menu does
        proven = as_planned and page.get("damage") == priced.damage and isinstance(page.get("floor"), float)
        return replace(priced, bound=page["floor"]) if proven else priced
    if not as_planned:
        about["allocate"] = "by hand"
        return Plan(chosen, {}, math.nan, math.nan, math.nan, budget, about)
    try:
        damage, error, floor = (float(page[key]) for key in ("damage", "error", "floor"))
        return Plan(chosen, dict(page["spent"]), damage, error, floor, budget, about)
    except (KeyError, TypeError, ValueError) as why:
        hint = "plan again, or give the menu, so that it can be priced"
        raise PlanError(f"the head of the plan `{file}` is damaged: {_reason(why)}", hint) from None


def check_model(about: Mapping[str, Any], fingerprint: str | None, what: str) -> None:
    """A PlanError when a plan or a menu says that it is of another model; silent where either does not say."""
    theirs = about.get("fingerprint")
    if fingerprint and theirs and theirs != fingerprint:
        named = f" (`{about['model']}`)" if about.get("model") else ""
        message = f"{what} is of another model{named}: its fingerprint is {theirs}, this model's is {fingerprint}"
        raise PlanError(message, "survey and plan this model, or give the one that the plan was made for")


def _page(file: Path) -> dict[str, Any]:
    """The YAML of a plan as plain values; says where it is wrong, and refuses a unit that is named twice."""
    hint = "a plan is what `secateur plan` writes: a head, then `edits:` with one line per unit"
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(file.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.value == "edits" and isinstance(value, yaml.MappingNode):
                _no_doubles(file, value)
        page = loader.construct_document(node) if node is not None else None
    except FileNotFoundError:
        raise PlanError(f"there is no plan `{file}`", "make one: secateur plan MENU --budget B -o plan.yaml") from None
    except yaml.YAMLError as why:
        mark = getattr(why, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise PlanError(f"cannot read `{file}`{where}: {getattr(why, 'problem', None) or why}", hint) from None
    except (OSError, UnicodeDecodeError) as why:
        raise PlanError(f"cannot read `{file}`: {_reason(why)}", hint) from None
    page = page if isinstance(page, dict) else {}
    edits = page.get("edits")
    if not isinstance(edits, dict) or not edits:
        raise PlanError(f"`{file}` has no `edits:`", hint)
    if not isinstance(page.get("about") or {}, dict):
        raise PlanError(f"`about:` in `{file}` is not a list of names and values", hint)
    return {**page, "edits": {str(unit): str(words) for unit, words in edits.items()}}


def _no_doubles(file: Path, edits: yaml.MappingNode) -> None:
    seen: dict[str, int] = {}
    for key, _ in edits.value:
        line = key.start_mark.line + 1
        if key.value in seen:
            raise PlanError(
                f"`{key.value}` stands twice in `{file}`: in lines {seen[key.value]} and {line}", "keep one of them"
            )
        seen[key.value] = line


def _edit(file: Path, unit: str, words: str) -> Edit:
    try:
        return parse(words)
    except PlanError as why:
        raise PlanError(f"{why.message}, for `{unit}` in `{file}`", why.hint) from None


def _check_menu(file: Path, chosen: Mapping[str, Edit], menu: Menu) -> None:
    """Every unit of the menu is named, no other is, and each has an edit that it can have."""
    known, edits = {unit.name: u for u, unit in enumerate(menu.units)}, [text(edit) for edit in menu.edits]
    can = np.isfinite(menu.that_offers(chosen).damage)
    for unit, edit in chosen.items():
        if unit not in known:
            raise PlanError(f"`{file}` names `{unit}`, which is not on the menu", _near(unit, list(known)))
        offered = [edits[e] for e in np.flatnonzero(can[known[unit]])]
        if text(edit) not in offered:
            raise PlanError(f"`{unit}` cannot have `{text(edit)}` on this menu (`{file}`)", _near(text(edit), offered))
    if missing := [unit for unit in known if unit not in chosen]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise PlanError(f"`{file}` says nothing of `{missing[0]}`{more}", "every unit needs a line; `keep()` leaves it")


def _near(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, 1)
    return f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known[:8])}{' ...' * (len(known) > 8)}"


def _seal(budget: str, edits: Mapping[str, str]) -> str:
    """A short hash of what a person might change: spaces and the order of lines do not count."""
    lines = sorted(f"{unit}: {''.join(words.split())}" for unit, words in edits.items())
    return hashlib.sha256("\n".join([budget, *lines]).encode()).hexdigest()[:16]


def _told(value: Unit | Matrix) -> dict[str, Any]:
    """A unit or a matrix as plain values, without what is at its default."""
    out: dict[str, Any] = {}
    for field in fields(value):
        held = getattr(value, field.name)
        if field.default is MISSING or held != field.default:
            out[field.name] = [_told(m) for m in held] if field.name == "matrices" else held
    return out


def _unit(told: Mapping[str, Any]) -> Unit:
    matrices = (Matrix(**{**matrix, "stored": tuple(matrix.get("stored", ()))}) for matrix in told["matrices"])
    return Unit(**{**told, "matrices": tuple(matrices), "vectors": tuple(told.get("vectors", ()))})


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, and paths, as JSON knows them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} cannot be written into a menu")


def _yaml(values: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(values, default=_plain))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=math.inf)


def _reason(why: Exception) -> str:
    if isinstance(why, OSError) and why.strerror:
        return why.strerror.lower()
    return f"{why} is missing" if isinstance(why, KeyError) else str(why) or type(why).__name__


def _write(file: Path, content: bytes) -> None:
    """Put a whole file in place, or none."""
    part = file.with_name(f".{file.name}.part")
    with _cannot_write(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            os.replace(part, file)
        except OSError:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def _cannot_write(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as why:
        raise SecateurError(f"cannot write `{file}`: {_reason(why)}", "nothing was changed; make room there") from None
