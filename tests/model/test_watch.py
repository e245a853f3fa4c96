"""What is seen is what flows: against hooks and autograd's own gradients, on every family."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateur.model.anatomy import anatomy, load_block, skeleton
from secateur.model.checkpoint import open_checkpoint
from secateur.model.matrix import place
from secateur.model.watch import watch
from secateur.types import Matrix

IDS = torch.randint(3, 96, (2, 12), generator=torch.Generator().manual_seed(0))  # 0 pads: autograd leaves its row out


@pytest.fixture
def patient(any_family):
    checkpoint = open_checkpoint(any_family)
    network = skeleton(checkpoint)
    found = anatomy(checkpoint, network)
    load_block(checkpoint, found, "", network)
    return network, found, [m for unit in found.units for m in unit.matrices]


def product(matrix: Matrix, x, g):
    """The weight's gradient from paired inputs and output gradients."""
    if x.dim() == 1:  # token ids
        return torch.zeros(matrix.rows, matrix.cols).index_add_(0, x, g)
    return g.T @ x


def autograd(network, matrix: Matrix):
    """The weight's gradient as autograd has it, as rows x cols."""
    where = place(matrix)
    grad = network.get_parameter(where.parameter).grad
    grad = grad if where.index is None else grad[where.index]
    grad = grad.flatten(1) if grad.dim() > 2 else grad
    grad = grad.T if matrix.transposed else grad
    return grad[where.start : where.stop] if where.stop else grad


def test_inputs_and_gradients_give_the_weights_gradient(patient):
    network, found, matrices = patient
    head = []
    if found.tied:  # both uses of the matrix
        tied = next(m for m in matrices if m.tap == found.embedding)
        head = [replace(tied, tap=found.head)]
    sums = {m.key: torch.zeros(m.rows, m.cols) for m in matrices}
    by_key = {m.key: m for m in matrices}

    def gradients(key, x, g):
        wide = by_key[key].rows if x.dim() > 1 else by_key[key].cols
        assert g.shape == (len(x), wide) and not g.requires_grad and not x.requires_grad
        sums[key] += product(by_key[key], x, g)

    with watch(network, matrices + head, gradients=gradients):
        network(IDS, labels=IDS).loss.backward()
    network.zero_grad()
    network(IDS, labels=IDS).loss.backward()
    for matrix in matrices:
        truth = autograd(network, matrix)
        assert torch.allclose(sums[matrix.key], truth, atol=1e-5 * truth.abs().max().item() + 1e-7), matrix


def test_gradients_need_no_parameter_to_ask(patient):
    """The same figures when no parameter requires a gradient: nothing but activations is kept."""
    network, _, matrices = patient
    once = defaultdict(list)
    with watch(network, matrices, gradients=lambda key, x, g: once[key].append(g)):
        network(IDS, labels=IDS).loss.backward()
    network.requires_grad_(False)
    again = defaultdict(list)
    with watch(network, matrices, gradients=lambda key, x, g: again[key].append(g)):
        network(IDS, labels=IDS).loss.backward()
    assert once.keys() == again.keys()
    for key in once:
        assert torch.allclose(torch.cat(once[key]), torch.cat(again[key]), rtol=1e-4, atol=1e-7)


def test_inputs_come_once_per_tap(patient):
    network, found, matrices = patient
    seen = defaultdict(list)
    with torch.no_grad(), watch(network, matrices, inputs=lambda tap, x: seen[tap].append(x)):
        network(IDS)
    taps = {m.tap for m in matrices}
    assert set(seen) <= taps and {t for t in taps if "#" not in t} <= set(seen)
    assert all(len(found) == 1 for found in seen.values())
    for tap, (x,) in seen.items():
        if tap == found.embedding:
            assert torch.equal(x, IDS.flatten())
        elif "#" not in tap:
            assert x.shape[0] == IDS.numel()
    truth = {}
    hooks = [
        network.get_submodule(tap).register_forward_pre_hook(lambda _, args, tap=tap: truth.update({tap: args[0]}))
        for tap in seen
        if "#" not in tap
    ]
    with torch.no_grad():
        network(IDS)
    for hook in hooks:
        hook.remove()
    for tap, x in truth.items():
        assert torch.allclose(seen[tap][0].float(), x.reshape(seen[tap][0].shape).float(), rtol=1e-4, atol=1e-6)


