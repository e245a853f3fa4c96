"""`secateur demo`: the whole job on a small real model, with nothing to bring along."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.options import Device, Json, Seed

if TYPE_CHECKING:
    from rich.console import RenderableType

BUDGETS = ["4.25 bits/weight", "3.5 bits/weight", "3 bits/weight"]
#: the one of them that is carried out
CHOSEN = 1
SAMPLES, SEQ_LEN = 128, 128


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder for the model and everything made of it.")] = Path(
        "secateur-demo"
    ),
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Make a small language model on this machine and cut it: no arguments, no downloads, three minutes on two cores.

    The model is trained once, on Python's own library, and kept; the second time it is there at once.
    """
    from secateur.cli import show
    from secateur.cli.frame import again, job

    with job(as_json, out, resumes=True) as work:
        first = "taking up the model in" if (out / "model").exists() else "training a model on Python's library in"
        work.say(f"{first} {out}; then one survey, plans for {', '.join(BUDGETS)}, and a cut to {BUDGETS[CHOSEN]}")
        from secateur.cut import apply, plan, survey
        from secateur.demo import prepare
        from secateur.parts.menus import save_plan
        from secateur.report import report

        model, calibration, heldout = prepare(out, seed, work.tell)
        how = {"samples": SAMPLES, "seq_len": SEQ_LEN, "seed": seed, "device": device, "tell": work.tell}
        menu = survey(str(model), str(calibration), out=out / "menu", **how)
        plans = plan(menu, BUDGETS)
        save_plan(plans[CHOSEN], out / "plan.yaml")
        result = apply(str(model), out / "plan.yaml", data=str(calibration), out=out / "cut", menu=out / "menu", **how)
        page = report(out / "cut", result | {"again": again()})
        frontier = {"plans": [show.in_short(made) for made in plans]}
        work.give({**frontier, "cut": result, "report": str(page)}, _page)
        words = ["secateur", "measure", model, out / "cut", "--data", heldout, "--against", model]
        work.then = shlex.join(map(str, words))


def _page(result: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from secateur.cli import show

    return Group(
        Text("one survey, three plans", "bold"),
        show.frontier(result),
        Text(f"the plan for {BUDGETS[CHOSEN]}, carried out", "bold"),
        show.cut(result["cut"]),
        Text(f" report    {result['report']}"),
    )
