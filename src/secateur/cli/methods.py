"""`secateur methods`: what is built in, one paper, one line; or all about one, with what was measured of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.options import Device, Json, Seed

if TYPE_CHECKING:
    from rich.console import RenderableType

    from secateur.catalogue import Method
    from secateur.evidence import Claim


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, in full.", show_default=False)] = None,
    wing: Annotated[str | None, typer.Option(help="Only this wing: quantize, prune ...", show_default=False)] = None,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """List the methods, or tell all about one: its paper, whether its claims hold here, and how to call it."""
    from secateur.catalogue import find
    from secateur.catalogue import methods as found
    from secateur.cli.frame import job
    from secateur.evidence import claims

    with job(as_json) as work:
        everything, measured = found(), claims()
        chosen = [method for method in everything if wing in (None, method.wing)]
        if wing and not chosen:
            from secateur.types import SecateurError

            raise SecateurError(
                f"there is no wing `{wing}`", f"there are {', '.join(sorted({method.wing for method in everything}))}"
            )
        if name is None:
            work.give({"methods": [_told(method, measured.get(method.name, [])) for method in chosen]}, _table)
        else:
            one = find(name, chosen)
            work.give(_all_of(one, measured.get(one.name, [])), _card)


def _told(method: Method, rows: list[Claim]) -> dict[str, Any]:
    """One line of the list; `claim` is the main one, None where nothing was measured."""
    from secateur.evidence import tally

    return vars(method) | {"tally": tally(rows), "claim": vars(rows[0]) if rows else None}


def _all_of(method: Method, rows: list[Claim]) -> dict[str, Any]:
    from secateur import calls
    from secateur.catalogue import HERE
    from secateur.evidence import card

    spelled = {"shell": method.use, "recipe": calls.recipe(method.use), "python": calls.python(method.use)}
    home = f"secateur.{method.file.removesuffix('.py').replace('/', '.')}"
    parts = [{"call": call, "gives": gives} for call, gives in calls.parts(HERE / method.file)]
    told = _told(method, rows) | {"claims": [vars(row) for row in rows], "calls": spelled}
    return told | {"module": home, "parts": parts, "card": card(method.name)}


def _table(result: dict[str, Any]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for at, title in enumerate(("method", "wing", "year", "what it does", "its claims here")):
        table.add_column(title, overflow="fold", no_wrap=at < 3)
    for method in result["methods"]:
        table.add_row(
            method["name"], method["wing"], str(method["year"] or ""), method["sentence"], method["tally"] or "not yet"
        )
    return table


def _card(method: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.markdown import Markdown
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2))
    facts.add_row(Text(method["name"], "bold"), Text(method["sentence"]))
    for key in ("paper", "link", "wing", "shape", "applies_to", "file"):
        if method[key]:
            facts.add_row(Text(key.replace("_", " "), "dim"), Text(str(method[key])))
    for key, call in method["calls"].items():
        if call:
            facts.add_row(Text(f"in {'a ' * (key != 'python')}{key}", "dim"), Text(call))
    for at, part in enumerate(method["parts"]):
        facts.add_row(
            Text("" if at else f"from {method['module'].rpartition('.')[2]}", "dim"),
            Text.assemble(part["call"], "  ", (part["gives"], "dim")),
        )
    measured = [_measured(method["claims"])] if method["claims"] else [Text("nothing was measured of it yet\n", "bold")]
    return Group(facts, Text(), *measured, Markdown(method["card"]))


def _measured(rows: list[dict[str, Any]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from secateur.evidence import Claim

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("its claims, as measured here", "effect", "verdict", "seeds", "measured", "commit"):
        table.add_column(title, overflow="fold")
    for row in (Claim(**row) for row in rows):
        table.add_row(Text(row.claim), Text(row.number), row.said, str(row.seeds), row.date, row.commit)
    return table
