"""`secateur bench`: methods side by side on your model, at the same true bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.options import Data, Device, Edits, Format, Json, Model, Out, Over, Samples, Seed, SeqLen

if TYPE_CHECKING:
    from rich.console import RenderableType


def bench(
    model: Model,
    data: Data,
    out: Out,
    budgets: Annotated[
        list[str] | None,
        typer.Option(
            "--budgets", "--budget", "-b", help='"4.25 bits/weight", "300 MB" ...; may be repeated.', show_default=False
        ),
    ] = None,
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
    rivals: Annotated[
        str,
        typer.Option(
            help="Tools of others to run here as well, with commas between: llama.cpp, autoround:w4g128 ...; "
            "`secateur doctor` lists them.",
            show_default=False,
            rich_help_panel="Rivals",
        ),
    ] = "",
    rival_python: Annotated[
        list[str] | None,
        typer.Option(
            help="The interpreter that has a rival, as in autoround=venv/bin/python; may be repeated.",
            metavar="NAME=PATH",
            show_default=False,
            rich_help_panel="Rivals",
        ),
    ] = None,
    rival_limit: Annotated[
        float | None,
        typer.Option(
            min=1, help="Seconds that one run of a rival may take.", show_default="4 hours", rich_help_panel="Rivals"
        ),
    ] = None,
    format: Format = None,
    over: Over = "all",
    edits: Edits = "bits",
    samples: Samples = None,
    seq_len: SeqLen = None,
    keep_files: Annotated[bool, typer.Option("--keep-files", help="Leave the cut models in the folder.")] = False,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Cut a model by several methods to the same budgets and measure them all: a table, a picture, intervals.

    A run that broke off goes on where it stopped. Tools of others: let them run here with --rivals, or give what they
    wrote with --beside.
    """
    from secateur.cli.frame import again, job

    with job(as_json, out, resumes=True) as work:
        names, others = (_listed(words) for words in (methods, rivals))
        to = ", ".join(budgets or ()) or "the bytes of the rivals' files"
        work.say(f"cutting {model} by {', '.join([*names, *others])} to {to}; it goes to {out}")
        from secateur.bench import bench as compete

        how = {
            "format": format,
            "over": over,
            "edits": edits,
            "samples": samples,
            "seq_len": seq_len,
            "seed": seed,
            "device": device,
        }
        met = {"rivals": others, "rival_pythons": rival_python or (), "rival_limit": rival_limit}
        found = compete(
            model, data, budgets or (), names, out=out, text=text, beside=beside or (), keep_files=keep_files,
            again=again(), tell=work.tell, **how, **met,
        )  # fmt: skip
        work.give(found, _table)


def _listed(words: str) -> list[str]:
    return [word.strip() for word in words.split(",") if word.strip()]


def _table(result: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from secateur.bench import winners
    from secateur.words import budgets, nats, seconds

    best, table = winners(result["rows"]), Table(box=None, header_style="bold", pad_edge=False)
    first = result["reference"]
    titles = ("budget", "contestant", "bytes", "bits", "KL, 95% interval", f"more than {first}", "rise", "took")
    for at, title in enumerate(titles):
        table.add_column(title, justify="left" if at < 2 else "right", overflow="fold")
    last, notes, said = None, [], budgets(row["budget"] for row in result["rows"])
    for row in result["rows"]:
        won = best.get(row["budget"]) == row["contestant"]
        name = Text(row["contestant"] + (" *" if won else ""), "bold" if won else "")
        budget, last = ("" if row["budget"] == last else said[row["budget"]]), row["budget"]
        if row["kl"] is None:
            notes.append(Text(f"{row['contestant']}{' at ' if row['asked'] else ''}{row['asked']}: {row['note']}"))
            table.add_row(budget, name, "", "", "none: see below")
            continue
        figures = [f"{row['bytes']:,}", f"{row['bits_per_weight']:.3f}"]
        figures += [_between(row["kl"], row["kl_interval"]), _between(row["kl_more"], row["kl_more_interval"], "+")]
        table.add_row(budget, name, *figures, nats(row["rise"]), seconds(row["seconds"]) if row["seconds"] else "")
    notes.append(
        Text(f"* the least KL to the uncut model at this budget, nats per {result['each']}; all intervals are 95%")
    )
    if result.get("prompt"):
        notes.append(Text(f"measured behind the first {result['prompt']:.0%} of every window, which is a prompt"))
    notes.append(Text(f"the same as a page, with pictures: {result['report']}"))
    return Group(table, *notes)


def _between(value: float | None, interval: list[float] | None, sign: str = "") -> str:
    """A figure and its interval; nothing where there is none."""
    from secateur.words import nats

    if value is None or interval is None:
        return ""
    plus = sign if value > 0 else ""
    return f"{plus}{nats(value)} [{nats(interval[0])}, {nats(interval[1])}]"
