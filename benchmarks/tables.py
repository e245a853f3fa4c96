"""What sums of single damages know about whole recipes, on models that others have measured; no network is run here.

    PYTHONPATH=src python -m benchmarks.tables

Writes three tables, from those that `benchmarks/published.py` reads:

tables_sums.csv: the singles of one type added up, against the model whole in that type: what no formula stands between.
tables_recipes.csv: every published recipe, its predicted KL, and our plan at its bytes: from the types that this
    recipe uses itself, and from all types.
tables.csv: by model, how predicted KL and measured perplexity agree. `pairs` are recipes within 2% of each other's
    size, `pairs_right` those whose better half the sum names. `slope` is the rise of the log of perplexity for a nat
    of predicted KL. `off_*` is how far the log of perplexity is missed (root mean square) on recipes not seen, from
    three that are, over all threes: `bits` knows the size and the KL of uniform models, `plain` adds
    up the singles, `probe` scales the sum so that the reference type comes out as measured (what our survey's probes
    do), `scaled` fits the scale as well, `bent` fits it in log(1 + KL). All fit the unknown perplexity of the uncut
    model on that text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from benchmarks import harness, published
from secateur.parts import allocate
from secateur.types import Budget

HERE = Path(__file__).parent
#: recipes that a correction is fitted on; how near in size two recipes are to be compared
SEEN, NEAR = 3, 0.02


def main() -> None:
    models = published.read()
    if not models:
        sys.exit("the folder `shared` with the tables is not beside the repository")
    stamp = harness.stamp()
    for name, rows in (
        ("tables_sums", [row for one in models for row in sums(one)]),
        ("tables_recipes", [row for one in models for row in recipes(one)]),
        ("tables", [agreement(one) for one in models]),
    ):
        harness.write_rows(HERE / f"{name}.csv", [row | stamp for row in rows])
        print(name, *(" ".join(map(str, row.values())) for row in rows), sep="\n")


def sums(one: published.Published) -> list[dict[str, object]]:
    """Singles added up against the whole, type by type; `noise` is the least KL that any single shows, taken off."""
    rows = []
    for qtype, kl in one.singles.items():
        noise, n = float(np.nanmin(kl)), int(np.isfinite(kl).sum())
        total, whole = float(np.nansum(kl) - n * noise), one.whole.get(qtype)
        row: dict[str, object] = {"model": one.model, "type": qtype, "bits": round(one.bits[qtype], 3), "tensors": n}
        row |= {"noise": f"{noise:.3g}", "sum": f"{total:.4g}", "whole": f"{whole:.4g}" if whole else ""}
        row |= {"whole_over_sum": f"{whole / total:.3f}" if whole else "", "rank_with_reference": "", "scatter": ""}
        if qtype != one.reference:
            both = np.isfinite(kl) & np.isfinite(one.singles[one.reference])
            mine, theirs = one.shares(qtype)[both], one.shares()[both]
            some = (mine > 0) & (theirs > 0)
            row["rank_with_reference"] = f"{spearmanr(mine, theirs)[0]:.3f}"
            row["scatter"] = f"{np.std(np.log(mine[some] / theirs[some])):.3f}"
        rows.append(row)
    return rows


def recipes(one: published.Published) -> list[dict[str, object]]:
    """Every recipe beside our plans of the same bytes."""
    rows = []
    for recipe in one.recipes:
        own = tuple(sorted(set(recipe.types), key=lambda q: (one.bits[q], one.whole[q])))
        theirs = one.predicted(recipe.types)
        row: dict[str, object] = {"model": one.model, "recipe": recipe.name.partition("/")[2]}
        row |= {"bits": round(8 * one.payload(recipe.types) / one.sizes.sum(), 4), "perplexity": recipe.perplexity}
        row |= {"predicted": f"{theirs:.5g}"}
        for what, types in (("own_types", own), ("all_types", one.types)):
            ours = planned(one, recipe, types)
            assert one.payload(ours) <= one.payload(recipe.types)
            row[f"ours_{what}"] = f"{one.predicted(ours):.5g}"
            row[f"ratio_{what}"] = f"{one.predicted(ours) / theirs:.3f}"
            # the same plan by singles of another type, which it has not seen: how much is luck in the table
            other = "q2_k_r4" if "q2_k_r4" in one.singles else None
            row[f"ratio_{what}_unseen"] = (
                f"{one.predicted(ours, one.shares(other)) / one.predicted(recipe.types, one.shares(other)):.3f}"
                if other
                else ""
            )
        rows.append(row)
    return rows


def planned(one: published.Published, recipe: published.Recipe, types: Sequence[str]) -> tuple[str, ...]:
    """The types of our plan at the recipe's bytes."""
    menu = one.menu(tuple(types))
    plan = allocate.find("lagrange")(menu, Budget(caps={"payload": one.payload(recipe.types)}))
    return tuple(plan.edits[tensor].qtype for tensor in one.tensors)  # type: ignore[attr-defined]


