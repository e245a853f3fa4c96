"""Settle a matrix on its grid: error feedback, then scales refitted in the same metric, again while it pays.

Feedback pushes targets beyond the range that plain weights need, the more the fewer the bits: at 2 bits attention
matrices lose half their damage when scales are widened by 1.15 to 1.3 first. So a few widths (and a stronger damping)
are swept side by side and the best goes on. Nothing here is tuned by gradient, and nothing depends on more data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .factor import damped_diagonal, unit_upper
from .forms import is_form
from .grids import Coded
from .rounding import LAUNCHED, Job, damage, feedback, feedback_side_by_side, nearest, refit

#: damping of the factors, as a share of their mean diagonal, and the stronger one tried for few levels
DAMP, STRONG = 0.01, 0.1
#: so many weights are rounded side by side
MANY = 1 << 20


@dataclass(frozen=True)
class Metric:
    """Damped factors of one matrix and their triangular parts: everything that rounding needs, made once."""

    a: Tensor
    g: Tensor | None
    u: Tensor
    v: Tensor | None  # None: rows are rounded on their own
    damp: float
    weight: Tensor | None = None  # of every column inside its cell; None for scalars

    @classmethod
    def of(cls, a: Tensor, g: Tensor | None, damp: float = DAMP, step: int = 1) -> Metric:
        """From A [cols, cols] and G ([rows, rows], its diagonal, or None), for a grid that codes `step` columns at
        once. Dead inputs weigh what damping gives."""
        u, d, used = unit_upper(a, damp, step=step)
        u = u.float()
        weight = None if step == 1 else d.diagonal(dim1=1, dim2=2).flatten().float()
        a = damped_diagonal(a, used)
        if g is None or g.ndim == 1:
            return cls(a, g, u, None, used, weight)
        v, _, under = unit_upper(g, damp)
        return cls(a, damped_diagonal(g, under), u, v.float(), used, weight)

    def sweep(self, w: Tensor, grid: Any) -> Tensor:
        """Error feedback, on both sides where the factors allow."""
        return swept([(self, w, grid)])[0]

    def damage(self, error: Tensor) -> Tensor:
        return damage(error, self.a, self.g)


class Metrics(dict[tuple[float, int], Metric]):
    """Metrics of one matrix, or of pieces of its rows, by damping and step: what they share is made once."""

    def of(self, a: Tensor, g: Tensor | None, damp: float = DAMP, step: int = 1) -> Metric:
        whole = g is not None and g.ndim == 2
        if (damp, step) not in self:
            self[damp, step] = Metric.of(a, g if whole else None, damp, step)
        return self[damp, step] if whole else replace(self[damp, step], g=g)


@dataclass(frozen=True)
class Effort:
    """How hard to try on a grid with this many levels: widths of the scales, stronger damping, refits."""

    widths: tuple[float, ...] = (1.0,)
    strong: bool = False
    refits: int = 0

    @property
    def usual(self) -> float:
        """The width that wins most often."""
        return self.widths[len(self.widths) // 2]

    @classmethod
    def for_bits(cls, bits: int) -> Effort:
        if bits <= 2:
            return cls((1.0, 1.15, 1.3), True, 3)
        if bits == 3:
            return cls((1.0, 1.1, 1.2), True, 2)
        return cls((1.0,), False, 1) if bits == 4 else cls()


@dataclass(frozen=True)
class Settled:
    """Values on the grid [rows, cols], the grid with its final scales, and the damage in the metric, nats per token."""

    values: Tensor
    grid: Any
    damage: float
    bad_rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Task:
    """One matrix to settle: `w` [rows, cols] on `grid`, against A [cols, cols] and G ([rows, rows], its diagonal or
    None); the effort is the grid's own where none is given."""

    w: Tensor
    grid: Any
    a: Tensor
    g: Tensor | None
    effort: Effort | None = None


def settle(w: Tensor, grid: Any, a: Tensor, g: Tensor | None, effort: Effort | None = None, sides: int = 2) -> Settled:
    """One matrix settled: see `settle_all`."""
    return settle_all([Task(w, grid, a, g, effort)], sides)[0]


