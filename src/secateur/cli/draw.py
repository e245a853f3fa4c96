"""`secateur draw`: smaller networks out of one that was trained to be of several sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.options import Device, Json, Seed


def draw(
    model: Annotated[str, typer.Argument(help="The folder that `secateur train --elastic` wrote.", show_default=False)],
    budget: Annotated[
        list[str],
        typer.Option(
            "--budget", "-b", help='"50% flops", "3 MB", "kv 24 KB/token"; may be repeated.', show_default=False
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            help="Text (or pictures) that training has not seen: slices within a budget are measured, and the best is "
            "taken; if not said, the largest.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A folder for the network; of several, one inside each.", show_default=False),
    ] = None,
    elastic: Annotated[
        str,
        typer.Option(help="Axes, to slice a model that was not trained for it.", show_default=False),
    ] = "",
    samples: Annotated[int, typer.Option(min=1, help="Windows of text to measure on.")] = 64,
    seq_len: Annotated[
        int | None,
        typer.Option(min=2, help="Tokens in a window; the context, up to 256.", show_default=False),
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Take the best slice under each budget out of a supernet; with --out each is written, loaded and compared.

    A slice keeps the first channels, heads and blocks; no weight is changed. No budget is exceeded.
    """
    from secateur.cli import show
    from secateur.cli.frame import job

    with job(as_json, out) as work:
        how = f"measured on {data}" if data else "the largest that fits"
        work.say(f"drawing slices of {model} for {', '.join(budget)}: {how}")
        from secateur.train import draw as take

        told = take(
            model,
            budget,
            data=data,
            out=out,
            elastic=elastic,
            samples=samples,
            seq_len=seq_len,
            seed=seed,
            device=device,
            tell=work.tell,
        )
        work.give(told, show.drawn)
        if out is not None and data:
            folders = " ".join(row["out"] for row in told["rows"])
            work.then = f"secateur measure {folders} --data {data}"
