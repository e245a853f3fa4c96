"""`secateur bench`: methods side by side on your model, at the same true bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.options import Data, Device, Format, Json, Model, Out, Over, Samples, Seed, SeqLen

if TYPE_CHECKING:
    from rich.console import RenderableType


def bench(
    model: Model,
    data: Data,
    budgets: Annotated[
        list[str],
        typer.Option(
            "--budgets", "--budget", "-b", help='"4.25 bits/weight", "300 MB" ...; may be repeated.', show_default=False
        ),
    ],
    out: Out,
    methods: Annotated[
        str,
        typer.Option(
            help="Contestants with commas between; each is parts joined by +, an allocator, a rounding, a damage or a "
            "method: two-sided, uniform+gptq ..."
        ),
    ] = "two-sided,one-sided,nearest,uniform+nearest",
    text: Annotated[
        str | None,
        typer.Option(help="Measure on this text; else on what the data keep back.", show_default=False),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(help="A folder that another tool wrote, measured alike; may be repeated.", show_default=False),
    ] = None,
    format: Format = "compressed-tensors",
    over: Over = "all",
    samples: Samples = 128,
    seq_len: SeqLen = None,
    keep_files: Annotated[bool, typer.Option("--keep-files", help="Leave the cut models in the folder.")] = False,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Cut a model by several methods to the same budgets and measure them all: a table, a picture, intervals.

    A run that broke off goes on where it stopped. Tools of others: give what they wrote with --beside.
    """
    from secateur.cli.frame import job

    with job(as_json, out, resumes=True) as work:
        names = [name.strip() for name in methods.split(",") if name.strip()]
        work.say(f"cutting {model} by {', '.join(names)} to {', '.join(budgets)}; it goes to {out}")
        from secateur.bench import bench as compete

        how = {"format": format, "over": over, "samples": samples, "seq_len": seq_len, "seed": seed, "device": device}
        found = compete(
            model, data, budgets, names, out=out, text=text, beside=beside or (), keep_files=keep_files,
            tell=work.tell, **how,
        )  # fmt: skip
        work.give(found, _table)


def _table(result: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from secateur.bench import winners
    from secateur.words import nats, seconds

    best, table = winners(result["rows"]), Table(box=None, header_style="bold", pad_edge=False)
    for at, title in enumerate(
        ("budget", "contestant", "bytes", "bits", "KL, 95% interval", "rise", "same first", "took")
    ):
        table.add_column(title, justify="left" if at < 2 else "right", overflow="fold")
    last = None
    for row in result["rows"]:
        won = best.get(row["budget"]) == row["contestant"]
        name = Text(row["contestant"] + (" *" if won else ""), "bold" if won else "")
        budget, last = ("" if row["budget"] == last else row["budget"]), row["budget"]
        if row["kl"] is None:
            table.add_row(budget, name, "", "", row["note"] or "")
            continue
        low, high = row["kl_interval"]
        figures = [f"{row['bytes']:,}", f"{row['bits_per_weight']:.3f}"]
        figures += [f"{nats(row['kl'])} [{nats(low)}, {nats(high)}]", nats(row["rise"]), f"{row['agreement']:.1%}"]
        table.add_row(budget, name, *figures, seconds(row["seconds"]) if row["seconds"] else "")
    notes = [Text("* the least KL to the uncut model at this budget, nats per token")]
    notes += [Text(f"picture: {result['picture']}")] if result["picture"] else []
    return Group(table, *notes)
