"""What rounding will cost by size, training and bits: the paper's numbers, and the law turned around."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.maths.fitting import fit
from secateur.methods.laws.qid_law import FULL, GPTQ, rise, tokens
from secateur.parts.laws import QID


def test_by_hand():
    assert rise(1, 1, 1) == 0.017
    assert rise(2, 1, 1) == pytest.approx(0.017 / 2**0.2261) and rise(1, 2, 1) == pytest.approx(0.017 * 2**0.5251)


def test_two_bits_for_four_cost_45_times_as_much():
    assert rise(7e9, 2e12, 2) / rise(7e9, 2e12, 4) == pytest.approx(45.15, abs=0.01)


def test_how_long_a_network_may_be_trained():
    assert tokens(7e9, 4) == pytest.approx(3.804e12, rel=1e-3), "the unified law; the paper's fit of 4 bits alone: 4.5T"
    assert rise(7e9, tokens(7e9, 4), 4) == pytest.approx(FULL)
    assert tokens(7e10, 4) / tokens(7e9, 4) == pytest.approx(10 ** (GPTQ["alpha"] / GPTQ["beta"]))
    assert GPTQ["alpha"] / GPTQ["beta"] == pytest.approx(0.43, abs=0.001)


def test_the_paper_s_constants_come_back_from_what_they_predict():
    n, d, p = (x.ravel() for x in np.meshgrid([8.5e7, 1e9, 1e10], [1e9, 1e10, 1e11], [2.0, 3.0, 4.0]))
    rows = {"params": n, "tokens": d, "bits": p, "rise": np.array([rise(*one) for one in zip(n, d, p, strict=True)])}
    assert fit(QID, rows, draws=0).values == pytest.approx(GPTQ, rel=1e-6)


def test_the_front_door(secateur):
    said = secateur("law", "qid-law", "--at", "params=7B, tokens=2T").stdout
    assert "3 bits are predicted to cost 0.694 nats per token" in said
    assert "4 bits" in said and "not too trained (less than 0.2)" in " ".join(said.split())
    assert "tokens=2T is 6.7 times the most it was fitted on (300B)" in " ".join(said.split())
