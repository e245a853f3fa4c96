"""Running sums: by hand, and the short cut through bfloat16 within what it says of itself."""

import pytest
import torch

from secateur.maths import sums
from secateur.maths.sums import Gram, Spread


def test_gram_by_hand():
    gram = Gram.empty(2)
    gram.update(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    gram.update(torch.tensor([[3.0, -1.0]]), torch.tensor([2.0]))
    # [1 2; 2 4] + [0 0; 0 1] + 2 [9 -3; -3 1], over three tokens
    assert gram.tokens == 3
    assert gram.total.tolist() == [[19.0, -4.0], [-4.0, 7.0]]
    torch.testing.assert_close(gram.mean(), torch.tensor([[19.0, -4.0], [-4.0, 7.0]]) / 3)


def test_gram_of_nothing_is_zero():
    assert not Gram.empty(3).mean().any()
    gram = Gram.empty(3, diagonal=True)
    gram.update(torch.empty(0, 3))
    assert gram.tokens == 0 and gram.mean().tolist() == [0.0, 0.0, 0.0]


def test_the_mean_is_symmetric_to_the_bit():
    gram = Gram.empty(65)
    random = torch.Generator().manual_seed(0)
    gram.update(torch.randn(100, 65, generator=random), torch.rand(100, generator=random))
    assert torch.equal(gram.mean(), gram.mean().T)


@pytest.mark.parametrize("quick", [False, True], ids=["float32", "bfloat16"])
def test_each_way_is_within_its_error(quick, monkeypatch):
    monkeypatch.setattr(sums, "tiles", lambda: quick)
    random = torch.Generator().manual_seed(0)
    gram, exact = Gram.empty(256), torch.zeros(256, 256, dtype=torch.float64)
    for _ in range(4):
        x = torch.randn(512, 256, generator=random) + 0.5 * torch.randn(512, 1, generator=random)
        weight = torch.rand(512, generator=random)
        gram.update(x, weight)
        exact += (x.double() * weight.double()[:, None]).T @ x.double()
    wrong = (gram.mean() * gram.tokens - exact) / (exact.diagonal()[:, None] * exact.diagonal()).sqrt()
    step = 2.0**-9 if quick else 2.0**-24
    assert float(wrong.square().mean().sqrt()) < step
    assert float(wrong.abs().max()) < 8 * step
    # unbiased: over all entries the errors cancel
    assert abs(float(wrong.mean())) < step / 8


def test_the_short_cut_is_taken_only_where_it_pays(monkeypatch):
    asked = []
    monkeypatch.setattr(sums, "tiles", lambda: asked.append(1) or True)
    x = torch.full((3, 4), 1.001)
    gram = Gram.empty(4)
    gram.update(x)
    assert torch.equal(gram.total, x.T @ x) and not asked


def test_spread_by_hand():
    # 1, 3, 8 have mean 4 and variance 13 (over n - 1): the mean is known to sqrt(13 / 3)
    spread = Spread()
    for x in (1.0, 3.0, 8.0):
        spread.update(x)
    assert spread.mean == 4.0
    assert spread.relative_error == pytest.approx((13 / 3) ** 0.5 / 4)


def test_spread_weighs():
    # a batch of three tokens counts thrice: (3 * 2 + 6) / 4 = 3, which is 3 * 1 off on one side and 3 on the other
    spread = Spread()
    spread.update(2.0, 3)
    spread.update(6.0, 1)
    assert spread.mean == 3.0
    assert spread.relative_error == pytest.approx((2 / 1 * (9 + 9)) ** 0.5 / 4 / 3)


def test_weights_in_another_unit_change_nothing():
    one, other = Spread(), Spread()
    for x, w in ((1.0, 2.0), (5.0, 1.0), (2.0, 4.0)):
        one.update(x, w)
        other.update(x, 1000 * w)
    assert other.mean == pytest.approx(one.mean)
    assert other.relative_error == pytest.approx(one.relative_error)


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0]])
def test_too_few_to_tell(values):
    spread = Spread()
    for x in values:
        spread.update(x)
    assert spread.relative_error == 1.0


def test_the_error_is_that_of_repeated_trials():
    random = torch.Generator().manual_seed(0)
    means, errors = [], []
    for _ in range(400):
        spread = Spread()
        for tokens in (10, 40, 40, 90):
            spread.update(5 + float(torch.randn(1, generator=random)) * 10 / tokens**0.5, tokens)
        means.append(spread.mean)
        errors.append(spread.relative_error * spread.mean)
    seen = float(torch.tensor(means).std())
    assert float(torch.tensor(errors).square().mean().sqrt()) == pytest.approx(seen, rel=0.15)
