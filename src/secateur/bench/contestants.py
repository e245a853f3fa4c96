"""What `lagrange+two-sided` means: parts joined by `+`, each an allocator, a rounding, a damage, or the slug of a
method whose own call names one (`gptq` is `--round one-sided`). What it does not say is as `secateur cut` has it.
"""

from __future__ import annotations

from dataclasses import dataclass

from secateur import calls
from secateur.catalogue import methods, nearest
from secateur.types import SecateurError

#: what `secateur cut` takes where nothing is said
USUAL = {"allocate": "lagrange", "round": "two-sided", "damage": "kronecker"}


@dataclass(frozen=True)
class Contestant:
    """One way to cut, by the name it was given, and what that means."""

    name: str
    allocate: str
    round: str
    damage: str


def contestant(words: str) -> Contestant:
    """Read `uniform+gptq`; a SecateurError that names the nearest where a part is unknown or says something twice."""
    known, found = _parts(), {}
    for word in filter(None, (part.strip() for part in words.split("+"))):
        meant = known.get(word) or known.get(word.replace("_", "-"))
        if meant is None:
            close = nearest(word, known)
            hint = f"did you mean `{close}`?" if close else f"there are {', '.join(sorted(known))}"
            raise SecateurError(f"there is no allocator, rounding, damage or method `{word}`", hint)
        if twice := set(meant) & set(found):
            said = f"`{words}` says twice how to {' and '.join(sorted(twice))}"
            raise SecateurError(said, "name at most one allocator, one rounding and one damage")
        found |= meant
    if not found:
        raise SecateurError("a contestant has no name", f"write it like {USUAL['allocate']}+{USUAL['round']}")
    return Contestant(words.strip(), **(USUAL | found))


def _parts() -> dict[str, dict[str, str]]:
    """Every word that a contestant may be made of, and which options it stands for."""
    from secateur.cut.applying import ROUNDERS
    from secateur.parts import allocate, damage

    found = {name: {"round": name} for name in ROUNDERS} | {name: {"damage": name} for name in damage.names()}
    found |= {name: {"allocate": name} for name in allocate.names()}
    for method in methods():
        options = calls.words(method.use)[2]
        meant = {key: options[key] for key in USUAL if key in options}
        if meant and method.name not in found:
            found[method.name] = meant
    return found
