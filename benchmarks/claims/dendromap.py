"""Do clusters find where a cut hurt? The worst of twelve clusters against the worst of as many random groups.

    PYTHONPATH=src python -m benchmarks.claims.dendromap

A model a seed, trained on the code of Python's library, its matrices rounded to nearest at 3 bits. 256 windows that it
has not seen are clustered by the mean of the uncut model's last hidden states: half of them code, a quarter prose (the
help on Python's topics), a quarter tables (its encodings); then, for the second question, all of them code. The effect
is the mean KL of the cluster that lost most over that of the worst group, on the mean, of twenty random partitions into
groups of the same sizes: what the largest of several means is by chance is in both. Groups of fewer than eight windows
do not count. Beside it: the same with vectors as they are, not scaled.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import numpy as np
import torch

from benchmarks import harness, tiny
from secateur.maths.grids.affine import Affine
from secateur.maths.rounding import nearest
from secateur.methods.data import dendromap
from secateur.methods.data.dendromap import Tree

WINDOWS, CLUSTERS, LEAST, RANDOM = 256, 12, 8, 20
ABOUT: dict[str, list[float]] = {}


def several(seed: int) -> tuple[float, float]:
    """Text of three kinds."""
    kinds = (tiny.windows(stream, n, 1000 + seed) for stream, n in zip(_streams(), (128, 64, 64), strict=True))
    return _trial(seed, torch.cat(list(kinds)), "three kinds")


def one(seed: int) -> tuple[float, float]:
    """Code alone."""
    return _trial(seed, tiny.windows(_streams()[0], WINDOWS, 1000 + seed), "code alone")


def _streams() -> tuple[torch.Tensor, ...]:
    """Code, prose and tables that no model has been trained on."""
    root = Path(sysconfig.get_paths()["stdlib"])
    tables = sorted((root / "encodings").glob("cp*.py"))
    piles = ((root / "pydoc_data" / "topics.py").read_bytes(), b"\n".join(file.read_bytes() for file in tables))
    return tiny.text()[2], *(torch.frombuffer(bytearray(pile), dtype=torch.uint8) for pile in piles)


@torch.no_grad()
def _trial(seed: int, windows: torch.Tensor, what: str) -> tuple[float, float]:
    model = tiny.trained(seed)
    parts = windows.split(32)
    states = torch.cat([model.model(part).last_hidden_state[:, 1:].mean(1) for part in parts]).double().numpy()
    before = tiny.logits(model, windows)
    for layer in tiny.linears(model).values():
        layer.weight.copy_(nearest(layer.weight, Affine(3, 64).fit(layer.weight)))
    kl = _divergences(tiny.logits(model, windows), before)
    draw = np.random.default_rng(seed)
    ours, chance = _worst(dendromap.tree(states), kl, draw)
    plain, mean = _worst(_plain(states), kl, draw)[0], float(kl.mean())
    for name, value in (("clusters", ours), ("by chance", chance), ("vectors as they are", plain)):
        ABOUT.setdefault(f"{what}: {name}", []).append(round(value / mean, 3))
    return ours, chance


def _divergences(given: torch.Tensor, reference: torch.Tensor) -> np.ndarray:
    """KL of every window, nats per token."""
    p, q = (x[:, :-1].double().log_softmax(-1) for x in (reference, given))
    return (p.exp() * (p - q)).sum(-1).mean(1).numpy()


def _worst(tree: Tree, kl: np.ndarray, draw: np.random.Generator) -> tuple[float, float]:
    """The mean KL of the worst cluster, and of the worst group of random partitions into such sizes."""
    groups = [tree.members(node) for node in tree.visible(CLUSTERS)]
    found = []
    for at in range(1 + RANDOM):
        mixed = np.arange(len(kl)) if at == 0 else draw.permutation(len(kl))
        found.append(max(float(kl[mixed[group]].mean()) for group in groups if len(group) >= LEAST))
    return found[0], float(np.mean(found[1:]))


def _plain(states: np.ndarray) -> Tree:
    """The tree of vectors that are not scaled."""
    from scipy.cluster.hierarchy import linkage

    merges = linkage(states, "ward")
    return Tree(tuple((int(a), int(b)) for a, b in merges[:, :2]), tuple(float(d) for d in merges[:, 2]))


if __name__ == "__main__":
    worst = "the worst of 12 clusters of windows lost more than the worst of as many random groups"
    harness.claim("dendromap", f"Of text of three kinds {worst}", several, seeds=5, better="higher", about=ABOUT)
    harness.claim("dendromap", f"Of code alone {worst}", one, seeds=5, better="higher", about=ABOUT)
    mean = {name: round(float(np.mean(values)), 2) for name, values in ABOUT.items()}
    print(f"mean over seeds, times the mean KL: {mean}", file=sys.stderr)
