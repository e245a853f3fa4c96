"""The words everything else is written in: units, edits, menus, budgets, plans, and the errors. No torch here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np


class SecateurError(Exception):
    """Something the user can mend: what is wrong and where, then what to do about it. The command line exits with 2."""

    def __init__(self, message: str, hint: str = ""):
        self.message, self.hint = message, hint
        super().__init__(f"{message}\nhint: {hint}" if hint else message)


class ModelError(SecateurError):
    """The model cannot be read, or cannot be cut."""


class DataError(SecateurError):
    """The text or the examples are missing, too few, or of the wrong kind."""


class PlanError(SecateurError):
    """A plan, menu or edit is unreadable, or belongs to another model."""


class ExportError(SecateurError):
    """The target format cannot hold this, or its runtime read back something else."""


class BudgetError(SecateurError):
    """No plan on the menu fits the budget."""


@dataclass(frozen=True)
class Matrix:
    """One linear map `rows x cols` (outputs x inputs) inside a stored tensor.

    `tensor` is the name in the checkpoint as the user has it; `index` picks an expert of a fused 3-D tensor and
    `transposed` says that the store holds `cols x rows` (GPT-2's Conv1D, some experts). `tap` names the module whose
    input is multiplied: matrices with the same tap see the same input, so they share one input statistic.
    `place` says where the network keeps the matrix when that is not under `tensor`'s own name (see `model/matrix.py`):
    `"model.layers.0.mlp.experts.gate_up_proj#3[0:64]"` is rows 0 to 63 of expert 3.
    `stored` is the tensor's shape where that is not `rows x cols` in its order: a convolution's kernel.
    """

    tensor: str
    rows: int
    cols: int
    tap: str
    index: int | None = None
    transposed: bool = False
    place: str = ""
    stored: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """The matrix's own name: the tensor's, and `#index` for one expert of many."""
        return self.tensor if self.index is None else f"{self.tensor}#{self.index}"

    @property
    def size(self) -> int:
        return self.rows * self.cols


@dataclass(frozen=True)
class Side:
    """One side of a part of a block (its attention, its MLP): what makes the part's channels, or what mixes them.

    `part` is the part's name; `by` is what it can lose: "channels", "heads" (a KV head with the query heads that read
    it), "experts", or "" where it goes whole or not at all; "block" is what goes with its whole block alone, the last
    of whose layers counts as what mixes. `per` says of each matrix how many rows (of what mixes: columns) one of these
    takes, section after section: `((2, 1, 1),)` for a tensor that holds q, k and v one below the other.
    `at` is its place among the part's layers, -1 for what mixes. `also` are stored tensors that go when all of it goes:
    norms before it, biases behind it. Of experts, `least` is how many a token is sent to, so that no fewer may be left,
    and `router` the module that sends it, on the side of what makes. `cached` are a head's rows of keys and values
    where one section holds them with its queries.
    """

    part: str
    by: str
    at: int = -1
    per: tuple[tuple[int, ...], ...] = ()
    also: tuple[str, ...] = ()
    least: int = 1
    router: str = ""
    cached: int = 0

    @property
    def mixes(self) -> bool:
        """Whether this side mixes what the others make."""
        return self.at < 0


@dataclass(frozen=True)
class Unit:
    """One thing that can be cut, with every matrix that must be cut alike (q/k/v, gate/up, all experts of a layer)."""

    name: str
    kind: str  # "linear", "experts", "embedding", "head", "conv", "channels"
    matrices: tuple[Matrix, ...]
    block: int | None = None  # which block of the network; None for the embedding and the head
    vectors: tuple[str, ...] = ()  # tensors with one number a channel, which go where channels go
    side: Side | None = None  # of a language model's unit that can lose channels or heads together with another

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(m.key for m in self.matrices)

    @property
    def size(self) -> int:
        """How many weights it holds."""
        return sum(m.size for m in self.matrices)


@runtime_checkable
class Edit(Protocol):
    """One way to cut one unit: a frozen dataclass of plain values whose `repr` can be read back (`edits.parse`)."""

    def cost(self, unit: Unit) -> dict[str, float]: ...


@dataclass(frozen=True)
class Menu:
    """Every unit against every edit: what it costs and what it is expected to damage.

    `cost[resource]`, `damage` and `error` are float64 arrays `units x edits`; `inf` marks an edit that this unit
    cannot have. Damage is the predicted rise of the loss in nats per token (per example for a classifier), `error`
    its standard error. `fixed[resource]` is what the rest of the file costs whatever is chosen. `weights` is the
    number of original parameters that bits per weight are divided by; the resource `payload` (bytes) is what they
    are counted from, so bits_per_weight = 8 * payload / weights.
    """

    units: tuple[Unit, ...]
    edits: tuple[Edit, ...]
    cost: Mapping[str, np.ndarray]
    damage: np.ndarray
    error: np.ndarray
    fixed: Mapping[str, float]
    weights: int
    notes: Mapping[str, np.ndarray] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)  # model fingerprint, format, scope, correction, samples ...
    #: the same rows and edits for the same network with fewer channels in its trunks, which all prices hang on
    narrower: tuple[Menu, ...] = ()

    def that_offers(self, chosen: Mapping[str, Edit]) -> Menu:
        """Of this menu and the narrower ones the one on which these edits can be had; itself where none is."""
        at = {edit: e for e, edit in reversed(list(enumerate(self.edits)))}
        places = [at.get(chosen[unit.name]) for unit in self.units if unit.name in chosen]
        rows = [u for u, unit in enumerate(self.units) if unit.name in chosen]
        for menu in (self, *self.narrower):
            if all(e is not None and np.isfinite(menu.damage[u, e]) for u, e in zip(rows, places, strict=True)):
                return menu
        return self


#: how a resource is written by people, and the factor to the menu's unit
_UNITS = {
    "b": ("bytes", 1.0),
    "byte": ("bytes", 1.0),
    "bytes": ("bytes", 1.0),
    "kb": ("bytes", 1e3),
    "mb": ("bytes", 1e6),
    "gb": ("bytes", 1e9),
    "tb": ("bytes", 1e12),
    "kib": ("bytes", 2.0**10),
    "mib": ("bytes", 2.0**20),
    "gib": ("bytes", 2.0**30),
    "bits/weight": ("bits_per_weight", 1.0),
    "bpw": ("bits_per_weight", 1.0),
    "bits": ("bits_per_weight", 1.0),
    "flops": ("flops", 1.0),
    "mflops": ("flops", 1e6),
    "gflops": ("flops", 1e9),
    "tflops": ("flops", 1e12),
    "kv": ("kv", 1.0),
    "b/token": ("kv", 1.0),
    "bytes/token": ("kv", 1.0),
    "kb/token": ("kv", 1e3),
    "mb/token": ("kv", 1e6),
    "kib/token": ("kv", 2.0**10),
    "mib/token": ("kv", 2.0**20),
    "s": ("seconds", 1.0),
    "ms": ("seconds", 1e-3),
    "us": ("seconds", 1e-6),
}


@dataclass(frozen=True)
class Budget:
    """Caps on one or several resources. `share[resource]` is relative to the uncut network, `caps[resource]` absolute.

    `flops` are per token (per example of an image model), `kv` the bytes of keys and values that a token leaves behind.

    >>> Budget.parse("4.25 bits/weight, 2 GB").caps
    {'bits_per_weight': 4.25, 'bytes': 2000000000.0}
    >>> Budget.parse("kv 24 KB/token, 60% flops").caps
    {'kv': 24000.0}
    """

    caps: Mapping[str, float] = field(default_factory=dict)
    share: Mapping[str, float] = field(default_factory=dict)
    text: str = ""

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read what people write: `"3.5 bits/weight"`, `"300 MB"`, `"60% flops, 2 GB"`, `"kv 24 KB/token"`,
        `"7_468_000"` (bytes).

        `%` is a share of the uncut network; decimal prefixes are powers of ten and `KiB`, `MiB`, `GiB` powers of two.
        """
        caps: dict[str, float] = {}
        share: dict[str, float] = {}
        hint = 'write it like "4.25 bits/weight", "300 MB", "60% flops" or several with commas between'
        for part in filter(None, (p.strip() for p in str(text).replace("_", "").split(","))):
            words = re.sub(r"^kv (.*\d *[kmi]*b)$", r"\1/token", part.lower()).removeprefix("kv ")
            found = re.fullmatch(r"(\d*\.?\d+(?:e[+-]?\d+)?)\s*(%?)\s*([a-z/ ]*)", words)
            if not found:
                raise BudgetError(f"cannot read the budget `{part}`", hint)
            number, percent, unit = (
                float(found[1]),
                found[2],
                found[3].strip().replace("bits per weight", "bits/weight"),
            )
            resource, factor = _UNITS.get(unit or "bytes", (None, 0.0))
            if resource is None:
                raise BudgetError(f"unknown unit `{unit}` in the budget `{part}`", hint)
            if not unit and not percent and number <= 32:  # nobody means so few bytes
                raise BudgetError(f"the budget `{part}` says no unit", f'say "{part} bits/weight", or "{part} MB"')
            target, value = (share, number / 100) if percent else (caps, number * factor)
            if value <= 0:
                raise BudgetError(f"the budget `{part}` must be above zero", hint)
            target[resource] = min(value, target.get(resource, value))
        if not caps and not share:
            raise BudgetError("the budget is empty", hint)
        return cls(caps, share, str(text).strip())

    def absolute(self, menu: Menu) -> dict[str, float]:
        """The caps in the menu's own resources, for the units alone: what is fixed is taken off.

        `bits_per_weight` becomes bytes of payload. A share is of the most expensive choice of every unit, which on
        every menu is the uncut one; of seconds, of which codes may take more, of what the uncut network was seen to
        take.
        """
        out: dict[str, float] = {}

        def cap(resource: str, value: float) -> None:
            if resource not in menu.cost:
                known = ", ".join(sorted(set(menu.cost) - {"payload"} | {"bits_per_weight"}))
                more = "; `secateur survey --clock` makes one that has" if resource == "seconds" else ""
                raise BudgetError(f"this menu has no resource `{resource}`", f"it knows {known}{more}")
            out[resource] = min(value - menu.fixed.get(resource, 0.0), out.get(resource, np.inf))

        for resource, value in self.caps.items():
            if resource == "bits_per_weight":
                cap("payload", value * menu.weights / 8)
            else:
                cap(resource, value)
        for resource, value in self.share.items():
            name = "payload" if resource == "bits_per_weight" else resource
            if name not in menu.cost:
                cap(name, value)
            if name == "seconds" and "uncut_seconds" in menu.about:
                cap(name, value * menu.about["uncut_seconds"])
                continue
            cost = np.where(np.isfinite(menu.cost[name]), menu.cost[name], -np.inf)
            cap(name, value * (cost.max(1).sum() + menu.fixed.get(name, 0.0)))
        return out

    def fixed_by(self, menu: Menu) -> Budget:
        """The same with shares as the amounts that they are of this menu's uncut network; for its narrower menus."""
        if not self.share:
            return self
        amounts = {name: cap + menu.fixed.get(name, 0.0) for name, cap in self.absolute(menu).items()}
        if "payload" in amounts:
            amounts["bits_per_weight"] = 8 * amounts.pop("payload") / menu.weights
        return Budget(amounts | {name: cap for name, cap in self.caps.items() if name not in self.share}, {}, self.text)


@dataclass(frozen=True)
class Plan:
    """One edit for every unit, what that spends, and what it is expected to damage.

    `spent` holds absolute numbers for the whole file: `bytes`, `bits_per_weight`, and what else the menu prices.
    `damage` and `error` are nats per token; `bound` is a proven floor under the damage of any plan within the budget.
    """

    edits: Mapping[str, Edit]
    spent: Mapping[str, float]
    damage: float
    error: float
    bound: float
    budget: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)


class Sum(Protocol):
    """A running statistic: two halves add up to the whole."""

    def update(self, x: Any, weight: Any = None) -> None: ...
    def __add__(self, other: Any) -> Any: ...


#: chooses one edit per unit; law: what it spends is within the budget, or BudgetError
Allocator = Callable[[Menu, Budget], Plan]
