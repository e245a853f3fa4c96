"""Survey: one pass over the network, and every edit of every unit has a price and an expected damage.

    forward          hidden states at every block, parked
    backward         from the head down: each block's factors, and the damage of every edit from them
    three probes     the network at 2, 3 and 4 bits against itself, on text of its own: corrects the prediction

Blocks that are finished stay in the work folder, with their factors, which applying needs again.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from secateur.case import Case, Tell, about, offers, open_case, silent, work_folder
from secateur.export import Parts
from secateur.export._write import base_bytes, layout_bytes, tensor_bytes, write_text
from secateur.measure.compare import Comparison
from secateur.model.factors import Factors, backward
from secateur.model.matrix import place as place_of
from secateur.model.matrix import view
from secateur.parts import damage as damages
from secateur.parts.edits import text
from secateur.parts.edits.keep import Keep
from secateur.parts.menus import save_menu
from secateur.types import Edit, Matrix, Menu, Unit


def survey(
    model: str,
    data: str,
    *,
    format: str = "compressed-tensors",
    out: str | Path | None = None,
    samples: int = 128,
    seq_len: int | None = None,
    over: str = "all",
    keep: tuple[str, ...] = (),
    pin: Mapping[str, str] | None = None,
    damage: str = "kronecker",
    seed: int = 0,
    device: str | None = None,
    resume: bool = True,
    tell: Tell | None = None,
) -> Menu:
    """The menu of a model: what every edit of every unit costs, and what it is expected to damage. Saved in `out`."""
    tell = tell or silent
    case = open_case(model, data, format, samples, seq_len, seed, device)
    menu, can, skipped = offers(case, over, keep, dict(pin or {}))
    key = about(case, over=over, damage=damage, samples=samples, seq_len=seq_len, seed=seed, data=str(data))
    with tempfile.TemporaryDirectory() as nowhere:
        folder = Path(out or nowhere)
        work = work_folder(folder, resume, key | {"edits": [text(edit) for edit in menu], "can": can})
        rows = _rows(case, menu, can, damages.find(damage), work, seed, tell)
        correction = _correct(case, rows, work, tell)
        made = _menu(case, menu, can, rows, correction, key | {"skipped": skipped})
        if out is not None:
            save_menu(made, folder)
    return made


def _rows(
    case: Case, menu: tuple[Edit, ...], can: list[list[bool]], rule: Any, work: Path, seed: int, tell: Tell
) -> dict[str, damages.Row]:
    """Damages of every unit. Rows, factors and probes of finished units lie in the work folder."""
    place = {unit.name: at for at, unit in enumerate(case.units)}
    n = len(case.stream.blocks)
    for index, factors in backward(case.stream, case.calib, case.units, work, seed, tell):
        kind = "head" if index == n else "embedding" if index == -1 else ""
        for unit in (u for u in case.units if (u.kind == kind if kind else u.block == index)):
            offered = [edit if can[place[unit.name]][e] else None for e, edit in enumerate(menu)]
            if all(edit is None or isinstance(edit, Keep) for edit in offered):
                row, found = damages.Row(np.zeros(len(menu)), np.zeros(len(menu))), {}
            else:
                found = complete(unit, factors)
                with case.stream.loaded(module_of(case, unit)):
                    weights = {m.key: view(case.stream.network, m) for m in unit.matrices}
                    row = rule.row(unit, offered, weights, found, case.dtype)
            _store(work, place[unit.name], unit, row, found)
    return {unit.name: _stored(work, place[unit.name]) for unit in case.units}


def module_of(case: Case, unit: Unit) -> str:
    """The module to load to have a unit's weights at hand."""
    if unit.block is not None:
        return case.stream.blocks[unit.block]
    return place_of(unit.matrices[0]).module


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


def _store(work: Path, at: int, unit: Unit, row: damages.Row, found: Mapping[str, Factors]) -> None:
    tensors = {}
    for key, f in found.items():
        tensors |= {f"a/{key}": f.a.cpu().contiguous(), f"g/{key}": f.g.cpu().contiguous()}
    Parts(work / "factors").save(str(at), tensors)
    probes = {f"{level}/{key}": w.half().cpu() for level, cut in row.probes.items() for key, w in cut.items()}
    Parts(work / "probes").save(str(at), probes)
    told = {
        "damage": row.damage.tolist(),
        "error": row.error.tolist(),
        "expected": {str(level): value for level, value in row.expected.items()},
    }
    write_text(work / f"row-{at}.json", json.dumps(told))


def _stored(work: Path, at: int) -> damages.Row:
    told = json.loads((work / f"row-{at}.json").read_text())
    expected = {int(level): value for level, value in told["expected"].items()}
    return damages.Row(np.array(told["damage"]), np.array(told["error"]), {}, expected)


def stored_factors(work: Path, at: int, unit: Unit) -> dict[str, Factors] | None:
    """The factors that a survey left for the unit at this place, or None."""
    file = work / "factors" / f"{at}.safetensors"
    if not file.exists():
        return None
    held = load_file(str(file))
    keys = [m.key for m in unit.matrices]
    if any(f"a/{key}" not in held for key in keys):
        return None
    return {key: Factors(held[f"a/{key}"], held[f"g/{key}"]) for key in keys}


# the correction


