"""`secateur measure`: models side by side on the same data."""

from __future__ import annotations

from typing import Annotated

import typer

from secateur.cli.options import Data, Device, Json, Seed


def measure(
    model: Annotated[list[str], typer.Argument(help="One or several models; one row each.", show_default=False)],
    data: Data,
    against: Annotated[
        str | None,
        typer.Option(help="A reference: adds KL from it and how often the first choice agrees.", show_default=False),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="How many windows of the data, spread evenly; all if not said.", show_default=False),
    ] = None,
    seq_len: Annotated[
        int | None,
        typer.Option(min=2, help="Tokens in a window; the context, up to 512, if not said.", show_default=False),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Let windows overlap and score the last so many tokens of each; if not said, windows lie side by side "
            "and all tokens but the first are scored.",
            show_default=False,
        ),
    ] = None,
    bos: Annotated[bool, typer.Option("--bos", help="Begin every window as the tokenizer begins a text.")] = False,
    tasks: Annotated[
        str | None,
        typer.Option(help="Tasks of lm-eval as well, with commas between: arc_easy,piqa.", show_default=False),
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Loss, perplexity, KL and agreement with a reference, bytes and bits per weight, time, memory."""
    from secateur.cli import show
    from secateur.cli.frame import job

    with job(as_json) as work:
        against_it = f" against {against}" if against else ""
        work.say(f"measuring {', '.join(model)}{against_it} on {data}")
        from secateur.measure import measure as weigh

        how = {"samples": samples, "seq_len": seq_len, "stride": stride, "bos": bos, "seed": seed, "device": device}
        asked = [task.strip() for task in (tasks or "").split(",") if task.strip()]
        work.give(weigh(model, data, against=against, tasks=asked, tell=work.tell, **how), show.measure)
