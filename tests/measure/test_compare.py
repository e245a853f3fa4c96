"""Two tokens, worked out on paper; and halves that add up to the whole."""

from __future__ import annotations

import math

import pytest
import torch

from secateur.measure.compare import Comparison, sums


def test_by_hand():
    # the reference is even-handed, ours says (0.9, 0.1) and then (0.2, 0.8); what comes is 0, then 0
    ours = torch.tensor([[[0.9, 0.1], [0.2, 0.8]]]).log()
    found = sums(ours, torch.tensor([[0, 0]]), torch.zeros(1, 2, 2))
    assert found["losses"].item() == pytest.approx(-math.log(0.9) - math.log(0.2))
    assert found["reference"].item() == pytest.approx(2 * math.log(2))
    one = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    two = 0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8)
    assert found["kls"].item() == pytest.approx(one + two)
    assert found["agreements"].item() == 1  # equals count for the first token: 0 and 0, then 1 and 0


def test_logits_of_any_scale_are_the_same_distribution():
    logits = torch.randn(2, 3, 5)
    shifted = sums(logits + 7.0, torch.ones(2, 3, dtype=torch.long), logits)
    assert shifted["kls"].abs().max() < 1e-5
    assert (shifted["losses"] - shifted["reference"]).abs().max() < 1e-5


def test_without_a_reference_there_is_only_the_loss():
    assert set(sums(torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.long))) == {"losses", "rights"}


def test_the_last_place_of_a_window_predicts_nothing_that_is_counted():
    logits, tokens = torch.randn(2, 4, 5), torch.randint(5, (2, 4))
    other = logits.clone()
    other[:, -1] = 100 * torch.randn(2, 5)
    plain, odd = Comparison(), Comparison()
    plain.update(logits, logits, tokens)
    odd.update(other, logits, tokens)
    assert odd == plain
    assert plain.tokens == 6 and plain.kl == 0 and plain.agreement == 1


def test_two_halves_are_the_whole():
    logits, reference, tokens = torch.randn(4, 5, 7), torch.randn(4, 5, 7), torch.randint(7, (4, 5))
    whole, halves = Comparison(), Comparison()
    whole.update(logits, reference, tokens)
    for half in (slice(0, 2), slice(2, 4)):
        halves.update(logits[half], reference[half], tokens[half])
    assert halves.tokens == whole.tokens == 16
    assert halves.loss == pytest.approx(whole.loss)
    assert halves.kl == pytest.approx(whole.kl)
    assert halves.rise_error == pytest.approx(whole.rise_error)


def test_errors_by_hand():
    found = Comparison(losses=[1.0, 2.0, 3.0], reference=[1.0, 1.0, 1.0], kls=[0.5, 0.5, 0.5])
    assert found.loss_error == found.rise_error == pytest.approx(1 / math.sqrt(3))
    assert found.rise == pytest.approx(1.0)
    assert found.kl_error == 0
    assert Comparison(losses=[1.0]).loss_error == math.inf  # one window says nothing about another
