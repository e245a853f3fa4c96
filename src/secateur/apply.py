"""Apply: carry a plan out block by block, write the file, see it load, and measure what it did cost.

The network walks twice at once over the held-back text, uncut and cut. Every block is loaded, run as it is, rounded
against the factors of the survey, run again as it has become, and its part of the file is written. A killed run finds
the finished parts and the hidden states behind them, and ends with the same bytes.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from secateur.case import Case, Tell, open_case, silent, work_folder
from secateur.export import Parts, companions
from secateur.export._write import write_text
from secateur.maths.grids import Coded
from secateur.maths.settle import settle
from secateur.measure.compare import Comparison
from secateur.model.factors import Factors, backward
from secateur.model.matrix import put, view
from secateur.parts.edits import text
from secateur.parts.edits.keep import Keep
from secateur.parts.menus import check_model, load_plan
from secateur.survey import complete, module_of, rest, stored_factors
from secateur.types import Edit, Matrix, Menu, Plan, PlanError, SecateurError, Unit

#: how weights are put on their grids, by the number of sides that errors are fed back along
ROUNDERS = {"nearest": 0, "one-sided": 1, "two-sided": 2}
_SEEN = 4  # windows on which the runtime's logits are compared with ours


@dataclass
class Progress:
    """What has been found while cutting; kept beside the parts, so that a resumed run reports all of it."""

    damage: float = 0.0
    bad_rows: list[dict[str, Any]] = field(default_factory=list)
    resumed: bool = False


def apply(
    model: str,
    plan: Plan | str | Path,
    *,
    data: str,
    out: str | Path,
    menu: str | Path | None = None,
    round: str = "two-sided",
    samples: int = 128,
    seq_len: int | None = None,
    seed: int = 0,
    device: str | None = None,
    resume: bool = True,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Carry out a plan; the JSON object of the contract. `menu` is the survey's folder, whose factors are used again;
    without it the statistics are gathered anew."""
    tell, begun = tell or silent, time.time()
    if round not in ROUNDERS:
        raise SecateurError(f"there is no rounding `{round}`", f"there are {', '.join(ROUNDERS)}")
    plan = plan if isinstance(plan, Plan) else load_plan(Path(plan))
    case = open_case(model, data, str(plan.about.get("format", "compressed-tensors")), samples, seq_len, seed, device)
    check_model(plan.about, case.checkpoint.fingerprint, "this plan")
    edits = _edits(case, plan)
    out = Path(out)
    told = {name: text(edit) for name, edit in edits.items()}
    work = work_folder(
        out, resume, {"edits": told, "round": round, "held": case.held.tolist(), "model": case.checkpoint.fingerprint}
    )
    factors = _Factors(case, Path(menu) / ".work" if menu else work, seed, tell)
    report, progress = _walk(case, edits, ROUNDERS[round], factors, work, tell)
    exported = _finish(case, plan, edits, work, out, report.pop("logits"), tell)
    shutil.rmtree(work)
    result = _told(case, plan, edits, report, progress, exported)
    result["seconds"] = time.time() - begun
    write_text(out / "secateur.json", json.dumps(result, indent=1) + "\n")
    return result


def _edits(case: Case, plan: Plan) -> dict[str, Edit]:
    """The plan's edits for this network's units; every unit must be named and every edit possible."""
    missing = [unit.name for unit in case.units if unit.name not in plan.edits]
    strange = sorted(set(plan.edits) - {unit.name for unit in case.units})
    if missing or strange:
        what = f"it does not name `{missing[0]}`" if missing else f"it names `{strange[0]}`, which is not in the model"
        raise PlanError(f"this plan does not fit {case.checkpoint.folder}: {what}", "plan again from this model's menu")
    for unit in case.units:
        if why := case.format.refuses(unit, plan.edits[unit.name]):
            raise PlanError(f"`{unit.name}` cannot be {text(plan.edits[unit.name])}: {why}", "choose another edit")
    return {unit.name: plan.edits[unit.name] for unit in case.units}


