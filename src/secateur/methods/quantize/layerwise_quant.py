"""Whole blocks at one of two widths: the blocks that change their input most keep the higher one.

Paper: Dumitru et al., Layer-Wise Quantization: A Pragmatic and Effective Method for Quantizing LLMs Beyond Integer
    Bit-Levels (arXiv 2406.17415, 2024)
Wing: quantize
Shape: cut
Applies to: the blocks of a transformer, with any rounding behind it
Use: secateur plan MENU --budget "3 bits/weight" --allocate layerwise-quant

Two scores rank blocks. LIM compares the hidden states that enter and leave a block and needs data; ZD counts large
weights and needs none. Both are ranks and no damages, so they choose between two edits and no more.

Where we differ: the paper gives the top k blocks the high width with k from equal block sizes; here k is the largest
that keeps to the budget in true bytes. What lies outside the blocks takes the high edit where it can.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.parts.allocate import Question, written
from secateur.parts.edits import parse, text
from secateur.types import Allocator, Budget, BudgetError, Menu, Plan, PlanError


def lim(entering: Tensor, leaving: Tensor) -> float:
    """Layer input modification: minus the cosine of the hidden states around a block, mean over tokens; in [-1, 1].

    Both are [..., tokens, width]. Higher is more important; -1 is a block that changes nothing.
    """
    cosine = torch.nn.functional.cosine_similarity(entering.double(), leaving.double(), dim=-1)
    return -float(cosine.mean())


def zd(weights: Iterable[Tensor]) -> float:
    """Z-score distribution: the share of a block's weights more than one standard deviation above their mean.

    One-sided. LOWER is more important: 0.1587 for normal weights, less where outliers carry the spread.
    """
    held = [w.detach().double() for w in weights]
    n = sum(w.numel() for w in held)
    mean = sum(float(w.sum()) for w in held) / n
    variance = sum(float((w - mean).square().sum()) for w in held) / n
    return sum(int((w > mean + variance**0.5).sum()) for w in held) / n


#: which way each score counts: +1 where higher is more important
SIGN = {"lim": 1.0, "zd": -1.0}


@dataclass(frozen=True)
class LayerwiseQuant:
    """Blocks in the order of a `note` of the menu; the most important get `high`, the rest `low`.

    Left empty, `low` and `high` are the two edits that bracket the budget when all units have them.
    """

    note: str = "lim"
    high: str = ""
    low: str = ""

    def __call__(self, menu: Menu, budget: Budget) -> Plan:
        question = Question.of(menu, budget)
        question.floor()  # raises, with what it would take, when nothing at all fits
        low, high = self._pair(question)
        score = self._scores(menu)
        ranked = sorted(score, key=lambda block: (-score[block], block))
        places = {block: [u for u, unit in enumerate(menu.units) if unit.block == block] for block in ranked}
        edits = low.copy()
        outside = [u for u, unit in enumerate(menu.units) if unit.block is None]
        edits[outside] = high[outside]
        best = edits.copy() if question.fits(edits) else None
        for block in ranked:
            edits[places[block]] = high[places[block]]
            if not question.fits(edits):
                break
            best = edits.copy()
        if best is None:
            edit = f"`{text(menu.edits[low[0]])}` in every block"
            raise BudgetError(f"{edit} does not fit {written(budget)}", "give a cheaper `low`, or cut the head as well")
        return question.answer(best, "layerwise-quant")

    def _scores(self, menu: Menu) -> dict[int, float]:
        """Importance by block, higher is more: the mean of its units' notes."""
        if self.note not in SIGN or self.note not in menu.notes:
            known = [name for name in SIGN if name in menu.notes]
            hint = (
                f"it has {', '.join(known)}"
                if known
                else "give it the blocks' `lim` or `zd`, or use the allocator `lagrange`"
            )
            raise PlanError(f"this menu has no note `{self.note}` to rank blocks by", hint)
        notes = SIGN[self.note] * np.asarray(menu.notes[self.note], dtype=float)
        blocks = sorted({unit.block for unit in menu.units if unit.block is not None})
        return {b: float(np.mean([notes[u] for u, unit in enumerate(menu.units) if unit.block == b])) for b in blocks}

    def _pair(self, question: Question) -> tuple[np.ndarray, np.ndarray]:
        """The low and the high edit of every unit; one that cannot have it takes its mildest."""
        menu, cost = question.menu, question.cost[0]
        offered = np.isfinite(menu.damage) & np.all([np.isfinite(c) for c in question.cost], axis=0)
        mildest = np.where(offered, menu.damage, np.inf).argmin(1)
        everywhere = [np.where(offered[:, e], e, mildest) for e in range(len(menu.edits))]
        if bool(self.low) != bool(self.high):
            raise PlanError("layerwise-quant needs both `low` and `high`, or neither", "write both as edits")
        if self.low:
            low, high = (self._place(menu, words) for words in (self.low, self.high))
            return everywhere[low], everywhere[high]
        rows = np.arange(len(menu.units))
        price = [cost[rows, edits].sum() for edits in everywhere]
        fitting = [e for e in range(len(price)) if question.fits(everywhere[e])]
        low = max(fitting, key=lambda e: (price[e], -e)) if fitting else int(np.argmin(price))
        above = [e for e in range(len(price)) if price[e] > price[low]]
        high = min(above, key=lambda e: (price[e], e)) if above else low
        return everywhere[low], everywhere[high]

    @staticmethod
    def _place(menu: Menu, words: str) -> int:
        edit = parse(words)
        if edit not in menu.edits:
            raise PlanError(f"`{words}` is not on this menu", f"it has {', '.join(text(one) for one in menu.edits)}")
        return menu.edits.index(edit)


layerwise_quant: Allocator = LayerwiseQuant()
