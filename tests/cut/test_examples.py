"""What is kept of the examples held back."""

import torch

from secateur.cut.examples import Seen


def test_the_mean_of_the_places_but_the_first():
    seen = Seen()
    states = torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]])
    logits = torch.zeros(1, 2, 5)
    seen(states, logits, logits)
    assert seen.vectors[0].tolist() == [[2.0, 3.0]] and seen.firsts == []
    seen(torch.ones(1, 1, 2), torch.eye(3)[None, 1:2], torch.eye(3)[None, 2:])
    assert seen.vectors[1].tolist() == [[1.0, 1.0]] and seen.firsts[0].tolist() == [[1, 2]]
