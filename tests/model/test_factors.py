"""Factors from the streamed backward pass are those of the whole model, however the pass was cut into pieces."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
import transformers

from secateur.maths import sums
from secateur.maths.rounding import damage
from secateur.model import factors, parked
from secateur.model.checkpoint import open_checkpoint
from secateur.model.factors import Collector, Factors, backward, both, sample_labels
from secateur.model.matrix import place
from secateur.model.stream import Stream
from secateur.model.watch import watch
from secateur.types import DataError, Matrix

IDS = torch.randint(3, 96, (10, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Everything in float32, also where the processor would be faster with less."""
    monkeypatch.setattr(factors, "tiles", lambda: False)
    monkeypatch.setattr(sums, "tiles", lambda: False)


def stream_of(folder, batch=4) -> Stream:
    return Stream(open_checkpoint(folder), "cpu", batch=batch)


def gathered(stream: Stream, ids=IDS, units=None, **more) -> dict[str, Factors]:
    """All factors of all units."""
    units = stream.anatomy.units if units is None else units
    return {key: f for _, found in backward(stream, ids, units, **more) for key, f in found.items()}


def whole_network(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def pairs(folder, ids=IDS, seed=0):
    """Inputs and output gradients of every linear layer and of the embedding of the whole model at once, by hooks and
    autograd alone, all tokens in one: `{module: (x, g)}` in float64."""
    network = whole_network(folder)
    seen = {}

    def see(name):
        def hook(module, args, out):
            out.retain_grad()
            seen[name] = (args[0], out)

        return hook

    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            module.register_forward_hook(see(name))
    logits = network(ids).logits.flatten(0, 1)
    labels = sample_labels(logits.detach(), torch.Generator().manual_seed(seed))
    F.cross_entropy(logits, labels, reduction="sum").backward()
    return {
        name: (x.flatten(0, ids.dim() - 1).detach().double(), out.grad.flatten(0, 1).double())
        for name, (x, out) in seen.items()
    }


def fisher(x, g, weight):
    """A (of mean diagonal 1) and G of paired tokens, written down as in the docstring of the module."""
    heavy, steep = x.square().sum(1), g.square().sum(1)
    a = x.T @ (weight[:, None] * x)
    g = g.T @ (heavy[:, None] * g) / len(x)
    assert torch.allclose(g.trace(), (heavy * steep).mean())
    return a / a.trace() * len(a), g / len(a)


def product(a, g):
    """What no share between A and G changes."""
    diagonal = g if g.ndim == 1 else g.diagonal()
    return a * diagonal.sum(), g * a.trace()


def assert_alike(mine: Factors, a, g, rel=1e-3):
    for one, other in zip(product(mine.a.double(), mine.g.double()), product(a, g), strict=True):
        torch.testing.assert_close(one, other, rtol=rel, atol=rel * float(other.abs().max()) / 10)


# against the whole


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_factors_are_those_of_the_whole_model(tiny, name):
    stream = stream_of(tiny(name))  # batches of 4, 4 and 2
    mine, seen = gathered(stream), pairs(tiny(name))
    matrices = {m.key: m for unit in stream.anatomy.units for m in unit.matrices}
    assert set(mine) == set(matrices)
    steep = defaultdict(float)
    for m in matrices.values():
        steep[m.tap] += seen[place(m).module][1].square().sum(1)
    for key, m in matrices.items():
        x, g = seen[place(m).module]
        assert mine[key].tokens == IDS.numel()
        if x.dim() == 2:  # the embedding's are token numbers
            assert_alike(mine[key], *fisher(x, g, steep[m.tap]))
            assert float(mine[key].a.diagonal().mean()) == pytest.approx(1, rel=1e-4)


def test_an_embedding_is_weighed_by_its_tokens(tiny):
    mine = gathered(stream_of(tiny("llama")))["model.embed_tokens.weight"]
    _, g = pairs(tiny("llama"))["model.embed_tokens"]
    assert_alike(mine, g.T @ g / IDS.numel(), counted())


def counted():
    """The share of each token in the text, half a count given to all."""
    return (torch.bincount(IDS.flatten(), minlength=96).double() + 0.5) / (IDS.numel() + 96 / 2)


def test_gemma_scales_what_it_looks_up(tiny, tmp_path):
    network = whole_network(tiny("gemma"))
    network.config.tie_word_embeddings = False
    network.lm_head.weight = torch.nn.Parameter(network.lm_head.weight.detach().clone())
    network.save_pretrained(tmp_path)
    mine, seen = gathered(stream_of(tmp_path))["model.embed_tokens.weight"], pairs(tmp_path)
    g = seen["model.embed_tokens"][1]  # behind the scaling, which is part of Gemma's embedding
    assert float(mine.a.trace()) == pytest.approx(float(32 * g.square().sum() / IDS.numel()), rel=1e-3)


def test_a_tied_matrix_is_hurt_on_both_sides(tiny):
    mine, seen = gathered(stream_of(tiny("llama-tied"))), pairs(tiny("llama-tied"))
    assert "lm_head.weight" not in mine
    x, g = seen["lm_head"]
    a, rows = fisher(x, g, g.square().sum(1))
    _, back = seen["model.embed_tokens"]
    front, counts = back.T @ back / IDS.numel(), counted()
    sizes = rows.trace() * a.trace(), counts.sum() * front.trace()
    joint = Factors(
        (a / a.trace() * sizes[0] + front / front.trace() * sizes[1]) / sum(sizes),
        rows.diagonal() * a.trace() + counts * front.trace(),
    )
    assert_alike(mine["model.embed_tokens.weight"], joint.a, joint.g)


def test_both_on_paper():
    one = Factors(torch.eye(2), torch.tensor([[1.0, 0.5], [0.5, 3.0]]), 7, 0.1)
    other = Factors(torch.tensor([[4.0, 2.0], [2.0, 0.0]]), torch.tensor([1.0, 0.0]), 7, 0.3)
    # sizes are 4 * 2 and 1 * 4
    mine = both(one, other)
    assert mine.g.tolist() == [1 * 2 + 1 * 4, 3 * 2]
    torch.testing.assert_close(mine.a, (4 * one.a + 1 * other.a) / 12)
    assert (mine.tokens, mine.relative_error) == (7, 0.3)


# the collector


def test_matrices_with_one_tap_share_an_input_and_its_weights():
    q, k = Matrix("q", 2, 3, "tap"), Matrix("k", 1, 3, "tap")
    collector = Collector((q, k))
    x, gq, gk = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])
    collector("k", x, gk)
    collector("q", x, gq)
    assert collector.inputs["tap"].total.tolist() == ((5 + 9) * x.T @ x).tolist()
    found = collector.factors(1)
    assert found["q"].a is found["k"].a
    # A has trace 3; the product of the traces is |x|^2 |g|^2
    torch.testing.assert_close(found["q"].g * 3, 5 * gq.T @ gq)
    torch.testing.assert_close(found["k"].g * 3, torch.tensor([[45.0]]))


