"""Experts that are routed alike become one, and what they become is a low rank and a few rows.

Paper: Li et al., Merge, Then Compress: Demystify Efficient SMoE with Hints from Its Routing Policy
    (arXiv 2310.01334, 2023)
Wing: moe
Shape: cut
Applies to: layers of experts behind a router
Use: secateur cut MODEL --data text.txt --budget "12 bits/weight" --edits experts -f safetensors -o out

How often each expert is chosen (`usage`) says how many every layer keeps (`counts`); the most used stay, and each of
the others joins the one whose router logits are most like its own (`joined`). Channels are laid beside those of the
first expert (`aligned`), and a group becomes its mean by usage (`merged`). The router stays as it is: its outputs go by
a table to their groups' experts, so a token that chose two of one group meets it twice. Then what a group has become is
written as a low rank and some rows of the rest (`compressed`).

Where we differ: ties are broken by position, so that counts add up to the budget (the paper's code drops groups at
ties). Which rows stay is by the square of their error on the inputs, in closed form; the paper trains them, by |S grad|
smoothed over steps. Recovery is the caller's (`distilled` is its loss). The edit `experts(keep=0.5, merge=True)` weighs
by what the loss minds and not by usage, and rewrites the router, because runtimes read no table (`parts/experts.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from secateur.maths.matching import cosines, matched


def usage(chosen: Tensor, experts: int) -> Tensor:
    """The share of all choices that went to each expert, [experts]; `chosen` [tokens, k] are numbers of experts."""
    return torch.bincount(chosen.flatten(), minlength=experts).double() / chosen.numel()


def counts(used: Sequence[Tensor], total: int) -> list[int]:
    """How many experts every layer keeps, `total` in all: the globally most used, one in every layer at least."""
    if not len(used) <= total <= sum(map(len, used)):
        raise ValueError(f"{total} experts are not between one a layer and all")
    pool = torch.cat([torch.where(torch.arange(len(f)) == f.argmax(), torch.inf, f) for f in used])
    layer = torch.cat([torch.full((len(f),), at) for at, f in enumerate(used)])
    kept = layer[pool.argsort(descending=True, stable=True)[:total]]
    return torch.bincount(kept, minlength=len(used)).tolist()


def joined(used: Tensor, logits: Tensor, n: int) -> Tensor:
    """The group of every expert, [experts], numbered by the `n` most used ones; `logits` [tokens, experts] are the
    router's."""
    stay = used.argsort(descending=True, stable=True)[:n].sort().values
    alike = cosines(logits.double().mT @ logits.double())[:, stay]
    alike[stay] = 2 * torch.eye(n, dtype=alike.dtype)  # each of those that stay is its own, also where two are copies
    return alike.argmax(1)


def aligned(stacks: Sequence[Tensor]) -> list[Tensor]:
    """Experts with their channels laid beside those of the first. `stacks` are [experts, channels, inputs] of what
    makes channels (gate, up), and last [experts, outputs, channels] of what mixes them."""
    *makers, mixer = stacks
    turns = [
        matched([*(w[0] for w in makers), mixer[0].mT], [*(w[e] for w in makers), mixer[e].mT])
        for e in range(len(mixer))
    ]
    made = [torch.stack([w[e][turn] for e, turn in enumerate(turns)]) for w in makers]
    return [*made, torch.stack([mixer[e][:, turn] for e, turn in enumerate(turns)])]


def merged(stack: Tensor, group: Tensor, weight: Tensor) -> Tensor:
    """One matrix for every group, [groups, ...]: the mean of its experts, each weighed by how often it is chosen."""
    share = torch.zeros(int(group.max()) + 1, len(group), dtype=torch.float64)
    share[group, torch.arange(len(group))] = weight.double()
    empty = share.sum(1) == 0  # nobody chose any of them
    share[empty] = functional.one_hot(group, len(share)).double().mT[empty]
    share /= share.sum(1, keepdim=True)
    return torch.einsum("ge,e...->g...", share, stack.double()).to(stack.dtype)


def compressed(w: Tensor, a: Tensor, rank: int = 32, keep: float = 0.1) -> tuple[Tensor, Tensor, Tensor]:
    """U [rows, rank], V [rank, cols] and S [rows, cols], of which the share `keep` of the rows is not zero: w is nearly
    U V + S. `a` = E[x x'] of the inputs says what an error of a row costs."""
    left, size, right = torch.linalg.svd(w.double(), full_matrices=False)
    root = size[:rank].sqrt()
    u, v = left[:, :rank] * root, root[:, None] * right[:rank]
    rest = w.double() - u @ v
    cost = ((rest @ a.double()) * rest).sum(1)
    rows = cost.argsort(descending=True, stable=True)[: round(keep * len(w))]
    s = torch.zeros_like(rest)
    s[rows] = rest[rows]
    return u.to(w.dtype), v.to(w.dtype), s.to(w.dtype)


def distilled(logits: Tensor, labels: Tensor, teacher: Tensor, heat: float = 2.0, weight: float = 0.2) -> Tensor:
    """The loss of recovery, nats per token: what comes next, and `weight` times the divergence from the whole model at
    temperature `heat`. Logits are [tokens, words]."""
    theirs, ours = (x / heat for x in (teacher, logits))
    apart = functional.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), reduction="batchmean", log_target=True)
    return functional.cross_entropy(logits, labels) + weight * heat**2 * apart