class _Factors:
    """The factors of each unit: the survey's, or gathered now, once, when the first is asked for."""

    def __init__(self, case: Case, work: Path, seed: int, tell: Tell):
        self.case, self.work, self.seed, self.tell = case, work, seed, tell

    def __call__(self, at: int, unit: Unit) -> Mapping[str, Factors]:
        found = stored_factors(self.work, at, unit)
        if found is None:
            self._gather()
            found = stored_factors(self.work, at, unit)
        assert found is not None
        return found

    def _gather(self) -> None:
        n = len(self.case.stream.blocks)
        for index, factors in backward(
            self.case.stream, self.case.calib, self.case.units, self.work, self.seed, self.tell
        ):
            kind = "head" if index == n else "embedding" if index == -1 else ""
            for at, unit in enumerate(self.case.units):
                if unit.kind == kind if kind else unit.block == index:
                    sides = complete(unit, factors).items()
                    tensors = {
                        f"{side}/{key}": getattr(f, side).cpu().contiguous() for key, f in sides for side in "ag"
                    }
                    Parts(self.work / "factors").save(str(at), tensors)


# the walk


def _walk(
    case: Case, edits: Mapping[str, Edit], sides: int, factors: _Factors, work: Path, tell: Tell
) -> tuple[dict[str, Any], Progress]:
    """All blocks, in order, cut and written; and the comparison of both networks on the held-back text."""
    stream, parts = case.stream, Parts(work / "parts")
    progress, done = _taken_up(work)
    cutter = _Cutter(case, edits, sides, factors, parts, progress)
    if done == 0:
        cut = cutter(None, "embedding")
        uncut_states = stream.embed(case.held)
        cut_states = stream.embed(case.held, cut=cut)
        _keep_states(work, 0, uncut_states, cut_states, progress)
        done = 1
    else:
        stream.embed(case.held[:1])
        stream.embed(case.held[: stream.batch])
        uncut_states, cut_states = _states(work, done)
    n = len(stream.blocks)
    for i in range(done - 1, n):
        tell("cutting", i, n)
        with stream.loaded(stream.blocks[i]):
            stream.through(i, uncut_states, uncut_states)
            cutter(i, "")
            stream.through(i, cut_states, cut_states)
        _keep_states(work, i + 1, uncut_states, cut_states, progress)
    tell("cutting", n, n)
    comparison, seen = Comparison(), []
    cut = cutter(None, "head") | (cutter.embedding if stream.anatomy.tied else {})
    with torch.no_grad():
        for start in range(0, len(case.held), stream.batch):
            batch = slice(start, start + stream.batch)
            with stream.tail() as tail:
                theirs = tail(uncut_states[batch].to(case.device))
            with stream.tail(cut=cut) as tail:
                ours = tail(cut_states[batch].to(case.device))
            comparison.update(ours, theirs, case.held[batch])
            seen.append(ours[: _SEEN - start].cpu() if start < _SEEN else ours[:0].cpu())
    return {"comparison": comparison, "logits": torch.cat(seen)}, progress


@dataclass
class _Cutter:
    """Rounds units and writes their tensors."""

    case: Case
    edits: Mapping[str, Edit]
    sides: int
    factors: _Factors
    parts: Parts
    progress: Progress
    embedding: dict[Matrix, Tensor] = field(default_factory=dict)

    def __call__(self, block: int | None, kind: str) -> dict[Matrix, Tensor]:
        """Cut the units of a (loaded) block in place, or those of a kind outside the blocks; the cut matrices."""
        out: dict[Matrix, Tensor] = {}
        for at, unit in enumerate(self.case.units):
            if unit.block != block or (kind and unit.kind != kind):
                continue
            if block is None:
                with self.case.stream.loaded(module_of(self.case, unit)):
                    coded = self._unit(at, unit)
            else:
                coded = self._unit(at, unit)
            for matrix in unit.matrices:
                values = self.case.format.seen(unit, self.edits[unit.name], coded[matrix.key].values, self.case.dtype)
                if block is None:
                    out[matrix] = values
                else:
                    put(self.case.stream.network, matrix, values)
        if kind == "embedding":
            self.embedding = out
        return out

    def _unit(self, at: int, unit: Unit) -> dict[str, Coded]:
        edit, coded = self.edits[unit.name], {}
        grid = edit.grid(self.case.dtype)  # type: ignore[attr-defined]
        weights = {m: view(self.case.stream.network, m).float() for m in unit.matrices}
        if isinstance(edit, Keep) or grid is None:
            coded = {m.key: Coded(w, {}) for m, w in weights.items()}
        else:
            found = self.factors(at, unit)
            for matrix, w in weights.items():
                f = found[matrix.key]
                done = settle(w, grid, f.a.to(w.device), f.g.to(w.device), sides=self.sides)
                self.progress.damage += done.damage
                if done.bad_rows:
                    self.progress.bad_rows.append({"unit": matrix.key, "rows": list(done.bad_rows)})
                coded[matrix.key] = done.grid.code(done.values)
        self.parts.save(str(at), self.case.format.encode(unit, edit, coded, self.case.dtype))
        return coded


