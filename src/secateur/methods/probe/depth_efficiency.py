"""What every layer adds to the residual stream, and what later layers and the output make of its absence.

Paper: Csordas et al., Do Language Models Use Their Depth Efficiently? (arXiv 2505.13898, 2025)
Wing: probe
Shape: law
Applies to: decoders whose blocks add to a residual stream
Use: secateur survey MODEL --data text.txt --edits drop --format packed -o menu

`trace` gives the relative contributions of attention, MLP and block, and the cosines of each with the stream it joins:
negative erases, positive strengthens. `effects` leaves one block out at a time (not at the first position) and tells
how much later blocks change what they add, and how far the predictions move.

Where we differ: the paper's logit lens, integrated gradients and depth map between two models are left out. It takes
the largest change over positions and prompts; `effects` can also take the mean (`over="mean"`), which one odd token
does not decide. To plan with what a layer's absence costs, `--edits drop` measures that in nats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Trace:
    """Means over tokens, one number a block: sizes of what is added over that of the stream, and cosines with it."""

    attention: Tensor
    mlp: Tensor
    block: Tensor
    cosine_attention: Tensor
    cosine_mlp: Tensor


@dataclass(frozen=True)
class Effects:
    """`later[s, k]`: relative change of what block k adds when block s is left out (0 for k <= s); `output[s]`:
    distance of the predicted distributions, at most sqrt(2)."""

    later: Tensor
    output: Tensor


@torch.no_grad()
def trace(network: nn.Module, blocks: Sequence[nn.Module], parts: Sequence[tuple[str, str]], tokens: Tensor) -> Trace:
    """`parts` names attention and MLP of each block, like ("self_attn", "mlp"); `tokens` are [prompts, length]."""
    sums: list[dict[str, Tensor]] = [{} for _ in blocks]
    handles = []
    for block, (attention, mlp), found in zip(blocks, parts, sums, strict=True):
        handles += [
            block.register_forward_pre_hook(_note(found, "h"), with_kwargs=True),
            block.get_submodule(attention).register_forward_hook(_noted(found, "a")),
            block.get_submodule(mlp).register_forward_hook(_noted(found, "m")),
        ]
    try:
        network(tokens)
    finally:
        for handle in handles:
            handle.remove()
    rows = [_measured(found["h"], found["a"], found["m"]) for found in sums]
    return Trace(*(torch.stack(column) for column in zip(*rows, strict=True)))


def _measured(h: Tensor, a: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    """The five numbers of one block from its stream and what its two parts add, [prompts, tokens, width]."""

    def size(x: Tensor) -> Tensor:
        return x.norm(dim=-1)

    return (
        (size(a) / size(h)).mean(),
        (size(m) / size(h + a)).mean(),
        (size(a + m) / size(h)).mean(),
        torch.cosine_similarity(a, h, dim=-1).mean(),
        torch.cosine_similarity(m, h + a, dim=-1).mean(),
    )


@torch.no_grad()
def effects(network: nn.Module, blocks: Sequence[nn.Module], tokens: Tensor, over: str = "max") -> Effects:
    """One run of the network for every block, and one as it is. `over` positions and prompts: "max" or "mean"."""
    added, logits = _run(network, blocks, tokens)
    n = len(blocks)
    later, output = torch.zeros(n, n), torch.zeros(n)
    for s, block in enumerate(blocks):
        with skipped(block):
            without, theirs = _run(network, blocks, tokens)
        for k in range(s + 1, n):
            change = (added[k] - without[k]).norm(dim=-1) / added[k].norm(dim=-1).clamp_min(1e-12)
            later[s, k] = _over(change, over)
        output[s] = _over((logits.softmax(-1) - theirs.softmax(-1)).norm(dim=-1), over)
    return Effects(later, output)


@contextmanager
def skipped(block: nn.Module) -> Iterator[None]:
    """Inside, a block adds nothing, except at the first position."""

    def past(module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        first = out[0] if isinstance(out, tuple) else out
        kept = torch.cat((first[:, :1], hidden[:, 1:]), 1)
        return (kept, *out[1:]) if isinstance(out, tuple) else kept

    handle = block.register_forward_hook(past, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _run(network: nn.Module, blocks: Sequence[nn.Module], tokens: Tensor) -> tuple[list[Tensor], Tensor]:
    """What every block adds, [prompts, tokens, width] each, and the logits."""
    added: dict[int, Tensor] = {}

    def see(at: int):
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            added[at] = (out[0] if isinstance(out, tuple) else out) - hidden

        return hook

    handles = [block.register_forward_hook(see(at), with_kwargs=True) for at, block in enumerate(blocks)]
    try:
        logits = network(tokens).logits
    finally:
        for handle in handles:
            handle.remove()
    return [added[at] for at in range(len(blocks))], logits


def _over(x: Tensor, how: str) -> Tensor:
    return x.max() if how == "max" else x.mean()


def _note(found: dict[str, Tensor], name: str):
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        found[name] = args[0] if args else kwargs["hidden_states"]

    return hook


def _noted(found: dict[str, Tensor], name: str):
    def hook(module: nn.Module, args: Any, out: Any) -> None:
        found[name] = out[0] if isinstance(out, tuple) else out

    return hook
