"""How well damage is predicted: random plans over the whole menu, predicted against measured.

    python benchmarks/damage.py MODEL DATA HELDOUT [--plans 20] [--over linear] [--csv benchmarks/damage.csv]

Plans are the best for a randomly tilted menu at budgets from 2.5 to 8 bits per weight: every unit's damages are
multiplied by a random number first, so that units get widths that no good plan would give them. Each is applied, loaded
back by transformers, and held against the original on text that neither the survey nor the cut has seen.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from harness import stamp, write_rows
from scipy.stats import spearmanr

from secateur.cut import plan
from secateur.cut.applying import apply
from secateur.cut.correcting import corrected
from secateur.cut.surveying import survey
from secateur.export._verify import load
from secateur.measure.compare import Comparison
from secateur.model.text import windows
from secateur.parts.allocate import price
from secateur.types import Budget, Menu, Plan


def tilted(menu: Menu, bits: float, random: np.random.Generator, spread: float = 1.0) -> Plan:
    """The plan that is best for wrong damages, priced by the right ones."""
    wrong = replace(menu, damage=menu.damage * np.exp(random.normal(0, spread, (len(menu.units), 1))))
    (chosen,) = plan(wrong, [f"{bits} bits/weight"])
    honest = price(menu, Budget.parse(f"{bits} bits/weight"), chosen.edits)
    return corrected(menu, honest)


def compare(folder: Path, reference: torch.nn.Module, tokens: torch.Tensor) -> Comparison:
    cut, out = load(folder)[0], Comparison()
    with torch.no_grad():
        for start in range(0, len(tokens), 8):
            batch = tokens[start : start + 8]
            out.update(cut(batch).logits, reference(batch).logits, batch)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("heldout")
    parser.add_argument("--plans", type=int, default=20)
    parser.add_argument("--over", default="linear")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--csv", default=str(Path(__file__).parent / "damage.csv"))
    args = parser.parse_args()
    random, rows = np.random.default_rng(0), []
    reference = load(Path(args.model))[0]
    context = getattr(reference.config, "max_position_embeddings", None)
    tokens, _ = windows(args.heldout, args.model, args.windows, context=context)
    with TemporaryDirectory() as place:
        menu = survey(args.model, args.data, out=f"{place}/menu", over=args.over, samples=args.samples)
        for at, bits in enumerate(np.linspace(2.5, 8.0, args.plans)):
            chosen = tilted(menu, round(float(bits), 3), random)
            out = Path(place) / "out"
            apply(args.model, chosen, data=args.data, out=out, menu=f"{place}/menu", samples=args.samples, resume=False)
            found = compare(out, reference, tokens)
            rows.append((chosen.damage, chosen.about["kl_predicted"], found.kl, found.rise))
            row = {
                "model": Path(args.model).name,
                "plan": at,
                "bits_per_weight": round(chosen.spent["bits_per_weight"], 4),
                "predicted": f"{chosen.damage:.6g}",
                "error": f"{chosen.error:.3g}",
                "kl_predicted": f"{chosen.about['kl_predicted']:.6g}",
                "kl": f"{found.kl:.6g}",
                "rise": f"{found.rise:.6g}",
                "rise_error": f"{found.rise_error:.3g}",
            }
            write_rows(Path(args.csv), [stamp() | row], key=("model", "plan"))
            print(row, flush=True)
    loss, divergence, kl, rise = np.array(rows).T
    for name, said, measured in (("kl", divergence, kl), ("rise", loss, rise)):
        ratio = np.median(measured / said)
        print(f"{name}: Spearman {spearmanr(said, measured)[0]:.4f}, median measured/predicted {ratio:.3f}")


if __name__ == "__main__":
    main()
