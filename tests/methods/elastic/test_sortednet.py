"""SortedNet: its defining properties, on a Llama of two blocks."""

import copy
import runpy
from collections import Counter
from pathlib import Path

import pytest
import torch

from secateur.methods.elastic.sortednet import Sortednet, sortednet
from secateur.model import axes
from secateur.model.anatomy import anatomy, load_block, skeleton
from secateur.model.checkpoint import open_checkpoint
from secateur.model.elastic import full, least, parse, shapes, sliced, state
from secateur.model.fit import Moment, Plugs, fit
from secateur.model.goals import next_token
from secateur.types import SecateurError

FAMILIES = runpy.run_path(str(Path(__file__).parents[2] / "model" / "conftest.py"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    checkpoint = open_checkpoint(FAMILIES["make"]("llama", tmp_path_factory.mktemp("llama")))
    network = skeleton(checkpoint)
    found = anatomy(checkpoint, network)
    load_block(checkpoint, found, "", network)
    return network, axes.of_blocks(found, network, parse("width,heads:2,depth:2"))


def batches(at: int) -> torch.Tensor:
    """A language that can be learned: every token is followed by the one three on."""
    starts = torch.randint(90, (4, 1), generator=torch.Generator().manual_seed(at))
    return (starts + 3 * torch.arange(10)) % 90 + 2


def learned(network, plugs, steps=3, parts=2):
    made = copy.deepcopy(network)
    fit(made, batches, next_token(), steps=steps, rate=5e-3, parts=parts, plugs=plugs)
    return made


def same(a, b) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_always_the_whole_network_is_ordinary_training_bit_for_bit(llama):
    network, net = llama
    made = copy.deepcopy(network)
    ordinary = learned(network, Plugs())
    fit(made, batches, next_token(), steps=3, rate=5e-3, parts=2, plugs=Sortednet("whole")(made, net))
    assert same(made, ordinary) and not same(made, network)


def test_a_step_with_only_a_small_slice_leaves_the_rest_without_gradient(llama):
    network, net = llama
    made, seen = copy.deepcopy(network), []

    def look(now):
        whole = dict(made.named_parameters())
        small = shapes(made, net, least(net.axes))
        for name, parameter in whole.items():
            inside = tuple(slice(n) for n in small[name]) if name in small else (slice(0),)
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
            seen.append(bool(grad[inside].any()))
            grad[inside] = 0.0
            assert not grad.any(), name

    with sliced(made, net, least(net.axes)):
        next_token().logits(made, batches(0)).square().mean().backward()
    look(None)
    assert any(seen) and not all(seen)


def test_every_pass_of_a_step_has_a_slice_of_its_own(llama):
    network, net = llama
    plugs, sizes = sortednet(network, net), Counter()
    for step in range(40):
        for part in (0, 1):
            with plugs.dress(Moment(step, 40, part, 2, seed=3)):
                sizes[len(network.model.layers), network.model.layers[0].mlp.gate_proj.weight.shape[0]] += 1
    assert {layers for layers, _ in sizes} == {1, 2} and {rows for _, rows in sizes} == {12, 24, 36, 48}
    assert len(network.model.layers) == 2 and network.model.layers[0].mlp.gate_proj.weight.shape[0] == 48


def test_what_it_trains_is_what_is_taken_out(llama):
    """All slices get better at once, and a slice of the small tensors says what the dressed network says."""
    network, net = llama
    made = copy.deepcopy(network)
    fit(made, batches, next_token(), steps=60, rate=5e-3, parts=2, plugs=sortednet(made, net))
    goal, test = next_token(), batches(9999)

    def loss(model, one):
        with torch.no_grad(), sliced(model, net, one):
            return float(torch.nn.functional.cross_entropy(goal.logits(model, test), goal.labels(test)))

    for one in (least(net.axes), full(net.axes)):
        assert loss(made, one) < loss(network, one) - 0.5
    small = state(made, net, least(net.axes))
    assert all(small[name].shape == shape for name, shape in shapes(made, net, least(net.axes)).items())


def test_a_policy_that_nobody_knows_is_named(llama):
    with pytest.raises(SecateurError, match="no policy `best`"):
        Sortednet("best")(*llama)
