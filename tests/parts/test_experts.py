"""Layers with fewer experts, by hand: who goes, who joins whom, and what becomes of them."""

from __future__ import annotations

import pytest
import torch

from secateur.model.factors import Factors
from secateur.parts.experts import Experts, by_expert, first
from secateur.types import Matrix, Side, Unit

N, WIDTH, CHANNELS = 4, 6, 5


def units() -> tuple[Unit, Unit]:
    """Gate and up as two tensors each, as Mixtral stores them."""
    side = Side("experts", "experts", 0, router="gate")
    make = [
        Matrix(f"experts.{e}.w{k}", CHANNELS, WIDTH, f"gate_up#{e}", place=f"gate_up#{e}[{at}:{at + CHANNELS}]")
        for e in range(N)
        for k, at in ((1, 0), (3, CHANNELS))
    ]
    mix = [Matrix(f"experts.{e}.w2", WIDTH, CHANNELS, f"down#{e}", place=f"down#{e}") for e in range(N)]
    return Unit("gate_up", "experts", tuple(make), side=side), Unit(
        "down", "experts", tuple(mix), side=Side("experts", "experts")
    )


def layer(matter: list[float], router: torch.Tensor | None = None, copies: bool = False) -> Experts:
    """Experts of random weights; with `copies` all are the first, their channels shuffled. An expert's factors are a
    multiple of the identity, so that its silence costs `matter` times the size of its last matrix."""
    draw = torch.Generator().manual_seed(1)
    makers, mixer = units()
    weights, factors = {}, {}
    gate, up, down = (
        torch.randn(*s, generator=draw) for s in ((CHANNELS, WIDTH), (CHANNELS, WIDTH), (WIDTH, CHANNELS))
    )
    for e in range(N):
        turn = torch.randperm(CHANNELS, generator=draw)
        if not copies:
            gate, up, down = (torch.randn(x.shape, generator=draw) for x in (gate, up, down))
        weights |= {f"experts.{e}.w1": gate[turn], f"experts.{e}.w3": up[turn], f"experts.{e}.w2": down[:, turn]}
        for m in (*by_expert(makers)[e], *by_expert(mixer)[e]):
            g = torch.eye(m.rows) * matter[e] / (1.0 if m.cols == WIDTH else float(weights[m.key].square().sum()))
            factors[m.key] = Factors(torch.eye(m.cols), g)
    router = torch.eye(N, WIDTH) if router is None else router
    return Experts(makers, mixer, weights, factors, router)


def test_the_least_go_first_and_the_rest_keep_their_order():
    experts = layer([3.0, 1.0, 4.0, 2.0])
    assert experts.matter.tolist() == pytest.approx([1.5, 0.5, 2.0, 1.0])
    assert experts.removal.order.tolist() == [1, 3, 0, 2]
    fewer = experts.fewer(2, merge=False)
    assert [list(group) for group in fewer.groups] == [[0], [2]]
    assert torch.equal(fewer.router, experts.router[[0, 2]])
    held = fewer.weights(experts.makers)
    assert set(held) == {m.key for m in first(experts.makers, 2).matrices}
    assert torch.equal(held["experts.1.w3"], experts.weights["experts.2.w3"])


def test_each_joins_the_one_whose_router_logits_are_most_like_its_own():
    router = torch.zeros(N, WIDTH)
    router[0, 0], router[2, 1] = 1.0, 1.0  # those that stay
    router[1, :2] = torch.tensor([0.2, 1.0])
    router[3, :2] = torch.tensor([5.0, 0.1])
    experts = layer([3.0, 1.0, 4.0, 2.0], router)
    fewer = experts.fewer(2, merge=True)
    assert [list(group) for group in fewer.groups] == [[0, 3], [2, 1]]
    # a mean by how much they matter
    assert torch.allclose(fewer.router[0], 0.6 * router[0] + 0.4 * router[3])


def test_shuffled_copies_of_one_expert_become_that_expert():
    experts = layer([1.0, 2.0, 3.0, 4.0], torch.ones(N, WIDTH), copies=True)
    fewer = experts.fewer(1, merge=True)
    (group,) = fewer.groups
    assert group[0] == 3 and sorted(group) == [0, 1, 2, 3]
    for unit in (experts.makers, experts.mixer):
        for key, w in fewer.weights(unit).items():
            assert torch.allclose(w, experts.weights[key.replace(".0.", ".3.")], atol=1e-6)
    assert torch.allclose(fewer.router, torch.ones(1, WIDTH))


def test_a_merged_expert_is_rounded_against_what_all_of_it_meets():
    experts = layer([1.0, 2.0, 3.0, 4.0], torch.ones(N, WIDTH))
    fewer = experts.fewer(1, merge=True)
    found = fewer.factors(experts.makers)["experts.0.w1"]
    assert torch.allclose(found.g, 10.0 * torch.eye(CHANNELS)) and torch.allclose(found.a, torch.eye(WIDTH))


def test_experts_that_do_not_matter_at_all_are_averaged():
    experts = layer([0.0, 0.0, 0.0, 0.0], torch.arange(4.0)[:, None] * torch.ones(N, WIDTH) + 1)
    assert torch.allclose(experts.fewer(1, merge=True).router, torch.full((1, WIDTH), 2.5))
