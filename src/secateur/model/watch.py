"""See what flows into and out of the watched matrices while the network runs, and leave no trace afterwards.

Experts that a network keeps in one 3-D parameter have no module of their own: inside the context their module runs
expert by expert, so that each expert's tokens can be seen.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.model.matrix import place
from secateur.types import Matrix

#: `inputs(tap, x)`, x is `tokens x cols` (token ids for an embedding; `examples x positions x cols` for a convolution)
Inputs = Callable[[str, Tensor], None]
#: `gradients(key, x, g)`, the same tokens in x `tokens x cols` and in g `tokens x rows`; for an embedding, which looks
#: rows up, x are token ids and g is `tokens x cols`; for a convolution x is `examples x positions x cols` (of all
#: groups, side by side) and g `examples x positions x rows`
Gradients = Callable[[str, Tensor, Tensor], None]


@contextmanager
def watch(
    root: nn.Module,
    matrices: Iterable[Matrix],
    inputs: Inputs | None = None,
    gradients: Gradients | None = None,
    one_loss: bool = False,
) -> Iterator[None]:
    """Inside, call `inputs` once per forward pass and tap, and `gradients` for every matrix on the backward pass.

    Paired tokens: summing `g x'` over all calls gives the weight's gradient (for an embedding, adding every g to its
    token's row). With `one_loss` all tokens of a sample share one loss (a picture's patches), and a linear layer's are
    reported as a convolution's: `examples x positions x cols`. Gradients flow also when no parameter asks for them, as
    long as the caller runs `backward` on something that depends on a watched output. Nothing is reported of an expert
    that no token was sent to. What is passed on is detached and in the network's number type.
    """
    eyes = _by_module(root, matrices, inputs, gradients)
    undo: list[Callable[[], None]] = []
    try:
        for path, eye in eyes.items():
            eye.one_loss = one_loss
            module = root.get_submodule(path)
            if eye.stacked:
                undo.append(_swap(module, eye))
            else:
                undo.append(module.register_forward_hook(eye.on_forward).remove)
        yield
    finally:
        for back in reversed(undo):
            back()


#: `see(path, module, input, output)`
Seen = Callable[[str, nn.Module, Tensor, Tensor], object]


@torch.no_grad()
def glance(network: nn.Module, example: Tensor, kinds: tuple[type[nn.Module], ...], see: Seen) -> None:
    """Run a network once, and call `see` for every module of these kinds when it has run, as often as it does."""

    def hook(path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def after(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            see(path, module, args[0], out)

        return after

    handles = [m.register_forward_hook(hook(path)) for path, m in network.named_modules() if isinstance(m, kinds)]
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()


def _by_module(root: nn.Module, matrices: Iterable[Matrix], inputs: Inputs | None, gradients: Gradients | None):
    """One `_Eye` for every module on whose forward pass something must be seen."""
    eyes: dict[str, _Eye] = {}

    def eye(path: str) -> _Eye:
        return eyes.setdefault(path, _Eye(inputs, gradients))

    for matrix in matrices:
        where = place(matrix)
        if where.index is not None:
            name = where.parameter.rpartition(".")[2]
            found = eye(where.module)
            found.stacked = True
            found.taps[name, where.index] = matrix.tap
            found.rows.setdefault((name, where.index), []).append((matrix.key, where.start, where.stop or None))
            continue
        eye(matrix.tap).taps["weight", None] = matrix.tap
        tied = isinstance(root.get_submodule(where.module), nn.Embedding)  # the head sees its own side of the matrix
        path = matrix.tap if tied else where.module
        eye(path).rows.setdefault(("weight", None), []).append((matrix.key, where.start, where.stop or None))
    return eyes


class _Eye:
    """What to report of one module: `taps[parameter, expert]` and, for gradients, keys with their rows."""

    def __init__(self, inputs: Inputs | None, gradients: Gradients | None):
        self.inputs, self.gradients = inputs, gradients
        self.stacked = self.one_loss = False
        self.taps: dict[tuple[str, int | None], str] = {}
        self.rows: dict[tuple[str, int | None], list[tuple[str, int, int | None]]] = {}

    def see(self, which: tuple[str, int | None], x: Tensor, out: Tensor, columns: Callable[[Tensor], Tensor]) -> Tensor:
        """Report the input now, and the gradient when it comes; `columns` brings gradients into `tokens x rows`."""
        if self.inputs and which in self.taps and x.shape[0]:
            self.inputs(self.taps[which], x)
        if self.gradients and which in self.rows and x.shape[0] and torch.is_grad_enabled():
            if not out.requires_grad:
                out.requires_grad_(True)
            out.register_hook(lambda g: self._back(which, x, columns(g.detach())))
        return out

    def _back(self, which: tuple[str, int | None], x: Tensor, g: Tensor) -> None:
        assert self.gradients is not None
        for key, start, stop in self.rows[which]:
            self.gradients(key, x, g[..., start:stop])

    def on_forward(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        x = args[0].detach()
        if isinstance(module, nn.Embedding):
            scale = getattr(module, "embed_scale", 1.0)  # Gemma scales what it looks up
            self.see(("weight", None), x.reshape(-1), out, lambda g: g.flatten(0, -2) * scale)
        elif isinstance(module, nn.Conv1d | nn.Conv2d):
            self.see(("weight", None), patches(module, x), out, lambda g: g.flatten(2).mT)
        elif self.one_loss and x.dim() > 2:
            self.see(("weight", None), x.flatten(1, -2), out, lambda g: g.flatten(1, -2))
        else:
            self.see(("weight", None), x.flatten(0, -2), out, lambda g: g.flatten(0, -2))


def patches(
    module: nn.Conv1d | nn.Conv2d, x: Tensor, every: tuple[int, int] = (1, 1), start: tuple[int, int] = (0, 0)
) -> Tensor:
    """What a convolution multiplies, `examples x positions x columns`: `in * kh * kw` columns, group by group.

    Of positions `every` so many are taken down and across, from `start` on; of one dimension the second of each counts.
    """
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    one = isinstance(module, nn.Conv1d)  # unfold knows only two dimensions
    kernel, dilation, stride = ((1, *s) if one else s for s in (module.kernel_size, module.dilation, module.stride))
    x = (x.unsqueeze(2) if one else x)[..., start[0] * stride[0] :, start[1] * stride[1] :]
    return F.unfold(x, kernel, dilation, 0, (stride[0] * every[0], stride[1] * every[1])).mT


def _swap(module: nn.Module, eye: _Eye) -> Callable[[], None]:
    """Let a stack of experts run one by one; returns how to put the module's own forward back."""
    signature = inspect.signature(type(module).forward)

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        _, x, chosen, weights = signature.bind(module, *args, **kwargs).arguments.values()
        return _one_by_one(module, eye, x, chosen, weights)

    module.forward = forward  # the instance's; the class keeps its own

    def back() -> None:
        del module.forward

    return back


def _one_by_one(module: Any, eye: _Eye, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """transformers' own eager loop over experts, with every product seen."""
    first = "gate_up_proj" if module.has_gate else "up_proj"
    out = torch.zeros_like(x)
    for expert in range(module.down_proj.shape[0]):
        token, choice = torch.where(chosen == expert)
        if not len(token):
            continue
        hidden = _multiply(module, first, expert, x[token], eye)
        hidden = module._apply_gate(hidden) if module.has_gate else module.act_fn(hidden)
        hidden = _multiply(module, "down_proj", expert, hidden, eye)
        out = out.index_add(0, token, (hidden * weights[token, choice, None]).to(out.dtype))
    return out


def _multiply(module: Any, name: str, expert: int, x: Tensor, eye: _Eye) -> Tensor:
    weight = getattr(module, name)[expert]
    bias = getattr(module, name + "_bias")[expert] if module.has_bias else None
    out = F.linear(x, weight.T if module.is_transposed else weight, bias)
    return eye.see((name, expert), x.detach(), out, lambda g: g)
