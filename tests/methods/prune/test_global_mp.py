"""Global magnitude pruning by its defining properties: exact counts, most energy, floors, and budgets that hold."""

from itertools import combinations

import numpy as np
import pytest
import torch

from secateur.methods.prune.global_mp import GlobalMP, global_mp, kept, quantiles
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.sparse import Sparse
from secateur.types import Budget, Matrix, Menu, PlanError, Unit


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_exactly_so_many_stay_whatever_the_order():
    layers = {"a": draw(8, 8), "b": 3 * draw(4, 8, seed=1)}
    masks = kept(layers, 0.4)
    assert sum(int(m.sum()) for m in masks.values()) == round(0.4 * 96)
    turned = kept(dict(reversed(layers.items())), 0.4)
    assert all(torch.equal(masks[name], turned[name]) for name in layers)
    scaled = kept({"a": 10 * layers["a"], "b": layers["b"]}, 0.4)
    assert scaled["a"].sum() > masks["a"].sum(), "the scale of a layer counts"


def test_no_mask_of_so_many_keeps_more_energy():
    layers = {"a": draw(2, 2), "b": draw(1, 4, seed=3)}
    energy = torch.cat([w.flatten() for w in layers.values()]).square()
    best = max(float(energy[list(some)].sum()) for some in combinations(range(8), 3))
    masks = kept(layers, 3 / 8)
    assert float(energy[torch.cat([m.flatten() for m in masks.values()])].sum()) == pytest.approx(best)


def test_every_layer_keeps_its_floor_and_the_count_is_the_same():
    layers = {"small": 1e-3 * draw(4, 4), "large": draw(16, 16, seed=1)}
    plain, held = kept(layers, 0.1), kept(layers, 0.1, least=5)
    assert plain["small"].sum() == 0 and held["small"].sum() == 5
    assert sum(int(m.sum()) for m in held.values()) == sum(int(m.sum()) for m in plain.values()) == round(0.1 * 272)
    assert all(torch.equal(kept(layers, 0.1, least=0)[name], plain[name]) for name in layers)
    assert kept({"tiny": layers["small"]}, 0.5, least=99)["tiny"].sum() == 8


def menu(scales=(1.0, 0.2, 0.5)):
    units = tuple(Unit(f"u{i}", "linear", (Matrix(f"u{i}", 64, 64, "x"),), block=i) for i in range(len(scales)))
    edits = (Keep(), *(Sparse(keep / 10) for keep in range(1, 10)))
    cost = np.array([[edit.cost(unit)["bytes"] for edit in edits] for unit in units])
    damage = np.tile([0.0, *((1 - keep / 10) ** 3 for keep in range(1, 10))], (len(units), 1))
    sizes = np.stack([quantiles([scale * draw(64, 64, seed=i)]) for i, scale in enumerate(scales)])
    notes = {"magnitudes": sizes}
    return Menu(units, edits, {"payload": cost, "bytes": cost}, damage, 0 * damage, {}, 4096 * len(units), notes)


def test_units_keep_what_the_global_threshold_leaves_them():
    found = menu()
    plan = global_mp(found, Budget.parse("9 bits/weight"))
    shares = [getattr(plan.edits[unit.name], "keep", 1.0) for unit in found.units]
    weights = {f"u{i}": scale * draw(64, 64, seed=i) for i, scale in enumerate((1.0, 0.2, 0.5))}
    want = [float(m.float().mean()) for m in kept(weights, 0.5).values()]
    assert plan.spent["bits_per_weight"] <= 9
    assert all(abs(share - one) < 0.12 for share, one in zip(shares, want, strict=True)), (shares, want)


def test_a_floor_keeps_small_units_alive():
    found = menu((1.0, 1e-3, 1.0))
    low, high = (GlobalMP(least)(found, Budget.parse("9 bits/weight")).edits["u1"] for least in (0.0, 0.1))
    assert low == Sparse(0.1) and high == Sparse(0.3)


def test_a_menu_without_sizes():
    from dataclasses import replace

    with pytest.raises(PlanError, match=r"(?s)no note `magnitudes` \(it has none\).*again with `--edits sparse`"):
        global_mp(replace(menu(), notes={}), Budget.parse("9 bits/weight"))