def test_tall_matrices_keep_the_diagonal_of_g():
    m = Matrix("m", 6, 3, "tap")
    random = torch.Generator().manual_seed(0)
    full, tall = Collector((m,)), Collector((m,), full_rows=5)
    for tokens in (4, 1, 9):
        x, g = torch.randn(tokens, 3, generator=random), torch.randn(tokens, 6, generator=random)
        full("m", x, g)
        tall("m", x, g)
    found = tall.factors(14)["m"]
    assert found.g.shape == (6,)
    torch.testing.assert_close(found.g, full.factors(14)["m"].g.diagonal())
    assert tall.factors(14) == {}  # what was handed out is not kept as well


def test_uneven_batches_are_weighed_by_their_tokens():
    m = Matrix("m", 2, 3, "tap")
    random = torch.Generator().manual_seed(0)
    x, g = torch.randn(20, 3, generator=random), torch.randn(20, 2, generator=random)

    def found(parts, tokens=20):
        collector = Collector((m,))
        for some in parts:
            collector("m", x[some], g[some])
        return collector.factors(tokens)["m"]

    once, pieces = found([slice(0, 20)]), found([slice(0, 1), slice(1, 3), slice(3, 20)])
    for side in "ag":
        torch.testing.assert_close(getattr(pieces, side), getattr(once, side))
    # an expert that sees a fifth of the pass does a fifth of the damage
    torch.testing.assert_close(found([slice(0, 20)], 100).g, once.g / 5)
    assert once.relative_error == 1.0 and 0 < pieces.relative_error < 1


