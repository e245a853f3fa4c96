"""The multiple-choice knapsack: by hand, against brute force, and to the last byte."""

import itertools
import math

import numpy as np
import pytest

from secateur.maths import knapsack, prices

SOLVERS = pytest.mark.parametrize("solve", [knapsack.lagrange, knapsack.exact], ids=["lagrange", "exact"])


def menu(seed, units, edits, caps=1, whole=True, tight=0.35, missing=0.15):
    """A random menu: damage falls with cost, unevenly; some edits are not offered; caps lie between the extremes."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(0, 1, (units, 1)))
    share = np.sort(rng.uniform(0.1, 1, (caps, 1, edits)), axis=2)
    cost = 1000 * size * share * rng.uniform(0.8, 1.2, (caps, units, edits))
    cost = np.round(cost) if whole else cost
    damage = size * np.exp(rng.normal(0, 1, (units, 1)) - 4 * share[0]) * np.exp(rng.normal(0, 0.3, (units, edits)))
    damage[rng.random(damage.shape) < missing] = np.inf
    damage[:, -1] = np.where(np.isfinite(damage).any(1), damage[:, -1], 1.0)
    offered = np.isfinite(damage)
    low = [np.where(offered, c, np.inf).min(1).sum() for c in cost]
    high = [np.where(offered, c, -np.inf).max(1).sum() for c in cost]
    limits = [a + tight * (b - a) for a, b in zip(low, high, strict=True)]
    return list(cost), limits, damage


def brute(cost, caps, damage):
    """The least damage by looking at every choice; inf when nothing fits."""
    units, edits = damage.shape
    every = np.array(list(itertools.product(range(edits), repeat=units)))
    rows = np.arange(units)
    fits = np.all([c[rows, every].sum(1) <= cap for c, cap in zip(cost, caps, strict=True)], axis=0)
    return damage[rows, every].sum(1)[fits].min(initial=np.inf)


@SOLVERS
def test_by_hand(solve):
    # 3 and 3 cost 6; one of the two may be bought up for 2 more: the second saves 9, the first 5
    cost, damage = np.array([[3.0, 5.0], [3.0, 5.0]]), np.array([[6.0, 1.0], [10.0, 1.0]])
    best = solve([cost], [8], damage)
    assert best.edits.tolist() == [0, 1]
    assert best.damage == 7.0
    assert 7.0 * (1 - 1e-10) < best.floor <= 7.0


@SOLVERS
def test_the_change_is_spent(solve):
    # the best rate does not fit; what is left buys the worse one
    cost, damage = np.array([[0.0, 10.0], [0.0, 4.0]]), np.array([[100.0, 0.0], [8.0, 0.0]])
    assert solve([cost], [9], damage).edits.tolist() == [0, 1]


@SOLVERS
def test_a_pair_is_exchanged(solve):
    # by rate the small one comes first and blocks the large one, which is worth more
    cost, damage = np.array([[0.0, 1.0], [0.0, 10.0]]), np.array([[3.0, 0.0], [20.0, 0.0]])
    assert solve([cost], [10], damage).edits.tolist() == [0, 1]


@SOLVERS
def test_an_edit_above_the_hull_can_be_the_best(solve):
    cost, damage = np.array([[0.0, 5.0, 6.0]]), np.array([[10.0, 4.0, 0.0]])
    assert solve([cost], [5], damage).edits.tolist() == [1]


@SOLVERS
@pytest.mark.parametrize("caps", [1, 2, 3])
@pytest.mark.parametrize("whole", [True, False], ids=["bytes", "seconds"])
@pytest.mark.parametrize("seed", range(6))
def test_small_menus_against_brute_force(solve, caps, whole, seed):
    cost, limits, damage = menu(seed, units=6, edits=4, caps=caps, whole=whole, tight=(0.25, 0.4, 0.6)[seed % 3])
    least = brute(cost, limits, damage)
    if not math.isfinite(least):
        with pytest.raises(knapsack.NothingFits):
            solve(cost, limits, damage)
        return
    best = solve(cost, limits, damage)
    assert best.damage == pytest.approx(least, rel=1e-9)
    assert best.floor <= least + 1e-12
    assert best.floor == pytest.approx(least, rel=1e-6)


@SOLVERS
@pytest.mark.parametrize("caps", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_never_over_and_never_below_the_floor(solve, caps, seed):
    cost, limits, damage = menu(seed, units=60, edits=8, caps=caps)
    best = solve(cost, limits, damage)
    rows = np.arange(60)
    for c, limit in zip(cost, limits, strict=True):
        assert c[rows, best.edits].sum() <= limit
    assert best.floor <= best.damage == pytest.approx(damage[rows, best.edits].sum())
    assert best.damage - best.floor <= 1e-3 * best.damage
    assert knapsack.floor(cost, limits, damage) <= best.damage


@SOLVERS
def test_to_the_last_byte_of_a_very_large_file(solve):
    rng = np.random.default_rng(0)
    cost = np.cumsum(rng.integers(1, 2**40, (30, 5)), axis=1).astype(float)
    damage = np.sort(rng.random((30, 5)), axis=1)[:, ::-1]
    first = solve([cost], [cost[:, 2].sum()], damage)
    spent = int(cost[np.arange(30), first.edits].sum())
    assert spent <= int(cost[:, 2].sum())
    assert solve([cost], [spent], damage).damage == first.damage, "a cap that is met exactly is met"
    tighter = solve([cost], [spent - 1], damage)
    assert int(cost[np.arange(30), tighter.edits].sum()) <= spent - 1, "one byte less is one byte less"


@pytest.mark.parametrize("seed", range(4))
def test_exact_is_monotone_in_the_cap(seed):
    cost, limits, damage = menu(seed, units=12, edits=5)
    damages = [knapsack.exact(cost, [share * limits[0]], damage).damage for share in np.linspace(1, 2, 15)]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(damages))


@SOLVERS
def test_equal_units_are_treated_alike_when_the_cap_allows_it(solve):
    bits = np.array([2.0, 3.0, 4.0, 5.0, 8.0])
    cost, damage = np.tile(100 * bits, (40, 1)), np.tile(4.0**-bits, (40, 1))
    for at in range(5):
        assert solve([cost], [cost[:, at].sum()], damage).edits.tolist() == [at] * 40


@SOLVERS
def test_ties_go_to_the_first_unit_and_the_cheaper_edit(solve):
    cost, damage = np.tile([1.0, 2.0, 3.0], (6, 1)), np.tile([1.0, 0.5, 0.5], (6, 1))
    assert solve([cost], [9], damage).edits.tolist() == [1, 1, 1, 0, 0, 0]
    assert solve([cost], [18], damage).edits.tolist() == [1] * 6, "no cost for nothing"


@SOLVERS
def test_a_wide_cap_gives_the_least_damage(solve):
    cost, _, damage = menu(3, units=10, edits=4)
    for cap in (cost[0].sum(), math.inf):
        best = solve(cost, [cap], damage)
        assert best.damage == pytest.approx(damage.min(1).sum(), rel=1e-12)
        assert best.floor == pytest.approx(best.damage, rel=1e-9)
        assert best.price.tolist() == [0.0]


@SOLVERS
def test_an_idle_cap_changes_nothing(solve):
    cost, limits, damage = menu(1, units=30, edits=6)
    alone = solve(cost, limits, damage)
    both = solve([*cost, np.ones_like(damage)], [*limits, 30], damage)
    assert both.damage == pytest.approx(alone.damage, rel=2e-4)
    assert both.price[1] == 0


@SOLVERS
def test_what_is_not_offered_is_not_chosen(solve):
    cost = np.array([[1.0, 2.0, np.inf], [1.0, 2.0, 3.0]])
    damage = np.array([[np.inf, 5.0, 0.0], [9.0, np.inf, 1.0]])
    assert solve([cost], [10], damage).edits.tolist() == [1, 2]
    assert solve([cost], [4], damage).edits.tolist() == [1, 0]


@SOLVERS
def test_nothing_fits_says_which_cap_and_what_it_takes(solve):
    cost, damage = np.array([[3.0, 5.0], [4.0, 5.0]]), np.ones((2, 2))
    with pytest.raises(knapsack.NothingFits, match=r"least possible, 7\.0") as caught:
        solve([np.zeros((2, 2)), cost], [0, 6.9], damage)
    assert (caught.value.cap, caught.value.least) == (1, 7.0)


@SOLVERS
def test_caps_that_contradict_each_other(solve):
    # each unit is either small or fast
    small, fast = np.tile([1.0, 9.0], (5, 1)), np.tile([9.0, 1.0], (5, 1))
    with pytest.raises(knapsack.NothingFits, match="together") as caught:
        solve([small, fast], [9, 9], np.ones((5, 2)))
    assert caught.value.cap is None


@SOLVERS
def test_caps_that_contradict_each_other_only_in_whole_edits(solve):
    # half an edit of each would do, so prices prove nothing; the integer program does
    with pytest.raises(knapsack.NothingFits):
        solve([np.array([[0.0, 4.0]]), np.array([[4.0, 0.0]])], [2, 2], np.array([[1.0, 1.0]]))


@pytest.mark.parametrize(
    ("cost", "damage", "words"),
    [
        (np.array([[np.nan, 1.0]]), np.ones((1, 2)), "numbers"),
        (np.array([[-1.0, 1.0]]), np.ones((1, 2)), "from zero up"),
        (np.ones((1, 2)), np.full((1, 2), np.inf), "unit 0 is offered no edit"),
    ],
)
def test_a_menu_that_makes_no_sense(cost, damage, words):
    with pytest.raises(ValueError, match=words):
        knapsack.lagrange([cost], [5], damage)


def test_no_units():
    assert knapsack.lagrange([np.zeros((0, 3))], [0], np.zeros((0, 3))).damage == 0


@SOLVERS
def test_the_same_answer_twice(solve):
    cost, limits, damage = menu(7, units=80, edits=6, caps=2)
    first, again = solve(cost, limits, damage), solve(cost, limits, damage)
    assert first.edits.tolist() == again.edits.tolist() and first.floor == again.floor


def test_the_integer_program_prints_nothing(capfd):
    from secateur.maths.program import silent

    with silent():
        import os

        os.write(1, b"a debugging line")
    print("seen", flush=True)
    for seed in range(5):
        cost, limits, damage = menu(seed, units=40, edits=8, caps=2)
        knapsack.exact(cost, limits, damage)
    assert capfd.readouterr().out == "seen\n"


def test_the_price_is_what_more_would_save():
    cost, limits, damage = menu(5, units=400, edits=8, missing=0)
    here, there = (knapsack.lagrange(cost, [limits[0] * share], damage) for share in (1, 1.01))
    saved = (here.damage - there.damage) / (0.01 * limits[0])
    assert there.price[0] * 0.95 <= saved <= here.price[0] * 1.05


def test_prices_prove_the_same_floor_as_the_linear_program():
    from scipy.optimize import linprog

    cost, limits, damage = menu(2, units=12, edits=5, caps=2, missing=0)
    problem = prices.Problem.read(cost, limits, damage)
    one_each = np.kron(np.eye(12), np.ones(5))
    relaxed = linprog(damage.ravel(), np.array([c.ravel() for c in problem.cost]), problem.caps, one_each, np.ones(12))
    assert problem.bound(prices.best_prices(problem)) == pytest.approx(relaxed.fun, rel=1e-5)
