"""The pictures that commands draw of their results: tables that read well in black and white."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secateur.words import (
    asked_first,
    by_reason,
    called,
    capped,
    caps,
    give_or_take,
    loaded,
    nats,
    number,
    seconds,
    size,
)

if TYPE_CHECKING:
    from secateur.types import Plan


def cut(result: Mapping[str, Any]) -> RenderableType:
    """Asked and spent, loss before and after, predicted and measured, and what it took."""
    parts: list[RenderableType] = [_spent(result["budget"], result["spent"]), _damage(result), _facts(result)]
    if result.get("skipped"):
        parts.append(skipped(result["skipped"]))
    return Group(*parts)


def _spent(budget: Mapping[str, Any], spent: Mapping[str, float]) -> Table:
    asked_for = caps(budget)
    table = _table(str(budget.get("asked", "")), "asked for", "spent", "of it")
    for resource in asked_first(spent, asked_for):
        value, cap = spent[resource], asked_for.get(resource)
        asked = ("", "") if cap is None else (number(resource, cap), f"{value / cap:.1%}")
        table.add_row(called(resource), asked[0], number(resource, value), asked[1])
    return table


def _damage(result: Mapping[str, Any]) -> Table:
    predicted, measured = result["damage_predicted"], result["damage_measured"]
    pictures = "accuracy_after" in result
    table = _table(
        f"nats per {'example' if pictures else 'token'}",
        "before",
        "after",
        "damage predicted",
        "damage measured",
        "ratio",
    )
    table.add_row(
        f"loss, held-back {'examples' if pictures else 'text'}",
        nats(result["loss_before"]),
        nats(result["loss_after"]),
        give_or_take(predicted, result.get("damage_error")),
        give_or_take(measured, result.get("damage_measured_error")),
        f"{measured / predicted:.2f}" if predicted else "",
    )
    return table


def _facts(result: Mapping[str, Any]) -> Table:
    facts = Table.grid(padding=(0, 2, 0, 1))
    export = result.get("export") or {}
    if export:
        facts.add_row("file", f"{export['format']}, {size(export['bytes_on_disk'])} on disk, {loaded(export)}")
    if result.get("accuracy_after") is not None:
        facts.add_row("accuracy", f"{result['accuracy_before']:.2%} before, {result['accuracy_after']:.2%} after")
    if result.get("kl") is not None:
        each, times = ("example", "examples") if "accuracy_after" in result else ("token", "time")
        kl = give_or_take(result["kl"], result.get("kl_error"))
        facts.add_row(
            "likeness",
            f"KL {kl} nats per {each}; the first choice is the same {result['agreement']:.1%} of the {times}",
        )
    if result.get("latency"):
        promised, found, uncut = (result["latency"][name] for name in ("promised", "measured", "uncut"))
        one, pace = "picture" if "accuracy_after" in result else "window", result["latency"].get("pace")
        then = f" ({pace - 1:+.0%} since the plan: at its pace {1e3 * found / pace:.3g} ms)" if pace else ""
        beside = f"{1e3 * promised:.3g} ms promised; uncut {1e3 * uncut:.3g} ms{then}"
        facts.add_row("latency", f"{1e3 * found:.3g} ms for one {one}, {beside}")
    if result.get("folded"):
        facts.add_row("folded", f"{result['folded']} normalisations, into the layers before them: the format has none")
    if result.get("bad_rows"):
        rows = sum(len(one["rows"]) for one in result["bad_rows"])
        facts.add_row("bad rows", f"{rows} hold NaN or infinity and are zeros in the file")
    if result.get("coverage") is not None:
        facts.add_row("coverage", f"{result['coverage']:.1%} of the parameter bytes were cut")
    again = ", earlier work was taken up" if result.get("resumed") else ""
    facts.add_row("took", f"{seconds(result['seconds'])}, {size(result['peak_rss_bytes'])} of memory at most{again}")
    if result.get("report"):
        facts.add_row("report", Text(result["report"]))
    return _indented(facts)


def skipped(entries: Iterable[Mapping[str, str]], at_most: int = 6) -> RenderableType:
    """What was left alone and why, one line a reason."""
    lines = [Text("left as it was", "bold")]
    for reason, units in by_reason(entries).items():
        more = f" and {len(units) - at_most} more" if len(units) > at_most else ""
        lines.append(Text(f"  {', '.join(units[:at_most])}{more}: {reason}"))
    return Group(*lines)


def inspect(found: Mapping[str, Any]) -> RenderableType:
    """What is in a model: one line for each kind of unit and shape, then what cannot be cut."""
    head = Table.grid(padding=(0, 2, 0, 1))
    for key in ("model", "architecture", "family", "dtype"):
        if found.get(key):
            head.add_row(key, Text(str(found[key])))
    head.add_row("size", f"{found['weights']:,} parameters in {size(found['bytes'])}")
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for unit in found["units"]:
        groups.setdefault((unit["kind"], _pattern(unit["unit"])), []).append(unit)
    table = _table("units", "kind", "how many", "bytes", "share", left=2)
    for (kind, pattern), units in groups.items():
        held = sum(unit["bytes"] for unit in units)
        table.add_row(Text(pattern), kind, str(len(units)), f"{held:,}", f"{held / max(found['bytes'], 1):.1%}")
    parts: list[RenderableType] = [_indented(head), table]
    if found.get("skipped"):
        parts.append(skipped(found["skipped"]))
    return Group(*parts)


def _pattern(name: str) -> str:
    """`model.layers.12.mlp.down_proj` as `model.layers.*.mlp.down_proj`."""
    return ".".join("*" if word.isdigit() else word for word in name.split("."))


def measure(result: Mapping[str, Any]) -> RenderableType:
    """The models side by side, one line a figure; figures that no model has are left out. Then notes, then tasks."""
    rows = result["rows"]
    figures = {
        "loss": nats,
        "perplexity": lambda value: f"{value:.3f}",
        "accuracy": lambda value: f"{value:.2%}",
        "bits_per_byte": lambda value: f"{value:.4f}",
        "rise": nats,
        "kl": nats,
        "agreement": lambda value: f"{value:.2%}",
        "bytes": lambda value: f"{value:,.0f}",
        "bits_per_weight": lambda value: f"{value:.3f}",
        "flops": lambda value: f"{value:,.0f}",
        "tokens" if "examples" not in result else "examples": lambda value: f"{value:,}",
        "seconds": seconds,
        "peak_rss_bytes": size,
    }
    if result.get("same_tokens", True):  # then nats per token compare as they are
        figures.pop("bits_per_byte")
    table = _table("", *(str(row["model"]) for row in rows))
    for key, written in figures.items():
        if any(row.get(key) is not None for row in rows):
            cells = ["" if row.get(key) is None else written(row[key]) for row in rows]
            errors = [row.get(f"{key}_error") for row in rows]
            both = [
                cell if error is None else f"{cell} ± {(written if key == 'accuracy' else nats)(error)}"
                for cell, error in zip(cells, errors, strict=True)
            ]
            table.add_row(called(key), *both)
    notes = [Text(f" {row['model']}: {row['note']}") for row in rows if row.get("note")]
    tasks = [row for row in rows if row.get("tasks")]
    return Group(table, *notes, *([_tasks(tasks)] if tasks else []))


def _tasks(rows: list[Mapping[str, Any]]) -> Table:
    """The evaluation harness's tasks: one row a model and task, with the figures that the harness gives."""
    table = _table("model", "task", "figure", "value", left=3)
    for row in rows:
        for task, figures in row["tasks"].items():
            for name, value in figures.items():
                table.add_row(Text(str(row["model"])), task, name, f"{value:.4f}")
    return table


