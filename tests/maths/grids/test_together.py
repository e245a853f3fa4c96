"""Block grids of several types are swept side by side, and each comes out as if it were alone."""

import pytest
import torch

from secateur.maths.grids.scalars import Scalars
from secateur.maths.settle import Metric, swept, widened


def case(rows=40, cols=512):
    random = torch.Generator().manual_seed(0)
    grams = []
    for n in (cols, rows):
        x = torch.randn(2 * n, n, generator=random) + 0.5 * torch.randn(2 * n, 1, generator=random)
        grams.append(x.T @ x / len(x))
    return 0.05 * torch.randn(rows, cols, generator=random), Metric.of(*grams)


@pytest.mark.parametrize(
    "kinds", [("q2_k", "q3_k", "q4_k"), ("q3_k", "q6_k"), ("iq4_nl", "q2_k", "mxfp4", "iq4_xs")], ids=str
)
def test_together_is_as_alone(kinds):
    w, metric = case()
    fits = [Scalars(kind).fit(w) for kind in kinds]
    for fit, values in zip(fits, swept([(metric, w, fit) for fit in fits]), strict=True):
        torch.testing.assert_close(values, metric.sweep(w, fit))
        assert torch.equal(fit.code(values).values, values)


def test_widths_go_together():
    w, metric = case()
    fit = Scalars("q2_k").fit(w)
    fits = [widened(fit, width) for width in (1.0, 1.15, 1.3)]
    for one, values in zip(fits, swept([(metric, w, one) for one in fits]), strict=True):
        assert torch.equal(one.code(values).values, values)
    shares = [float((one.scale / fit.scale).median()) for one in fits]
    assert shares == pytest.approx([1.0, 1.15, 1.3], rel=0.01)
