"""`secateur survey`: every unit against every edit, what it costs and what it is expected to damage."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.options import (
    Damage,
    Data,
    Device,
    Edits,
    Format,
    Fresh,
    Json,
    Keep,
    Model,
    Out,
    Over,
    Pin,
    Samples,
    Seed,
    SeqLen,
    pins,
    stretches,
)

if TYPE_CHECKING:
    from secateur.types import Menu


def survey(
    model: Model,
    data: Data,
    out: Out,
    format: Format = None,
    over: Over = "all",
    keep: Keep = None,
    pin: Pin = None,
    damage: Damage = "kronecker",
    edits: Edits = "bits",
    clock: Annotated[bool, typer.Option("--clock", help="Time all of it on this processor, to cap ms.")] = False,
    samples: Samples = None,
    seq_len: SeqLen = None,
    fresh: Fresh = False,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Make the menu: the slow part, done once; afterwards a plan for any budget takes seconds. A broken run goes on."""
    from secateur.cli import show
    from secateur.cli.frame import job

    with job(as_json, out, resumes=True) as work:
        work.say(
            f"surveying {model} for {format or 'the usual format'} with {stretches(samples)} of {data}; "
            f"the menu goes to {out}"
        )
        from secateur.cut import survey as make

        menu = make(
            model,
            data,
            format=format,
            out=out,
            samples=samples,
            seq_len=seq_len,
            over=over,
            keep=tuple(keep or ()),
            pin=pins(pin),
            damage=damage,
            edits=edits,
            clock=clock,
            seed=seed,
            device=device,
            resume=not fresh,
            tell=work.tell,
        )
        work.then = shlex.join(["secateur", "plan", str(out), "--budget", "4 bits/weight", "-o", "plan.yaml"])
        work.give({"menu": str(out), **summary(menu)}, show.menu)


def summary(menu: Menu) -> dict[str, Any]:
    """A menu in short: for every edit, the whole network had every unit taken it that can, the others their dearest."""
    import numpy as np

    from secateur.parts.edits import text

    payload = menu.cost["payload"]
    possible = np.isfinite(payload) & np.isfinite(menu.damage)
    dearest = np.where(possible, payload, -np.inf).argmax(1)
    rows = np.arange(len(menu.units))
    edits = []
    for at, edit in enumerate(menu.edits):
        takes = possible[:, at]
        choice = np.where(takes, at, dearest)
        spent = payload[rows, choice].sum() + menu.fixed.get("payload", 0.0)
        edits.append(
            {
                "edit": text(edit),
                "units": int(takes.sum()),
                "bits_per_weight": float(8 * spent / menu.weights),
                "damage": float(menu.damage[rows, choice].sum()),
                "error": float(np.sqrt((menu.error[rows, choice] ** 2).sum())),
            }
        )
    return {"units": len(menu.units), "weights": menu.weights, "edits": edits}