# experts


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_experts_are_weighed_by_the_tokens_sent_to_them(tiny, name):
    stream = stream_of(tiny(name))
    matrices = [m for unit in stream.anatomy.units if unit.kind == "experts" for m in unit.matrices]
    mine, seen = gathered(stream), defaultdict(list)
    network = whole_network(tiny(name))
    with watch(network, matrices, gradients=lambda key, x, g: seen[key].append((x.double(), g.double()))):
        logits = network(IDS).logits.flatten(0, 1)
        F.cross_entropy(
            logits, sample_labels(logits.detach(), torch.Generator().manual_seed(0)), reduction="sum"
        ).backward()
    for m in matrices:
        ((x, g),) = seen[m.key]
        heavy, steep = x.square().sum(1), g.square().sum(1)
        assert mine[m.key].tokens == len(x) < IDS.numel()
        size = float(mine[m.key].a.trace() * mine[m.key].g.trace())
        assert size == pytest.approx(float((heavy * steep).sum() / IDS.numel()), rel=1e-3)


def test_an_expert_without_tokens_is_left_out(tiny):
    stream = stream_of(tiny("mixtral"))
    mine = gathered(stream, IDS[:1, :1])  # one token goes to two of the four
    experts = [unit for unit in stream.anatomy.units if unit.kind == "experts"]
    for unit in experts:
        met = [m for m in unit.matrices if m.key in mine]
        assert 2 * len(met) == len(unit.matrices)
        assert all(mine[m.key].tokens == 1 for m in met)
    assert all(torch.isfinite(f.a).all() and torch.isfinite(f.g).all() for f in mine.values())


# the order of things, and what stays on disk


def same(one: dict[str, Factors], other: dict[str, Factors]) -> bool:
    """To the bit."""
    return set(one) == set(other) and all(
        torch.equal(f.a, other[key].a)
        and torch.equal(f.g, other[key].g)
        and (f.tokens, f.relative_error) == (other[key].tokens, other[key].relative_error)
        for key, f in one.items()
    )


def test_from_the_head_down_to_the_embedding(tiny):
    stream = stream_of(tiny("llama"))
    found = [set(one) for _, one in backward(stream, IDS, stream.anatomy.units)]
    assert found[0] == {"lm_head.weight"} and found[-1] == {"model.embed_tokens.weight"}
    assert [min(one).startswith(f"model.layers.{i}.") for one, i in zip(found[1:-1], (1, 0), strict=True)] == [True] * 2


@pytest.mark.parametrize("on_disk", [False, True], ids=["in memory", "on disk"])
@pytest.mark.parametrize("name", ["llama", "llama-tied"])
def test_a_broken_run_goes_on_where_it_stopped(tiny, tmp_path, monkeypatch, name, on_disk):
    units = stream_of(tiny(name)).anatomy.units
    unbroken = gathered(stream_of(tiny(name)))
    if on_disk:
        monkeypatch.setattr(parked, "IN_MEMORY", 0)
    for k in range(1, 5):
        work = tmp_path / str(k)
        broken = backward(stream_of(tiny(name)), IDS, units, work)
        found = {}
        for _ in range(k):  # the last is given, but whether it was dealt with nobody knows
            found |= next(broken)[1]
        broken.close()
        rest = list(backward(stream_of(tiny(name)), IDS, units, work))
        assert len(rest) == 4 - (k - 1)
        for _, one in rest:
            found |= one
        assert same(found, unbroken), k


@pytest.mark.parametrize("stage", ["forward", "backward"])
@pytest.mark.parametrize("at", [0, 1])
def test_a_run_killed_anywhere_ends_alike(tiny, tmp_path, monkeypatch, stage, at):
    monkeypatch.setattr(parked, "IN_MEMORY", 0)
    stream = stream_of(tiny("llama-tied"))
    unbroken = gathered(stream)
    found = {}

    def killed(said, done, total):
        if (said, done) == (stage, at):
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        for _, one in backward(stream, IDS, stream.anatomy.units, tmp_path, tell=killed):
            found |= one
    for _, one in backward(stream, IDS, stream.anatomy.units, tmp_path):
        found |= one
    assert same(found, unbroken)


def test_another_seed_draws_other_labels(tiny):
    stream = stream_of(tiny("llama"))
    one, again, other = gathered(stream, seed=1), gathered(stream, seed=1), gathered(stream, seed=2)
    assert same(one, again)
    assert not any(torch.equal(one[key].g, other[key].g) for key in one if one[key].g.ndim == 2)


def test_batches_do_not_choose_the_labels(tiny):
    one, other = (gathered(stream_of(tiny("llama"), batch)) for batch in (10, 3))
    for key, f in one.items():
        assert_alike(other[key], f.a.double(), f.g.double())


def test_weights_that_break_the_forward_pass_are_named(tiny, tmp_path):
    network = whole_network(tiny("llama"))
    with torch.no_grad():
        network.model.layers[1].mlp.down_proj.weight[0, 0] = float("inf")
    network.save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"after model\.layers\.1 hold NaN or infinity"):
        gathered(stream_of(tmp_path))