def settle_all(tasks: Sequence[Task], sides: int = 2) -> list[Settled]:
    """Every matrix rounded onto its grid against its A and G; `sides` 1 ignores G while rounding, 0 takes the nearest.
    The nearest it is as well where no feedback does better.

    Each comes out as if it were alone; but they are swept side by side, which for small matrices is several times
    faster. Rows with NaN or infinity are left out, coded as zeros, and named in `bad_rows`.
    A tall matrix whose rows stand alone goes some rows at a time, so that it takes no more memory than others.
    """
    out = {at: _formed(task, sides) for at, task in enumerate(tasks) if is_form(task.grid)}
    pieces = {at: row_pieces(task.w, task.grid, task.g) for at, task in enumerate(tasks) if at not in out}
    out |= {at: _in_pieces(tasks[at], some, sides) for at, some in pieces.items() if len(some) > 1}
    most = at_once(tasks[0].w.device) if tasks else MANY
    for some in together([at for at in pieces if at not in out], lambda at: tasks[at].w.numel(), most):
        out |= zip(some, _settled([tasks[at] for at in some], sides), strict=True)
    return [out[at] for at in range(len(tasks))]


def row_pieces(w: Tensor, grid: Any, g: Tensor | None) -> list[slice]:
    """The rows of a matrix as they can be rounded one after the other: about a million weights at a time where every
    row stands alone, in the metric and on the grid; otherwise all at once."""
    rows, cols = w.shape
    step = max(at_once(w.device) // cols, 512)
    if rows <= 2 * step or not getattr(grid, "rowwise", False) or (g is not None and g.ndim == 2):
        return [slice(0, rows)]
    return [slice(at, min(at + step, rows)) for at in range(0, rows, step)]


def _in_pieces(task: Task, pieces: Sequence[slice], sides: int) -> Settled:
    """A matrix settled some rows at a time; what rounding needs of A is made once."""
    metrics = Metrics()
    parts = [replace(task, w=task.w[rows], g=None if task.g is None else task.g[rows]) for rows in pieces]
    done = [one for part in parts for one in _settled([part], sides, metrics)]
    bad = tuple(rows.start + row for rows, one in zip(pieces, done, strict=True) for row in one.bad_rows)
    grid = Piled(tuple(one.grid for one in done), tuple(len(one.values) for one in done))
    return Settled(torch.cat([one.values for one in done]), grid, sum(one.damage for one in done), bad)


@dataclass(frozen=True)
class Piled:
    """Fitted grids of one kind on top of each other, so many `rows` each."""

    parts: tuple[Any, ...]
    rows: tuple[int, ...]

    def code(self, values: Tensor) -> Coded:
        coded = [part.code(some) for part, some in zip(self.parts, values.split(list(self.rows)), strict=True)]
        tensors = {name: torch.cat([one.tensors[name] for one in coded]) for name in coded[0].tensors}
        return Coded(torch.cat([one.values for one in coded]), tensors)


def _formed(task: Task, sides: int) -> Settled:
    """A matrix as its form holds it; rows that are bad are zeros to it."""
    good = torch.isfinite(task.w).all(1)
    done = task.grid.settle(torch.where(good[:, None], task.w.float(), 0.0), task.a, task.g, sides)
    return replace(done, bad_rows=tuple((~good).nonzero().flatten().tolist()))


def at_once(device: torch.device) -> int:
    """How many weights are rounded side by side: many more where starting a step costs more than the step."""
    return MANY if device.type == "cpu" else LAUNCHED * MANY


def together(jobs: Iterable[Any], weights: Callable[[Any], int], most: int = MANY) -> Iterator[list[Any]]:
    """Jobs in groups of at most so many weights, in order: enough to fill the steps, and little memory."""
    group: list[Any] = []
    for job in jobs:
        if group and sum(map(weights, group)) + weights(job) > most:
            yield group
            group = []
        group.append(job)
    if group:
        yield group


def _settled(tasks: Sequence[Task], sides: int, metrics: Metrics | None = None) -> list[Settled]:
    """Settled together; their `metrics`, where they have one A."""
    good = [torch.isfinite(task.w).all(1) for task in tasks]
    whole = [bool(rows.all()) for rows in good]
    # what is bad is rare, and goes alone
    out = {
        at: _without(rows, task, sides)
        for at, (task, rows) in enumerate(zip(tasks, good, strict=True))
        if not whole[at]
    }
    works = {at: _Work(task, sides, metrics) for at, task in enumerate(tasks) if whole[at]}
    if sides:
        _settle(list(works.values()))
    return [out[at] if at in out else works[at].best for at in range(len(tasks))]


class _Work:
    """One matrix on its way: its metric, and the best that was found for it so far."""

    def __init__(self, task: Task, sides: int, metrics: Metrics | None = None):
        self.task, self.w = task, task.w.float()
        self.metric_of = Metric.of if metrics is None else metrics.of
        fit = task.grid.fit(self.w, task.a.diagonal())
        self.metric = self.metric_of(task.a, task.g, step=fit.step)
        self.g = task.g if sides == 2 else None
        self.effort = task.effort or Effort.for_bits(getattr(task.grid, "bits", 8))
        self.fit, self.best = fit, self.measured(nearest(self.w, fit, self.metric.a.diagonal()), fit)
        if sides == 1:
            self.metric = replace(self.metric, v=None)
        self.sweeper = self.metric

    def measured(self, values: Tensor, fit: Any) -> Settled:
        return Settled(values, fit, float(self.metric.damage(self.w - values)))

    def better(self, values: Tensor, fit: Any) -> bool:
        """Keep these values if they are the best so far."""
        now = self.measured(values, fit)
        better = now.damage < self.best.damage
        self.best = now if better else self.best
        return better


def _settle(works: Sequence[_Work]) -> None:
    """Several widths of the scales; for few levels a stronger damping; then scales refitted, each time swept again."""
    tried = [(work, widened(work.fit, width)) for work in works for width in work.effort.widths]
    for (work, fit), values in zip(tried, swept([(work.metric, work.w, fit) for work, fit in tried]), strict=True):
        work.better(values, fit)
    hard = [work for work in works if work.effort.strong]
    strong = [work.metric_of(work.task.a, work.g, STRONG, work.fit.step) for work in hard]
    jobs = [(metric, work.w, work.best.grid) for work, metric in zip(hard, strong, strict=True)]
    for work, metric, values in zip(hard, strong, swept(jobs), strict=True):
        if work.better(values, work.best.grid):
            work.sweeper = metric
    last = {id(work): work.best for work in works}
    for turn in range(max((work.effort.refits for work in works), default=0)):
        again = [work for work in works if turn < work.effort.refits]
        fits = [
            refit(work.w, last[id(work)].values, last[id(work)].grid, work.metric.a, work.metric.g) for work in again
        ]
        jobs = [(work.sweeper, work.w, fit) for work, fit in zip(again, fits, strict=True)]
        for work, fit, values in zip(again, fits, swept(jobs), strict=True):
            work.better(values, fit)
            last[id(work)] = Settled(values, fit, 0.0)


def swept(jobs: Sequence[tuple[Metric, Tensor, Any]]) -> list[Tensor]:
    """Error feedback of matrices onto fitted grids, on both sides where their factors allow."""
    both = [at for at, (metric, _, _) in enumerate(jobs) if metric.v is not None]
    sides = feedback_side_by_side(
        [Job(w, fit, m.u, m.v, m.weight) for m, w, fit in (jobs[at] for at in both) if m.v is not None]
    )
    done = dict(zip(both, sides, strict=True))
    return [
        done[at] if at in done else feedback(w, fit, metric.u, metric.weight)
        for at, (metric, w, fit) in enumerate(jobs)
    ]


def _without(good: Tensor, task: Task, sides: int) -> Settled:
    """Only the `good` rows settled, as if there were no others; the rest are zeros, and make up for nobody's errors."""
    w, g = task.w, task.g
    fit = task.grid.fit(torch.where(good[:, None], w.float(), 0.0), task.a.diagonal())
    values, damaged = torch.zeros_like(fit.scale), 0.0
    if bool(good.any()):
        own = g if g is None else g[good] if g.ndim == 1 else g[good][:, good]
        done = settle_all([replace(task, w=w[good], g=own)], sides)[0]
        values[good], damaged = done.values, done.damage
        fit = _with_rows(fit, good, done.grid)
    return Settled(values, fit, damaged, tuple((~good).nonzero().flatten().tolist()))


def _with_rows(fit: Any, good: Tensor, other: Any) -> Any:
    """A fitted grid whose `good` rows are those of another, whatever it holds row by row."""
    changed = {}
    for field in fields(fit):
        mine, theirs = getattr(fit, field.name), getattr(other, field.name)
        if isinstance(mine, Tensor) and mine.ndim == 2 and len(mine) == len(good):
            changed[field.name] = mine.index_copy(0, good.nonzero().flatten(), theirs.expand(int(good.sum()), -1))
        elif is_dataclass(mine) and not isinstance(mine, type):
            changed[field.name] = _with_rows(mine, good, theirs)
    return replace(fit, **changed)


def widened(fit: Any, width: float) -> Any:
    """A fitted grid with all scales times `width`, about the same middle."""
    if width == 1.0:
        return fit
    scale = fit.scale[:, :: fit.group]
    if fit.zeros is None:
        return fit.rescaled(scale * width)
    return fit.rescaled(scale * width, fit.shift + (1 - width) * (fit.low + fit.high) / 2 * scale)
