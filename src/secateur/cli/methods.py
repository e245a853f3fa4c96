"""`secateur methods`: what is built in, one paper, one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.options import Device, Json, Seed

if TYPE_CHECKING:
    from rich.console import RenderableType


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, in full.", show_default=False)] = None,
    wing: Annotated[str | None, typer.Option(help="Only this wing: quantize, prune ...", show_default=False)] = None,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """List the methods, or tell all about one: its paper, what it applies to, and how to use it."""
    from secateur.catalogue import methods as found
    from secateur.catalogue import nearest
    from secateur.cli.frame import job
    from secateur.types import SecateurError

    with job(as_json) as work:
        everything = [vars(method) for method in found()]
        chosen = [method for method in everything if wing in (None, method["wing"])]
        if wing and not chosen:
            wings = sorted({method["wing"] for method in everything})
            raise SecateurError(f"there is no wing `{wing}`", f"there are {', '.join(wings)}")
        if name is None:
            work.give({"methods": chosen}, _table)
            return
        one = next((method for method in chosen if method["name"] == name.replace("_", "-")), None)
        if one is None:
            close = nearest(name, [method["name"] for method in chosen])
            hint = f"did you mean `{close}`?" if close else "`secateur methods` lists them all"
            raise SecateurError(f"there is no method `{name}`", hint)
        work.give(one, _card)


def _table(result: dict[str, Any]) -> RenderableType:
    from rich.table import Table

    table = Table("method", "wing", "year", "what it does", box=None, header_style="bold", pad_edge=False)
    for method in result["methods"]:
        table.add_row(method["name"], method["wing"], str(method["year"] or ""), method["sentence"])
    return table


def _card(method: dict[str, Any]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    card = Table.grid(padding=(0, 2))
    card.add_row(Text(method["name"], "bold"), Text(method["sentence"]))
    for key in ("paper", "wing", "shape", "applies_to", "use", "file"):
        card.add_row(Text(key.replace("_", " "), "dim"), Text(str(method[key])))
    return card
