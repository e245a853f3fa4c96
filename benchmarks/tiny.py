"""A tiny language model, really trained, for claims that need one: bytes of Python's own library, eight blocks.

Training takes some seconds and is kept in the user's cache, so that claims share their models.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from secateur.maths import masks, scores

WINDOW = 128


def text() -> tuple[Tensor, Tensor, Tensor]:
    """Bytes to train on, to calibrate on and to measure on; no file is in two of them."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    piles: list[list[bytes]] = [[], [], []]
    for at, file in enumerate(files):
        piles[{0: 1, 1: 2}.get(at % 12, 0)].append(file.read_bytes())
    train, calibrate, measure = (torch.frombuffer(bytearray(b"\n".join(pile)), dtype=torch.uint8) for pile in piles)
    return train, calibrate, measure


def windows(stream: Tensor, count: int, seed: int) -> Tensor:
    """Stretches of text taken at random, [count, WINDOW]."""
    starts = torch.randint(len(stream) - WINDOW, (count,), generator=torch.Generator().manual_seed(seed))
    return torch.stack([stream[at : at + WINDOW] for at in starts]).long()


def trained(seed: int, blocks: int = 8, width: int = 64, steps: int = 300, experts: int = 0) -> Any:
    """A Llama of `blocks` blocks, or a Mixtral with so many experts in each of which two are chosen, trained from this
    seed; found again in the cache."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "secateur" / "claims"
    folder = home / f"tiny-{blocks}-{width}-{steps}-{seed}{f'-of-{experts}' if experts else ''}"
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.{os.getpid()}")
        _train(seed, blocks, width, steps, experts).save_pretrained(part)
        part.rename(folder)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def _train(seed: int, blocks: int, width: int, steps: int, experts: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": 256,
        "hidden_size": width,
        "num_hidden_layers": blocks,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": WINDOW,
    }
    if experts:
        balanced = {"num_local_experts": experts, "output_router_logits": True, "router_aux_loss_coef": 0.01}
        model: Any = MixtralForCausalLM(MixtralConfig(**shape, intermediate_size=width, **balanced))
    else:
        model = LlamaForCausalLM(LlamaConfig(**shape, intermediate_size=3 * width))
    stream, _, _ = text()
    learn(model, lambda step: windows(stream, 8, seed * 100_000 + step), steps)
    model.config.output_router_logits = False
    return model


def learn(model: Any, batches: Any, steps: int, rate: float = 4e-3, loss: Any = None) -> None:
    """Train in place; `batches(step)` gives windows, and `loss(batch)` what is to fall, else the loss of what comes
    next."""
    adam = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1)
    course = torch.optim.lr_scheduler.LambdaLR(adam, lambda at: min((at + 1) / 20, (steps - at) / (steps - 20)))
    for step in range(steps):
        batch = batches(step)
        (loss(batch) if loss else model(batch, labels=batch).loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        course.step()
        adam.zero_grad()


@torch.no_grad()
def logits(model: nn.Module, batch: Tensor) -> Tensor:
    return torch.cat([model(part).logits for part in batch.split(32)])


def loss(given: Tensor, batch: Tensor) -> float:
    """Nats per token."""
    return float(functional.cross_entropy(given[:, :-1].flatten(0, 1), batch[:, 1:].flatten()))


def divergence(given: Tensor, reference: Tensor) -> float:
    """KL of the reference to the given logits, nats per token."""
    p, q = (x.flatten(0, 1).double().log_softmax(-1) for x in (reference, given))
    return float((p.exp() * (p - q)).sum(-1).mean())


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers inside the blocks, by name."""
    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear) and ".layers." in name}


@torch.no_grad()
def grams(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """E[x x'] of every linear's inputs, float64."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def see(name: str):
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].flatten(0, -2).double()
            sums[name] = sums.get(name, 0) + x.mT @ x
            counts[name] = counts.get(name, 0) + len(x)

        return hook

    handles = [part.register_forward_pre_hook(see(name)) for name, part in linears(model).items()]
    try:
        logits(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: total / counts[name] for name, total in sums.items()}


def by_block(weights: Mapping[str, Tensor]) -> dict[int, list[str]]:
    """The names of every block's linears, in the order of the network."""
    found: dict[int, list[str]] = {}
    for name in weights:
        found.setdefault(int(name.partition(".layers.")[2].partition(".")[0]), []).append(name)
    return dict(sorted(found.items()))


def by_wanda(
    weights: Mapping[str, Tensor], grams: Mapping[str, Tensor], keep: Mapping[int, float]
) -> dict[str, Tensor]:
    """The weights under Wanda's masks, row by row, each block keeping its share."""
    return {
        name: weights[name]
        * masks.top(
            scores.wanda(weights[name], grams[name]),
            masks.count(keep[block], weights[name].shape[1]),
            (1, weights[name].shape[1]),
        )
        for block, names in by_block(weights).items()
        for name in names
    }


@contextmanager
def wearing(model: nn.Module, weights: dict[str, Tensor]) -> Iterator[None]:
    """The model with other weights in some of its linears, until the block ends."""
    parts = linears(model)
    kept = {name: parts[name].weight.data for name in weights}
    try:
        for name, weight in weights.items():
            parts[name].weight.data = weight.to(kept[name])
        yield
    finally:
        for name, weight in kept.items():
            parts[name].weight.data = weight
