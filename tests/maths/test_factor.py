"""Triangular factors: by hand, put together again, and damped where the statistic does not bear a factor."""

import pytest
import torch

from secateur.maths.factor import damped, unit_upper


def gram(n, tokens, seed=0):
    x = torch.randn(tokens, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.T @ x / tokens


def together(u, d):
    upper = torch.eye(len(d), dtype=d.dtype) + u
    return upper @ d.diag() @ upper.T


def test_by_hand():
    # [5 2; 2 4] = [1 u; 0 1] diag(d) [1 0; u 1]: d1 = 4, u = 2 / 4, d0 = 5 - u^2 d1
    u, d, damp = unit_upper(torch.tensor([[5.0, 2.0], [2.0, 4.0]]), damp=0.0)
    assert u.tolist() == [[0.0, 0.5], [0.0, 0.0]]
    assert d.tolist() == [4.0, 4.0]
    assert damp == 0.0


def test_damping_is_a_share_of_the_mean_diagonal():
    a = torch.tensor([[6.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    assert damped(a, 0.25).tolist() == [[7.0, 1.0], [1.0, 3.0]]
    two = torch.stack([a, 2 * a])
    assert torch.equal(damped(two, 0.1), torch.stack([damped(a, 0.1), damped(2 * a, 0.1)]))


@pytest.mark.parametrize("n", [1, 2, 33, 70])
def test_put_together_again(n):
    a = gram(n, 3 * n)
    u, d, damp = unit_upper(a.float(), damp=0.01)
    assert damp == 0.01
    assert u.dtype == d.dtype == torch.float64
    assert torch.equal(u, u.triu(1))
    assert (d > 0).all()
    torch.testing.assert_close(together(u, d), damped(a.float().double(), 0.01), rtol=1e-12, atol=1e-12)


def test_a_last_sum_that_is_not_symmetric_is_made_so():
    a = gram(5, 20)
    skew = a + torch.full((5, 5), 1e-3, dtype=torch.float64).triu(1)
    u, d, _ = unit_upper(skew, damp=0.0)
    torch.testing.assert_close(together(u, d), (skew + skew.T) / 2)


def test_damping_grows_where_there_is_no_factor():
    a = gram(40, 10)
    a = a - 0.001 * a.diagonal().mean() * torch.eye(40, dtype=torch.float64)  # as bad rounding would leave it
    u, d, damp = unit_upper(a, damp=1e-5)
    assert damp == pytest.approx(1e-2)  # 1e-5 to 1e-3 do not do
    torch.testing.assert_close(together(u, d), damped(a, damp), rtol=1e-9, atol=1e-9)


def test_rank_deficient_without_damping_gets_some():
    x = torch.tensor([[1.0, 1.0, 0.0]])
    _, d, damp = unit_upper(x.T @ x, damp=0.0)
    assert damp == 1e-6
    assert (d > 0).all() and torch.isfinite(d).all()


def test_dead_inputs_stand_alone():
    a = gram(6, 30)
    a[2], a[:, 2] = 0.0, 0.0
    u, d, _ = unit_upper(a, damp=0.01)
    assert not u[2].any() and not u[:, 2].any()
    assert d[2] == pytest.approx(float(0.01 * a.diagonal().mean()))


def test_nothing_but_zeros_has_a_factor():
    u, d, _ = unit_upper(torch.zeros(3, 3))
    assert not u.any() and torch.isfinite(d).all()


@pytest.mark.parametrize("what", [float("nan"), float("inf")])
def test_statistics_that_are_no_numbers_are_refused(what):
    a = gram(4, 20)
    a[1, 2] = what
    with pytest.raises(ValueError, match="the statistic holds NaN or Inf"):
        unit_upper(a)
