"""One table of damages, the rules of others: what their plans damage at the same bytes, expected and measured.

    PYTHONPATH=src python -m benchmarks.solvers [--measured]

Writes benchmarks/solvers.csv: `over_ours` is a rule's expected damage over that of our plan. Menus are the seven models
that others have measured (`benchmarks/published.py`) and our own survey of stories260k; with `--measured` every plan of
the latter is carried out, and its KL to the uncut model on held-back text stands beside it (ten minutes or so).

    lagrange            ours
    greedy              the best upgrade per byte that still fits
    textbook            one multiplier by bisection, then greedy
    two-widths          NNCF, Olive: the least sensitive get the lower of two edits
    threshold           Model-Optimizer's AutoQuantize by KL: one limit on every unit's damage
    uniform             one edit for all
    baq, layerwise-quant    the papers' own rules (the second ranks whole blocks, and needs our survey)
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import harness, published, rules
from secateur.cut.applying import apply
from secateur.cut.correcting import corrected
from secateur.cut.surveying import survey
from secateur.parts import allocate
from secateur.types import Allocator, Budget, BudgetError, Menu, Plan, PlanError

OUT = Path(__file__).with_suffix(".csv")
BITS = (2.25, 2.75, 3.5, 4.25, 5.5)
OURS = "lagrange"
FOUND = (OURS, "greedy", "uniform", "baq", "layerwise-quant")
RULES: dict[str, Allocator] = {name: allocate.find(name) for name in FOUND}
RULES |= {"textbook": rules.textbook, "two-widths": rules.two_widths, "threshold": rules.threshold}
SAMPLES = 128


def main(words: list[str]) -> None:
    shared = harness.ROOT.parent / "shared"
    model, text = str(shared / "models" / "stories260k"), str(shared / "data" / "stories.txt")
    if not published.FOLDER.is_dir():
        sys.exit("the folder `shared` is not beside the repository")
    for one in published.read():
        rows = [row for bits in BITS for row, _ in compare(one.model, one.menu(one.types), bits)]
        keep(rows)
    with TemporaryDirectory() as folder:
        menu = survey(model, text, format="packed", out=f"{folder}/menu", samples=SAMPLES)
        for bits in BITS:
            found = compare("stories260k", menu, bits)
            for row, plan in found if "--measured" in words else ():
                how = {"data": text, "menu": f"{folder}/menu", "samples": SAMPLES, "resume": False}
                told = apply(model, corrected(menu, plan), out=f"{folder}/out", **how)
                row |= {"kl": f"{told['kl']:.4g}", "kl_error": f"{told['kl_error']:.2g}"}
                row |= {"kl_predicted": f"{told['kl_predicted']:.4g}"}
                print(" ".join(map(str, row.values())), file=sys.stderr, flush=True)
            keep([row for row, _ in found])


def keep(rows: list[dict[str, object]]) -> None:
    harness.write_rows(OUT, [row | harness.stamp() for row in rows], key=("menu", "budget", "rule"))


def compare(name: str, menu: Menu, bits: float) -> list[tuple[dict[str, object], Plan]]:
    """Every rule's plan on one menu at one budget; a rule that finds none has no row."""
    budget, out = Budget.parse(f"{bits} bits/weight"), []
    ours = RULES[OURS](menu, budget).damage
    for rule, plan_with in RULES.items():
        try:
            plan = plan_with(menu, budget)
        except (BudgetError, PlanError) as why:
            print(f"{name} {budget.text} {rule}: {why.message}", file=sys.stderr)
            continue
        row: dict[str, object] = {"menu": name, "budget": budget.text, "rule": rule}
        row |= {"bits": f"{plan.spent['bits_per_weight']:.4f}", "damage": f"{plan.damage:.5g}"}
        row |= {"over_ours": f"{plan.damage / ours:.4f}", "over_floor": f"{plan.damage / max(plan.bound, 1e-30):.5f}"}
        row |= {"kl": "", "kl_error": "", "kl_predicted": ""}
        out.append((row, plan))
    return out


if __name__ == "__main__":
    main(sys.argv[1:])
