"""Three ways to call a method, from the one line that its docstring gives: in a shell, in a recipe, in Python.

>>> use = 'secateur cut MODEL --data text.txt --budget "4 bits/weight" --round one-sided -o out'
>>> print(recipe(use))
data: text.txt
budget: 4 bits/weight
round: one-sided
out: out
>>> print(python(use))
secateur.cut('MODEL', 'text.txt', '4 bits/weight', round='one-sided', out='out')
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SHORT = {"-o": "out", "-d": "data", "-b": "budget", "-f": "format", "-k": "keep", "-t": "target", "-m": "method"}
#: what each verb takes by place; a list of budgets where several are allowed
_PLACES = {"cut": ("data", "budget"), "survey": ("data",), "plan": ("budget",), "apply": ("plan",), "measure": ()}
_PLACES |= {"train": ("data",), "draw": ("budget",), "select": ("data", "keep"), "law": ()}
#: the verbs that take several budgets
_SEVERAL = ("plan", "draw")
#: the options that only the command line has
_SPOKEN = {"json", "fresh", "recipe"}


def words(use: str) -> tuple[str, list[str], dict[str, str]]:
    """The command, what it is about, and its options by their long names, with `_` for `-`."""
    _, command, *rest = shlex.split(use) or ["", ""]
    about, options = [], {}
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            name = _SHORT.get(word, word.lstrip("-").replace("-", "_"))
            options[name] = rest.pop(0) if rest and not rest[0].startswith("-") else ""
        else:
            about.append(word)
    return command, about, options


def recipe(use: str) -> str:
    """The options as lines of a recipe for the command's `--recipe`; nothing where the command takes none."""
    import yaml

    from secateur.recipe import KEYS

    command, _, options = words(use)
    keys = KEYS.get("cut" if command == "plan" else command, {})
    if not keys:
        return ""
    told = {name: _said(keys[name], value) for name, value in options.items() if name in keys}
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=1000).rstrip()


def _said(kind: str, value: str) -> Any:
    """A value in the shape that its key has in a recipe."""
    if kind == "map":
        pattern, _, edit = value.partition("=")
        return {pattern: edit}
    return int(value) if kind == "number" else [value] if kind == "list" else value


def python(use: str) -> str:
    """The same call in Python, through the front door; nothing where the door has no such verb."""
    command, about, options = words(use)
    if command not in _PLACES:
        return ""
    places = [repr(word) for word in about]
    for name in _PLACES[command]:
        if name in options:
            value = options.pop(name)
            places.append(repr([value] if command in _SEVERAL else value))
    named = [f"{name}={_value(name, value)}" for name, value in options.items() if name not in _SPOKEN]
    return f"secateur.{command}({', '.join([*places, *named])})"


def _value(name: str, value: str) -> str:
    """Numbers as numbers, patterns as the tuple or the map that Python takes, words as words."""
    if name == "keep":
        return repr((value,))
    if name == "pin":
        return repr(_said("map", value))
    return value if value.isdigit() else repr(value) if value else "True"


def parts(file: Path) -> Iterator[tuple[str, str]]:
    """The public functions and classes of a method's file as one writes them, each with its first sentence."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            told = (ast.get_docstring(node) or "").partition("\n\n")[0]
            yield f"{node.name}({', '.join(_takes(node))})", " ".join(told.split())
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            name = ast.unparse(target)
            if name.islower() and not name.startswith("_"):  # a method ready to be called, with its knobs as they are
                yield name, ast.unparse(node.value)


def _takes(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    if isinstance(node, ast.ClassDef):
        fields = [line for line in node.body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
        return [_with(ast.unparse(field.target), field.value) for field in fields]
    given = [*node.args.posonlyargs, *node.args.args]
    defaults: list[ast.expr | None] = [*[None] * (len(given) - len(node.args.defaults)), *node.args.defaults]
    taken = [_with(arg.arg, default) for arg, default in zip(given, defaults, strict=True)]
    taken += [f"*{node.args.vararg.arg}"] if node.args.vararg else ["*"] if node.args.kwonlyargs else []
    return taken + [_with(a.arg, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]


def _with(name: str, default: ast.expr | None) -> str:
    return name if default is None else f"{name}={ast.unparse(default)}"
