"""Apply: carry a plan out block by block (`walk.py`), write the file, see it load, and measure what it did cost.

The file is put together and read by its runtime in the work folder; only then does it appear (`finish.py`).
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateur.cut.case import Case, Tell, silent
from secateur.cut.correcting import corrected
from secateur.cut.examples import remember
from secateur.cut.finish import finish, summary
from secateur.cut.latency import held_against
from secateur.cut.opening import open_case
from secateur.cut.price import spent
from secateur.cut.runtime import as_shipped
from secateur.cut.shapes.one_shape import misshapen
from secateur.cut.trunk import at_widths, layers_of
from secateur.cut.walk import UnitFactors, Walk
from secateur.cut.work import work_folder
from secateur.export._write import write_text
from secateur.measure.speed import peak_rss
from secateur.parts.edits import asked, text
from secateur.parts.edits.trunks import ROW, left_of
from secateur.parts.menus import check_model, load_menu, load_plan
from secateur.types import Edit, Plan, PlanError, SecateurError

log = logging.getLogger("secateur")

#: how weights are put on their grids, by the number of sides that errors are fed back along
ROUNDERS = {"nearest": 0, "one-sided": 1, "two-sided": 2}


def apply(
    model: str,
    plan: Plan | str | Path,
    *,
    data: str,
    out: str | Path,
    menu: str | Path | None = None,
    round: str = "two-sided",
    samples: int | None = None,
    seq_len: int | None = None,
    seed: int = 0,
    device: str | None = None,
    resume: bool = True,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Carry out a plan; the JSON object of the contract. `menu` is the survey's folder, whose factors are used again;
    without it the statistics are gathered anew."""
    begun = time.time()
    plan = plan if isinstance(plan, Plan) else _read(Path(plan), menu)
    form, kinds = str(plan.about.get("format", "compressed-tensors")), asked(str(plan.about.get("kinds", "bits")))
    if "seconds" in plan.spent and device is None:
        device = "cpu"  # they are the processor's
    case = open_case(model, data, form, samples, seq_len, seed, device, kinds)
    if menu is not None:
        check_model(load_menu(Path(menu)).about, case.checkpoint.fingerprint, f"the menu in `{menu}`")
    result = carry_out(case, plan, Path(out), Path(menu) if menu else None, round, seed, resume, tell or silent)
    return record(Path(out), result, begun)


def _read(file: Path, menu: str | Path | None) -> Plan:
    """A plan from its file; one that was changed by hand is priced by its menu, where that is at hand."""
    plan = load_plan(file)
    if plan.spent or menu is None:
        return plan
    known = load_menu(Path(menu))
    return corrected(known, load_plan(file, known))


def carry_out(
    case: Case, plan: Plan, out: Path, menu: Path | None, round: str, seed: int, resume: bool, tell: Tell
) -> dict[str, Any]:
    """Cut, write, see it load, measure, and hold its seconds against those of the plan: what is known of the result."""
    result = carried_out(case, plan, out, menu, round, seed, resume, tell)
    if "seconds" not in plan.spent:
        return result
    if case.device.type != "cpu":
        log.warning("the seconds of this plan are the processor's, and were not measured on %s", case.device)
        return result
    return result | {"latency": held_against(case, plan.spent["seconds"], plan.about.get("uncut_seconds"), out)}


def carried_out(
    case: Case, plan: Plan, out: Path, menu: Path | None, round: str, seed: int, resume: bool, tell: Tell
) -> dict[str, Any]:
    """Cut, write, see it load, measure what is lost."""
    sides = sides_of(round)
    check_place(case, out)
    check_model(plan.about, case.checkpoint.fingerprint, "this plan")
    edits = _edits(case, plan)
    case = at_widths(case, left_of(case.trunks, plan.edits)) if case.trunks else case
    told = {
        "edits": {name: text(edit) for name, edit in (plan.edits if case.trunks else edits).items()},
        "fingerprint": case.checkpoint.fingerprint,
        "format": case.format.name,
        "held": case.stream.digest(case.held),
        "round": round,
        "text": case.text,
    }
    work, taken_up = work_folder(out, resume, told)
    factors = UnitFactors(case, _statistics_of(plan, menu) or work, seed, tell, sides)
    walk = Walk(case, edits, sides, factors, work, _still(case, plan))
    compared, logits = walk(tell)
    spends = spent(case, edits, str(plan.about.get("over", "all")))
    exported = finish(case, edits, spends["bytes"], work, out, (walk.some, logits), tell)
    exact, compared = compared, as_shipped(case, out, walk.seen.shipped) or compared
    remember(case, walk.seen, compared, work, out)
    shutil.rmtree(work)
    result = summary(case, plan, edits, compared, walk.found.bad_rows, exported)
    result |= {"kl_exact": exact.kl} if exact is not compared else {}
    if "seconds" in plan.spent:
        spends |= {"seconds": plan.spent["seconds"]}
    return result | {"spent": dict(plan.spent) | spends, "resumed": taken_up}


def check_place(case: Case, out: Path) -> None:
    """SecateurError if a cut would be written over the model that it is of."""
    if out.resolve() == case.checkpoint.folder.resolve():
        raise SecateurError(f"{out} is the model itself", "give another folder with -o")


def record(out: Path, result: Mapping[str, Any], begun: float) -> dict[str, Any]:
    """What is known of the result and what it took, written beside the file."""
    told = {**result, "seconds": time.time() - begun, "peak_rss_bytes": peak_rss()}
    write_text(out / "secateur.json", json.dumps(told, indent=1) + "\n")
    return told


def sides_of(round: str) -> int:
    """On how many sides a rounding feeds errors back."""
    if round not in ROUNDERS:
        raise SecateurError(f"there is no rounding `{round}`", f"there are {', '.join(ROUNDERS)}")
    return ROUNDERS[round]


def _edits(case: Case, plan: Plan) -> dict[str, Edit]:
    """The plan's edits for this network's units; every row of its menu must be named and every edit possible."""
    missing = [name for name in case.rows if name not in plan.edits]
    strange = sorted(set(plan.edits) - set(case.rows) - ({ROW} if case.trunks else set()))
    if missing or strange:
        what = f"it does not name `{missing[0]}`" if missing else f"it names `{strange[0]}`, which is not in the model"
        raise PlanError(f"this plan does not fit {case.checkpoint.folder}: {what}", "plan again from this model's menu")
    for row, units in case.rows.items():
        if why := next(filter(None, (case.refuses(unit, plan.edits[row]) for unit in units)), None):
            raise PlanError(f"`{row}` cannot be {text(plan.edits[row])}: {why}", "choose another edit")
    edits = {unit.name: plan.edits[row] for row, units in case.rows.items() for unit in units}
    if case.one_shape and (why := misshapen(case, edits)):
        raise PlanError(f"this plan is no model: {why}", "cut all blocks alike, or write --format packed")
    return edits


def _still(case: Case, plan: Plan) -> frozenset[str]:
    """Modules of the units that the user wants as they are: they are not even fitted to what others have lost."""
    rows = [one["unit"] for one in plan.about.get("skipped", ()) if one["reason"].startswith("kept by --keep")]
    return frozenset(layers_of(case, rows))


def _statistics_of(plan: Plan, menu: Path | None) -> Path | None:
    """The folder with the factors that the plan's survey left; None where there is none, or of another survey."""
    work = (menu or Path()) / ".work"
    try:
        job = json.loads((work / "job.json").read_text())["job"]
    except (OSError, ValueError, KeyError):
        return None
    return work if menu is not None and job == plan.about.get("job") else None
