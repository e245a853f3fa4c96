"""How to do a run again, and whom to thank for it: the command, the recipe, and the papers it used."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from secateur import calls
from secateur.catalogue import Method, methods
from secateur.types import Budget, BudgetError

if TYPE_CHECKING:
    from secateur.report import Run

#: what the command line takes where nothing is said
_USUAL = {"round": "two-sided", "allocate": "lagrange", "damage": "kronecker"}


def command(run: Run) -> tuple[str, bool]:
    """The line that was given, or the one that is on record (True: `--keep`, `--pin` and `--round` are not)."""
    said = str(run.result.get("again") or "")
    return (said, False) if said else (_rebuilt(run), True)


def _rebuilt(run: Run) -> str:
    about = run.about
    if not (about.get("model") and about.get("data") and run.asked):
        return ""
    options = {"data": about["data"], "budget": run.asked}
    options |= {
        name: about[name] for name in ("format", "over", "damage", "allocate", "samples", "seed") if name in about
    }
    options |= {"seq-len": about["seq_len"]} if about.get("seq_len") else {}
    options |= {"edits": about["kinds"]} if about.get("kinds", "bits") != "bits" else {}
    spelled = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return shlex.join(["secateur", "cut", str(about["model"]), *spelled, "-o", str(run.out)])


def recipe(line: str) -> str:
    """The same as lines for `secateur cut MODEL --recipe`; nothing where the line is no cut."""
    try:
        return calls.recipe(line) if line.startswith("secateur cut ") else ""
    except ValueError:
        return ""


def how(run: Run) -> dict[str, str]:
    """What rounded, allocated and predicted, by the names that the command line has for them."""
    known: Mapping[str, Any] = dict(run.about) | {key: run.result[key] for key in _USUAL if run.result.get(key)}
    try:
        said = calls.words(command(run)[0])[2]
    except ValueError:  # a line that nobody could have given to a shell
        said = {}
    return {key: str(known.get(key) or said.get(key) or usual) for key, usual in _USUAL.items()}


def papers(run: Run) -> list[Method]:
    """The methods whose own call names what this run did: its allocator, its rounding, its damage, one of its edits, or
    the resource that it took low ranks for."""
    chosen, edits = how(run), {row.edit.partition("(")[0].replace("_", "-") for row in run.rows}
    named = edits | {chosen["allocate"]}
    return [one for one in methods() if one.name in named or stands_on(chosen, one) or _factors_for(run, edits, one)]


def _factors_for(run: Run, edits: set[str], method: Method) -> bool:
    """Whether a method makes low ranks for a resource beside bytes and FLOPs that this run took low ranks for."""
    if "rank" not in edits or method.wing != "factorize":
        return False
    wanted, asked = (_capped(budget) for budget in (calls.words(method.use)[2].get("budget"), run.asked))
    return bool(wanted & asked - {"bytes", "bits_per_weight", "flops"})


def _capped(budget: str | None) -> set[str]:
    """The resources that a budget caps."""
    try:
        read = Budget.parse(budget or "")
    except BudgetError:
        return set()
    return {*read.caps, *read.share}


def stands_on(chosen: Mapping[str, str], method: Method) -> bool:
    """Whether a method's own call names the rounding, the allocator or the damage that a run has chosen."""
    _, _, options = calls.words(method.use)
    # the nearest number and feedback on two sides stand on feedback on one
    rounds = {"two-sided": ("two-sided", "one-sided")}.get(chosen["round"], (chosen["round"],))
    return options.get("round") in rounds or any(options.get(key) == chosen[key] for key in ("allocate", "damage"))
