"""Damage that others have measured and published: real models with one tensor lowered, whole models, mixed recipes.

The tables are those of the GGUF Tool Suite by Thireus and its contributors (../shared/data/allocation). They say what
the KL to the original becomes when one tensor alone goes to a poor type, and when every tensor goes to one type; and
for some fifty mixed recipes, which type every tensor got and which perplexity that reached, on another text.

What one tensor costs at the other types is not in the tables (but for one model). It is taken from the whole models:
a tensor's share of the damage is the same at every type, and the whole at one type is what was measured there,

    damage of a recipe = sum over tensors of share * whole KL at the tensor's type.

So uniform recipes come out as measured, as they do after our own survey's probes; `shares` says how shares are found.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from secateur.types import Matrix, Menu, Unit

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "allocation"
#: types made for ternary models: on others they blow up, and no recipe has them
TERNARY = ("iq1_bn", "iq2_bn", "iq2_bn_r4")


@dataclass(frozen=True)
class Stored:
    """The edit `everything in this type`."""

    qtype: str
    bits: float

    def cost(self, unit: Unit) -> dict[str, float]:
        return {"payload": round(unit.size * self.bits / 8)}


@dataclass(frozen=True)
class Recipe:
    """A mixed recipe as published: the type of every tensor, in the model's order, and the perplexity it reached."""

    name: str
    perplexity: float
    types: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """All that is known of one model. `singles[type]` is KL by tensor (nan where it was not measured), `whole[type]`
    that of the model all in one type, `bits[type]` per weight."""

    model: str
    tensors: tuple[str, ...]
    kinds: tuple[str, ...]
    sizes: np.ndarray
    singles: dict[str, np.ndarray]
    whole: dict[str, float]
    bits: dict[str, float]
    recipes: tuple[Recipe, ...]

    @cached_property
    def reference(self) -> str:
        """The type at which singles are taken as shares."""
        return next(iter(self.singles)) if len(self.singles) == 1 else "iq1_kt"

    @cached_property
    def types(self) -> tuple[str, ...]:
        """What a plan may choose from, from the cheapest; of types of one size the mildest."""
        best: dict[float, str] = {}
        for name in sorted(set(self.whole) - set(TERNARY), key=self.whole.__getitem__):
            best.setdefault(self.bits[name], name)
        return tuple(best[bits] for bits in sorted(best))

    def shares(self, qtype: str | None = None) -> np.ndarray:
        """Each tensor's part of the damage, from the singles at one type; they sum to one.

        The least KL of any tensor is what the run shows when next to nothing was changed, and is taken off.
        """
        kl = self.singles[qtype or self.reference]
        kl = np.where(np.isnan(kl), np.nanmedian(kl), kl)
        return (kl - kl.min()) / (kl - kl.min()).sum()

    def payload(self, types: tuple[str, ...]) -> float:
        """Bytes of the tensors."""
        return float(sum(round(n * self.bits[q] / 8) for n, q in zip(self.sizes.tolist(), types, strict=True)))

    def predicted(self, types: tuple[str, ...], shares: np.ndarray | None = None) -> float:
        """Expected KL of a recipe, nats per token."""
        whole = np.array([self.whole[q] for q in types])
        return float(((self.shares() if shares is None else shares) * whole).sum())

    def menu(self, types: tuple[str, ...]) -> Menu:
        """Every tensor against these types."""
        edits = tuple(Stored(q, self.bits[q]) for q in types)
        names = tuple(
            Unit(name, kind, (Matrix(name, int(n) // 32, 32, "x"),))
            for name, kind, n in zip(self.tensors, self.kinds, self.sizes, strict=True)
        )
        payload = np.array([[edit.cost(unit)["payload"] for edit in edits] for unit in names], dtype=float)
        damage = self.shares()[:, None] * np.array([self.whole[q] for q in types])
        return Menu(names, edits, {"payload": payload}, damage, 0 * damage, {"payload": 0.0}, int(self.sizes.sum()))


def read() -> list[Published]:
    """All models of the tables, none where the folder is absent."""
    if not FOLDER.is_dir():
        return []
    damage, whole = _rows("gguf_tensor_damage.csv.gz"), _rows("gguf_whole_model.csv")
    bits = {row["qtype"].lower(): float(row["bits_per_weight"]) for row in _rows("gguf_qtype_bits.csv")}
    types: dict[str, dict[str, str]] = {}
    for row in _rows("gguf_recipes_tensors.csv.gz"):
        types.setdefault(row["recipe"], {})[row["tensor"]] = row["qtype"].lower()
    found = []
    for model in dict.fromkeys(row["model"] for row in damage):
        mine = [row for row in damage if row["model"] == model]
        about = {row["tensor"]: row for row in mine}
        kl = {(row["qtype"], row["tensor"]): float(row["kld"]) for row in mine if row["kld"]}
        singles = {q: np.array([kl.get((q, t), np.nan) for t in about]) for q in dict.fromkeys(q for q, _ in kl)}
        wholes = {
            row["qtype"].lower(): float(row["kld"])
            for row in whole
            if row["model"] == model and row["kld"] and row["qtype"].lower() in bits
        }
        recipes = [
            Recipe(row["recipe"], float(row["ppl"]), tuple(types[row["recipe"]][t] for t in about))
            for row in sorted(_rows("gguf_recipes.csv"), key=lambda row: float(row["computed_bpw"]))
            if row["model"] == model
        ]
        kinds = tuple(row["kind"] for row in about.values())
        sizes = np.array([float(row["elements"]) for row in about.values()])
        found.append(Published(model, tuple(about), kinds, sizes, singles, wholes, bits, tuple(recipes)))
    return found


def _rows(name: str) -> list[dict[str, str]]:
    with (gzip.open if name.endswith(".gz") else open)(FOLDER / name, "rt", newline="") as file:
        return list(csv.DictReader(file))
