"""Drawing: the best slice of a supernet under each budget, written as a network of its own and seen to load."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from secateur import words
from secateur.cut.finish import put_in_place
from secateur.model.elastic import Slice, Supernet, counts, full, parse
from secateur.model.norms import normalised
from secateur.model.stream import device_of
from secateur.train.judging import judged, worn
from secateur.train.subject import Subject, elastic_of, open_subject
from secateur.types import Budget, BudgetError, DataError, ExportError

#: what a budget may cap; the cache of language models only
RESOURCES = ("bytes", "bits_per_weight", "flops", "kv")
#: slices that are measured for a budget, at most: of more the largest
MOST = 12

Spent = dict[Slice, dict[str, float]]


def draw(
    model: str,
    budgets: Sequence[str],
    *,
    data: str | None = None,
    out: str | Path | None = None,
    elastic: str = "",
    samples: int | None = 64,
    seq_len: int | None = None,
    seed: int = 0,
    device: str | None = None,
    tell: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """One row a budget: the slice, what it spends, and, with `data`, its loss beside that of the whole network.

    With data (held back from training) every slice within a budget that no other within it contains is measured, and
    the best is taken; without, that of most parameters. With `out` each is written, loaded and compared: into `out`
    itself, or, of several, into a folder of it each. `elastic` names axes of a network that was not trained so.
    Statistics of normalisations are renewed for every slice, so networks that have some need data.
    """
    tell, asked = tell or (lambda *_: None), [Budget.parse(text) for text in budgets]
    subject = open_subject(model, device_of(device), None)
    net = subject.supernet(parse(elastic) if elastic else elastic_of(model))
    if data is None and normalised(subject.network):
        raise DataError(f"{model} has batch normalisations, whose statistics are others in every slice", "give --data")
    spent = {one: subject.spent(net, one) for one in net.grid()}
    within = [_within(budget, spent, net) for budget in asked]
    held, known = None, None
    losses: dict[Slice, dict[str, float]] = {}
    if data is not None:
        first, held = subject.judged(data, seq_len, samples if subject.goal.each == "token" else None, seed)
        known = None if first is None else batches(subject, first)
        some = dict.fromkeys((*(one for fit in within for one in _maximal(fit, spent)), full(net.axes)))
        for at, one in enumerate(some):
            found = judged(subject, net, one, known, held)
            losses[one] = {"loss": found.loss, "loss_error": found.loss_error}
            losses[one] |= {"accuracy": found.accuracy} if subject.goal.each == "example" else {}
            tell("measuring slices", at + 1, len(some))
    rows = []
    for at, (budget, fit) in enumerate(zip(asked, within, strict=True)):
        one = _best(fit, spent, losses)
        row = {"budget": budget.text, "slice": dict(one.sizes), "counts": counts(net, one), **spent[one]}
        row |= losses.get(one, {})
        if out is not None:
            folder = Path(out) / _called(budget.text) if len(asked) > 1 else Path(out)
            row |= _written(subject, net, one, known, folder, spent[one]["bytes"])
            tell("writing slices", at + 1, len(asked))
        rows.append(row)
    every = full(net.axes)
    whole = {"slice": dict(every.sizes), "counts": counts(net, every), **spent[every], **losses.get(every, {})}
    return {"model": model, "data": data, "each": subject.goal.each, "whole": whole, "rows": rows, "seed": seed}


def _within(budget: Budget, spent: Spent, net: Supernet) -> list[Slice]:
    """The slices that a budget allows; a BudgetError that names the cheapest where there is none."""
    whole = spent[full(net.axes)]
    for resource in (*budget.caps, *budget.share):
        if resource not in whole:
            known = ", ".join(name for name in RESOURCES if name in whole)
            raise BudgetError(f"no slice has a price in `{resource}`", f"a budget may cap {known}")
    caps = {name: share * whole[name] for name, share in budget.share.items()}
    caps = {name: min(cap, caps.get(name, cap)) for name, cap in {**caps, **budget.caps}.items()}
    fit = [one for one, price in spent.items() if all(price[name] <= cap for name, cap in caps.items())]
    if fit:
        return fit
    least = {name: min(price[name] for price in spent.values()) for name in caps}
    name = next((name for name, cap in caps.items() if least[name] > cap), next(iter(caps)))
    one = min(spent, key=lambda s: (spent[s][name], s.sizes))
    said = f"the smallest slice ({one}) takes {words.amount(name, least[name])}, {least[name] / whole[name]:.0%}"
    raise BudgetError(
        f"no slice fits `{budget.text}`: {said} of the whole network",
        f"ask for at least {least[name]:.6g} {name}, or train with smaller sizes: --elastic width:8,depth:8",
    )


def _maximal(fit: Sequence[Slice], spent: Spent) -> list[Slice]:
    """Those within a budget that lie inside no other within it; of many those of most parameters."""

    def inside(small: Slice, large: Slice) -> bool:
        return small != large and all(share <= large.share(name) for name, share in small.sizes)

    found = [one for one in fit if not any(inside(one, other) for other in fit)]
    return sorted(found, key=lambda one: (-spent[one]["parameters"], one.sizes))[:MOST]


def _best(fit: Sequence[Slice], spent: Spent, losses: Mapping[Slice, Mapping[str, float]]) -> Slice:
    """That of the least loss among those measured, else of most parameters; ties go to fewer FLOPs."""
    measured = [one for one in _maximal(fit, spent) if one in losses]
    if measured:
        return min(measured, key=lambda one: (losses[one]["loss"], spent[one]["flops"], one.sizes))
    return max(fit, key=lambda one: (spent[one]["parameters"], -spent[one]["flops"], one.sizes))


def batches(subject: Subject, known: Any) -> list[torch.Tensor]:
    size = min(100, len(known))
    return [
        subject.inputs(subject.some(known, torch.arange(start, start + size)))
        for start in range(0, len(known) - size + 1, size)
    ]


@torch.no_grad()
def _written(
    subject: Subject, net: Supernet, one: Slice, known: Sequence[torch.Tensor] | None, folder: Path, quoted: float
) -> dict[str, Any]:
    """A slice in a folder of its own, put there when its runtime has read it and given the supernet's logits."""
    made = folder / ".work"
    shutil.rmtree(made, ignore_errors=True)
    inputs = subject.probe()
    with worn(subject, net, one, known):
        own = {name: value.detach().clone() for name, value in subject.network.state_dict().items()}
        logits = subject.logits(inputs)
    written = subject.write(own, made, net, one)
    if written != quoted:
        raise ExportError(f"the file was priced at {quoted:.0f} bytes and came to {written}", "please report this")
    seen = subject.verify(made, logits, inputs)
    put_in_place(made, folder, [file for file in made.iterdir() if file.suffix == ".safetensors"])
    return {"out": str(folder), "bytes_on_disk": written, **seen}


def _called(budget: str) -> str:
    """A budget as the name of a folder: `50% flops` is `50-flops`."""
    return re.sub(r"[^a-z0-9.]+", "-", budget.lower()).strip("-")