def frontier(result: Mapping[str, Any]) -> RenderableType:
    """One row a budget: what it spends, what it is expected to cost, and how far from the best it can be at most."""
    files = ["file"] if any(plan.get("file") for plan in result["plans"]) else []
    asked = {resource: 0.0 for plan in result["plans"] for resource in capped(plan["budget"])}
    spends = asked_first(dict.fromkeys(("bytes", "bits_per_weight", *asked)), asked)
    table = _table("budget", *map(called, spends), "damage predicted", "proven floor", "edits", *files)
    for plan in result["plans"]:
        spent = plan["spent"]
        table.add_row(
            Text(plan["budget"]),
            *(number(one, spent[one]) if one in spent else "" for one in spends),
            give_or_take(plan["damage"], plan["error"]),
            nats(plan["bound"]),
            Text(mixture(plan["edits"].values())),
            *(Text(str(plan.get("file") or "")) for _ in files),
        )
    return table


def in_short(plan: Plan, file: Path | None = None) -> dict[str, Any]:
    """A plan as one row of the frontier, and of the JSON: its edits as text."""
    from secateur.parts.edits import text

    return {
        "budget": plan.budget,
        "spent": dict(plan.spent),
        "damage": plan.damage,
        "error": plan.error,
        "bound": plan.bound,
        "edits": {unit: text(edit) for unit, edit in plan.edits.items()},
        "file": None if file is None else str(file),
    }


def mixture(edits: Iterable[str]) -> str:
    """What a plan is made of, in short: `8 int2, 3 int3, 1 keep` for edits of that kind and those bits."""
    named = [re.sub(r"^ggml\('(\w+)'\)", r"\1", edit) for edit in edits]
    words = [re.match(r"(\w+)(?:\(bits=(\d+))?", edit) for edit in named]
    counted = Counter((word[2] or "", word[1]) for word in words if word)
    return ", ".join(f"{n} {kind}{bits}" for (bits, kind), n in sorted(counted.items()))


def menu(result: Mapping[str, Any]) -> RenderableType:
    """The menu in short: every edit, had every unit taken it that can."""
    table = _table("edit, everywhere", "units that can", "bits per weight", "damage predicted")
    for edit in result["edits"]:
        table.add_row(
            Text(edit["edit"]),
            f"{edit['units']}/{result['units']}",
            f"{edit['bits_per_weight']:.3f}",
            give_or_take(edit["damage"], edit["error"]),
        )
    return table


