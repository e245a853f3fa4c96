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

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .conjugate import conjugate
from .factor import heard, height
from .grids import Fitted
from .grids.affine import snap_together

TILE = 32
#: so many weights of small matrices are swept side by side; on accelerators so many times more
TOGETHER, LAUNCHED = 1 << 21, 32


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
    return 0.5 * (heard(error, None if g is None else g.to(error.dtype)) * ea).sum((-2, -1))


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


@dataclass(frozen=True)
class Job:
    """One matrix `w` [rows, cols] to be swept onto a grid: `u` [cols, cols] and `v` [rows, rows] strictly upper, `u` by
    cells where the grid has them; `weight` [cols] is then the diagonal of D."""

    w: Tensor
    grid: Fitted
    u: Tensor
    v: Tensor
    weight: Tensor | None = None


def feedback_two_sided(w: Tensor, grid: Fitted, u: Tensor, v: Tensor, weight: Tensor | None = None) -> Tensor:
    """Two-sided error feedback of one matrix (see `Job`): values on the grid, [rows, cols]."""
    return _swept([Job(w, grid, u, v, weight)])[0]


def feedback_side_by_side(jobs: Sequence[Job]) -> list[Tensor]:
    """Two-sided feedback of many matrices, each as if it were alone.

    A sweep takes about 2 (rows + cols / step) vector steps, and small matrices spend their time on starting them: so
    those whose grids snap alike take them together, up to `TOGETHER` weights at once.
    """
    out: list[Tensor] = [job.w for job in jobs]
    for group in _groups(jobs):
        for at, values in zip(group, _swept([jobs[at] for at in group]), strict=True):
            out[at] = values
    return out


def _groups(jobs: Sequence[Job]) -> Iterator[list[int]]:
    """Which jobs are swept together."""
    open_: dict[Hashable, tuple[int, list[int]]] = {}
    for at, job in enumerate(jobs):
        manner = (getattr(job.grid, "manner", at), job.grid.step, job.weight is None, job.w.device)
        size, group = open_.get(manner, (0, []))
        most = TOGETHER if job.w.device.type == "cpu" else LAUNCHED * TOGETHER
        if group and size + job.w.numel() > most:
            yield group
            size, group = 0, []
        open_[manner] = size + job.w.numel(), [*group, at]
    yield from (group for _, group in open_.values())


def _swept(jobs: Sequence[Job]) -> list[Tensor]:
    """Tiles on one anti-diagonal are independent, and so are the cells on one anti-diagonal inside them; rows of a tile
    are kept upside down, so that the anti-diagonals become diagonals, which are views."""
    tiled = [_Tiled(job) for job in jobs]
    for s in range(max(one.fronts for one in tiled)):
        now = [one for one in tiled if s < one.fronts]
        fronts = [one.front(s) for one in now]
        sizes = [len(front.i) for front in fronts]
        w, x, c, scale, u, v = (
            _joined([getattr(front, name) for front in fronts]) for name in ("w", "x", "c", "scale", "u", "v")
        )
        zeros = [front.zero for front in fronts]
        if any(zero is not None for zero in zeros):
            zeros = [torch.zeros_like(f.scale) if f.zero is None else f.zero for f in fronts]
        weight = _joined([front.weight for front in fronts if front.weight is not None])
        snap = snap_together([one.grid for one in now], sizes)
        q = _inside(snap, now[0].grid.step, w, x, c, scale, _joined([z for z in zeros if z is not None]), u, v, weight)
        for one, front, qs, cs in zip(now, fronts, q.split(sizes), c.split(sizes), strict=True):
            one.put(front, qs, cs)
    return [one.values() for one in tiled]


def _joined(parts: Sequence[Tensor]) -> Any:
    return None if not parts else parts[0] if len(parts) == 1 else torch.cat(list(parts))


@dataclass
class _Front:
    """The tiles of one matrix on one anti-diagonal, [tiles, TILE, TILE]."""

    i: Tensor
    j: Tensor
    w: Tensor
    x: Tensor  # W + F U from the left
    c: Tensor  # V'E from above
    scale: Tensor
    zero: Tensor | None
    u: Tensor
    v: Tensor
    weight: Tensor | None


