"""Round column by column, and let the columns still to come make up for each error.

Paper: Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers
    (arXiv 2210.17323, 2022)
Wing: quantize
Shape: cut
Applies to: linear layers and experts, on any grid of scalars
Use: secateur cut MODEL --data text.txt --budget "4 bits/weight" --round one-sided -o out

With A = E[x x'] of the inputs, rounding W to Q costs tr(E A E'), E = W - Q. The paper goes through the columns, rounds
one and moves the others by the least squares answer, read from the Cholesky factor R of inv(A) = R'R. Here A itself is
factored, A = (I+U) D (I+U)' with U strictly upper: column j is rounded from w_j + sum_{i<j} e_i U_ij, with e_i the
errors against the original weights. R = D^-1/2 (I+U)^-1, so the codes are the same to the last (the test compares
them); nothing is inverted, and the errors need no weights that were moved on the way.

Where we differ: damping grows tenfold, from 1% of the mean diagonal, until a factor exists; an input that is never on
is rounded like the others, not set to zero. The scales of groups are fitted to the original weights beforehand, by a
search in which every input counts as much as its diagonal, where the paper takes the range of the moved weights. A is
that of the uncut network. `--round one-sided` is this with the survey's A, in which tokens count by their gradients,
and at 4 bits and fewer with scales refitted in the same metric; `--round two-sided` feeds errors along the rows too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from secateur.maths.factor import unit_upper
from secateur.maths.grids import Coded
from secateur.maths.rounding import feedback


@dataclass(frozen=True)
class GPTQ:
    """Error feedback along the inputs. `damp` is a share of the mean of A's diagonal.

    `act_order` takes the inputs with the largest diagonal first, as the authors' code may: their errors then meet most
    columns that can make up for them. Scales stay with their groups, so the file is the same kind of file.
    """

    damp: float = 0.01
    act_order: bool = False

    def __call__(self, w: Tensor, grid: Any, a: Tensor) -> Coded:
        """`w` [rows, cols] on the grid, errors fed back in the metric `a` [cols, cols] = E[x x']."""
        w = w.float()
        fitted = grid.fit(w, a.diagonal())
        order = torch.arange(len(a), device=a.device)
        if self.act_order:
            order = a.diagonal().argsort(descending=True, stable=True)
        u, _, _ = unit_upper(a[order][:, order], self.damp)
        zero = None if fitted.zero is None else fitted.zero[:, order]
        turned = replace(fitted, scale=fitted.scale[:, order], zero=zero)
        values = feedback(w[:, order], turned, u.float())
        return fitted.code(values[:, order.argsort()])


gptq = GPTQ()
