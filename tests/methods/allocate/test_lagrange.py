"""The Lagrangian sweep: every point of the frontier is a proven best plan, and none lies below it."""

import numpy as np
import pytest

from secateur.methods.allocate.lagrange import frontier, lagrange
from secateur.parts import allocate
from secateur.parts.edits import parse
from secateur.types import Budget, Matrix, Menu, Unit


@pytest.fixture
def menu():
    rng = np.random.default_rng(0)
    size = rng.choice([64, 128, 192], 20)
    units = tuple(Unit(f"u{i}", "linear", (Matrix(f"u{i}.weight", int(s), 8, "x"),)) for i, s in enumerate(size))
    bits = np.array([2, 3, 4, 5, 6, 8])
    cost = np.tile(size[:, None] * bits, 1).astype(float)
    damage = np.exp(rng.normal(0, 1, (20, 1))) * size[:, None] * 4.0**-bits * np.exp(rng.normal(0, 0.4, (20, 6)))
    damage[3, :2] = np.inf
    edits = tuple(parse(f"int(bits={b}, group=8)") for b in bits)
    return Menu(
        units, edits, {"bytes": cost, "payload": cost}, damage, 0 * bits + np.zeros((20, 1)), {"bytes": 500.0}, 9999
    )


def test_by_hand():
    units = tuple(Unit(name, "linear", (Matrix(name, 1, 8, "x"),)) for name in "ab")
    edits = tuple(parse(f"int(bits={b}, group=8)") for b in (2, 4, 8))
    cost = np.array([[2.0, 4, 8], [2, 4, 8]])
    damage = np.array([[10.0, 4, 0], [10, 2, 0]])  # a saves 3 then 1 per byte, b 4 then 1/2
    out = frontier(Menu(units, edits, {"bytes": cost}, damage, 0 * damage, {"bytes": 1.0}, 16))
    assert out.spent.tolist() == [5, 7, 9, 13, 17]
    assert out.damage.tolist() == [20, 12, 6, 2, 0]
    assert out.price.tolist() == [4, 3, 1, 0.5, 0]


def test_the_frontier_falls_and_is_convex(menu):
    out = frontier(menu)
    assert (np.diff(out.spent) > 0).all() and (np.diff(out.damage) < 0).all() and (np.diff(out.price) < 0).all()
    np.testing.assert_allclose(-np.diff(out.damage) / np.diff(out.spent), out.price[:-1])
    assert out.damage[-1] == pytest.approx(menu.damage.min(1).sum())


def test_every_point_is_the_best_plan_of_its_budget(menu):
    out = frontier(menu)
    for spent, damage in zip(out.spent[::5], out.damage[::5], strict=True):
        plan = lagrange(menu, Budget(caps={"bytes": float(spent)}))
        assert plan.spent["bytes"] == spent
        assert plan.damage == pytest.approx(damage, rel=1e-9)
        assert plan.bound == pytest.approx(damage, rel=1e-9)


def test_no_plan_lies_below_the_line(menu):
    out = frontier(menu)
    for name in ("lagrange", "exact", "greedy"):
        for budget in np.linspace(out.spent[0], out.spent[-1], 7):
            plan = allocate.find(name)(menu, Budget(caps={"bytes": float(budget)}))
            assert plan.damage >= np.interp(plan.spent["bytes"], out.spent, out.damage) * (1 - 1e-9)


def test_equal_rates_make_one_step():
    units = (Unit("a", "linear", (Matrix("a", 1, 8, "x"),)),)
    edits = tuple(parse(f"int(bits={b}, group=8)") for b in (2, 3, 4))
    damage = np.array([[4.0, 2.0, 0.0]])
    out = frontier(Menu(units, edits, {"bytes": np.array([[2.0, 3, 4]])}, damage, damage, {}, 8))
    assert out.spent.tolist() == [2, 4] and out.damage.tolist() == [4, 0]