def _keep_states(work: Path, done: int, uncut: Tensor, cut: Tensor, progress: Progress) -> None:
    """What is needed to go on after a block; whole, then the one before goes."""
    file = work / f"walked-{done + 1}.safetensors"
    part = file.with_suffix(".part")
    kept = {"damage": str(progress.damage), "bad_rows": json.dumps(progress.bad_rows)}
    save_file({"uncut": uncut.contiguous(), "cut": cut.contiguous()}, str(part), metadata=kept)
    part.replace(file)
    (work / f"walked-{done}.safetensors").unlink(missing_ok=True)


def _taken_up(work: Path) -> tuple[Progress, int]:
    """What an earlier, broken run had reached: 0 is nothing, 1 the embedding, then the blocks."""
    from safetensors import safe_open

    found = sorted(int(file.stem.rpartition("-")[2]) for file in work.glob("walked-*.safetensors"))
    if not found:
        return Progress(), 0
    with safe_open(str(work / f"walked-{found[-1]}.safetensors"), "pt") as file:
        kept = file.metadata()
    return Progress(float(kept["damage"]), json.loads(kept["bad_rows"]), True), found[-1]


def _states(work: Path, done: int) -> tuple[Tensor, Tensor]:
    held = load_file(str(work / f"walked-{done}.safetensors"))
    return held["uncut"], held["cut"]


# the file


def _finish(
    case: Case, plan: Plan, edits: Mapping[str, Edit], work: Path, out: Path, logits: Tensor, tell: Tell
) -> dict[str, Any]:
    """Stitch the parts into the model, add what belongs beside it, and let the runtime read it."""
    parts = Parts(work / "parts")
    alone = rest(case)
    for name in alone:
        case.checkpoint.check_finite(name)
    parts.save("rest", {name: case.checkpoint.read(name) for name in alone})
    tell("writing", 0, 2)
    files = parts.stitch([*map(str, range(len(case.units))), "rest"], out)
    companions(case.checkpoint.folder, out)
    case.format.finish(
        out, case.checkpoint.config, Plan(edits, plan.spent, plan.damage, plan.error, plan.bound), case.units
    )
    tell("writing", 1, 2)
    verified = case.format.verify(out, logits, case.held[: len(logits)])
    tell("writing", 2, 2)
    return {
        "format": case.format.name,
        "files": [file.name for file in files],
        "bytes_on_disk": sum(file.stat().st_size for file in files),
        **verified,
    }


def _told(
    case: Case,
    plan: Plan,
    edits: Mapping[str, Edit],
    report: Mapping[str, Any],
    progress: Progress,
    exported: Mapping[str, Any],
) -> dict[str, Any]:
    """The JSON object of the contract."""
    compared: Comparison = report["comparison"]
    touched = sum(m.size for u in case.units if not isinstance(edits[u.name], Keep) for m in u.matrices)
    everything = sum(entry.size for entry in case.checkpoint.tensors.values())
    reasons = {one["unit"]: one["reason"] for one in plan.about.get("skipped", ())}
    kept = [u.name for u in case.units if isinstance(edits[u.name], Keep)]
    skipped = [{"unit": name, "reason": reasons.get(name, "the plan keeps it")} for name in kept]
    skipped += [{"unit": name, "reason": why} for name, why in case.stream.anatomy.skipped]
    return {
        "model": str(case.checkpoint.folder),
        "budget": {"asked": plan.budget, **dict(plan.about.get("caps", {}))},
        "spent": dict(plan.spent),
        "loss_before": compared.reference_loss,
        "loss_after": compared.loss,
        "damage_predicted": plan.damage,
        "damage_error": plan.error,
        "damage_measured": compared.rise,
        "damage_measured_error": compared.rise_error,
        "damage_floor": plan.bound,
        "kl": compared.kl,
        "kl_error": compared.kl_error,
        "agreement": compared.agreement,
        "seconds": 0.0,
        "peak_rss_bytes": peak_rss(),
        "resumed": progress.resumed,
        "coverage": touched / everything,
        "skipped": skipped,
        "bad_rows": progress.bad_rows,
        "export": dict(exported),
        "edits": {name: text(edit) for name, edit in edits.items()},
    }


def peak_rss() -> int:
    """The largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
