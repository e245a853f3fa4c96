"""`secateur cut`: the main job, from a model and a budget to a file that has been seen to load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from secateur.cli.options import (
    Allocate,
    Damage,
    Device,
    Edits,
    Format,
    Fresh,
    Json,
    Keep,
    Model,
    Over,
    Pin,
    Round,
    Samples,
    Seed,
    SeqLen,
    pins,
    stretches,
    unsaid,
)


def cut(
    context: typer.Context,
    model: Model,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", "-d", help="A text file, a .jsonl, .parquet or .csv with a text column ...", show_default=False
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", "-b", help='"4.25 bits/weight", "300 MB", "60% flops, 2 GB", "20 ms" ...', show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A folder for the result.", show_default=False)
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="A YAML file with any of these options; what stands here wins.", show_default=False),
    ] = None,
    format: Format = None,
    over: Over = "all",
    keep: Keep = None,
    pin: Pin = None,
    damage: Damage = "kronecker",
    edits: Edits = "bits",
    allocate: Allocate = "lagrange",
    round: Round = "two-sided",
    samples: Samples = None,
    seq_len: SeqLen = None,
    fresh: Fresh = False,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Cut a model to a budget: survey, plan, apply, export, load the file in its runtime, and measure.

    Needs --data, --budget and --out, here or in the recipe. A run that broke off goes on where it stopped.
    """
    from secateur.cli import show
    from secateur.cli.frame import again, job

    options = {name: context.params[name] for name in context.params if name not in ("recipe", "fresh", "as_json")}
    with job(as_json, out, resumes=True) as work:
        options["pin"] = pins(pin)
        if recipe is not None:
            options |= unsaid(context, recipe)
        _complete(options, recipe)
        options["keep"] = tuple(options["keep"] or ())
        work.out = Path(options["out"])
        work.say(
            f"cutting {model} to {options['budget']} as {options['format'] or 'usual'}, "
            f"{stretches(options['samples'])} of {options['data']}; it goes to {options['out']}"
        )
        from secateur.cut import cut as make
        from secateur.report import report

        result = make(
            options.pop("model"),
            options.pop("data"),
            options.pop("budget"),
            **options,
            resume=not fresh,
            tell=work.tell,
        ) | {"again": again()}
        work.give(result | {"report": str(report(work.out, result))}, show.cut)


def _complete(options: dict[str, Any], recipe: Path | None) -> None:
    from secateur.types import SecateurError

    missing = [f"--{name}" for name in ("data", "budget", "out") if options[name] is None]
    if missing:
        place = f", and {recipe} does not say it either" if recipe else ""
        raise SecateurError(
            f"missing {' and '.join(missing)}{place}", 'like --data text.txt --budget "4 bits/weight" -o out'
        )
