"""One shape for all blocks: of all shapes the best, by trying all; and bits alone where the lead may be an error."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from secateur.cut import plan
from secateur.parts.edits import parse, text
from secateur.types import BudgetError, Matrix, Menu, Unit

WORDS = [
    "keep()", "int(bits=4, group=0)", "int(bits=2, group=0)",
    *(f"channels(keep={keep}{then})" for keep in (0.5, 0.25) for then in ("", ", then='int(bits=4, group=0)'")),
    *(f"heads(keep=0.5{then})" for then in ("", ", then='int(bits=2, group=0)'")),
    "drop()",
]  # fmt: skip
SHARE = {"keep()": 1.0, "int(bits=4, group=0)": 0.25, "int(bits=2, group=0)": 0.125, "drop()": 0.0}


def a_menu(seed: int, error: float = 0.0) -> Menu:
    """An attention and an MLP in each of four blocks, and a head that stays as it is or is rounded."""
    draw = np.random.default_rng(seed)
    units = [
        Unit(f"{at}.{part}", "linear", (Matrix(f"{at}.{part}.weight", 10, 10, f"{at}.{part}"),), at)
        for at in range(4)
        for part in ("attn", "mlp")
    ]
    units.append(Unit("head", "head", (Matrix("head.weight", 10, 10, "head"),)))
    edits = [parse(words) for words in WORDS]
    cost, damage = np.full((len(units), len(edits)), np.inf), np.full((len(units), len(edits)), np.inf)
    for u, unit in enumerate(units):
        for e, edit in enumerate(edits):
            kind = text(edit).partition("(")[0]
            own = {"channels": ".mlp", "heads": ".attn", "drop": "."}.get(kind, "")
            if own not in unit.name or (kind == "drop" and unit.block == 0):
                continue
            inner = text(edit.side(0)) if kind in ("channels", "heads") else text(edit)  # type: ignore[attr-defined]
            left = getattr(edit, "keep", 1.0)
            cost[u, e] = round(1000 * SHARE[inner] * left)
            damage[u, e] = 0.0 if inner == "keep()" and left == 1 else draw.random() * (2 - left - SHARE[inner])
    costs, about = {"bytes": cost, "flops": 2 * cost, "kv": cost}, {"one_shape": {"order": [2, 1, 3]}}
    errors = np.full_like(damage, error)
    return Menu(tuple(units), tuple(edits), costs, damage, errors, dict.fromkeys(costs, 0.0), 900, {}, about)


def tried(menu: Menu, caps: dict[str, float]) -> float:
    """The least damage of any plan of one shape within the caps: for every shape all choices, but dominated ones."""
    names = [text(edit) for edit in menu.edits]
    order, best = menu.about["one_shape"]["order"], np.inf
    for channels, heads, gone in product((1.0, 0.5, 0.25), (1.0, 0.5), range(len(order) + 1)):
        totals = {(0.0,) * len(caps): 0.0}
        for u, unit in enumerate(menu.units):
            kind, left = ("channels", channels) if "mlp" in unit.name else ("heads", heads)
            start = f"{kind}(keep={left}" if left < 1 and unit.block is not None else ("keep", "int")
            start = "drop" if unit.block in order[:gone] else start
            some = [e for e, name in enumerate(names) if name.startswith(start) and np.isfinite(menu.damage[u, e])]
            after: dict[tuple[float, ...], float] = {}
            for spent, lost in totals.items():
                for e in some:
                    now = tuple(s + menu.cost[name][u, e] for s, name in zip(spent, caps, strict=True))
                    if all(s <= cap for s, cap in zip(now, caps.values(), strict=True)):
                        after[now] = min(after.get(now, np.inf), lost + menu.damage[u, e])
            totals = after
        best = min([best, *totals.values()])
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_best_of_all_shapes(seed):
    menu = a_menu(seed)
    for budget, caps in (
        ("4000 bytes", {"bytes": 4000}), ("1500 bytes", {"bytes": 1500}), ("900 bytes", {"bytes": 900}),
        ("7000 flops", {"flops": 7000}), ("2500 bytes, 9000 flops", {"bytes": 2500, "flops": 9000}),
    ):  # fmt: skip
        (chosen,) = plan(menu, [budget])
        assert chosen.damage == pytest.approx(tried(menu, caps), rel=1e-4)
        assert chosen.bound <= chosen.damage * (1 + 1e-9)
        assert all(chosen.spent[name] <= cap for name, cap in caps.items())
        blocks = {unit.block for unit in menu.units if chosen.edits[unit.name] == parse("drop()")}
        assert len({getattr(chosen.edits[f"{b}.mlp"], "keep", None) for b in range(4) if b not in blocks}) == 1
        assert all(chosen.edits[f"{b}.{part}"] == parse("drop()") for b in blocks for part in ("attn", "mlp"))


def test_never_more_damage_than_bits_alone():
    for seed in range(6):
        menu = a_menu(seed)
        shaping = [text(edit).startswith(("channels", "heads", "drop")) for edit in menu.edits]
        bits = replace(menu, damage=np.where(shaping, np.inf, menu.damage), about={})
        for budget in ("1200 bytes", "3000 bytes", "6000 bytes"):
            (alone,), (joint,) = plan(bits, [budget]), plan(menu, [budget])
            assert joint.damage <= alone.damage * (1 + 1e-9)


@pytest.mark.parametrize("free", [False, True], ids=["one shape", "any shape"])
def test_a_lead_within_the_error_is_none(free):
    menus = [replace(a_menu(1, error), **({"about": {}} if free else {})) for error in (0.0, 5.0)]
    sure, unsure = (plan(menu, ["1300 bytes"])[0] for menu in menus)
    shaped = [edit for edit in sure.edits.values() if text(edit).startswith(("channels", "heads", "drop"))]
    assert shaped and not any(edit in shaped for edit in unsure.edits.values()) and unsure.damage > sure.damage
    assert unsure.bound <= sure.damage * (1 + 1e-9)
    # where bits alone cannot keep to the budget there is nothing to fall back on
    (least,) = plan(menus[1], ["900 bytes"])
    assert any(edit in shaped or text(edit) == "drop()" for edit in least.edits.values())


def test_what_is_asked_too_much_is_said_of_the_nearest_shape():
    menu = a_menu(0)
    with pytest.raises(BudgetError, match="the cheapest plan on this menu needs"):
        plan(menu, ["10 bytes"])
    said = np.inf
    for at in range(200, 500, 10):  # what it needs, it can have
        try:
            said = min(said, plan(menu, [f"{at} bytes"])[0].spent["bytes"])
        except BudgetError as error:
            needs = int(error.message.split("needs ")[1].split()[0].replace("_", ""))
            assert needs > at and plan(menu, [f"{needs} bytes"])[0].spent["bytes"] <= needs
    assert said < np.inf
