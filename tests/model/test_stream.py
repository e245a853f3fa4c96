"""Block by block is the whole: the same logits, the same gradients, for every family and on every device."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
import torch.nn.functional as F
import transformers

from secateur.model.checkpoint import open_checkpoint
from secateur.model.matrix import place
from secateur.model.stream import Stream
from secateur.model.watch import watch
from secateur.types import ModelError

IDS = torch.randint(3, 96, (5, 12), generator=torch.Generator().manual_seed(0))
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


def forward(stream: Stream):
    """Logits of all samples, and the hidden states before every block."""
    hidden = stream.embed(IDS)
    before = []
    for i, block in enumerate(stream.blocks):
        before.append(hidden.clone())
        with stream.loaded(block):
            hidden = stream.through(i, hidden)
    with torch.no_grad(), stream.tail() as tail:
        logits = torch.cat([tail(part.to(stream.device)) for part in hidden.split(2)])
    return logits.cpu(), [*before, hidden]


@pytest.mark.parametrize("device", DEVICES)
def test_forward(any_family, device):
    stream = Stream(open_checkpoint(any_family), device, batch=2)
    logits, _ = forward(stream)
    whole = transformers.AutoModelForCausalLM.from_pretrained(any_family, dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.allclose(logits, whole(IDS).logits, rtol=1e-4, atol=1e-4 if device == "cuda" else 1e-5)
    assert all(p.is_meta for p in stream.network.parameters())


@pytest.mark.parametrize("device", DEVICES)
def test_backward_from_the_last_block_to_the_first(any_family, device):
    stream = Stream(open_checkpoint(any_family), device, batch=2)
    _, before = forward(stream)
    labels = IDS[:2].to(stream.device)
    last = before[-1][:2].to(stream.device).requires_grad_(True)
    with stream.tail() as tail:
        F.cross_entropy(tail(last)[:, :-1].flatten(0, 1), labels[:, 1:].flatten()).backward()
    whole = transformers.AutoModelForCausalLM.from_pretrained(any_family, dtype=torch.float32).eval()
    whole(IDS[:2], labels=IDS[:2]).loss.backward()
    behind = last.grad
    for i in reversed(range(len(stream.blocks))):
        matrices = [m for unit in stream.anatomy.units if unit.block == i for m in unit.matrices]
        sums = defaultdict(float)

        def add(key, x, g, sums=sums):
            sums[key] += (g.T @ x).cpu()

        parked = before[i][:2].to(stream.device).requires_grad_(True)
        with stream.loaded(stream.blocks[i]), watch(stream.network, matrices, gradients=add):
            stream.call(i, parked).backward(behind)
        behind = parked.grad
        for matrix in matrices:
            where = place(matrix)
            truth = whole.get_parameter(where.parameter).grad
            truth = truth if where.index is None else truth[where.index]
            truth = truth.T if matrix.transposed else truth
            truth = truth[where.start : where.stop] if where.stop else truth
            if matrix.key in sums:
                assert torch.allclose(sums[matrix.key], truth, atol=1e-3 * truth.abs().max().item()), matrix
            else:  # an expert without a token
                assert truth.abs().max() == 0


@pytest.mark.parametrize("name", ["llama-tied", "opt-projected"])
def test_a_cut_of_a_tied_matrix_is_seen_by_the_head(tiny, name):
    stream = Stream(open_checkpoint(tiny(name)))
    (unit,) = [u for u in stream.anatomy.units if u.kind == "embedding"]
    (matrix,) = unit.matrices
    hidden = torch.randn(1, 4, 32)
    with torch.no_grad(), stream.tail(cut={matrix: torch.zeros(matrix.rows, matrix.cols)}) as tail:
        assert tail(hidden).abs().max() == 0
    with torch.no_grad(), stream.tail() as tail:
        assert tail(hidden).abs().max() > 0


def test_around_the_blocks_no_block_is_loaded(tiny):
    stream = Stream(open_checkpoint(tiny("llama")))
    with stream.loaded("model", "model.norm", "lm_head"):
        held = {name for name, p in stream.network.named_parameters() if not p.is_meta}
    assert held == {"model.norm.weight", "lm_head.weight"}


def test_a_network_without_blocks(tiny, monkeypatch):
    from dataclasses import replace

    from secateur.model import stream

    real = stream.anatomy
    monkeypatch.setattr(stream, "anatomy", lambda *args: replace(real(*args), blocks=()))
    with pytest.raises(ModelError, match="no list of blocks"):
        Stream(open_checkpoint(tiny("llama")))
