"""`secateur law`: what a model will lose, or how long to train it, by a paper's constants or fitted to a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.options import Device, Json, Seed

if TYPE_CHECKING:
    from rich.console import RenderableType


def law(
    name: Annotated[
        str | None, typer.Argument(help="Which law; all of them are listed if not said.", show_default=False)
    ] = None,
    table: Annotated[
        str | None,
        typer.Argument(
            help="A .csv, .csv.gz or .parquet to fit it to; the paper's constants if not said.", show_default=False
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help='What to predict, as in "params=7B, tokens=2T, bits=3"; may be repeated.', show_default=False
        ),
    ] = None,
    find: Annotated[
        str | None,
        typer.Option(help="Turn the law around: the column to be found at each --at.", show_default=False),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="What the law shall give there; if not said its own measure (qid-law: 0.2), or the lowest.",
            show_default=False,
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help='Only rows for which all of this holds: "bits = 3, tokens > 1B".',
            show_default=False,
            rich_help_panel="Fit",
        ),
    ] = None,
    hold_out: Annotated[
        str | None,
        typer.Option(
            help='Rows to be predicted from the others: those for which any of "params > 6.9B, tokens > 180B" holds, '
            "or the largest of a column; the largest models, or the longest trainings, if not said.",
            show_default=False,
            rich_help_panel="Fit",
        ),
    ] = None,
    hold: Annotated[
        str | None,
        typer.Option(
            help="Parameters that are known and not fitted: gamma=5.5.", show_default=False, rich_help_panel="Fit"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Draw it, too: an .svg with a line through each --at.",
            show_default=False,
            rich_help_panel="Picture",
        ),
    ] = None,
    along: Annotated[
        str, typer.Option(help="The column that its lines go along.", rich_help_panel="Picture")
    ] = "tokens",
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Is my checkpoint too trained to quantize? Predict what rounding will cost, how long to train, at how many bits.

    Nothing is measured and no model is opened: a law reads sizes, tokens and bits. With a table it is fitted, with
    intervals, beside the laws that it has to beat, on rows that it has not seen.
    """
    from secateur.cli.frame import job

    with job(as_json, out) as work:
        if name is not None:
            work.say(f"{'fitting' if table else 'asking'} {name}" + (f" to {table}" if table else ""))
        from secateur.law import law as ask

        how = {
            "where": where,
            "hold_out": hold_out,
            "hold": hold,
            "seed": seed,
            "device": device,
            "out": out,
            "along": along,
        }
        found = ask(name, table, at=at or (), find=find, target=target, tell=work.tell, **how)
        work.give(found, _list if name is None else _answer)
        if name is None:
            work.then = 'secateur law qid-law --at "params=7B, tokens=2T"'


def _list(result: dict[str, Any]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for at, title in enumerate(("law", "what it does", "a table has", "without a table")):
        table.add_column(title, overflow="fold", no_wrap=at == 0)
    for one in result["laws"]:
        for at, form in enumerate(one["formulas"]):
            reads = f"{', '.join(form['reads'])} and {form['predicts']}"
            table.add_row("" if at else one["law"], "" if at else one["sentence"], reads, form["published"] or "")
    return table


def _answer(result: dict[str, Any]) -> RenderableType:
    """In words first, then the numbers, then what they rest on."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    answers = [*result["predictions"], *result["found"]]
    parts += [Text(_sentence(one["says"]), "bold") for one in answers]
    beyond = dict.fromkeys(words for one in answers for words in one["outside"])
    parts += [Text(f"Beyond what is known: {words}", "yellow") for words in beyond]
    parts += [Text()] if parts else []
    if result["predictions"]:
        parts += [_predictions(result), Text()]
    if result["fits"]:
        parts += [_fits(result), *(Text(f"{one['law']}: {one['why']}") for one in result["fits"] if one["why"]), Text()]
    notes = [*(f"note: {one}" for one in result["notes"]), *filter(None, [result["picture"]])]
    facts = [Text(result["formula"]), Text(result["source"], "dim")]
    return Group(*parts, *facts, _parameters(result["parameters"]), *map(Text, notes))


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _predictions(result: dict[str, Any]) -> RenderableType:
    rows = result["predictions"]
    more = list(dict.fromkeys(name for row in rows for name in row["more"]))
    sure = any(row["interval"] for row in rows)
    table = _table(*rows[0]["at"], f"{result['target']}, {result['unit']}", *(["95%"] if sure else []), *more)
    from secateur.parts.laws import counted

    for row in rows:
        value = "" if row["value"] is None else f"{row['value']:.4g}"
        cells = [*map(counted, row["at"].values()), value, *([_between(row["interval"])] if sure else [])]
        table.add_row(*cells, *(counted(row["more"][name]) if name in row["more"] else "" for name in more))
    return table


def _fits(result: dict[str, Any]) -> RenderableType:
    table = _table(
        "fitted to the same rows", "parameters", "R2", "mean error", "R2 held back", "mean error held back", left=1
    )
    for one in result["fits"]:
        cells = [_number(one[key]) for key in ("r2", "error", "held_out_r2", "held_out_error")]
        table.add_row(one["law"], str(one["free"] or ""), *cells)
    return table


def _parameters(parameters: list[dict[str, Any]]) -> RenderableType:
    sure = any(one["interval"] for one in parameters)
    table = _table("parameter", "value", *(["95%"] if sure else []), left=1)
    for one in parameters:
        table.add_row(
            one["name"],
            f"{one['value']:.4g}",
            *(["held" if one["held"] else _between(one["interval"])] if sure else []),
        )
    return table


def _between(interval: list[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"


def _number(value: float | None) -> str:
    return "" if value is None else "below -99" if value < -99 else f"{value:.4g}"


def _table(*columns: str, left: int = 0) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for at, title in enumerate(columns):
        table.add_column(title, justify="left" if at < left else "right", overflow="fold")
    return table
