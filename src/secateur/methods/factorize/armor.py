"""A 2:4 core between two block-diagonal wrappers: a mask that hardware runs, and small matrices that make up for it.

Paper: Liu et al., ARMOR: High-Performance Semi-Structured Pruning via Adaptive Matrix Factorization
    (arXiv 2510.05528, 2025)
Wing: factorize
Shape: cut
Applies to: linear layers whose sides divide into blocks
Use: secateur cut MODEL --data text.txt --budget "14 bits/weight" --edits bits,armor --format packed -o out

W is nearly A (S * M) B: S * M has two numbers in every four, A and B are block-diagonal with blocks of b x b. W is
first divided by the norms of its columns, then of its rows; those go into A and B at the end. The start, A = B = I and
the two largest W^2 h of four, is NoWag-P. Then turns of two steps: Adam on A, B and S; and in every b x b block one
group of four, drawn by the size of its gradient, gets the best of its six masks with the best two values, by least
squares. The search itself is `maths/wrapped`.

Where we differ: the best iterate is returned (the code returns the last). h = E[x_j^2] is the paper's; where a survey
has A, its diagonal stands there. The `armor` edit takes fewer and larger steps than the paper, since a survey has to
know the damage of every matrix before anything is chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.maths.wrapped import Wrapped, Wrapping

#: the paper's knobs: Adam at 1e-4, 5,000 steps (20,000 to replicate), blocks of 128
armor = Wrapping(block=128, steps=5000, rate=1e-4)


def nowag(w: Tensor, h: Tensor, block: int) -> Wrapped:
    """Where it starts: two of every four by the normalised W^2 h, wrappers that do nothing (NoWag-P)."""
    return Wrapping(block, steps=0)(w, h, torch.Generator())
