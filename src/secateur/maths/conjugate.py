"""Conjugate gradients: the least of a quadratic that is known only by what it does, a few steps from a start."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def conjugate(x: Tensor, residual: Tensor, inverse: Tensor, curve: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """`steps` steps from `x` towards the solution of `curve(x) = b`, where `residual` = b - curve(x); `curve` is linear
    and positive, `inverse` (elementwise) is about its inverse."""
    z = inverse * residual
    direction, size = z, (residual * z).sum()
    for _ in range(steps):
        bent = curve(direction)
        length = size / (direction * bent).sum().clamp_min(1e-30)
        x, residual = x + length * direction, residual - length * bent
        z = inverse * residual
        size, before = (residual * z).sum(), size
        direction = z + size / before.clamp_min(1e-30) * direction
    return x
