"""One menu for bits, ranks, channels, heads and layers, against each kind alone, at equal bytes and at equal FLOPs.

    PYTHONPATH=src:benchmarks python benchmarks/joint.py --work /tmp/joint
    PYTHONPATH=src:benchmarks python benchmarks/joint.py --work /tmp/joint --only "60% flops, 3 MB"
    PYTHONPATH=src:benchmarks python benchmarks/joint.py --work /tmp/joint --format compressed-tensors --model lm-small

One survey of `lm-small` (or `--model`) in a format; then plans from the whole menu and from parts of it, each carried
out and measured on windows that were held back (KL to the uncut model). `rank` and `bits` have surveys of their own. A
plan that was measured already, under another name, is not measured again. `quarter` takes a quarter of the MLP channels
and is measured on 64 windows of `heldout.txt`, the text of Torch-Pruning's figures in `../shared/peers`. Rows go into
benchmarks/joint.csv, pictures (of `packed`) into docs/guides. About half an hour on a free core.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import ROOT, stamp, write_rows

import secateur
from secateur.cut import apply, plan, survey
from secateur.measure import measure
from secateur.parts.edits import text
from secateur.parts.edits.channels import Channels
from secateur.parts.edits.drop import Drop
from secateur.parts.edits.heads import Heads
from secateur.parts.edits.keep import Keep
from secateur.report.pictures import alone, rivals
from secateur.types import BudgetError, Edit, Menu, Plan

TABLE, PICTURE = ROOT / "benchmarks" / "joint.csv", ROOT / "docs" / "guides"
SHARED = ROOT.parent / "shared"

#: what of the menu each contestant may take
KINDS: Mapping[str, Callable[[Edit], bool]] = {
    "joint": lambda edit: True,
    "bits": lambda edit: not isinstance(edit, Channels | Heads | Drop) and "rank(" not in text(edit),  # for `in_turn`
    "channels": lambda edit: isinstance(edit, Keep) or (isinstance(edit, Channels) and not edit.then),
    "shapes": lambda edit: isinstance(edit, Keep | Drop) or (isinstance(edit, Channels | Heads) and not edit.then),
    "layers": lambda edit: isinstance(edit, Keep | Drop),
}
#: who is asked for what, by model and format; a kind that cannot keep to a budget is left out
ASKED: Mapping[tuple[str, str], Mapping[str, Mapping[str, Sequence[str]]]] = {
    ("lm-small", "packed"): {
        "both": {"60% flops, 3 MB": ("joint", "shapes, then bits")},
        "flops": {
            "75% flops": ("joint", "shapes", "channels", "layers", "rank"),
            "55% flops": ("joint", "shapes", "channels", "rank"),
        },
        "bytes": {"3 MB": ("joint", "bits"), "12 MB": ("bits", "shapes", "rank")},
    },
    ("lm-small", "compressed-tensors"): {
        "both": {"60% flops, 3 MB": ("joint", "shapes, then bits")},
        "flops": {"75% flops": ("joint", "channels")},
        "bytes": dict.fromkeys(("3 MB", "2.6 MB"), ("bits", "joint", "by prediction")),
    },
    ("stories260k", "compressed-tensors"): {
        "both": {"70% flops, 170 KB": ("joint", "shapes, then bits")},
        "flops": {"80% flops": ("joint", "channels", "layers")},
        "bytes": {f"{bits} bits/weight": ("joint", "bits", "by prediction") for bits in (5, 4.25, 4, 3.75, 3.5, 3)},
    },
}


def only(menu: Menu, able: Callable[[Edit], bool]) -> Menu:
    """The menu with some of its edits."""
    mask = np.array([able(edit) for edit in menu.edits])
    return replace(menu, damage=np.where(mask, menu.damage, np.inf))


def in_turn(menu: Menu, budget: str) -> Plan:
    """Shapes for the FLOPs alone, and then, in those shapes, bits for the bytes."""
    (shaped,) = plan(only(menu, KINDS["shapes"]), [budget.partition(",")[0]])
    damage = menu.damage.copy()
    for u, unit in enumerate(menu.units):
        chosen = shaped.edits[unit.name]
        same = [type(e) is type(chosen) and e.keep == chosen.keep if isinstance(chosen, Channels | Heads)
                else e == chosen if isinstance(chosen, Drop) else KINDS["bits"](e) for e in menu.edits]  # fmt: skip
        damage[u, ~np.array(same)] = np.inf
    return plan(replace(menu, damage=damage), [budget])[0]


def by_prediction(menu: Menu, budget: str) -> Plan:
    """The plan of least expected damage, however small its lead."""
    return plan(replace(menu, error=np.zeros_like(menu.error), about={**menu.about, "common_error": 0.0}), [budget])[0]


def quarter(menu: Menu) -> Plan:
    """A quarter of the MLP channels of the whole network, with shares chosen by damage: nothing else is touched."""
    some = only(menu, KINDS["channels"])
    mlps = [u for u, unit in enumerate(menu.units) if unit.name.endswith(".mlp.*")]
    keep = menu.edits.index(Keep())
    flops = menu.cost["flops"]
    whole = flops[:, keep].sum() + menu.fixed["flops"]
    return plan(some, [f"{whole - 0.25 * flops[mlps, keep].sum():.0f} flops"])[0]


#: what the joint menu of a format holds
KINDS_OF = {"packed": "bits,channels,heads,drop,rank", "compressed-tensors": "bits,channels,heads,drop"}

#: how a contestant's plan is made, where not from a part of the menu alone
MADE = {"shapes, then bits": in_turn, "by prediction": by_prediction}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--model", default="lm-small", help="a folder of ../shared/models")
    asked.add_argument("--format", default="packed")
    asked.add_argument("--work", type=Path, required=True)
    asked.add_argument("--only", help="one budget, or `quarter`")
    words = asked.parse_args()
    words.data = str(SHARED / ("data/stories.txt" if words.model == "stories260k" else "data/lm/calib.txt"))
    where = words.work / f"{words.model}-{words.format}"
    menu = surveyed(words, KINDS_OF[words.format], where / "menu")
    if words.only in (None, "quarter") and words.format == "packed":
        told = carried(words, quarter(menu), where / "menu")
        models = [str(SHARED / "models" / words.model), str(words.work / "out")]
        rows = measure(models, SHARED / "data/lm/heldout.txt", samples=64)["rows"]
        ppl = {"ppl_before": f"{rows[0]['perplexity']:.3f}", "ppl": f"{rows[1]['perplexity']:.3f}"}
        keep(words, {"capped": "quarter", "budget": "25% of the MLP channels", "kind": "channels"}, told | ppl)
    known: dict[str, dict[str, Any]] = {}
    for cap, budgets in ASKED[words.model, words.format].items():
        for budget, kinds in budgets.items():
            for kind in kinds if words.only in (None, budget) else ():
                own = kind in ("rank", "bits")
                folder = where / (kind if own else "menu")
                mine = surveyed(words, kind, folder) if own else only(menu, KINDS.get(kind, KINDS["joint"]))
                try:
                    chosen = MADE[kind](menu, budget) if kind in MADE else plan(mine, [budget])[0]
                except BudgetError as why:
                    print(words.model, words.format, budget, kind, why, flush=True)
                    continue
                said = repr(sorted((name, text(edit)) for name, edit in chosen.edits.items()))
                known[said] = known.get(said) or carried(words, chosen, folder)
                keep(words, {"capped": cap, "budget": budget, "kind": kind}, known[said])
    if (words.model, words.format) == ("lm-small", "packed"):
        draw()


def surveyed(words: Any, edits: str, out: Path) -> Menu:
    return survey(str(SHARED / "models" / words.model), words.data, format=words.format, edits=edits, out=out)


def carried(words: Any, chosen: Plan, menu: Path) -> dict[str, Any]:
    """What a plan comes to."""
    model = str(SHARED / "models" / words.model)
    told = apply(model, chosen, data=words.data, out=words.work / "out", menu=menu, resume=False)
    shapes = {text(edit).partition(", then")[0].rstrip(")") + ")" for edit in chosen.edits.values()}
    return {
        "bytes": told["spent"]["bytes"],
        "flops": told["spent"]["flops"],
        "kv": told["spent"]["kv"],
        "kl_predicted": f"{told['kl_predicted']:.5f}",
        "kl": f"{told['kl']:.5f}",
        "kl_error": f"{told['kl_error']:.5f}",
        "loss_before": f"{told['loss_before']:.4f}",
        "loss": f"{told['loss_after']:.4f}",
        "seconds": f"{told['seconds']:.0f}",
        "shape": " ".join(sorted(one for one in shapes if one.startswith(("channels", "heads", "drop"))))
        if words.format != "packed"
        else "",
    }


def keep(words: Any, about: dict[str, str], told: Mapping[str, Any]) -> None:
    row = {"model": words.model, "format": words.format, **about, **told, **stamp()}
    write_rows(TABLE, [row], key=("model", "format", "capped", "budget", "kind"))
    print(row, flush=True)


def draw() -> None:
    """One picture for bytes and one for FLOPs."""
    with TABLE.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if float(row["kl"]) > 0]
        rows = [row for row in rows if (row["model"], row["format"]) == ("lm-small", "packed")]
    style = (Path(secateur.__file__).parent / "report" / "page.css").read_text()
    for by, others in (("bytes", ("bytes",)), ("flops", ("flops", "both"))):
        points = [
            {
                "contestant": row["kind"] + (", and 3 MB" if row["capped"] == "both" else ""),
                by: int(float(row[by])),
                "kl": float(row["kl"]),
                "kl_interval": [float(row["kl"]) + side * 1.96 * float(row["kl_error"]) for side in (-1, 1)],
            }
            for row in rows
            if row["capped"] in others and math.isfinite(float(row["kl_error"]))
        ]
        (PICTURE / f"joint-{by}.svg").write_text(alone(rivals(points, by), style))


if __name__ == "__main__":
    main()
