"""Recipes: the options of `cut` or `select` in a YAML file. Plain values only; a recipe cannot run code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from secateur.types import SecateurError

#: every key a recipe may have, and what its value is in words; the same names as the options of `secateur cut`
CUT: Mapping[str, str] = {
    "data": "text",
    "budget": "text",
    "out": "text",
    "format": "text",
    "over": "text",
    "keep": "list",
    "pin": "map",
    "damage": "text",
    "edits": "text",
    "allocate": "text",
    "round": "text",
    "samples": "number",
    "seq_len": "number",
    "seed": "number",
    "device": "text",
}
#: those of `secateur select`
SELECT: Mapping[str, str] = {
    **dict.fromkeys(("data", "keep", "target", "method", "out", "documents", "device"), "text"),
    **dict.fromkeys(("samples", "seq_len", "seed"), "number"),
}
#: by command
KEYS: Mapping[str, Mapping[str, str]] = {"cut": CUT, "select": SELECT}


def load(path: str | Path, keys: Mapping[str, str] = CUT) -> dict[str, Any]:
    """The options that a recipe sets, checked; `seq-len` and `seq_len` are the same key."""
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SecateurError(f"cannot read the recipe {path}: {error.strerror}", "check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        what = getattr(error, "problem", None) or "not YAML"
        raise SecateurError(
            f"cannot read the recipe {path}{line}: {what}", "a recipe is lines of `key: value`"
        ) from None
    if not isinstance(found, dict):
        raise SecateurError(f"the recipe {path} holds no options", f"its keys are {', '.join(keys)}")
    return dict(_checked(path, str(word), value, keys) for word, value in found.items())


def _checked(path: str | Path, word: str, value: Any, keys: Mapping[str, str]) -> tuple[str, Any]:
    key = word.replace("-", "_")
    if key not in keys:
        from secateur.catalogue import nearest

        close = nearest(key, keys)
        hint = f"did you mean `{close}`?" if close else f"the keys are {', '.join(keys)}"
        raise SecateurError(f"the recipe {path} has an unknown key `{word}`", hint)
    return key, _as(keys[key], value, f"`{word}` in the recipe {path}")


def _as(kind: str, value: Any, name: str) -> Any:
    """The value in the shape that its option has: a lone word is a list of one, a number may stand for text."""
    if kind == "text" and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "list" and isinstance(value, str | list):
        words = [value] if isinstance(value, str) else value
        if all(isinstance(word, str) for word in words):
            return words
    if kind == "map" and isinstance(value, dict) and all(isinstance(inner, str) for inner in value.values()):
        return {str(pattern): edit for pattern, edit in value.items()}
    wanted = {
        "text": "one word or number",
        "number": "a whole number",
        "list": "a pattern, or a list of patterns",
        "map": "lines of `pattern: edit`",
    }[kind]
    raise SecateurError(f"{name} is {value!r}, but should be {wanted}", "quote what YAML may take for something else")
