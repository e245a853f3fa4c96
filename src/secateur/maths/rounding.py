"""Which number of the grid each weight gets: nearest, or error feedback in the metric that decided the plan.

With E = W - Q, A = E[x x'] of the inputs and G = E[g g'] of the output gradients, the damage is 1/2 tr(G E A E').
Write A = (I+U) D (I+U)' and G = (I+V) D' (I+V)', U and V strictly upper. Then

    (I+V)' E (I+U) = E + V'E + (E + V'E) U

and an entry of it depends only on entries above and to the left. Rounding `W + V'E + (E + V'E) U` therefore leaves just
the local rounding errors in it, each weighted by D'_i D_j. One-sided feedback (GPTQ, LDLQ) is the case G = identity.

Grids whose columns are coded together, `step` at a time, go the same way by cells of 1 x `step`: U is zero inside a
cell (`unit_upper` of that step), which is snapped as a whole; D_j is a block, whose diagonal weighs the cell's parts.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .grids import Fitted

TILE = 32


def nearest(w: Tensor, grid: Fitted, weight: Tensor | None = None) -> Tensor:
    """Each weight (each cell of weights, its parts weighed by `weight` [cols]) on its nearest grid value."""
    return _snap(grid, w, grid.scale, grid.zero, weight)


def _cells(x: Tensor, step: int) -> Tensor:
    """[..., cols] as [..., cells, step]; scalars stay as they are."""
    return x if step == 1 else x.unflatten(-1, (-1, step))


def _snap(grid: Fitted, x: Tensor, scale: Tensor, zero: Tensor | None, weight: Tensor | None) -> Tensor:
    """Cells on the grid; the parts of a cell may weigh differently, a scalar has nothing to be weighed against."""
    return grid.snap(x, scale, zero) if weight is None or grid.step == 1 else grid.snap(x, scale, zero, weight)


def damage(error: Tensor, a: Tensor, g: Tensor | None = None) -> Tensor:
    """1/2 tr(G E A E') for E [..., rows, cols]; G is a matrix, a diagonal [rows], or None for the identity."""
    ea = error @ a.to(error.dtype)
    ge = error if g is None else g.to(error.dtype)[:, None] * error if g.ndim == 1 else g.to(error.dtype) @ error
    return 0.5 * (ge * ea).sum((-2, -1))


def feedback(w: Tensor, grid: Fitted, u: Tensor, weight: Tensor | None = None) -> Tensor:
    """One-sided error feedback along the columns: values on the grid, [rows, cols]. `u` is strictly upper [cols, cols],
    by cells where the grid has them; `weight` [cols] is then the diagonal of D.

    Columns go in lazy blocks: inside a block errors are spread one cell at a time, to the rest by one matmul.
    """
    rest, out = w.clone(), torch.empty_like(w)
    cols, width = w.shape[1], 128
    for start in range(0, cols, width):
        stop = min(start + width, cols)
        local = u[start:stop, start:stop]
        for j in range(start, stop, grid.step):
            cell = slice(j, j + grid.step)
            zero = None if grid.zero is None else grid.zero[:, cell]
            out[:, cell] = _snap(
                grid, rest[:, cell], grid.scale[:, cell], zero, None if weight is None else weight[cell]
            )
            for k in range(j, j + grid.step if j + grid.step < stop else j):
                rest[:, cell.stop : stop].addr_(w[:, k] - out[:, k], local[k - start, cell.stop - start :])
        rest[:, stop:] += (w[:, start:stop] - out[:, start:stop]) @ u[start:stop, stop:]
    return out


def feedback_two_sided(w: Tensor, grid: Fitted, u: Tensor, v: Tensor, weight: Tensor | None = None) -> Tensor:
    """Two-sided error feedback: values on the grid, [rows, cols]. `u` [cols, cols] and `v` [rows, rows] strictly upper,
    `u` by cells where the grid has them; `weight` [cols] is then the diagonal of D.

    A grid that holds several candidates (scale [n, rows, cols]) is swept for all of them at once: [n, rows, cols].
    Tiles on one anti-diagonal are independent, and so are the cells on one anti-diagonal inside them: a sweep takes
    about 2 (rows + cols / step) vector steps and two matmuls per tile. Rows of a tile are kept upside down, so that the
    anti-diagonals become diagonals, which are views.
    """
    rows, cols = w.shape
    n = len(grid.scale) if grid.scale.ndim == 3 else 1
    high, wide = -(-rows // TILE), -(-cols // TILE)
    wt, scale = _tiles(w.expand(n, rows, cols)), _tiles(grid.scale.expand(n, rows, cols), 1.0)
    zero = None if grid.zero is None else _tiles(grid.zero.expand(n, rows, cols))
    u = pad(u, (0, wide * TILE - cols, 0, wide * TILE - cols))
    v = pad(v, (0, high * TILE - rows, 0, high * TILE - rows))
    u_left = u.view(wide * TILE, wide, TILE).permute(1, 0, 2).unsqueeze(1).contiguous()  # [col tile, 1, all cols, tile]
    v_above = v.view(high * TILE, high, TILE).permute(1, 2, 0).flip(1).unsqueeze(1).contiguous()  # rows upside down
    u_own = torch.stack([u[k : k + TILE, k : k + TILE] for k in range(0, wide * TILE, TILE)]).unsqueeze(1)
    v_own = torch.stack([v[k : k + TILE, k : k + TILE] for k in range(0, high * TILE, TILE)])
    v_own = v_own.flip(1, 2).mT.contiguous().unsqueeze(1)
    if weight is not None:
        weight = pad(weight, (0, wide * TILE - cols), value=1.0).view(wide, 1, -1, grid.step)
    # errors E by column tile and F = E + V'E by row tile, as they become known; the right way up
    e, f = w.new_zeros(wide, n, high * TILE, TILE), w.new_zeros(high, n, TILE, wide * TILE)
    out = torch.empty_like(wt)
    for s in range(high + wide - 1):
        i = torch.arange(max(0, s - wide + 1), min(high, s + 1), device=w.device)
        j = s - i
        above, left = int(i[-1] + 1) * TILE, int(j[0] + 1) * TILE
        c = v_above[i, :, :, :above] @ e[j, :, :above]
        own = wt[i, j]
        x = own + f[i, :, :, :left].flip(2) @ u_left[j, :, :left]
        at, heed = None if zero is None else zero[i, j], None if weight is None else weight[j]
        q = _inside(grid, own, x, c, scale[i, j], at, u_own[j], v_own[i], heed)
        out[i, j] = q
        error = own - q
        e.view(wide, n, high, TILE, TILE)[j, :, i] = error.flip(2)
        f.view(high, n, TILE, wide, TILE)[i, :, :, j] = (error + c).flip(2)
    out = out.flip(3).permute(2, 0, 3, 1, 4).reshape(n, high * TILE, wide * TILE)[:, :rows, :cols]
    return out if grid.scale.ndim == 3 else out[0]


def _tiles(x: Tensor, fill: float = 0.0) -> Tensor:
    """[n, rows, cols] as [row tiles, col tiles, n, TILE, TILE], padded with `fill`, rows of each tile upside down."""
    n, rows, cols = x.shape
    x = pad(x, (0, -cols % TILE, 0, -rows % TILE), value=fill)
    return x.view(n, -1, TILE, x.shape[2] // TILE, TILE).permute(1, 3, 0, 2, 4).flip(3).contiguous()


def _inside(grid, w, x, c, scale, zero, u, v, weight) -> Tensor:
    """Many tiles at once, [tiles, n, TILE, TILE], diagonal by diagonal; completes `c` = V'E in place.

    `x` is W + F U from the left, `v` the transposed upside-down V of the tile's rows, `weight` [tiles, 1, cells, step].
    """
    q, step = torch.empty_like(w), grid.step
    w, xc, c, qc, scale = (_cells(t, step) for t in (w, x, c, q, scale))
    zero, us = None if zero is None else _cells(zero, step), u.unflatten(2, (-1, step)).unbind(3)
    v = v if step == 1 else v.unsqueeze(4)
    for offset in range(1 - TILE, TILE // step):
        i, j = max(0, -offset), max(0, offset)
        n = min(TILE - i, TILE // step - j)

        def on(t, offset=offset):
            t = t.diagonal(offset, 2, 3)
            return t if step == 1 else t.mT  # [tiles, n, cells on the diagonal, step]

        cd = on(c)
        heed = None if weight is None else weight[:, :, j : j + n]
        qd = _snap(grid, on(xc) + cd, on(scale), None if zero is None else on(zero), heed)
        on(qc).copy_(qd)
        error = on(w) - qd
        f = error + cd
        for uk, fk in zip(us, (f,) if step == 1 else f.unbind(3), strict=True):
            x[:, :, i : i + n].addcmul_(uk[:, :, j : j + n], fk.unsqueeze(3))  # U[j, l] f_ij, every l to the right
        c[:, :, :, j : j + n].addcmul_(v[:, :, :, i : i + n], error.unsqueeze(2))  # V[i, k] e_ij for every k below
    return q


def refit(w: Tensor, values: Tensor, grid: Fitted, a: Tensor, g: Tensor | None, steps: int = 4) -> Fitted:
    """The grid with the scales (and fractional zeros) that suit the codes of `values` best in the metric.

    1/2 tr(G E A E') is quadratic in them: conjugate gradients, preconditioned by the diagonal, a few steps.
    """
    rows, groups = w.shape[0], w.shape[1] // grid.group
    codes = grid.codes(values)
    shifted = grid.zeros is not None
    codes = codes if shifted or grid.zero is None else codes - grid.zero

    def gather(m: Tensor) -> Tensor:
        """Gradient in the parameters of the gradient in the weights."""
        out = [(m * codes).view(rows, groups, -1).sum(-1)] + ([m.view(rows, groups, -1).sum(-1)] if shifted else [])
        return torch.stack(out)

    def spread(p: Tensor) -> Tensor:
        out = p[0].repeat_interleave(grid.group, 1) * codes
        return out + p[1].repeat_interleave(grid.group, 1) if shifted else out

    def metric(e: Tensor) -> Tensor:
        e = e @ a
        return e if g is None else g[:, None] * e if g.ndim == 1 else g @ e

    first = grid.scale[:, :: grid.group]
    p = torch.stack([first, -grid.zero[:, :: grid.group] * first] if shifted and grid.zero is not None else [first])
    diagonal = a.diagonal()
    height = 1.0 if g is None else (g if g.ndim == 1 else g.diagonal())[:, None]
    weight = [(codes * codes * diagonal).view(rows, groups, -1).sum(-1) * height]
    if shifted:
        weight.append(diagonal.expand_as(w).reshape(rows, groups, -1).sum(-1) * height)
    inverse = 1 / torch.stack(weight).clamp_min(1e-30)
    residual = gather(metric(w - spread(p)))
    z = inverse * residual
    direction, size = z, (residual * z).sum()
    for _ in range(steps):
        curve = gather(metric(spread(direction)))
        length = size / (direction * curve).sum().clamp_min(1e-30)
        p = p + length * direction
        residual = residual - length * curve
        z = inverse * residual
        size, before = (residual * z).sum(), size
        direction = z + size / before.clamp_min(1e-30) * direction
    return grid.rescaled(p[0], p[1] if shifted else None)