def _correct(case: Case, rows: Mapping[str, damages.Row], work: Path, tell: Tell) -> dict[str, float]:
    """How predictions must be corrected: damage = exp(shift) * sum^power, from the probes, and what error that leaves.

    Gradients of neighbouring tokens are correlated and the second order is not all, so sums of predictions come out too
    low, and more so for large damages. Both show in the log-log line through the probes.
    """
    told = [set(row.expected) for row in rows.values() if row.expected]
    levels = sorted(set.intersection(*told) if told else ())
    levels = [level for level in levels if level > 1]  # at one bit nothing is left to predict
    if not levels or len(case.check) == 0:
        return {"shift": 0.0, "power": 1.0, "error": 0.5}
    found = probe(case, work, levels, tell)
    x = np.log([max(sum(row.expected.get(level, 0.0) for row in rows.values()), 1e-12) for level in levels])
    y = np.log([max(found[level].kl, 1e-12) for level in levels])
    power = float(np.clip(np.polyfit(x, y, 1)[0], 0.8, 1.25)) if len(levels) > 1 else 1.0
    shift = float(np.mean(y - power * x))
    left = float(np.sqrt(np.mean((y - shift - power * x) ** 2)))
    return {"shift": shift, "power": power, "error": math.hypot(left, 0.1)}


def probe(case: Case, work: Path, levels: list[int], tell: Tell) -> dict[int, Comparison]:
    """The network with every unit cut as the survey's probes, against itself, on the windows for correction."""
    stream, check = case.stream, case.check
    files = [work / "probes" / f"{at}.safetensors" for at in range(len(case.units))]

    def cut(level: int, block: int | None) -> dict[Matrix, Tensor]:
        out = {}
        for unit, file in zip(case.units, files, strict=True):
            if unit.block == block:
                held = load_file(str(file))
                out |= {m: held[f"{level}/{m.key}"] for m in unit.matrices if f"{level}/{m.key}" in held}
        return out

    plain = stream.embed(check)
    states = {level: plain.clone() for level in levels}
    if not stream.anatomy.tied:
        for level in levels:
            states[level] = stream.embed(check, cut=_only(cut(level, None), "embedding", case))
    for i, path in enumerate(stream.blocks):
        tell("probes", i, len(stream.blocks))
        with stream.loaded(path):
            stream.through(i, plain, plain)
        for level in levels:
            with stream.loaded(path, cut=cut(level, i)):
                stream.through(i, states[level], states[level])
    tell("probes", len(stream.blocks), len(stream.blocks))
    out = {level: Comparison() for level in levels}
    for level in levels:
        for start in range(0, len(check), stream.batch):
            batch = slice(start, start + stream.batch)
            with torch.no_grad():
                with stream.tail() as tail:
                    theirs = tail(plain[batch].to(case.device))
                with stream.tail(cut=_only(cut(level, None), "head", case)) as tail:
                    ours = tail(states[level][batch].to(case.device))
            out[level].update(ours, theirs, check[batch])
    return out


def _only(cut: Mapping[Matrix, Tensor], kind: str, case: Case) -> dict[Matrix, Tensor]:
    mine = {m.key for unit in case.units if unit.kind == kind or case.stream.anatomy.tied for m in unit.matrices}
    return {m: values for m, values in cut.items() if m.key in mine}


# the menu


def _menu(
    case: Case,
    menu: tuple[Edit, ...],
    can: list[list[bool]],
    rows: Mapping[str, damages.Row],
    correction: dict[str, float],
    key: dict[str, Any],
) -> Menu:
    shape = (len(case.units), len(menu))
    cost = {name: np.full(shape, np.inf) for name in ("bytes", "payload")}
    damage, error = np.full(shape, np.inf), np.zeros(shape)
    counted = [key["over"] == "all" or unit.block is not None for unit in case.units]
    for u, unit in enumerate(case.units):
        for e, edit in enumerate(menu):
            if can[u][e]:
                layout = case.format.layout(unit, edit, case.dtype)
                cost["bytes"][u, e] = sum(tensor_bytes(name, one) for name, one in layout.items())
                cost["payload"][u, e] = counted[u] * sum(layout_bytes(one) for one in layout.values())
                damage[u, e], error[u, e] = rows[unit.name].damage[e], rows[unit.name].error[e]
    entries = {name: case.checkpoint.tensors[name] for name in rest(case)}
    layouts = {name: (entry.dtype, tuple(entry.shape)) for name, entry in entries.items()}
    payload = sum(entry.bytes for entry in entries.values()) if key["over"] == "all" else 0
    weights = sum(unit.size for u, unit in enumerate(case.units) if counted[u])
    if key["over"] == "all":
        weights += sum(entry.size for entry in entries.values())
    fixed = {"bytes": base_bytes() + sum(tensor_bytes(n, one) for n, one in layouts.items()), "payload": payload}
    about = key | {"correction": correction, "common_error": correction["error"]}
    return Menu(case.units, menu, cost, damage, error, fixed, weights, {}, about)


def rest(case: Case) -> list[str]:
    """Stored tensors that go into the file as they are: in no unit, used by the network, and no copies of others."""
    dropped = {name for name, why in case.stream.anatomy.skipped if why.startswith(("a copy of", "this architecture"))}
    return [name for name in case.stream.anatomy.rest if name not in dropped]
