"""`secateur select`: which examples of a file to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.options import Device, Json, Model, Seed, unsaid


def select(
    context: typer.Context,
    model: Model,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            help="A text file, a .jsonl, .csv, .tsv or .parquet with a text column (all but the last also .gz); for "
            "image models an .npz with `images`, and `labels` if there are any.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        str, typer.Option("--keep", "-k", help='How much is kept at most: "10%", 500, "20000 tokens", "10% tokens".')
    ] = "10%",
    target: Annotated[
        str | None,
        typer.Option(
            "--target", "-t", help="Examples of the kind that is wanted, a file like --data.", show_default=False
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-m",
            help="Who chooses, knobs in brackets, as in `simcore(stop=False)`; if not said simcore with a target, else "
            "random.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A folder for the result.", show_default=False)
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="A YAML file with any of these options; what stands here wins.", show_default=False),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Look at so many examples only, spread evenly; all if not said.", show_default=False),
    ] = None,
    seq_len: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Tokens that are read of a document; the context, up to 512, if not said.",
            show_default=False,
        ),
    ] = None,
    documents: Annotated[
        str | None,
        typer.Option(
            help="What lies between two documents of a text file: page (a form feed), blanks (two empty lines), blank "
            "(one), line; what the file itself speaks for if not said.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Choose examples, write them in the format in which they came, and draw a map of what was kept and dropped.

    Needs --data and --out, here or in the recipe.
    """
    from secateur.cli import show
    from secateur.cli.frame import again, job

    options = {name: context.params[name] for name in context.params if name not in ("recipe", "as_json")}
    with job(as_json, out) as work:
        from secateur.recipe import SELECT
        from secateur.types import SecateurError

        if recipe is not None:
            options |= unsaid(context, recipe, SELECT)
        if missing := [f"--{name}" for name in ("data", "out") if options[name] is None]:
            raise SecateurError(f"missing {' and '.join(missing)}", 'like --data pool.jsonl --keep "10%" -o out')
        work.out = Path(options["out"])
        like = f" that are like {options['target']}" if options["target"] else ""
        work.say(f"choosing {options['keep']} of {options['data']}{like}, by {model}; it goes to {options['out']}")
        from secateur.select import select as choose

        work.give(
            choose(
                options.pop("model"), options.pop("data"), options.pop("keep"), **options, again=again(), tell=work.tell
            ),
            show.select,
        )
