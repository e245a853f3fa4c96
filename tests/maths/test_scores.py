"""Scores by hand, and OBS against what taking a weight away and refitting all others really damages."""

import pytest
import torch

from secateur.maths import scores
from secateur.maths.factor import damped
from secateur.maths.rounding import damage

W = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
A, G = torch.tensor([[4.0, 1.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.5], [0.5, 1.0]])


def test_by_hand():
    assert scores.magnitude(W).tolist() == [[1, 2], [0.5, 3]]
    assert scores.activation(W, A).tolist() == [[2, 1], [2, 1]]
    assert scores.wanda(W, A).tolist() == [[2, 2], [1, 3]]
    assert scores.fisher(W, A, G).tolist() == [[4, 4], [0.5, 4.5]]
    assert torch.equal(scores.fisher(W, A, G), scores.fisher(W, A, G.diagonal()))
    assert torch.allclose(scores.fisher(W, A, None), 0.5 * scores.wanda(W, A).square())


def test_fisher_is_the_damage_of_taking_one_away():
    for i in range(2):
        for j in range(2):
            error = torch.zeros(2, 2)
            error[i, j] = W[i, j]
            assert float(damage(error, A, G)) == pytest.approx(float(scores.fisher(W, A, G)[i, j]))


@pytest.mark.parametrize("g", [G, G.diagonal(), None], ids=["both", "diagonal", "none"])
def test_obs_is_the_damage_when_all_others_make_up_for_it(g):
    a = damped(A.double(), 0.01)
    whole = torch.eye(2).double() if g is None else torch.diag(g).double() if g.ndim == 1 else damped(g.double(), 0.01)
    metric = torch.kron(whole, a)  # of errors, row after row
    for at in range(4):
        others = [k for k in range(4) if k != at]
        # minimise 1/2 e' M e with e_at = w_at
        left = metric[at, at] - metric[at, others] @ torch.linalg.solve(metric[others][:, others], metric[others, at])
        want = 0.5 * float(W.flatten()[at].double() ** 2 * left)
        assert float(scores.obs(W, A, g).flatten()[at]) == pytest.approx(want, rel=1e-4)
