"""The laws of the role: whoever takes `(menu, budget)` and gives a plan keeps to the budget, and says how good it is.

Allocators are collected by path: every file of `parts/allocate`, and every method that is one.
"""

import itertools
import math

import numpy as np
import pytest

from secateur.parts import allocate
from secateur.parts.edits import parse
from secateur.types import Budget, BudgetError, Matrix, Menu, PlanError, Unit

BITS = (2, 3, 4, 6, 8)
EDITS = tuple(map(parse, [*(f"int(bits={bits}, group=64)" for bits in BITS), "keep()"]))


EVERY = pytest.mark.parametrize("allocator", [pytest.param(allocate.find(name), id=name) for name in allocate.names()])
#: those that may leave a budget unmet that others can meet
NARROW = {"uniform", "greedy", "layerwise_quant", "uvc", "augmented_hessians"}


def make(seed=0, blocks=4, fixed=1000.0, alike=False):
    """A menu of a small network, two linears a block, with what a method may want to know about each unit."""
    rng = np.random.default_rng(seed)
    size = np.full(2 * blocks, 4096) if alike else rng.choice([4096, 8192, 12288], 2 * blocks)
    units = tuple(
        Unit(
            f"blocks.{i // 2}.{'ab'[i % 2]}",
            "linear",
            (Matrix(f"blocks.{i // 2}.{'ab'[i % 2]}.weight", int(s) // 64, 64, f"blocks.{i // 2}"),),
            block=i // 2,
        )
        for i, s in enumerate(size)
    )
    payload = np.array([[s * (bits + 0.25) / 8 for bits in BITS] + [2 * s] for s in size], dtype=float)
    curve = np.exp(0 if alike else rng.normal(0, 1.2, (2 * blocks, 1))) * size[:, None] / 4096
    damage = curve * np.array([4.0**-bits for bits in BITS] + [0.0])
    if not alike:
        damage *= np.exp(rng.normal(0, 0.1, damage.shape))
        damage[1, 0] = np.inf  # this unit cannot have the cheapest
    block = {"lim": -rng.random(blocks).repeat(2), "zd": rng.random(blocks).repeat(2)}
    block["outliers"] = np.ones(2 * blocks) if alike else rng.random(blocks).repeat(2)
    block["gradients"] = np.ones(2 * blocks) if alike else rng.random(2 * blocks)
    sizes = np.ones((2 * blocks, 1)) if alike else rng.random((2 * blocks, 1))
    block["magnitudes"] = sizes * np.linspace(0, 3, 101)
    return Menu(
        units,
        EDITS,
        {"payload": payload, "bytes": payload + 128, "flops": np.repeat(2.0 * size[:, None], len(EDITS), 1)},
        damage,
        np.where(np.isfinite(damage), 0.1 * damage, 0),
        {"payload": fixed, "bytes": fixed + 300},
        int(size.sum()),
        notes=block,
        about={"fingerprint": "abc", "format": "none", "common_error": 0.05, "curve": [1, 2]},
    )


def index(menu, plan):
    return np.array([menu.edits.index(plan.edits[unit.name]) for unit in menu.units])


def attempt(allocator, menu, budget):
    try:
        return allocator(menu, Budget.parse(budget))
    except BudgetError:
        if getattr(allocator, "__name__", "") not in NARROW and not hasattr(allocator, "high"):
            raise
        pytest.skip("this rule finds no plan here, and says so")


@EVERY
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("budget", ["3.1 bits/weight", "4.126 bits/weight", "40% bytes", "5 bits/weight, 30% bytes"])
def test_never_over_the_budget_and_never_below_the_floor(allocator, seed, budget):
    menu = make(seed)
    plan = attempt(allocator, menu, budget)
    rows, edits = np.arange(len(menu.units)), index(menu, plan)
    for resource, cap in Budget.parse(budget).absolute(menu).items():
        assert math.fsum(menu.cost[resource][rows, edits]) <= cap
    for resource, cap in Budget.parse(budget).caps.items():
        assert plan.spent[resource] <= cap
    assert plan.damage == pytest.approx(menu.damage[rows, edits].sum())
    assert plan.bound <= plan.damage
    best = allocate.find("exact")(menu, Budget.parse(budget))
    assert plan.bound <= best.damage <= plan.damage * (1 + 1e-9)


@EVERY
def test_everything_the_plan_says(allocator):
    menu = make(1)
    plan = attempt(allocator, menu, "4.2 bits/weight")
    rows, edits = np.arange(len(menu.units)), index(menu, plan)
    payload = menu.cost["payload"][rows, edits].sum() + 1000
    assert list(plan.edits) == [unit.name for unit in menu.units]
    assert plan.spent["bits_per_weight"] == pytest.approx(8 * payload / menu.weights)
    assert plan.spent["bytes"] == payload + 128 * len(menu.units) + 300
    assert plan.spent["flops"] == 2 * menu.weights
    assert "payload" not in plan.spent
    own = np.sqrt((menu.error[rows, edits] ** 2).sum())
    assert plan.error == pytest.approx(np.hypot(own, 0.05 * plan.damage))
    assert plan.budget == "4.2 bits/weight"
    assert plan.about["fingerprint"] == "abc" and plan.about["format"] == "none"
    assert "curve" not in plan.about, "only plain values travel with a plan"


@EVERY
def test_the_same_plan_twice(allocator):
    menu = make(2)
    assert attempt(allocator, menu, "4.2 bits/weight") == attempt(allocator, menu, "4.2 bits/weight")


@EVERY
@pytest.mark.parametrize("at", range(len(BITS)))
def test_units_alike_are_cut_alike(allocator, at):
    menu = make(alike=True, fixed=0.0)
    plan = attempt(allocator, menu, f"{BITS[at] + 0.25} bits/weight")
    if hasattr(allocator, "high"):
        pytest.skip("two widths by rank: alike units differ on purpose")
    assert set(plan.edits.values()) == {menu.edits[at]}
    assert plan.spent["bits_per_weight"] == BITS[at] + 0.25


@EVERY
def test_a_budget_that_cannot_be_met_names_what_can(allocator):
    menu = make(3)
    with pytest.raises(BudgetError, match=r"asked for 1\.5 bits/weight, but the cheapest plan") as caught:
        allocator(menu, Budget.parse("1.5 bits/weight"))
    words = str(caught.value)
    cheapest = np.where(np.isfinite(menu.damage), menu.cost["payload"], np.inf).min(1)
    needs = 8 * (cheapest.sum() + 1000) / menu.weights
    assert f"needs {math.ceil(needs * 1e4) / 1e4:.4f} bits/weight" in words
    assert "hint: `blocks." in words and "int(bits=2, group=64)" in words


@pytest.mark.parametrize("name", ["lagrange", "exact"])
def test_what_the_error_says_is_needed_is_enough(name):
    menu = make(3)
    with pytest.raises(BudgetError) as caught:
        allocate.find(name)(menu, Budget.parse("9000 bytes"))
    needs = caught.value.message.partition("needs ")[2]
    assert needs.replace("_", "").split()[0].isdigit()
    assert allocate.find(name)(menu, Budget.parse(needs)).edits


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", ["2.9 bits/weight", "3.7 bits/weight", "3.7 bits/weight, 16 kB", "80% bytes"])
def test_against_every_plan_there_is(seed, budget):
    menu = make(seed, blocks=3)
    rows = np.arange(6)
    every = np.array(list(itertools.product(range(6), repeat=6)))
    caps = Budget.parse(budget).absolute(menu)
    fits = np.all([menu.cost[r][rows, every].sum(1) <= cap for r, cap in caps.items()], axis=0)
    total = menu.damage[rows, every].sum(1)
    fits &= np.isfinite(total)
    if not fits.any():
        for name in ("exact", "lagrange"):
            with pytest.raises(BudgetError):
                allocate.find(name)(menu, Budget.parse(budget))
        return
    least = total[fits].min()
    assert allocate.find("exact")(menu, Budget.parse(budget)).damage == pytest.approx(least, rel=1e-9)
    plan = allocate.find("lagrange")(menu, Budget.parse(budget))
    assert plan.bound <= least * (1 + 1e-12) and least * (1 - 1e-12) <= plan.damage <= least * 1.01
    assert plan.damage - least <= plan.damage - plan.bound


def test_exact_is_monotone_in_the_budget():
    menu = make(4)
    damages = [allocate.find("exact")(menu, Budget.parse(f"{b} bits/weight")).damage for b in np.arange(3, 9, 0.2)]
    assert all(b <= a for a, b in itertools.pairwise(damages))


def test_ties_go_to_the_unit_that_comes_first():
    menu = make(alike=True, fixed=0.0)
    for name in ("lagrange", "exact", "greedy"):
        plan = allocate.find(name)(menu, Budget.parse("3.75 bits/weight"))
        assert list(plan.edits.values()) == [menu.edits[2]] * 4 + [menu.edits[1]] * 4


def test_a_plan_asked_for_at_what_it_spent_is_the_same_plan():
    menu = make(5)
    for bits in np.arange(3, 6, 0.37):
        first = allocate.find()(menu, Budget.parse(f"{bits} bits/weight"))
        again = allocate.find()(menu, Budget(caps={"bits_per_weight": first.spent["bits_per_weight"]}))
        assert again.edits == first.edits
        assert again.spent["bits_per_weight"] <= first.spent["bits_per_weight"]


def test_allocators_are_found_by_name():
    assert {"lagrange", "exact", "uniform", "greedy", "baq", "layerwise-quant"} <= set(allocate.names())
    assert allocate.find("layerwise_quant") is allocate.find("layerwise-quant")
    assert allocate.find().__module__ == "secateur.parts.allocate.lagrange"
    with pytest.raises(PlanError, match=r"no allocator `lagrang`\nhint: did you mean `lagrange`\?"):
        allocate.find("lagrang")
