"""Is the best share of training with rounded weights far above a tenth, and does it grow with the budget?

    PYTHONPATH=src python -m benchmarks.claims.compute-optimal-qat

A Llama of two blocks and width 16 a seed, on the bytes of Python's library: a share of the steps with its matrices
rounded to 2 bits in the forward pass (scales for 16 weights each, the gradient passed through), the others before in
full precision; one warm-up, one decay over the last fifth whatever is rounded then. The loss is that of the rounded
network on text it has not seen. Measured: the loss with the share that the paper's law names (of a tenth, a quarter, a
half and three quarters the nearest) against that with a tenth, and the share that was best at the larger budget against
the one that was at the smaller.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from benchmarks import harness, tiny
from secateur.maths.grids.affine import Affine
from secateur.maths.rounding import nearest
from secateur.methods.laws.compute_optimal_qat import best_fraction

BITS, GROUP, BATCH, WIDTH = 2, 16, 4, 16
BUDGETS, SHARES = (100, 600), (0.1, 0.25, 0.5, 0.75)
ABOUT: dict[str, Any] = {}


class Rounded(nn.Module):
    """A weight as the grid has it; the gradient passes as if it were the weight itself."""

    def forward(self, weight: Tensor) -> Tensor:
        held = weight.detach()
        return weight + (nearest(held, Affine(BITS, GROUP).fit(held)) - held)


def rate(step: int, steps: int) -> float:
    return 3e-3 * min((step + 1) / 50, 1.0, (steps - step) / (0.2 * steps))


@cache
def loss(seed: int, steps: int, share: float) -> float:
    """Nats per token of the rounded network after this plan."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 256}
    model = LlamaForCausalLM(
        LlamaConfig(**shape, hidden_size=WIDTH, intermediate_size=3 * WIDTH, max_position_embeddings=tiny.WINDOW)
    )
    train, _, unseen = _text()
    adam = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(steps):
        if step == round((1 - share) * steps):
            for part in tiny.linears(model).values():
                parametrize.register_parametrization(part, "weight", Rounded())
        for group in adam.param_groups:
            group["lr"] = rate(step, steps)
        batch = tiny.windows(train, BATCH, seed * 100_000 + step)
        model(batch, labels=batch).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
    measure = tiny.windows(unseen, 128, 5000)
    found = tiny.loss(tiny.logits(model, measure), measure)
    ABOUT.setdefault(f"{steps} steps, {share:.0%} rounded", []).append(round(found, 4))
    return found


@cache
def _text() -> tuple[Tensor, Tensor, Tensor]:
    return tiny.text()


def law(steps: int) -> float:
    """The share of the grid that is nearest to the one that the paper's constant gives."""
    weights = 2 * (4 * WIDTH * WIDTH + 3 * WIDTH * 3 * WIDTH)
    named = best_fraction(weights, steps * BATCH * tiny.WINDOW, BITS)
    ABOUT[f"{steps} steps, the law names"] = round(named, 3)
    return min(SHARES, key=lambda share: abs(share - named))


def named(seed: int, steps: int) -> tuple[float, float]:
    return loss(seed, steps, law(steps)), loss(seed, steps, SHARES[0])


def moves(seed: int) -> tuple[float, float]:
    """The best share of the larger budget, and of the smaller."""
    large, small = (min(SHARES, key=lambda share: loss(seed, steps, share)) for steps in reversed(BUDGETS))
    return large, small


if __name__ == "__main__":
    ask = {"seeds": 3, "about": ABOUT, "measure": "difference"}
    law(BUDGETS[0])
    text = "the share that the law names for the larger budget loses less than a tenth"
    harness.claim("compute-optimal-qat", text, lambda seed: named(seed, BUDGETS[1]), **ask)
    text = "the best share is larger for six times the budget"
    harness.claim("compute-optimal-qat", text, moves, better="higher", **ask)
