"""Half of the weights of `lm-small`'s linear layers gone: ours beside SparseGPT, Wanda and magnitude; shares by layer.

    PYTHONPATH=src python -m benchmarks.sparsity [--menu FOLDER] [--peer PYTHON] [--date 2026-11-26]

Every row keeps at most half of the weights inside the blocks. `magnitude`, `wanda` and `sparsegpt` (a short one of our
own, masks by column blocks of 128) and `one-sided`, `two-sided` (`--round`) have the same share everywhere; the others
are allocators that spend the bytes of the uniform `sparse(keep=0.5)`, each behind the same search and refit. `kl` and
its standard error over windows are nats per token on 96 windows of held-back text, in memory, in float32; `predicted`
is what the menu said before. With `--peer`, the Python of an environment with llm-compressor, its own SparseGPT and
Wanda are run on as many windows and measured on the same text (`../shared/peers`). Rows go into sparsity.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import torch
from benchmarks.harness import write_rows
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from secateur.cut import plan, survey
from secateur.cut.kept import stored_factors
from secateur.cut.opening import open_case
from secateur.maths import masks, scores
from secateur.maths.factor import damped
from secateur.maths.patterns import Pattern
from secateur.model.factors import Factors
from secateur.model.matrix import view
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.sparse import Sparse
from secateur.types import Edit

HERE = Path(__file__).parent
SHARED = HERE.parent.parent / "shared"
MODEL, CALIB, HELDOUT = SHARED / "models/lm-small", SHARED / "data/lm/calib.txt", SHARED / "data/lm/heldout.txt"
WIDTH, MEASURED = 256, 96
HALF, TWO_FOUR = Sparse(0.5), Sparse(n=2, m=4)
ALLOCATORS = ("lagrange", "rd-prune", "ecoflap", "owl", "global-mp")


def heldout() -> Tensor:
    """Windows spread evenly over the text: those that `../shared/peers` measures on."""
    ids = torch.tensor(AutoTokenizer.from_pretrained(MODEL)(HELDOUT.read_text(), add_special_tokens=False)["input_ids"])
    total = (len(ids) - 1) // WIDTH
    return torch.stack(
        [ids[j * WIDTH : (j + 1) * WIDTH] for j in (int((i + 0.5) * total / MEASURED) for i in range(MEASURED))]
    )


def loaded(menu: Path) -> dict[str, dict[str, tuple[Tensor, Factors]]]:
    """Weights and the survey's factors of every matrix inside the blocks, by unit."""
    case = open_case(str(MODEL), str(CALIB), "packed", None, None, 0, None, ("sparse",))
    out: dict[str, dict[str, tuple[Tensor, Factors]]] = {}
    for at, unit in enumerate(case.units):
        if unit.block is not None:
            found = stored_factors(menu / ".work", at, unit)
            assert found is not None, "a survey keeps its factors"
            with case.stream.loaded(case.stream.blocks[unit.block]):
                out[unit.name] = {
                    m.key: (view(case.stream.network, m).float().clone(), found[m.key]) for m in unit.matrices
                }
    return out


