"""`secateur measure`: models side by side on the same data."""

from __future__ import annotations

from typing import Annotated

import typer

from secateur.cli.options import Data, Device, Json, Seed, SeqLen


def measure(
    model: Annotated[list[str], typer.Argument(help="One or several models; one row each.", show_default=False)],
    data: Data,
    against: Annotated[
        str | None,
        typer.Option(help="A reference: adds KL from it and how often the first choice agrees.", show_default=False),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="How many stretches of the data; all of it if not said.", show_default=False),
    ] = None,
    seq_len: SeqLen = None,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Loss, perplexity or accuracy, KL and agreement with a reference, bytes, bits per weight, time and memory."""
    from secateur.cli import show
    from secateur.cli.frame import job

    with job(as_json) as work:
        against_it = f" against {against}" if against else ""
        work.say(f"measuring {', '.join(model)}{against_it} on {data}")
        from secateur.measure import measure as weigh

        result = weigh(model, data, against=against, samples=samples, seq_len=seq_len, device=device, tell=work.tell)
        work.give(result, show.measure)
