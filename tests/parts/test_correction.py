import math

import pytest

from secateur.measure.compare import Comparison
from secateur.parts.correction import Correction, factor_at


def found(kl: float, rise: float | None = None) -> Comparison:
    """A comparison of four windows with this KL and this rise of the loss, hardly scattered."""
    rise = kl if rise is None else rise
    scatter = [0.999, 1.001, 1.0, 1.0]
    return Comparison([2 + rise * s for s in scatter], [2.0] * 4, [kl * s for s in scatter], [1.0] * 4, 4)


def test_by_hand():
    curve = Correction.fit({2: 0.04, 4: 0.01}, {2: found(0.16), 4: found(0.02)})
    assert curve.kl(0.01) == pytest.approx(0.02) and curve.kl(0.04) == pytest.approx(0.16)
    assert curve.kl(0.02) == pytest.approx(0.02 * 2**1.5)  # between: slope log(8) / log(4)
    assert curve.kl(0.001) == pytest.approx(0.002)  # below the smallest probe: in proportion
    assert curve.kl(0.08) == pytest.approx(0.16 * 2**1.5)  # above the largest: as before it
    assert curve.kl(0.0) == 0.0


def test_it_only_grows():
    curve = Correction.fit({2: 0.5, 3: 0.1, 4: 0.02}, {2: found(0.9), 3: found(0.15), 4: found(0.02)})
    values = [curve.loss(10 ** (-5 + i / 10)) for i in range(60)]
    assert values == sorted(values) and len(set(values)) == len(values)


def test_a_probe_out_of_order_is_left_out():
    curve = Correction.fit({2: 0.5, 3: 0.1, 4: 0.02}, {2: found(0.9), 3: found(0.01), 4: found(0.02)})
    assert curve.sums == (0.02, 0.5)


def test_rise_is_loss_per_kl_and_believed_as_far_as_it_is_known():
    sure = Correction.fit({2: 0.1}, {2: found(0.1, 0.13)})
    assert sure.rise == pytest.approx(1.3, abs=0.02)
    assert sure.loss(0.1) == pytest.approx(sure.rise * sure.kl(0.1))
    noisy = Comparison([2.0, 2.4, 1.7, 2.5], [2.0] * 4, [0.01] * 4, [1.0] * 4, 4)
    assert Correction.fit({2: 0.1}, {2: noisy}).rise == pytest.approx(1.0, abs=0.1)


def test_without_probes_sums_stay():
    assert Correction.of({}).loss(0.3) == 0.3
    assert Correction.fit({}, {}) == Correction()


def test_one_probe_is_a_factor():
    curve = Correction.fit({3: 0.1}, {3: found(0.2)})
    assert curve.kl(0.05) == pytest.approx(0.1) and curve.kl(0.4) == pytest.approx(0.8)


def test_told_and_read_back():
    curve = Correction.fit({2: 0.04, 4: 0.01}, {2: found(0.16), 4: found(0.02)})
    assert Correction.of({"correction": curve.told()}) == curve


def test_slope_is_the_derivative():
    curve = Correction.fit({2: 0.04, 4: 0.01}, {2: found(0.16), 4: found(0.02)})
    here = curve.slope(0.02)
    assert here == pytest.approx(1.5 * curve.loss(0.02) / 0.02, rel=1e-3)
    assert math.isfinite(here)


def test_the_loss_wanders_by_the_root_of_the_divergence():
    """By hand: a loss 0.02 above its divergence of 0.04 is a tenth of a nat per root of a nat away, and next to nothing
    of it is noise of the windows."""
    probe = Comparison([2.06 + s for s in (-1e-5, 1e-5)] * 2, [2.0] * 4, [0.04] * 4, [1.0] * 4, 4)
    curve = Correction.fit({2: 0.04}, {2: probe})
    assert curve.drift == pytest.approx(abs(0.06 - curve.rise * 0.04) / 0.2, rel=1e-3)
    assert curve.spread(0.01, 0.0) == pytest.approx(curve.drift * 0.1)
    assert curve.spread(0.01, 0.003) == pytest.approx(math.hypot(curve.drift * 0.1, 0.003 * curve.slope(0.01)))
    steady = Correction.fit({2: 0.04}, {2: found(0.04)})
    assert steady.drift < 0.01


def test_a_family_that_errs_in_its_own_way_is_brought_to_the_curve():
    curve = Correction.fit({4: 0.1, 3: 0.4}, {4: found(0.2), 3: found(1.2)})
    factors = curve.factors({375: 0.05, 345: 0.1}, {375: found(0.2), 345: found(1.2)})
    assert factors == pytest.approx({375: 2.0, 345: 4.0})
    assert curve.kl(factors[345] * 0.1) == pytest.approx(1.2), "its probe comes out as it was measured"
    assert factor_at(factors, 360) == pytest.approx(math.sqrt(8.0)), "straight in the logarithm"
    assert (factor_at(factors, 390), factor_at(factors, 315)) == pytest.approx((2.0, 4.0)), "flat beyond"
    assert factor_at(factors, 150) == factor_at(factors, 0) == factor_at({}, 345) == 1.0, "other families stay"
