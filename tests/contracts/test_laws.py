"""The laws of the role: whoever is a law gives numbers where it says so, tells them in words, and can be fitted.

Laws are collected by path: every file of `methods/laws`.
"""

from importlib import import_module

import numpy as np
import pytest

from secateur import catalogue
from secateur.law.answering import Answering
from secateur.law.asking import SEARCHED
from secateur.maths.fitting import fit
from secateur.maths.following import Problem
from secateur.parts.laws import CHINCHILLA_QID, Law

METHODS = [method for method in catalogue.methods() if method.wing == "laws"]
FORMS = [
    pytest.param(law, id=f"{method.name}: {law.formula.name}")
    for method in METHODS
    for law in import_module(f"secateur.{method.file.removesuffix('.py').replace('/', '.')}").laws
]
EVERY = pytest.mark.parametrize("law", FORMS)
#: what a column of a made table holds
MADE = {
    "params": (1e8, 7e8, 4e9),
    "tokens": (2e9, 3e10, 4e11),
    "bits": (1.5, 2.0, 3.0, 4.0),
    "fraction": (0.0, 0.1, 0.3, 0.6),
    "activation": (0.02, 0.05, 0.1, 0.3),
    "granularity": (1.0, 3.0, 12.0),
    "flops": (1e18, 1e20, 1e22),
}


def table(law: Law) -> dict[str, np.ndarray]:
    axes = np.meshgrid(*(MADE[name] for name in law.formula.columns))
    return dict(zip(law.formula.columns, (axis.ravel() for axis in axes), strict=True))


def values(law: Law, seed: int = 0) -> dict[str, float]:
    """The paper's, or such as give numbers, all in the ranges where they are looked for."""
    if law.published:
        return dict(law.published.values)
    rows, rng = table(law), np.random.default_rng(seed)
    names = list(law.formula.starts)
    problem = Problem(law.formula, rows | {law.formula.target: np.ones(len(rows[names_of(law)[0]]))}, {})
    while True:
        found = {name: float(value) for name, value in problem.values(problem.somewhere(rng)).items()}
        said = law.formula.at(rows, found)
        if names == list(found) and np.isfinite(said).all() and said.min() > 0 and np.ptp(np.log(said)) > 0.3:
            return found


def names_of(law: Law) -> tuple[str, ...]:
    return law.formula.columns


@EVERY
def test_it_says_what_it_is(law):
    formula = law.formula
    for name in (*formula.starts, *formula.columns, formula.target):
        assert name in formula.says, f"the formula in words has no {name}"
    assert all(low < high for low, high in formula.starts.values())
    if law.published:
        assert list(law.published.values) == list(formula.starts) and set(law.published.inside) <= set(formula.columns)
        assert all(low * 0.99 <= law.published.values[name] <= high for name, (low, high) in formula.starts.items()), (
            "what the paper found is looked for"
        )
    assert set(law.usual) | set(law.chosen) <= set(formula.columns)


@EVERY
def test_it_answers_in_numbers_and_in_words(law):
    asked = Answering(law, values(law))
    at = {name: MADE[name][-1] for name in law.formula.columns}
    answer = asked.predict(at)
    assert answer["value"] == pytest.approx(float(law.formula.at(at, asked.values))) and answer["interval"] is None
    assert len(answer["says"]) > 30 and "nan" not in answer["says"] and not answer["says"].endswith(".")
    left = {name: value for name, value in at.items() if name not in law.chosen}
    assert set(asked.predict(left)["at"]) == set(law.formula.columns)


@EVERY
def test_it_turns_around(law):
    asked = Answering(law, values(law))
    at = {name: MADE[name][1] for name in law.formula.columns}
    value = float(law.formula.at(at, asked.values))
    for find in law.formula.columns:
        rest = {name: one for name, one in at.items() if name != find}
        found = asked.turned(rest, find, value)
        answers = [found["value"], *found["also"]]
        assert any(one == pytest.approx(at[find], rel=1e-6) for one in answers), f"{find}: {answers}"
        if find in SEARCHED:
            assert all(SEARCHED[find][0] <= one <= SEARCHED[find][1] for one in answers)


@EVERY
def test_planted_it_is_found_again(law):
    rows = table(law)
    rows[law.formula.target] = law.formula.at(rows, values(law))
    keep = np.isfinite(rows[law.formula.target]) & (rows[law.formula.target] > 0)
    rows = {name: column[keep] for name, column in rows.items()}
    found = fit(law.formula, rows, draws=0)
    assert np.abs(np.log(found.at(rows) / rows[law.formula.target])).max() < (1e-6 if len(found.values) < 9 else 0.02)


def test_the_additive_term_is_a_law_of_its_own_beside_shannon_s():
    assert any(CHINCHILLA_QID in form.values[0].beside for form in FORMS)