# labels


def test_labels_are_drawn_as_the_model_expects():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    labels = sample_labels(logits.expand(20000, 4), torch.Generator().manual_seed(0))
    seen = torch.bincount(labels, minlength=4) / 20000
    # the largest standard error of a share is 0.0035
    torch.testing.assert_close(seen, logits.softmax(0), rtol=0, atol=0.0125)


def test_labels_are_the_same_again_and_in_pieces():
    logits = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    whole = sample_labels(logits, torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(0)
    assert torch.equal(torch.cat([sample_labels(part, random) for part in logits.split([1, 19, 30])]), whole)
    assert not torch.equal(sample_labels(logits, torch.Generator().manual_seed(2)), whole)


def test_labels_of_a_sure_model():
    logits = torch.full((100, 5), -1e4)
    logits[:, 3] = 0.0
    assert (sample_labels(logits, torch.Generator().manual_seed(0)) == 3).all()


# the damage they tell


@pytest.mark.parametrize(
    ("key", "length"),
    [
        ("lm_head.weight", 12),
        ("model.layers.1.mlp.down_proj.weight", 12),
        ("model.layers.1.mlp.up_proj.weight", 12),
        ("model.layers.0.mlp.down_proj.weight", 1),
        ("model.layers.0.self_attn.v_proj.weight", 1),
        ("model.embed_tokens.weight", 1),
    ],
)
def test_curvature_is_the_kl_of_a_small_change(tiny, key, length):
    """1/2 tr(G E A E') against the measured KL, in nats per token.

    Behind the last attention (and everywhere in texts of one token) no token's output depends on another's, so the
    gradients of tokens are uncorrelated, as the factors take them to be; and for an E of independent entries the two
    factors err from the sum over tokens only by chance. What is left is the noise of the labels and of E, 2 to 6% here.
    """
    ids = IDS.view(-1, length)
    stream, network = stream_of(tiny("llama"), batch=len(ids)), whole_network(tiny("llama")).double()
    unit, m = next((u, m) for u in stream.anatomy.units for m in u.matrices if m.key == key)
    passes = [gathered(stream, ids, units=(unit,), seed=seed)[key] for seed in range(8)]
    weight, random = network.get_parameter(place(m).parameter), torch.Generator().manual_seed(7)
    predicted = measured = 0.0
    with torch.no_grad():
        plain = network(ids).logits.log_softmax(-1)
        for _ in range(8):
            e = torch.randn(weight.shape, generator=random, dtype=torch.float64) * 3e-3
            weight += e
            cut = network(ids).logits.log_softmax(-1)
            weight -= e
            measured += float(F.kl_div(cut, plain, reduction="sum", log_target=True)) / ids.numel()
            predicted += sum(float(damage(e, f.a, f.g)) for f in passes) / len(passes)
    assert predicted == pytest.approx(measured, rel=0.15)


# ---------------------------------------------------------------------------------------------------- convolutions


def test_positions_of_an_example_add_up_before_they_are_squared():
    """By hand: two positions, one input and one output; the gradient of the weight is g1 x1 + g2 x2."""
    matrix = Matrix("w", 1, 1, "w")
    collector = Collector((matrix,))
    collector("w", torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [4.0]]]))
    found = collector.factors(1)["w"]
    assert float(found.a * found.g) == pytest.approx((3 + 8) ** 2)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_grouped_convolution_sees_its_own_columns(groups):
    torch.manual_seed(0)
    net = torch.nn.Conv2d(4, 4, 3, padding=1, groups=groups)
    matrix = Matrix("weight", 4, 36 // groups, "")
    collector = Collector((matrix,))
    x = torch.randn(5, 4, 6, 6)
    with watch(net, [matrix], gradients=collector):
        net(x).square().sum().backward()
    found = collector.factors(5)["weight"]
    a, g = torch.zeros(matrix.cols, matrix.cols), torch.zeros(4, 4)
    for one in x:  # one example at a time, by autograd alone
        net.zero_grad()
        net(one[None]).square().sum().backward()
        v = net.weight.grad.flatten(1)
        a, g = a + v.T @ v, g + v @ v.T
    assert torch.allclose(found.a, a / a.trace() * matrix.cols, rtol=1e-3, atol=1e-4)
    assert torch.allclose(found.g * matrix.cols, g / 5, rtol=1e-3, atol=1e-3)