def agreement(one: published.Published) -> dict[str, object]:
    """One model's row."""
    kl = np.array([one.predicted(recipe.types) for recipe in one.recipes])
    measured = np.log([recipe.perplexity for recipe in one.recipes])
    size = np.array([one.payload(recipe.types) for recipe in one.recipes])
    near = [(i, j) for i, j in combinations(range(len(kl)), 2) if abs(np.log(size[i] / size[j])) < NEAR]
    right = sum((kl[i] - kl[j]) * (measured[i] - measured[j]) > 0 for i, j in near)
    row: dict[str, object] = {"model": one.model, "tensors": len(one.tensors), "recipes": len(kl)}
    row |= {"rank": f"{spearmanr(kl, measured)[0]:.3f}", "rank_of_bits": f"{spearmanr(-size, measured)[0]:.3f}"}
    row |= {"pairs": len(near), "pairs_right": right, "slope": f"{np.polyfit(kl, measured, 1)[0]:.3f}"}
    noise = np.nanmin(one.singles[one.reference])
    singles = float(np.nansum(one.singles[one.reference] - noise)) / one.whole[one.reference]
    uniform = np.array([at_size(one, 8 * s / one.sizes.sum()) for s in size])
    for name, x, fit in (
        ("bits", uniform, scaled),
        ("plain", kl * singles, shifted),
        ("probe", kl, shifted),
        ("scaled", kl, scaled),
        ("bent", np.log1p(kl), scaled),
    ):
        row[f"off_{name}"] = f"{off(x, measured, fit):.4f}"
    return row


def at_size(one: published.Published, bits: float) -> float:
    """KL of a uniform model of this size, between the best types that there are, on a line in log KL."""
    types = [q for q in one.types if one.whole[q] > 0]
    x, y = np.array([one.bits[q] for q in types]), np.array([one.whole[q] for q in types])
    return float(np.exp(np.interp(bits, x, np.log(np.minimum.accumulate(y)))))


Fit = Callable[[np.ndarray, np.ndarray], tuple[float, float]]


def shifted(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """y = x + constant."""
    return 1.0, float((y - x).mean())


def scaled(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """y = slope x + constant, by least squares."""
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / max(((x - x.mean()) ** 2).sum(), 1e-30))
    return slope, float(y.mean() - slope * x.mean())


def off(x: np.ndarray, y: np.ndarray, fit: Fit) -> float:
    """Root mean square of what is missed on unseen recipes, over all ways to see `SEEN` of them."""
    missed = []
    for seen in combinations(range(len(x)), SEEN):
        slope, constant = fit(x[list(seen)], y[list(seen)])
        rest = [i for i in range(len(x)) if i not in seen]
        missed += (y[rest] - slope * x[rest] - constant).tolist()
    return float(np.sqrt(np.mean(np.square(missed))))


if __name__ == "__main__":
    main()
