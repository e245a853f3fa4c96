"""`secateur plan`: one edit for every unit, the best that fits the budget; seconds, from a menu."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.options import Allocate, Device, Json, Seed


def plan(
    menu: Annotated[Path, typer.Argument(help="The folder that `secateur survey` wrote.", show_default=False)],
    budget: Annotated[
        list[str],
        typer.Option(
            "--budget", "-b", help='"4.25 bits/weight", "300 MB" ...; several make a frontier.', show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The plan's file; several budgets make plan-1.yaml, plan-2.yaml ...", show_default=False
        ),
    ] = None,
    allocate: Allocate = "lagrange",
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Choose: the least damage that fits each budget, with a proven floor under it. A plan can be read and mended."""
    from secateur.cli import show
    from secateur.cli.frame import job

    with job(as_json, out) as work:
        work.say(f"planning {' and '.join(budget)} from {menu}")
        from secateur.cut import plan as choose
        from secateur.parts.menus import load_menu, save_plan

        plans = choose(load_menu(menu), budget, allocate=allocate)
        files = _files(out, len(plans))
        for made, file in zip(plans, files, strict=True):
            if file is not None:
                save_plan(made, file)
        result = [show.in_short(made, file) for made, file in zip(plans, files, strict=True)]
        work.give({"plans": result}, show.frontier)


def _files(out: Path | None, count: int) -> list[Path | None]:
    """Where each plan goes: `plan.yaml` for one, `plan-1.yaml`, `plan-2.yaml` for more."""
    if out is None or count == 1:
        return [out] * count
    return [out.with_stem(f"{out.stem}-{at}") for at in range(1, count + 1)]
