"""Cut a network to fit.

A dozen names, each loaded when it is first used: importing this package costs nothing and does not import torch.

>>> import secateur
>>> secateur.Budget.parse("4.25 bits/weight").caps
{'bits_per_weight': 4.25}
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from secateur.cut import apply as apply
    from secateur.cut import cut as cut
    from secateur.cut import inspect as inspect
    from secateur.cut import plan as plan
    from secateur.cut import survey as survey
    from secateur.law import law as law
    from secateur.measure import measure as measure
    from secateur.select import select as select
    from secateur.train import draw as draw
    from secateur.train import train as train
    from secateur.types import Budget as Budget
    from secateur.types import Edit as Edit
    from secateur.types import Menu as Menu
    from secateur.types import Plan as Plan
    from secateur.types import SecateurError as SecateurError
    from secateur.types import Unit as Unit

_HOME = {
    **dict.fromkeys(("Unit", "Edit", "Menu", "Budget", "Plan", "SecateurError"), "secateur.types"),
    **dict.fromkeys(("inspect", "survey", "plan", "apply", "cut"), "secateur.cut"),
    "measure": "secateur.measure",
    "select": "secateur.select",
    **dict.fromkeys(("train", "draw"), "secateur.train"),
    "law": "secateur.law",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module `secateur` has no `{name}`")
    home = import_module(_HOME[name])
    return globals().get(name) or getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


class _Verb(ModuleType):
    """A module that carries the name of its main function and can be called like it: `secateur.cut(...)`."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **options)


class _Package(ModuleType):
    """Python binds `secateur.cut` to the module when anyone imports from it, so the module must be the verb too."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOME and isinstance(value, ModuleType):
            value.__class__ = _Verb
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