class _Tiled:
    """One matrix in tiles, with the errors E (by column tile) and F = E + V'E (by row tile) as they become known.

    What goes by column tiles has the last of them first: so the tiles of an anti-diagonal are slices, and views.
    """

    def __init__(self, job: Job):
        self.grid, (self.rows, self.cols) = job.grid, job.w.shape
        self.high, self.wide = high, wide = -(-self.rows // TILE), -(-self.cols // TILE)
        self.fronts = high + wide - 1
        self.w, self.scale = _tiles(job.w), _tiles(job.grid.scale, 1.0)
        self.zero = None if job.grid.zero is None else _tiles(job.grid.zero)
        u, v = _whole_tiles(job.u), _whole_tiles(job.v)
        self.u_left = u.view(wide * TILE, wide, TILE).permute(1, 0, 2).flip(0)  # [col tile, all cols, TILE]
        self.v_above = v.view(high * TILE, high, TILE).permute(1, 2, 0)  # [row tile, TILE, all rows], a view
        self.u_own = torch.stack([u[k : k + TILE, k : k + TILE] for k in reversed(range(0, wide * TILE, TILE))])
        v_own = torch.stack([v[k : k + TILE, k : k + TILE] for k in range(0, high * TILE, TILE)])
        self.v_own = v_own.flip(1, 2).mT.contiguous()
        self.weight = None
        if job.weight is not None:
            self.weight = pad(job.weight, (0, -self.cols % TILE), value=1.0).view(wide, -1, job.grid.step).flip(0)
        # the right way up
        self.e = job.w.new_zeros(wide, high * TILE, TILE)
        self.f = job.w.new_zeros(high, TILE, wide * TILE)
        self.out = torch.empty_like(self.w)

    def front(self, s: int) -> _Front:
        """The tiles of anti-diagonal `s`, and what the errors known so far ask of them."""
        first, last = max(0, s - self.wide + 1), min(self.high, s + 1)
        i = torch.arange(first, last, device=self.w.device)
        j = s - i
        down, back = slice(first, last), slice(self.wide - 1 - s + first, self.wide - 1 - s + last)
        above, left = last * TILE, (s - first + 1) * TILE
        w, weight = self.w[i, j], self.weight
        c = (self.v_above[down, :, :above] @ self.e[back, :above]).flip(1)
        x = w + (self.f[down, :, :left] @ self.u_left[back, :left]).flip(1)
        zero, heed = None if self.zero is None else self.zero[i, j], None if weight is None else weight[back]
        return _Front(i, j, w, x, c, self.scale[i, j], zero, self.u_own[back], self.v_own[down], heed)

    def put(self, front: _Front, q: Tensor, c: Tensor) -> None:
        """Values of a front in their places, and its errors where later fronts look for them."""
        i, j, error = front.i, front.j, front.w - q
        self.out[i, j] = q
        self.e.view(self.wide, self.high, TILE, TILE)[self.wide - 1 - j, i] = error.flip(1)
        self.f.view(self.high, TILE, self.wide, TILE)[i, :, j] = (error + c).flip(1)

    def values(self) -> Tensor:
        whole = self.out.flip(2).permute(0, 2, 1, 3).reshape(self.high * TILE, self.wide * TILE)
        return whole[: self.rows, : self.cols].contiguous()


def _whole_tiles(x: Tensor) -> Tensor:
    """A square matrix, padded with zeros to whole tiles; itself where it has them."""
    more = -len(x) % TILE
    return pad(x, (0, more, 0, more)) if more else x.contiguous()


def _tiles(x: Tensor, fill: float = 0.0) -> Tensor:
    """[rows, cols] as [row tiles, col tiles, TILE, TILE], padded with `fill`, rows of each tile upside down."""
    rows, cols = x.shape
    x = pad(x, (0, -cols % TILE, 0, -rows % TILE), value=fill)
    return x.view(-1, TILE, x.shape[1] // TILE, TILE).transpose(1, 2).flip(2).contiguous()


def _inside(snap, step, w, x, c, scale, zero, u, v, weight) -> Tensor:
    """Many tiles at once, [tiles, TILE, TILE], diagonal by diagonal; completes `c` = V'E in place.

    `x` is W + F U from the left, `v` the transposed upside-down V of the tile's rows, `weight` [tiles, cells, step].
    """
    q = torch.empty_like(w)
    w, xc, c, qc, scale = (_cells(t, step) for t in (w, x, c, q, scale))
    zero, us = None if zero is None else _cells(zero, step), u.unflatten(1, (-1, step)).unbind(2)
    v = v if step == 1 else v.unsqueeze(3)
    for offset in range(1 - TILE, TILE // step):
        i, j = max(0, -offset), max(0, offset)
        n = min(TILE - i, TILE // step - j)

        def on(t, offset=offset):
            t = t.diagonal(offset, 1, 2)
            return t if step == 1 else t.mT  # [tiles, cells on the diagonal, step]

        cd = on(c)
        heed = () if weight is None or step == 1 else (weight[:, j : j + n],)
        qd = snap(on(xc) + cd, on(scale), None if zero is None else on(zero), *heed)
        on(qc).copy_(qd)
        error = on(w) - qd
        f = error + cd
        for uk, fk in zip(us, (f,) if step == 1 else f.unbind(2), strict=True):
            x[:, i : i + n].addcmul_(uk[:, j : j + n], fk.unsqueeze(2))  # U[j, l] f_ij, for every l to the right
        c[:, :, j : j + n].addcmul_(v[:, :, i : i + n], error.unsqueeze(1))  # V[i, k] e_ij, for every k below
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
        return heard(e @ a, g)

    first = grid.scale[:, :: grid.group]
    p = torch.stack([first, grid.shift] if shifted and grid.shift is not None else [first])
    diagonal = a.diagonal()
    high = 1.0 if g is None else height(g)[:, None]
    weight = [(codes * codes * diagonal).view(rows, groups, -1).sum(-1) * high]
    if shifted:
        weight.append(diagonal.expand_as(w).reshape(rows, groups, -1).sum(-1) * high)
    inverse = 1 / torch.stack(weight).clamp_min(1e-30)
    residual = gather(metric(w - spread(p)))
    p = conjugate(p, residual, inverse, lambda direction: gather(metric(spread(direction))), steps)
    return grid.rescaled(p[0], p[1] if shifted else None)
