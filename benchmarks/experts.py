"""Fewer experts: what was predicted, what is measured, and what they are worth beside bits, on a tiny Mixtral.

    PYTHONPATH=src:. python -m benchmarks.experts --work /tmp/experts

Four layers of eight experts, two chosen, really trained (`benchmarks/tiny.py`); one survey, format `packed`. All layers
with 6, 4 and 2 experts, left out and merged, all else as it is; then plans from the whole menu and from parts of it.
KL to the uncut model in nats per token, on windows held back. Rows go into benchmarks/experts.csv. Two minutes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.harness import ROOT, stamp, write_rows

from benchmarks import tiny
from secateur.cut import apply, plan, survey
from secateur.parts.edits import parse
from secateur.parts.edits.experts import Experts
from secateur.parts.edits.keep import Keep
from secateur.types import BudgetError, Edit, Menu, Plan

TABLE = ROOT / "benchmarks" / "experts.csv"
QUICK: dict[str, Any] = {"samples": 64, "seq_len": 128}
KINDS: Mapping[str, Callable[[Edit], bool]] = {
    "bits": lambda edit: not isinstance(edit, Experts),
    "experts": lambda edit: isinstance(edit, Keep) or (isinstance(edit, Experts) and not edit.then),
    "joint": lambda edit: True,
}
BUDGETS = ("60% bytes", "35% bytes", "22% bytes", "15% bytes", "12% bytes")


def tokenizer() -> Any:
    """One token a byte, by its own number, as the model was trained."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    words = {chr(byte): byte for byte in shown} | {chr(256 + at): byte for at, byte in enumerate(hidden)}
    found = Tokenizer(models.BPE(words, []))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=found)


def alike(menu: Menu, words: str) -> Plan:
    """One edit in every layer of experts, nothing else; damage by the menu."""
    edits = {unit.name: parse(words if "experts" in unit.name else "keep()") for unit in menu.units}
    return Plan(edits, {}, math.nan, math.nan, math.nan, "", dict(menu.about))


def expected(menu: Menu, words: str) -> float:
    at = [str(edit) for edit in menu.edits].index(words)
    return math.fsum(float(menu.damage[u, at]) for u, unit in enumerate(menu.units) if "experts" in unit.name)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--work", type=Path, required=True)
    work = asked.parse_args().work
    model, text = work / "model", work / "text.txt"
    tiny.trained(0, blocks=4, experts=8).half().save_pretrained(model)
    tokenizer().save_pretrained(model)
    text.write_bytes(bytes(tiny.text()[1].tolist()))
    menu = survey(str(model), str(text), format="packed", edits="bits,experts", out=work / "menu", **QUICK)

    def carried(chosen: Plan, predicted: float, **about: str) -> None:
        told = apply(str(model), chosen, data=str(text), out=work / "out", menu=work / "menu", resume=False, **QUICK)
        row = {**about, "bytes": told["spent"]["bytes"], "kl_predicted": f"{predicted:.5f}"}
        row |= {"kl": f"{told['kl']:.5f}", "kl_error": f"{told['kl_error']:.5f}"}
        row["edits"] = "; ".join(word for name, word in told["edits"].items() if ".experts." in name)
        print(row, flush=True)
        write_rows(TABLE, [row | stamp()], key=("asked", "kind"))

    for keep in (0.75, 0.5, 0.25):
        for merge in (False, True):
            words = str(Experts(keep, merge=merge))
            carried(
                alike(menu, words), expected(menu, words), asked=f"{keep:.0%} of the experts", kind=f"merge={merge}"
            )
    for budget in BUDGETS:
        for kind, able in KINDS.items():
            mask = np.array([able(edit) for edit in menu.edits])
            try:
                (chosen,) = plan(replace(menu, damage=np.where(mask, menu.damage, np.inf)), [budget])
            except BudgetError:
                continue  # experts alone do not go so far
            carried(chosen, float(chosen.about["kl_predicted"]), asked=budget, kind=kind)


if __name__ == "__main__":
    main()
