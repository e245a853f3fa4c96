"""Choosing examples: how many, by whom, and what was chosen.

A chooser is the attribute of its file's name, `(eye: Eye, room: Room, random: torch.Generator) -> Chosen`: a plain
score in `scores.py`, or a method that is found by its path. What it has looked at through the eye is charged by the
eye. `room` is how much may be kept: a number of examples, or of tokens; no chooser ever takes more.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.parts.eyes import Eye, Seen
from secateur.types import BudgetError, PlanError

#: who chooses where nobody says, without and with examples to resemble
DEFAULT, TOWARDS = "random", "simcore"


@dataclass(frozen=True)
class Room:
    """How much may be kept: the sum of `cost` over the chosen is at most `most`."""

    cost: Tensor  # [examples], int64
    most: int
    unit: str  # "examples" or "tokens"
    asked: str

    def of(self, at: Tensor) -> Room:
        """The same room, and some of the examples."""
        return replace(self, cost=self.cost[at])

    def used(self, at: Tensor) -> int:
        return int(self.cost[at].sum())

    def first(self, order: Tensor) -> Tensor:
        """Going along an order, every example that still fits, in that order.

        >>> Room(torch.tensor([4, 3, 2, 1]), 6, "tokens", "6 tokens").first(torch.tensor([0, 1, 2, 3])).tolist()
        [0, 2]
        """
        if self.unit == "examples":
            return order[: self.most]
        left, taken = self.most, []
        for at, cost in zip(order.tolist(), self.cost[order].tolist(), strict=True):
            if cost <= left:
                taken.append(at)
                left -= cost
        return torch.tensor(taken, dtype=torch.long)


@dataclass(frozen=True)
class Chosen:
    """The places of what is kept; what it was chosen by, a number of each example of the pool (NaN where there is none,
    higher: rather kept); and what there is to say about it."""

    at: Tensor
    score: Tensor
    scored: str  # what the score is
    about: Mapping[str, Any] = field(default_factory=dict)
    shown: bool = True  # whether the score is worth a colour of its own


Chooser = Callable[[Eye, Room, torch.Generator], Chosen]


@dataclass(frozen=True)
class Keep:
    """How much is to be kept, as it was asked for: `10%`, `500`, `2000 tokens`, `5% tokens`."""

    asked: str
    number: float
    share: bool
    unit: str

    @classmethod
    def parse(cls, text: str) -> Keep:
        """
        >>> Keep.parse("10%"), Keep.parse("20_000 tokens").number
        (Keep(asked='10%', number=0.1, share=True, unit='examples'), 20000.0)
        """
        found = re.fullmatch(r"\s*(\d[\d_,]*(?:\.\d+)?|\.\d+)\s*(%?)\s*(?:of\s+)?(?:the\s+)?([a-z]*)\s*", text.lower())
        unit = "tokens" if found and found[3] in ("token", "tokens") else "examples"
        if not found or found[3] not in ("", "token", "tokens", "example", "examples"):
            raise BudgetError(f"cannot read `--keep {text}`", 'write it like "10%", 500, or "20000 tokens"')
        number, share = float(re.sub("[_,]", "", found[1])), found[2] == "%"
        if not share and number != int(number):
            raise BudgetError(f"`--keep {text}` is no whole number", 'write it like "10%", 500, or "20000 tokens"')
        if share and number > 100:
            raise BudgetError(f"`--keep {text}` is more than all there is", 'write it like "10%"')
        return cls(text.strip(), number / 100 if share else number, share, unit)

    def room(self, n: int, tokens: Tensor | None, each: str = "example") -> Room:
        """What that comes to for `n` examples, of so many `tokens` each; BudgetError where nothing can fit."""
        if self.unit == "tokens" and tokens is None:
            raise BudgetError(f"`--keep {self.asked}`: pictures have no tokens", "ask for a number of examples")
        cost = torch.ones(n, dtype=torch.long) if self.unit == "examples" or tokens is None else tokens.long()
        total, least = int(cost.sum()), int(cost.min())
        # a share is never rounded up; what is a hair's breadth below a whole number is one
        most = int(self.number * total + 1e-9) if self.share else int(self.number)
        said = f"the data holds {total:,} {f'{each}s' if self.unit == 'examples' else 'tokens'}"
        if most > total:
            raise BudgetError(f"asked to keep {self.asked}, but {said}", f'ask for at most {total}, or say "10%"')
        if most < least and self.unit == "tokens":
            hint = f'the shortest {each} has {least}: --keep "{least} tokens"'
            raise BudgetError(f"asked to keep {self.asked}, which no {each} fits into", hint)
        if most < 1:
            hint = f"--keep 1 is the least, {100 / total:.2g}%"
            raise BudgetError(f"asked to keep {self.asked}, but {said}: that is not one", hint)
        return Room(cost, most, self.unit, self.asked)


def names() -> list[str]:
    """The choosers there are, methods among them."""
    return sorted(_places())


def _places() -> dict[str, str]:
    """The module of every chooser by name; of a method's file no more than its text is looked at."""
    from secateur.parts.select import scores

    package = Path(__file__).parents[2]
    found: dict[str, str] = dict.fromkeys(scores.NAMES, f"{__name__}.scores")
    for file in sorted((package / "methods").glob("*/*.py")):
        if re.search(rf"^{file.stem}: Chooser = ", file.read_text(encoding="utf-8"), re.MULTILINE):
            found[file.stem.replace("_", "-")] = f"secateur.methods.{file.parent.name}.{file.stem}"
    return found


def find(words: str) -> Any:
    """The chooser of this name, its knobs as they are or as the words set them: `simcore(patience=5)`.

    Values only: nothing in the words is ever run. PlanError where there is none, or no such knob.
    """
    name, bracket, _ = words.strip().partition("(")
    places = _places()
    place = places.get(name.strip().replace("_", "-"))
    if place is None:
        near = get_close_matches(name, places, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(sorted(places))}"
        raise PlanError(f"no method `{name}` chooses examples", hint)
    chooser = getattr(import_module(place), name.strip().replace("-", "_"))
    return _turned(chooser, words) if bracket else chooser


def _turned(chooser: Any, words: str) -> Any:
    known = {one.name: one for one in fields(chooser)}
    hint = f"its knobs are {', '.join(f'{name}={getattr(chooser, name)!r}' for name in known) or 'none'}"
    try:
        call: Any = ast.parse(words.strip().replace("-", "_"), mode="eval").body
        values = {one.arg: ast.literal_eval(one.value) for one in call.keywords}
    except (SyntaxError, ValueError, AttributeError):
        raise PlanError(f"cannot read the method `{words}`", hint) from None
    wrong = [f"`{name}`" for name in values if name not in known] + ["a value without a name"] * bool(call.args)
    if wrong:
        raise PlanError(f"cannot set {wrong[0]} in `{words}`", hint)
    for name, value in values.items():
        usual = getattr(chooser, name)
        like = (int, float) if isinstance(usual, float) else type(usual)
        if not isinstance(value, like) or (isinstance(value, bool) and not isinstance(usual, bool)):
            raise PlanError(f"`{name}={value!r}` in `{words}` is no {type(usual).__name__}", hint)
    return replace(chooser, **values)


__all__ = ["Chooser", "Chosen", "Eye", "Keep", "Room", "Seen", "find", "names"]
