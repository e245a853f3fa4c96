"""How fast a plan is made and how near it is to the best, beside the rules of others at the same budget.

    PYTHONPATH=src python -m benchmarks.plan_speed

Writes benchmarks/plan_speed.csv. `gap` is (damage - floor) / damage with the floor proven; `over_best` is the damage
over that of the proven best plan, less one, where the integer program finished. Times are the best of three calls, on
the clock and of the processor: on a shared machine only the latter says much.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks import harness, rules
from secateur.parts import allocate
from secateur.types import Allocator, Budget, BudgetError, Menu

OUT = Path(__file__).with_suffix(".csv")
MENUS = [
    ("made", 10_000, 20, "4.25 bits/weight"),
    ("made", 10_000, 20, "3 bits/weight"),
    ("made", 500, 8, "3.5 bits/weight"),
    ("made", 56, 8, "4.25 bits/weight"),
    ("made", 56, 8, "3 bits/weight"),
    ("Qwen3-4B, measured KL", 0, 0, "3 bits/weight"),
    ("Qwen3-4B, measured KL", 0, 0, "4.25 bits/weight"),
]
ALLOCATORS: dict[str, Allocator] = {name: allocate.find(name) for name in ("lagrange", "exact", "greedy", "uniform")}
ALLOCATORS["threshold"] = rules.threshold


def main() -> None:
    rows = []
    for name, units, edits, asked in MENUS:
        menu = rules.made(units, edits, seed=0) if units else rules.measured()
        if menu is None:
            print(f"skipped {name}: the folder `shared` is not beside the repository", file=sys.stderr)
            continue
        rows += compare(name, menu, Budget.parse(asked))
    harness.write_rows(OUT, [row | harness.stamp() for row in rows])


def compare(name: str, menu: Menu, budget: Budget) -> list[dict[str, object]]:
    """One row an allocator, on one menu at one budget."""
    units, edits = menu.damage.shape
    best, rows, damages = None, [], []
    for allocator, plan_with in ALLOCATORS.items():
        seconds, cpu = [], []
        try:
            for _ in range(3):
                start, busy = time.perf_counter(), time.process_time()
                plan = plan_with(menu, budget)
                seconds.append(time.perf_counter() - start)
                cpu.append(time.process_time() - busy)
        except BudgetError as why:
            print(f"{name} {budget.text} {allocator}: {why.message}", file=sys.stderr)
            continue
        if allocator == "exact" and plan.damage - plan.bound <= 1e-6 * plan.damage:
            best = plan.damage
        row: dict[str, object] = {"menu": name, "units": units, "edits": edits, "budget": budget.text}
        row |= {"allocator": allocator, "seconds": f"{min(seconds):.4f}", "cpu_seconds": f"{min(cpu):.4f}"}
        row |= {"damage": f"{plan.damage:.6g}", "gap": f"{(plan.damage - plan.bound) / plan.damage:.2e}"}
        row |= {"bits_per_weight": f"{plan.spent['bits_per_weight']:.6f}"}
        rows.append(row)
        damages.append(plan.damage)
        print(" ".join(map(str, row.values())), file=sys.stderr)
    for row, damage in zip(rows, damages, strict=True):
        row["over_best"] = f"{damage / best - 1:.2e}" if best else ""
    return rows


if __name__ == "__main__":
    main()