def trained(result: Mapping[str, Any]) -> RenderableType:
    """How the loss went, and what some slices lose."""
    facts = Table.grid(padding=(0, 2, 0, 1))
    each, before = result["each"], result.get("loss_before")
    then = f"{nats(before)} before, " if before is not None else ""
    facts.add_row("loss, held back", f"{then}{nats(result['loss_after'])} after, nats per {each}")
    facts.add_row("read", f"{result['read']:,} {each}s in {result['steps']:,} steps")
    facts.add_row("file", f"{size(result['bytes_on_disk'])} in {result['out']}")
    again = ", earlier work was taken up" if result.get("resumed") else ""
    facts.add_row("took", f"{seconds(result['seconds'])}, {size(result['peak_rss_bytes'])} of memory at most{again}")
    facts.add_row("report", Text(result["report"]))
    rows = [row for row in result["slices"] if row["slice"]]
    return Group(*([slices("slice", rows, [sizes(row) for row in rows], each)] if rows else []), _indented(facts))


def drawn(result: Mapping[str, Any]) -> RenderableType:
    """One row a budget, then the whole network; then the files and how near their logits came."""
    each, rows = result["each"], result["rows"]
    named = [*(row["budget"] for row in rows), "the whole network"]
    parts = [slices("budget", [*rows, result["whole"]], named, each, sizes)]
    parts += [Text(f" {row['out']}: {size(row['bytes_on_disk'])}, {loaded(row)}") for row in rows if row.get("out")]
    return Group(*parts)


def slices(
    first: str,
    rows: Sequence[Mapping[str, Any]],
    named: Sequence[str],
    each: str,
    more: Callable[..., str] | None = None,
) -> Table:
    """Slices side by side: what each spends and loses; what none has is left out."""
    figures = {
        "bytes": lambda row: f"{row['bytes']:,}",
        f"flops per {each}": lambda row: f"{row['flops']:,}",
        "parameters": lambda row: f"{row['parameters']:,}",
        f"loss, nats per {each}": lambda row: give_or_take(row["loss"], row["loss_error"]) if "loss" in row else "",
        "accuracy": lambda row: f"{row['accuracy']:.2%}" if "accuracy" in row else "",
    }
    cells = {name: [said(row) for row in rows] for name, said in figures.items()}
    cells = {name: column for name, column in cells.items() if any(column)}
    table = _table(first, *(["slice"] if more else []), *cells, left=2 if more else 1)
    for at, (row, name) in enumerate(zip(rows, named, strict=True)):
        table.add_row(Text(name), *([more(row)] if more else []), *(column[at] for column in cells.values()))
    return table


def sizes(row: Mapping[str, Any]) -> str:
    """A slice in words: `width 86 of 172, depth 3 of 5`."""
    return ", ".join(f"{axis} {said}" for axis, said in row["counts"].items())


def select(result: Mapping[str, Any]) -> RenderableType:
    """What was kept, how it differs from all there was, and from which clusters it comes."""
    used, each, of = result["used"], result["each"], result["of"]
    head = Table.grid(padding=(0, 2, 0, 1))
    head.add_row(
        "kept",
        f"{used['examples']:,} of {of:,} {each}s ({used['examples'] / of:.1%}), {result['keep']['asked']} asked for",
    )
    if "tokens" in used:
        total = result["means"]["tokens"]["all"] * of
        head.add_row("tokens", f"{used['tokens']:,} of {total:,.0f} ({used['tokens'] / total:.1%})")
    head.add_row("by", result["method"])
    if said := result["about"].get("said"):
        head.add_row("", said)
    head.add_row("data", result["taken"])
    if result.get("longer"):
        head.add_row("", f"{result['longer']:,} are longer than {result['seq_len']} tokens, and were read so far")
    for name, mean in result["means"].items():
        if name != "tokens":
            head.add_row(name, f"{nats(mean['kept'])} of the kept, {nats(mean['all'])} of all")
    head.add_row("looked", f"{result['charged']['forward']:,.0f} passes forward, {seconds(result['seconds'])}")
    parts: list[RenderableType] = [_indented(head)]
    if "clusters" in result:
        table = _table(f"{each}s", "kept", "of them", "in their midst", left=0)
        table.columns[3].justify = "left"
        for one in result["clusters"]:
            middle = one["central"][:70] + "…" * (len(one["central"]) > 70)
            table.add_row(f"{one['count']:,}", f"{one['kept']:,}", f"{one['share']:.1%}", Text(middle))
        parts.append(table)
        parts += [Text(f" {result[name]}") for name in ("file", "report")]
    return Group(*parts)


def _table(first: str, *columns: str, left: int = 1) -> Table:
    """A light table: the first `left` columns read from the left, numbers from the right."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for at, name in enumerate((first, *columns)):
        words = at < left or name in ("edits", "file")
        table.add_column(Text(name), justify="left" if words else "right", overflow="fold")
    return table


def _indented(table: Table) -> Table:
    """A grid of facts whose names stand back and whose words may be long."""
    table.pad_edge = True
    table.columns[0].style = "dim"
    table.columns[0].no_wrap = True
    if len(table.columns) > 1:
        table.columns[1].overflow = "fold"
    return table
