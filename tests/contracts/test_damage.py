"""The laws of the role: whatever predicts damage says nothing of what is kept, less of more bits, and adds up.

Rules are collected by path: every file of `parts/damage`.
"""

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from secateur.maths.rounding import damage as measured
from secateur.maths.settle import settle
from secateur.model.factors import Factors
from secateur.parts import damage, edits
from secateur.types import Matrix, SecateurError, Unit

ROWS, COLS = 160, 64
BITS = (2, 3, 4, 5, 6, 8)
INTS = [f"int(bits={bits}, group=32)" for bits in BITS]
OTHERS = ["int(bits=2, group=32, symmetric=False, scale='fp8', zero='fp8')", "fp8()", "mxfp4()", "nvfp4()"]
MENU = (*map(edits.parse, ["keep()", *INTS, *OTHERS]), None)

PAIR = Unit("m", "linear", (Matrix("a", ROWS, COLS, "m"), Matrix("b", ROWS // 2, COLS, "m")), block=0)
EVERY = pytest.mark.parametrize("rule", [pytest.param(damage.find(name), id=name) for name in damage.names()])


def gram(n, random):
    x = torch.randn(3 * n, n, generator=random) + 0.6 * torch.randn(3 * n, 1, generator=random)
    return x.T @ x / len(x)


@cache
def given():
    """Weights and factors of both matrices; G of the second is a diagonal, as for matrices with many rows."""
    random = torch.Generator().manual_seed(0)
    weights = {m.key: 0.05 * torch.randn(m.rows, m.cols, generator=random) for m in PAIR.matrices}
    a = gram(COLS, random)
    factors = {m.key: Factors(a, 0.01 * gram(m.rows, random), 1000, 0.05) for m in PAIR.matrices}
    factors["b"] = replace(factors["b"], g=factors["b"].g.diagonal().clone())
    return weights, factors


@cache
def row_of(rule, unit=PAIR, menu=MENU, **changed):
    """The rule's row; `a` and `g` are what both factors are multiplied by."""
    weights, factors = given()
    factors = {
        key: replace(f, **{side: getattr(f, side) * by for side, by in changed.items()}) for key, f in factors.items()
    }
    return rule.rows([unit], {unit.name: menu}, weights, factors, "float16")[unit.name]


def test_a_rule_that_is_not_there():
    with pytest.raises(SecateurError, match=r"(?s)there is no damage `kroneker`.*did you mean `kronecker`"):
        damage.find("kroneker")


@EVERY
def test_numbers_for_every_edit_and_none_for_what_is_kept(rule):
    row = row_of(rule)
    assert row.damage.shape == row.error.shape == (len(MENU),)
    assert np.isfinite(row.damage).all() and np.isfinite(row.error).all()
    assert row.damage[0] == row.damage[-1] == row.error[0] == row.error[-1] == 0
    assert (row.damage[1:-1] > 0).all()
    assert (row.error[1:-1] > 0).all() and (row.error <= row.damage).all()


@EVERY
def test_more_bits_do_less_damage(rule):
    found = row_of(rule).damage[1 : 1 + len(BITS)]
    assert (np.diff(found) < 0).all()


@EVERY
def test_a_unit_is_the_sum_of_its_matrices(rule):
    whole = row_of(rule)
    parts = [row_of(rule, replace(PAIR, matrices=(m,))) for m in PAIR.matrices]
    np.testing.assert_allclose(sum(part.damage for part in parts), whole.damage, rtol=0.01)
    np.testing.assert_allclose(np.hypot(*(part.error for part in parts)), whole.error, rtol=0.01)
    for level, expected in whole.expected.items():
        assert sum(part.expected[level] for part in parts) == pytest.approx(expected, rel=1e-5)


@EVERY
def test_units_together_are_units_one_by_one(rule):
    weights, factors = given()
    ones = [replace(PAIR, name=m.key, matrices=(m,)) for m in PAIR.matrices]
    together = rule.rows(ones, {one.name: MENU for one in ones}, weights, factors, "float16")
    for one in ones:
        # some rows of both are looked at as one matrix, for which NVFP4 has one more scale
        np.testing.assert_allclose(together[one.name].damage, row_of(rule, one).damage, rtol=0.01)


@EVERY
def test_the_order_of_the_menu_hardly_matters(rule):
    turned = row_of(rule, menu=MENU[::-1])
    # gains are measured on one grid per number of bits: whichever it is, within what the rule says of its error
    assert (abs(turned.damage[::-1] - row_of(rule).damage) <= 2 * row_of(rule).error).all()


@EVERY
def test_probes_are_whole_and_what_is_expected_of_them_falls(rule):
    row = row_of(rule)
    assert set(row.probes) == set(row.expected)
    for cut in row.probes.values():
        assert {key: tuple(w.shape) for key, w in cut.items()} == {m.key: (m.rows, m.cols) for m in PAIR.matrices}
        assert all(torch.isfinite(w).all() for w in cut.values())
    expected = [row.expected[level] for level in sorted(row.expected)]
    assert all(more < less for less, more in itertools.pairwise(expected))


@EVERY
def test_nothing_is_changed(rule):
    weights, factors = given()
    before = {key: (weights[key].clone(), f.a.clone(), f.g.clone()) for key, f in factors.items()}
    rule.rows([PAIR], {PAIR.name: MENU}, weights, factors, "float16")
    for key, f in factors.items():
        assert all(torch.equal(x, y) for x, y in zip(before[key], (weights[key], f.a, f.g), strict=True))


@EVERY
def test_what_nobody_hears_does_no_damage(rule):
    weights, factors = given()
    silent = {key: replace(f, g=0 * f.g) for key, f in factors.items()}
    assert not rule.rows([PAIR], {PAIR.name: MENU}, weights, silent, "float16")[PAIR.name].damage.any()


@EVERY
def test_few_rows_that_are_heard_are_not_overlooked(rule):
    """Also when they are not among those that a rule looks at."""
    weights, factors = given()
    found = []
    for heard in (0, 1, 159):
        g = torch.zeros(ROWS)
        g[heard] = 0.01
        one = replace(PAIR, matrices=PAIR.matrices[:1])
        told = {"a": replace(factors["a"], g=g)}
        found.append(rule.rows([one], {one.name: MENU}, weights, told, "float16")[one.name].damage[1:-1])
    assert np.isfinite(found).all()
    assert (np.max(found, 0) < 3 * np.min(found, 0)).all()


# the default


def test_kronecker_expects_of_probes_what_they_do():
    weights, factors = given()
    row = row_of(damage.find("kronecker"))
    assert sorted(row.probes) == [2, 3, 4]
    for level, cut in row.probes.items():
        done = sum(float(measured(weights[key] - w, factors[key].a, factors[key].g)) for key, w in cut.items())
        assert row.expected[level] == pytest.approx(done, rel=0.1)  # damping adds a little


def test_kronecker_expects_what_settling_leaves():
    weights, factors = given()
    row = row_of(damage.find("kronecker"))
    for at, edit in enumerate(MENU[1:-1], 1):
        grid = edit.grid("float16")
        left = sum(settle(weights[key], grid, f.a, f.g).damage for key, f in factors.items())
        assert 0.6 < row.damage[at] / left < 1.6, edit


def test_kronecker_doubles_with_the_gradients():
    rule = damage.find("kronecker")
    np.testing.assert_allclose(row_of(rule, g=2.0).damage, 2 * row_of(rule).damage, rtol=1e-3)


def test_kronecker_doubles_with_the_inputs_square():
    rule = damage.find("kronecker")
    np.testing.assert_allclose(row_of(rule, a=2.0).damage, 2 * row_of(rule).damage, rtol=1e-3)


def test_output_is_a_share_whatever_the_units():
    rule = damage.find("output")
    for changed in ({"a": 2.0}, {"g": 3.0}):
        np.testing.assert_allclose(row_of(rule, **changed).damage, row_of(rule).damage, rtol=1e-3)
    weights, factors = given()
    plain = {key: replace(f, g=torch.ones(len(f.g))) for key, f in factors.items()}
    found = rule.rows([PAIR], {PAIR.name: MENU}, weights, plain, "float16")[PAIR.name]
    for at, edit in enumerate(MENU[1:-1], 1):
        shares = [
            _share(weights[key], settle(weights[key], edit.grid("float16"), f.a, f.g).values, f.a)
            for key, f in plain.items()
        ]
        assert 0.6 < found.damage[at] / sum(shares) < 1.6, edit


def _share(w, values, a):
    e = w - values
    return float(((e @ a) * e).sum() / ((w @ a) * w).sum())


def test_kronecker_measures_block_grids_by_family():
    """What is expected of ggml's types, scalar and vector, is about what settling leaves; probes are there for them."""
    random = torch.Generator().manual_seed(1)
    unit = Unit("m", "linear", (Matrix("a", 48, 256, "m"),), block=0)
    w = 0.05 * torch.randn(48, 256, generator=random)
    f = Factors(gram(256, random), 0.01 * gram(48, random), 1000, 0.05)
    menu = tuple(edits.parse(f"ggml('{kind}')") for kind in ("q2_k", "q3_k", "q4_k", "q6_k", "iq2_xs"))
    row = damage.find("kronecker").rows([unit], {"m": menu}, {"a": w}, {"a": f}, "float16")["m"]
    for edit, expected in zip(menu, row.damage, strict=True):
        assert 0.6 < expected / settle(w, edit.grid("float16"), f.a, f.g).damage < 1.6, edit
    assert sorted(row.probes) == [2, 3, 4]
    for level, cut in row.probes.items():
        assert row.expected[level] == pytest.approx(float(measured(w - cut["a"], f.a, f.g)), rel=0.1)
