"""A cascade of cheap scorers: by hand, the laws of the card, and what a line through known examples says of others."""

from __future__ import annotations

import pytest
import torch

from secateur.methods.data.selectformer import cascade, proxy, ridge
from secateur.parts.select import Room
from secateur.parts.select.policies import top


def room(n: int, most: int) -> Room:
    return Room(torch.ones(n, dtype=torch.long), most, "examples", str(most))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_by_hand():
    cheap, dear = torch.tensor([5.0, 4, 3, 2, 1]), torch.tensor([1.0, 2, 3, 9, 9])
    at, score, looked = cascade([lambda at: cheap[at], lambda at: dear[at]], [3], room(5, 2))
    assert at.tolist() == [2, 1] and looked == [5, 3], "of the three that were handed on the two best"
    assert score.tolist() == [1, 2, 3, 2, 1], "each by the last who looked at it"


@pytest.mark.parametrize("keeps", [[60, 30], [25, 20], [200, 200]])
def test_exact_scorers_give_exactly_the_top(keeps):
    truth = torch.randn(200, generator=seeded())
    at, _, looked = cascade([lambda at: truth[at]] * 3, keeps, room(200, 20))
    assert at.tolist() == top(truth, room(200, 20)).tolist()
    assert looked == [200, *keeps], "and what it costs is what survives"


def test_only_the_order_counts():
    truth, cheap = torch.randn(2, 100, generator=seeded(1))
    plain = cascade([lambda at: cheap[at], lambda at: truth[at]], [40], room(100, 10))[0]
    bent = cascade([lambda at: cheap[at].exp(), lambda at: truth[at] ** 3], [40], room(100, 10))[0]
    assert plain.tolist() == bent.tolist()


def test_tokens_are_not_exceeded():
    truth, cost = torch.randn(100, generator=seeded(2)), torch.randint(1, 30, (100,), generator=seeded(3))
    at = cascade([lambda at: truth[at]] * 2, [50], Room(cost, 90, "tokens", ""))[0]
    assert 60 < int(cost[at].sum()) <= 90 and len(at.unique()) == len(at)


@pytest.mark.parametrize("width", [3, 40, 300])
def test_a_line_is_found_also_of_more_columns_than_examples(width):
    draw = seeded(width)
    x, weights = torch.randn(400, width, generator=draw) * 3 + 1, torch.zeros(width)
    weights[:3] = torch.tensor([1.0, -2.0, 0.5])
    y = x @ weights + 4
    guessed = ridge(x[:120].double(), y[:120].double(), x[120:].double()).float()
    like = float(torch.corrcoef(torch.stack([guessed, y[120:]]))[0, 1])
    assert like > (0.999 if width < 120 else 0.4)
    if width == 3:
        torch.testing.assert_close(guessed, y[120:], atol=0.05, rtol=0.01)


def test_noise_alone_is_shrunk_to_the_mean():
    x, y = torch.randn(100, 60, generator=seeded(4)).double(), torch.randn(100, generator=seeded(5)).double()
    guessed = ridge(x, y, torch.randn(500, 60, generator=seeded(6)).double())
    assert float(guessed.std()) < 0.5 * float(y.std()) and abs(float(guessed.mean() - y.mean())) < 0.1


def test_a_proxy_knows_what_it_was_fitted_on():
    x = torch.randn(300, 5, generator=seeded(7))
    truth = x[:, 0] + torch.randn(300, generator=seeded(8)) * 0.3
    known = torch.randperm(300, generator=seeded(9))[:80].sort().values
    asked: list[int] = []

    def glance(at: torch.Tensor) -> torch.Tensor:
        asked.append(len(at))
        return x[at]

    score = proxy(glance, known, truth[known])
    guessed = score(torch.arange(300))
    torch.testing.assert_close(guessed[known].float(), truth[known])
    assert float(torch.corrcoef(torch.stack([guessed.float(), truth]))[0, 1]) > 0.9
    some = torch.arange(0, 300, 3)
    torch.testing.assert_close(score(some), guessed[some])
    assert asked == [300, len(torch.cat([some, known]).unique())], "it looks at what it is asked for, and what it knows"