def sparsegpt(w: Tensor, a: Tensor, pattern: Pattern, width: int = 128) -> Tensor:
    """Frantar and Alistarh's: columns from the left, who stays chosen by OBS in blocks of columns (or groups of M)."""
    rest, out = w.double().clone(), torch.zeros_like(w)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(a.double(), 0.01)))
    r = torch.linalg.cholesky(inverse, upper=True)
    step = pattern.m or width
    for start in range(0, w.shape[1], step):
        own = slice(start, start + step)
        score = rest[:, own].square() / r.diagonal()[own].square()
        mask = masks.top(score, pattern.n, (1, pattern.m)) if pattern.m else masks.top(score, score.numel() // 2)
        for j in range(start, start + step):
            out[:, j] = rest[:, j] * mask[:, j - start]
            error = (rest[:, j] - out[:, j]) / r[j, j]
            rest[:, j:] -= error[:, None] * r[j, j:]
    return out


def plain(score: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Pattern], Tensor]:
    """A mask by score, row by row, and nothing refitted."""

    def cut(w: Tensor, a: Tensor, pattern: Pattern) -> Tensor:
        some = (pattern.n, (1, pattern.m)) if pattern.m else (w.shape[1] // 2, (1, w.shape[1]))
        return w * masks.top(score(w, a), *some)

    return cut


#: what others do, from the inputs' statistics alone
OTHERS = {
    "magnitude": lambda w, a, pattern: w * pattern.mask(w.abs()),
    "wanda": plain(scores.wanda),
    "sparsegpt": sparsegpt,
}


class Bench:
    """The network in memory, what it says uncut, and matrices that were settled before."""

    def __init__(self, menu: Path):
        self.network = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
        self.tokens, self.units, self.done = heldout(), loaded(menu), {}
        self.before = self.logits()

    @torch.no_grad()
    def logits(self) -> Tensor:
        return torch.cat([self.network(rows).logits.log_softmax(-1) for rows in self.tokens.split(8)])

    def settled(self, key: str, w: Tensor, f: Factors, edit: Edit, sides: int) -> Tensor:
        if isinstance(edit, Keep):
            return w
        if (key, edit, sides) not in self.done:
            form = edit.grid("float16")  # type: ignore[attr-defined]
            self.done[key, edit, sides] = form.settle(w, f.a.float(), f.g.float(), sides).values
        return self.done[key, edit, sides]

    def kl(self, cut: Callable[[str, str, Tensor, Factors], Tensor]) -> tuple[float, float, float]:
        """KL, its standard error over windows, and the share of the weights that is not zero."""
        kept, total, old = 0, 0, {}
        for unit, matrices in self.units.items():
            for key, (w, f) in matrices.items():
                values = cut(unit, key, w, f)
                old[key], held = w, self.network.get_parameter(key).data
                held.copy_(values)
                kept, total = kept + int((values != 0).sum()), total + values.numel()
        after = self.logits()
        by_window = (self.before.exp() * (self.before - after)).sum(-1).mean(1).double()
        for key, w in old.items():
            self.network.get_parameter(key).data.copy_(w)
        return float(by_window.mean()), float(by_window.std()) / len(by_window) ** 0.5, kept / total


def peer(python: str, method: str) -> Mapping[str, float]:
    """llm-compressor's own, in its own environment."""
    with tempfile.TemporaryDirectory() as folder:
        around = {**os.environ, "BENCH_OUT": f"{folder}/out.jsonl", "BENCH_SCRATCH": folder}
        script = SHARED / "peers/peer_llmcompressor.py"
        subprocess.run([python, script, method], env=around, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        return json.loads(Path(folder, "out.jsonl").read_text().splitlines()[-1])


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--menu", type=Path, default=Path(tempfile.gettempdir()) / "secateur-sparsity-menu")
    asked.add_argument("--peer")
    asked.add_argument("--date", default=date.today().isoformat())
    said = asked.parse_args()

    def told(who: str, what: str, kl: float, error: float | str, kept: float, more: str = "") -> None:
        row = {"date": said.date, "who": who, "what": what, "kl": f"{kl:.4f}", "error": error, "kept": f"{kept:.4f}"}
        row["error"] = f"{error:.4f}" if isinstance(error, float) else error
        write_rows(HERE / "sparsity.csv", [row | {"predicted": more}], key=("date", "who", "what"))
        print(row, more, flush=True)

    menu = survey(str(MODEL), str(CALIB), format="packed", over="linear", edits="sparse", out=said.menu)
    bench = Bench(said.menu)
    for edit in (HALF, TWO_FOUR):
        for who, way in OTHERS.items():
            told(who, str(edit), *bench.kl(lambda _u, _k, w, f, way=way, edit=edit: way(w, f.a.float(), edit.pattern)))
        for who, sides in (("one-sided", 1), ("two-sided", 2)):
            told(who, str(edit), *bench.kl(lambda _u, k, w, f, e=edit, s=sides: bench.settled(k, w, f, e, s)))
    for name in ALLOCATORS:
        (chosen,) = plan(menu, ["9 bits/weight"], name)
        found = bench.kl(lambda u, k, w, f, edits=chosen.edits: bench.settled(k, w, f, edits[u], 2))
        told(name, "9 bits/weight", *found, f"{chosen.about['kl_predicted']:.4f}")
    for method in ("sparsegpt-50", "wanda-50", "sparsegpt-2:4", "wanda-2:4") if said.peer else ():
        found = peer(said.peer, method)
        told(f"llm-compressor {method}", method.partition("-")[2], found["kl"], "", 1 - found["zeros"])


if __name__ == "__main__":
    main()
