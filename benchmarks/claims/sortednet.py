"""One training, many sizes: slices against truncation, against networks trained alone, and what the whole one pays.

    PYTHONPATH=src python -m benchmarks.claims.sortednet

A network a seed, of two hidden layers of 128, that reads twelve bytes of Python's library and says the next, elastic in
width: an eighth, a quarter, a half, all. Two passes a step. The ordinary training reads the same bytes in the same
steps. Networks that are trained alone begin as the slices do and share out the steps, a quarter each. Losses are nats
per byte on files that nobody has seen. Subsets of chance in the same training tell what the order does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks import harness, tiny
from secateur.methods.elastic.sortednet import Sortednet
from secateur.model import axes
from secateur.model.elastic import Slice, Supernet, sliced, state
from secateur.model.fit import Moment, Plugs, fit
from secateur.model.goals import Goal
from secateur.model.resize import resized
from secateur.parts.schedules import Schedule

READ, HIDDEN, STEPS, PASSES, BATCH, RATE, MEASURED = 12, 128, 500, 2, 128, 3e-3, 8192
WIDTHS = (0.125, 0.25, 0.5, 1.0)
SLICES = tuple(Slice((("width", width),)) for width in WIDTHS)
GOAL = Goal("byte", lambda model, batch: model(batch[:, :-1]), lambda batch: batch[:, -1])
ABOUT: dict[str, list[float]] = {}


def made(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden = nn.Linear(16 * READ, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
        return nn.Sequential(nn.Embedding(256, 16), nn.Flatten(), *hidden, nn.Linear(HIDDEN, 256))


def net(model: nn.Module) -> Supernet:
    return axes.of_pictures(model, {"width": WIDTHS}, torch.zeros(2, READ, dtype=torch.long))


def stretches(stream: Tensor, n: int, seed: int) -> Tensor:
    starts = torch.randint(len(stream) - READ, (n, 1), generator=torch.Generator().manual_seed(seed))
    return stream[starts + torch.arange(READ + 1)].long()


def learn(model: nn.Module, seed: int, plugs: Plugs, steps: int = STEPS) -> nn.Module:
    """By the loop as it is."""
    stream = tiny.text()[0]
    course = Schedule("linear", warm=20)
    how = {"steps": steps, "rate": RATE, "course": course, "parts": PASSES, "seed": seed, "plugs": plugs}
    fit(model, lambda at: stretches(stream, BATCH, seed * 100_000 + at), GOAL, **how)
    return model.eval()


@torch.no_grad()
def loss(model: nn.Module) -> float:
    batch = stretches(tiny.text()[2], MEASURED, 9_999)
    return float(cross_entropy(GOAL.logits(model, batch), GOAL.labels(batch)))


def losses(model: nn.Module) -> list[float]:
    found = []
    for one in SLICES:
        with sliced(model, net(model), one):
            found.append(loss(model))
    return found


@cache
def trained(seed: int) -> dict[str, list[float]]:
    """The losses of all sizes, by how they were come by."""
    found = {}
    for name, policy in (("sorted", "uniform"), ("ordinary", "whole")):
        model = made(seed)
        found[name] = losses(learn(model, seed, Sortednet(policy)(model, net(model))))
    found["alone"], found["random"] = [], random(seed)
    for one in SLICES:
        held = state(made(seed), net(made(seed)), one)
        small = resized(made(seed), {name: tuple(value.shape) for name, value in held.items()})
        small.load_state_dict(held)
        found["alone"].append(loss(learn(small, seed, Plugs(), STEPS // len(SLICES))))
    for name, values in found.items():
        for width, value in zip(WIDTHS, values, strict=True):
            ABOUT.setdefault(f"{name} {width:g}", []).append(round(value, 4))
    return found


def random(seed: int) -> list[float]:
    """The same with channels drawn anew in every pass, and others when it is measured."""
    model = made(seed)

    def dress(now: Moment) -> Any:
        draw = now.random(f"channels {now.part}")
        return _masked(model, WIDTHS[int(torch.randint(len(WIDTHS), (), generator=draw))], draw)

    learn(model, seed, Plugs(dress=dress))
    found, draw = [], torch.Generator().manual_seed(seed)
    for width in WIDTHS:
        with _masked(model, width, draw):
            found.append(loss(model))
    return found


@contextmanager
def _masked(model: Any, width: float, draw: torch.Generator) -> Iterator[None]:
    """Inside, channels of chance behind the activations are zero."""
    handles = []
    for at in (3, 5):
        mask = torch.zeros(HIDDEN)
        mask[torch.randperm(HIDDEN, generator=draw)[: int(width * HIDDEN)]] = 1.0
        handles.append(model[at].register_forward_hook(lambda _, __, out, mask=mask: out * mask))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def against(name: str, sizes: slice) -> Callable[[int], tuple[float, float]]:
    """The mean over some sizes, ours and theirs."""

    def trial(seed: int) -> tuple[float, float]:
        ours, theirs = (trained(seed)[key][sizes] for key in ("sorted", name))
        return sum(ours) / len(ours), sum(theirs) / len(theirs)

    return trial


if __name__ == "__main__":
    small, every, whole = slice(0, -1), slice(None), slice(-1, None)
    for text, name, sizes in (
        ("An eighth, a quarter and a half lose less than those of an ordinary training", "ordinary", small),
        ("Four sizes from one training lose less than four networks that share out its steps", "alone", every),
        ("The first channels lose less than channels of chance from the same training", "random", small),
        ("The whole network loses nothing against an ordinary training", "ordinary", whole),
    ):
        said = f"{text} (nats per byte)"
        harness.claim("sortednet", said, against(name, sizes), seeds=5, measure="difference", about=ABOUT)
    print({name: round(sum(some) / len(some), 3) for name, some in ABOUT.items()}, file=sys.stderr)
