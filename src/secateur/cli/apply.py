"""`secateur apply`: carries a plan out, writes the file, and sees it load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.options import Data, Device, Fresh, Json, Model, Out, Round, Samples, Seed, SeqLen, stretches


def apply(
    model: Model,
    plan: Annotated[Path, typer.Argument(help="The file that `secateur plan` wrote.", show_default=False)],
    data: Data,
    out: Out,
    menu: Annotated[
        Path | None,
        typer.Option(help="The survey's folder: its statistics are used again, not gathered anew.", show_default=False),
    ] = None,
    round: Round = "two-sided",
    samples: Samples = None,
    seq_len: SeqLen = None,
    fresh: Fresh = False,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Carry a plan out: cut every unit as it says, write the file, load it in its runtime, and measure."""
    from secateur.cli import show
    from secateur.cli.frame import again, job

    with job(as_json, out, resumes=True) as work:
        work.say(f"cutting {model} as {plan} says, {round} rounding, {stretches(samples)} of {data}; it goes to {out}")
        from secateur.cut import apply as carry_out
        from secateur.report import report

        result = carry_out(
            model,
            plan,
            data=data,
            out=out,
            menu=menu,
            round=round,
            samples=samples,
            seq_len=seq_len,
            seed=seed,
            device=device,
            resume=not fresh,
            tell=work.tell,
        ) | {"again": again(), "menu": menu and str(menu.resolve())}
        work.give(result | {"report": str(report(out, result))}, show.cut)