def test_watching_changes_nothing_and_leaves_no_trace(patient):
    network, _, matrices = patient

    def marks():
        hooks = sum(
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in network.modules()
        )
        return hooks, [name for name, m in network.named_modules() if "forward" in vars(m)]

    before = marks()
    with torch.no_grad():
        plain = network(IDS).logits
        with watch(network, matrices, inputs=lambda tap, x: None, gradients=lambda key, x, g: None):
            assert torch.allclose(network(IDS).logits, plain, rtol=1e-5, atol=1e-5)
        assert torch.equal(network(IDS).logits, plain)
    assert marks() == before
    with pytest.raises(RuntimeError, match="stop"), watch(network, matrices):
        raise RuntimeError("stop")
    assert marks() == before


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss"])
def test_experts_see_the_tokens_they_were_sent(tiny, name, fused):
    folder = tiny(name, save_original_format=False) if fused else tiny(name)
    checkpoint = open_checkpoint(folder)
    network = skeleton(checkpoint)
    found = anatomy(checkpoint, network)
    load_block(checkpoint, found, "", network)
    unit = next(u for u in found.units if u.name.endswith("layers.1.mlp.experts.gate_up"))
    sent = {}

    def route(_, args, kwargs):
        x, chosen = (list(args) + list(kwargs.values()))[:2]
        sent.update({f"model.layers.1.mlp.experts.gate_up_proj#{e}": x[(chosen == e).any(-1)] for e in range(len(x))})

    handle = network.get_submodule("model.layers.1.mlp.experts").register_forward_pre_hook(route, with_kwargs=True)
    seen, paired = {}, {}
    with watch(network, unit.matrices, seen.__setitem__, lambda key, x, g: paired.__setitem__(key, (x, g))):
        network(IDS, labels=IDS).loss.backward()
    handle.remove()
    assert sum(map(len, seen.values())) == IDS.numel() * 2  # two experts for every token
    for tap, x in seen.items():
        assert torch.equal(x, sent[tap])
    for matrix in unit.matrices:
        if matrix.tap in seen:
            assert torch.equal(paired[matrix.key][0], seen[matrix.tap])
        else:
            assert matrix.key not in paired


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 5, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2))
        self.b = nn.Conv2d(5, 4, 3, padding="same", padding_mode="reflect")
        self.c = nn.Conv1d(4, 6, 3, stride=2, padding=1)

    def forward(self, x):
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))).flatten(2))


def test_convolutions_are_matrices_of_patches():
    torch.manual_seed(0)
    net = Convolutions()
    matrices = [
        Matrix(f"{name}.weight", m.weight.shape[0], m.weight[0].numel(), name) for name, m in net.named_children()
    ]
    x = torch.randn(2, 3, 13, 11)
    seen, sums = {}, {}

    def gradients(key, x, g):
        sums[key] = (g.mT @ x).sum(0)

    with watch(net, matrices, seen.__setitem__, gradients):
        out = net(x)
        out.square().sum().backward()
    weight = net.a.weight.flatten(1)
    assert torch.allclose(seen["a"] @ weight.T + net.a.bias, net.a(x).flatten(2).mT, atol=1e-5)
    for matrix in matrices:
        truth = net.get_parameter(matrix.tensor).grad.flatten(1)
        assert torch.allclose(sums[matrix.key], truth, rtol=1e-4, atol=1e-4 * truth.abs().max().item())


def test_one_block_from_a_parked_input(tiny):
    """As the backward pass is streamed: one block, its input a leaf, a gradient handed in from behind."""
    checkpoint = open_checkpoint(tiny("llama"))
    network = skeleton(checkpoint).requires_grad_(False)
    found = anatomy(checkpoint, network)
    load_block(checkpoint, found, "model.layers.1", network.get_submodule("model.layers.1"))
    unit = next(u for u in found.units if u.name == "model.layers.1.mlp.gate_up")
    mlp = network.get_submodule("model.layers.1.mlp")
    hidden = torch.randn(1, 6, 32, requires_grad=True)
    behind = torch.randn(1, 6, 32)
    got = {}
    with watch(network, unit.matrices, gradients=lambda key, x, g: got.__setitem__(key, (x, g))):
        mlp(hidden).backward(behind)
    g = (behind @ mlp.down_proj.weight).flatten(0, 1)
    x = hidden.detach().flatten(0, 1)
    gate, up = F.linear(x, mlp.gate_proj.weight), F.linear(x, mlp.up_proj.weight)
    assert torch.allclose(got["model.layers.1.mlp.up_proj.weight"][1], g * F.silu(gate), atol=1e-6)
    assert torch.equal(got["model.layers.1.mlp.up_proj.weight"][0], x)
    sigmoid = gate.sigmoid()
    slope = sigmoid * (1 + gate * (1 - sigmoid))
    assert torch.allclose(got["model.layers.1.mlp.gate_proj.weight"][1], g * up * slope, atol=1e-6)
    assert hidden.grad is not None
