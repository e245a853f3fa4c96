"""Round every weight to the nearest number of its grid: the baseline that needs no data.

Paper: Gholami et al., A Survey of Quantization Methods for Efficient Neural Network Inference (arXiv 2103.13630, 2021)
Wing: quantize
Shape: cut
Applies to: any matrix and any grid: linear layers, embeddings, heads, experts
Use: secateur cut MODEL --data text.txt --budget "4 bits/weight" --round nearest -o out

The only choice is the scales. The survey takes them from the range of the weights, so that nothing is clipped; one
outlier then spreads the grid over all others.

Where we differ: scales are searched for the least squared error, range included, and a symmetric grid may lie either
way round (`maths/grids`). `--round nearest` goes one step further and weighs every input by its mean square, which the
survey has at hand.
"""

from __future__ import annotations

from torch import Tensor

from secateur.maths.grids import Coded, Grid
from secateur.maths.rounding import nearest


def rtn(w: Tensor, grid: Grid, weight: Tensor | None = None) -> Coded:
    """`w` [rows, cols] on the nearest numbers of the grid; `weight` [cols] says how much the scales mind each input.

    >>> import torch
    >>> from secateur.maths.grids.affine import Affine
    >>> rtn(torch.tensor([[-2.0, -0.9, 0.2, 1.1]]), Affine(bits=2, group=4)).values.tolist()
    [[-2.0, -1.0, 0.0, 1.0]]
    """
    fitted = grid.fit(w.float(), weight)
    return fitted.code(nearest(w.float(), fitted))
