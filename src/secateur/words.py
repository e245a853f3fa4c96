"""How numbers are said, in the terminal as on the page: amounts, sizes, nats, times, caps and reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: of several capped resources the one that is shown first: what computing and memory take, then the file
FIRST = ("flops", "kv", "seconds", "bytes", "bits_per_weight")

#: how each resource is called
_CALLED = {
    "bits_per_weight": "bits per weight",
    "bits_per_byte": "bits per byte",
    "kl": "KL",
    "rise": "rise of the loss",
    "peak_rss_bytes": "memory at most",
    "kv": "cache bytes per token",
}


def called(resource: str) -> str:
    """The name of a resource or of a measurement for people."""
    return _CALLED.get(resource, resource)


def number(resource: str, value: float) -> str:
    """An amount as its resource is written: whole bytes, bits to three places."""
    if resource == "seconds":
        return f"{1e3 * value:.4g} ms"
    return f"{value:.3f}" if resource == "bits_per_weight" else f"{value:.4g}" if value < 100 else f"{value:,.0f}"


def amount(resource: str, value: float) -> str:
    """An amount of what a budget caps, short and with its unit: `7.57 MB`, `40.8 MFLOPs`, `3.500 bits per weight`."""
    if resource == "bits_per_weight":
        return f"{value:.3f} bits per weight"
    if resource == "seconds":
        return f"{1e3 * value:.3g} ms"
    if resource == "flops":
        by, one = next((p for p in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if value >= p[1]), ("", 1.0))
        return f"{value / one:.3g} {by}FLOPs"
    return size(value) + (" of cache per token" if resource == "kv" else "")


def asked_first(resources: Iterable[str], caps: Mapping[str, float]) -> list[str]:
    """Resources in the order in which they are shown: first those that were capped, then as one counts."""
    order = {resource: at for at, resource in enumerate(FIRST)}
    return sorted(resources, key=lambda one: (one not in caps, order.get(one, len(order)) if one in caps else 0))


def budgets(texts: Iterable[str]) -> dict[str, str]:
    """Budgets as a person writes them: the exact `7_566_216 bytes` of a file becomes `7.57 MB`.

    What a person has written stays; two that would read alike say their exact numbers as well.
    """
    said = {text: ", ".join(map(_short, text.split(", "))) for text in texts}
    alike = [short for short in said.values() if list(said.values()).count(short) > 1]
    return {text: f"{short} ({text.replace('_', ',')})" if short in alike else short for text, short in said.items()}


def _short(part: str) -> str:
    found = re.fullmatch(r"(\d{1,3}(?:_\d{3})+) (bytes|flops)", part)
    return amount(found[2], float(found[1])) if found else part


def size(value: float) -> str:
    """Bytes as people say them, in powers of ten: `7.47 MB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} bytes"


def nats(value: float | None) -> str:
    """Nats per token to three figures that count, and no more than five places."""
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) >= 0.01 else f"{value:.5f}"


def give_or_take(value: float, error: float | None) -> str:
    """A number and, where there is one, its standard error."""
    return nats(value) if error is None else f"{nats(value)} ± {nats(error)}"


def seconds(number: float) -> str:
    """How long, as people say it: `0.4 s`, `38 s`, `2 min 5 s`, `1 h 10 min`."""
    if number < 9.95:
        return f"{number:.1f} s"
    whole = round(number)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def caps(budget: Mapping[str, Any]) -> dict[str, float]:
    """The caps of a budget in absolute numbers: as a plan has worked them out, or as its words name them.

    A share of the uncut network is none until a plan has worked it out.
    """
    from secateur.types import Budget, BudgetError

    found = {resource: float(cap) for resource, cap in budget.items() if isinstance(cap, int | float) and cap > 0}
    try:
        return found or dict(Budget.parse(str(budget.get("asked", ""))).caps)
    except BudgetError:
        return {}


def capped(budget: str) -> tuple[str, ...]:
    """The resources that a budget's words name; none where they are no budget."""
    from secateur.types import Budget, BudgetError

    try:
        found = Budget.parse(budget)
    except BudgetError:
        return ()
    return (*found.caps, *found.share)


def by_reason(entries: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """What was left alone, gathered by the reason."""
    out: dict[str, list[str]] = {}
    for entry in entries:
        out.setdefault(entry["reason"], []).append(entry["unit"])
    return out


def loaded(export: Mapping[str, Any]) -> str:
    """Whether the exported file has been seen to load, where, and how near its logits came."""
    if not export.get("verified_in"):
        return "not checked in a runtime"
    wrong = export.get("logit_error")
    exact = "" if wrong is None else f", logits within {wrong:.1e}" if wrong else ", logits equal"
    return f"seen to load in {export['verified_in']}{exact}"
