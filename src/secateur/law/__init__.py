"""What a law says: `secateur.law("qid-law", at="params=7B, tokens=2T, bits=3")`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from secateur import catalogue
from secateur.law import picture
from secateur.law.answering import Answering
from secateur.law.asking import Point, named, points
from secateur.law.table import Table, of, read
from secateur.law.trying import tried
from secateur.maths.fitting import DRAWS
from secateur.parts.laws import Law, amount
from secateur.types import SecateurError

At = str | Mapping[str, float]


def law(
    name: str | None = None,
    table: str | Path | Mapping[str, Iterable[Any]] | None = None,
    *,
    at: At | Iterable[At] = (),
    find: str | None = None,
    target: float | str | None = None,
    where: str | None = None,
    hold_out: str | None = None,
    hold: At | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    out: str | Path | None = None,
    along: str = "tokens",
    device: str | None = None,
    tell: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Fit a law to a table, or take the constants of its paper, and ask it. Without a name: the laws there are.

    `table` is a .csv, .csv.gz or .parquet, or columns by name; `where` chooses rows, `hold_out` those that are
    predicted from the others, `hold` gives parameters that are not fitted. `at` are points to predict; `find` is a
    column to be found there so that the law gives `target` (the law's own measure, or its lowest, if not said).

    `out` is a picture (.svg): a line through each point along the column `along`, with its band.

    Intervals are of 95%, from fits to `draws` tables drawn with replacement: for a prediction where one more
    measurement is expected. `device` is taken for the likeness to other calls and changes nothing: a fit takes seconds
    on any processor.

    >>> round(law("qid-law", at="params=7B, tokens=100B, bits=3")["predictions"][0]["value"], 3)
    0.144
    """
    if name is None:
        return {"laws": [_listed(method) for method in _methods()]}
    method = catalogue.find(name, _methods())
    rows, notes = (None, []) if table is None else _rows(table, where)
    form = _published(method) if rows is None else _form(method, rows)
    if rows is None and (where or hold_out or hold):
        raise SecateurError("only of a table rows can be chosen and parameters held", f"secateur law {name} TABLE")
    formula, held = form.formula, named(hold or {}, "--hold")
    if find is not None and find not in formula.columns:
        hint = f"it reads {', '.join(formula.columns)}"
        raise SecateurError(f"{method.name} cannot be turned around to `{find}`", hint)
    if target is not None and find is None:
        raise SecateurError("a target needs a column to be found", "add --find tokens")
    there = points(at if at or not find else {}, form, find, rows.columns if rows else {})
    goal = form.target if target is None else amount(str(target))
    if rows is not None:
        asked, fits, more = tried(form, rows, hold_out, held, seed, tell, draws)
        source, notes = f"fitted to {len(rows)} rows", notes + more
    else:
        known = form.published
        asked, fits = Answering(form, known.values if known else {}), []
        source = f"the paper's constants, for {known.of}" if known else ""
        notes = ["the paper tells no spread of its constants, so the predictions have none"]
    sure = asked.fit.intervals() if asked.fit else {}
    figure = None if out is None else _drawn(asked, there, along, rows, Path(out))
    return {
        "law": method.name,
        "paper": method.paper,
        "formula": formula.says,
        "target": formula.target,
        "unit": form.unit,
        "source": source,
        "inside": {column: list(ends) for column, ends in asked.inside.items()},
        "parameters": [
            {"name": one, "value": value, "interval": list(sure[one]) if one in sure else None, "held": one in held}
            for one, value in asked.values.items()
        ],
        "fits": fits,
        "predictions": [] if find else [asked.predict(one) for one in there],
        "found": [asked.turned(one, find, goal) for one in there] if find else [],
        "notes": notes,
        "picture": figure,
    }


def _drawn(asked: Answering, points: list[Point], along: str, rows: Table | None, file: Path) -> str:
    if file.suffix != ".svg":
        raise SecateurError(f"a picture is written as .svg, not as {file.name}", f"-o {file.with_suffix('.svg')}")
    found = picture.lines(asked, points, along, rows) if along in asked.law.formula.columns else []
    if not found:
        raise SecateurError(
            f"there is nothing to draw along {along}",
            "say what the other columns are: --at ..., and --along which it goes",
        )
    target = f"{asked.law.formula.target}, {asked.law.unit}"
    picture.write(file, picture.drawn(found, along, target, asked.inside.get(along, (None, None))))
    return str(file)


def _rows(table: str | Path | Mapping[str, Iterable[Any]], where: str | None) -> tuple[Table, list[str]]:
    """The rows that are chosen, and what must be known of them."""
    whole = of(table) if isinstance(table, Mapping) else read(table)
    if not where:
        return whole, []
    rows = whole.where(where)
    return rows, [f"{len(rows)} of {len(whole)} rows have {where}"]


def _published(method: catalogue.Method) -> Law:
    """Of a method's laws the one whose constants its paper gives."""
    forms = _forms(method)
    if known := [form for form in forms if form.published is not None]:
        return known[0]
    needed = ", ".join((*forms[0].formula.columns, forms[0].formula.target))
    raise SecateurError(
        f"the paper of {method.name} gives no constants: it has to be fitted to a table",
        f"secateur law {method.name} TABLE.csv, with the columns {needed}",
    )


def _form(method: catalogue.Method, rows: Table) -> Law:
    """Of a method's laws the one that reads most of what the table has; the nearest where none fits."""

    def missing(form: Law) -> int:
        return sum(name not in rows.columns for name in (*form.formula.columns, form.formula.target))

    return min(_forms(method), key=lambda form: (missing(form), -len(form.formula.columns)))


def _methods() -> list[catalogue.Method]:
    return [method for method in catalogue.methods() if method.wing == "laws"]


def _forms(method: catalogue.Method) -> tuple[Law, ...]:
    return import_module(f"secateur.{method.file.removesuffix('.py').replace('/', '.')}").laws


def _listed(method: catalogue.Method) -> dict[str, Any]:
    formulas = [
        {
            "formula": form.formula.says,
            "reads": list(form.formula.columns),
            "predicts": form.formula.target,
            "published": form.published.of if form.published else None,
        }
        for form in _forms(method)
    ]
    return {"law": method.name, "sentence": method.sentence, "formulas": formulas}
