"""Menus to plan from, and the rules of others to plan with: what the allocation benchmarks share."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np

from secateur.parts.allocate import Question
from secateur.parts.edits import parse
from secateur.types import Budget, Matrix, Menu, Plan, Unit

SHARED = Path(__file__).resolve().parents[2] / "shared"
GROUPS = {2: (128, 64, 32), 3: (128, 64, 32), 4: (128, 64, 32), 5: (128, 64, 32), 6: (128, 64, 32), 8: (128, 64, 32)}
EDITS = [f"int(bits={bits}, group={group})" for bits, groups in GROUPS.items() for group in groups] + [
    "fp8()",
    "keep()",
]


def made(units: int, edits: int, seed: int) -> Menu:
    """A menu like a language model's: sizes and sensitivities spread log-normally, damage near but not on 4^-bits."""
    rng = np.random.default_rng(seed)
    size = 128 * np.round(np.exp(rng.normal(10, 1, units)))
    words = [EDITS[i] for i in np.unique(np.linspace(0, len(EDITS) - 1, edits).astype(int))]
    chosen = tuple(parse(word) for word in words)
    bits = np.array(
        [
            getattr(edit, "bits", {"fp8()": 8, "keep()": 16}.get(word, 0))
            for edit, word in zip(chosen, words, strict=True)
        ]
    )
    group = np.array([getattr(edit, "group", 0) for edit in chosen])
    per_weight = bits + np.where(group > 0, 16 / np.maximum(group, 1), 0)
    payload = np.round(size[:, None] * per_weight / 8)
    fine = np.where(group > 0, (np.maximum(group, 1) / 128.0) ** 0.25, 1.0)
    damage = np.exp(rng.normal(0, 1.5, (units, 1))) * size[:, None] / size.sum() * 4.0**-bits * fine
    damage = damage * np.exp(rng.normal(0, 0.2, damage.shape))
    damage[:, -1] = 0
    names = tuple(
        Unit(f"unit.{i}", "linear", (Matrix(f"unit.{i}", int(s) // 128, 128, "x"),)) for i, s in enumerate(size)
    )
    return Menu(names, chosen, {"payload": payload}, damage, 0.1 * damage, {"payload": 0.0}, int(size.sum()))


def measured(model: str = "Qwen3-4B-Instruct-2507") -> Menu | None:
    """A real one: KL of a model with one tensor lowered, published by the GGUF Tool Suite; None where it is absent."""
    folder = SHARED / "data" / "allocation"
    if not folder.is_dir():
        return None
    with (folder / "gguf_qtype_bits.csv").open() as file:
        bits = {row["qtype"]: float(row["bits_per_weight"]) for row in csv.DictReader(file)}
    kl: dict[str, dict[str, float]] = {}
    size: dict[str, int] = {}
    with gzip.open(folder / "gguf_tensor_damage.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            if row["model"] == model and row["kld"] and row["qtype"] in bits and bits[row["qtype"]] >= 1.6:
                kl.setdefault(row["tensor"], {})[row["qtype"]] = float(row["kld"])
                size[row["tensor"]] = int(row["elements"])
    types = sorted({t for row in kl.values() for t in row}, key=lambda t: bits[t])
    damage = np.array([[row.get(t, np.inf) for t in types] + [0.0] for row in kl.values()])
    weights = np.array(list(size.values()), dtype=float)
    payload = np.round(weights[:, None] * np.array([bits[t] for t in types] + [16.0]) / 8)
    names = tuple(Unit(name, "linear", (Matrix(name, n // 256, 256, "x"),)) for name, n in size.items())
    # the types are llama.cpp's; what they are called does not matter to an allocator
    edits = tuple(parse(word) for word in [*EDITS[: len(types)], "keep()"])
    return Menu(names, edits, {"payload": payload}, damage, 0 * payload, {"payload": 0.0}, int(weights.sum()))


def threshold(menu: Menu, budget: Budget) -> Plan:
    """The rule of Model-Optimizer's AutoQuantize by KL: every unit takes its cheapest edit under one limit on damage.

    The limit is the lowest that fits the budget, by bisection; nothing looks at the sum.
    """
    question = Question.of(menu, budget)
    floor = question.floor()
    order = np.argsort(question.cost[0], axis=1, kind="stable")
    damage = np.take_along_axis(np.where(np.isfinite(menu.damage), menu.damage, np.inf), order, 1)
    rows = np.arange(len(damage))

    def at(limit: float) -> np.ndarray:
        under = damage <= max(limit, 0.0)
        return order[rows, np.where(under.any(1), under.argmax(1), damage.argmin(1))]

    limits = np.unique(damage[np.isfinite(damage)])
    low, high = 0, len(limits) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if question.fits(at(limits[middle])) else (middle + 1, high)
    return question.answer(at(limits[low]), "threshold", floor)
