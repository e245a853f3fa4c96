"""Presses: tools that shorten the cache of what was read and cut no file, met at bytes of keys and values.

With one of them in a bench every window is a prompt and a rest. The press reads the prompt, shortens its cache, and the
rest is scored on what is left; ours read all on the whole cache of a network that has less of it, and are scored on the
same tokens. A press's bytes are those of the prompt: what comes behind it is kept in full.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from secateur.bench.rivals import Rival, RivalError, run
from secateur.bench.versus import Entry, Field, begun, failed, folder_of
from secateur.types import SecateurError


def meet_press(here: Field, rival: Rival, settings: Sequence[str], caps: Mapping[str, float], budget: str) -> Entry:
    """The row of the first setting that leaves no more of the cache than the cap, the largest coming first. Whatever
    goes wrong is a row that says so."""
    row = begun(rival, settings, budget)
    try:
        setting = _roomiest(here, rival, settings, caps)
        row |= {"contestant": f"{rival.name} {setting}", "setting": setting}
        done = {"rival": rival.name, "setting": setting, "version": row["version"], **here.key()}
        done |= {"fingerprint": here.case.checkpoint.fingerprint, "prompt": here.prompt}
        done |= {} if here.text else {"windows": here.case.stream.digest(here.case.held)}
        found = here.once(folder_of(here, rival, setting), done, lambda: _pressed(here, rival, setting))
        names = ("version", "bytes", "bits_per_weight", "kv", "agreement", "seconds")
        row |= {name: found.row[name] for name in names} | {"budget": f"kv {found.row['kv']} B/token"}
        return Entry(row, found.kls, found.rises)
    except SecateurError as why:
        return failed(row, why, budget)


def _roomiest(here: Field, rival: Rival, settings: Sequence[str], caps: Mapping[str, float]) -> str:
    if other := set(caps) - {"kv"}:
        said = f"it shortens the cache alone, and knows nothing of {', '.join(sorted(other))}"
        raise RivalError(said, 'give it a budget like "50% kv"')
    fitting = [one for one in settings if rival.own.left(one) * here.case.stream.kv <= caps.get("kv", math.inf)]
    if not fitting:
        raise RivalError(f"even {settings[-1]} leaves more of the cache than that")
    return fitting[0]


def _pressed(here: Field, rival: Rival, setting: str) -> Entry:
    """Let it run on the windows that everybody is scored on. The file that it would run with is the uncut one."""
    import numpy as np

    from secateur.measure.models import open_model
    from secateur.measure.scorer import scored
    from secateur.model.disk import atomic

    windows, folder = scored(here.model, here.on, here.how["seed"], here.prompt), folder_of(here, rival, setting)
    tokens = folder.with_name(f"{folder.name}.npy")
    with atomic(tokens) as opened:
        np.save(opened, windows.tokens.cpu().numpy())
    here.tell(f"{rival.name} {setting}", 0, 1)
    how = {"model": here.case.checkpoint.folder, "device": str(here.case.device), "seed": here.how["seed"]}
    told = run(rival, setting, folder, tokens=tokens, limit=here.limit, prompt=windows.first - 1, **how)
    here.tell(f"{rival.name} {setting}", 1, 1)
    lost, whole = json.loads((folder / "windows.json").read_text(encoding="utf-8")), open_model(here.model)
    row = {"version": told["version"], "seconds": told["seconds"], "agreement": math.fsum(lost["agreement"])}
    row["agreement"] /= len(windows.tokens)
    row |= {"bytes": whole.bytes, "bits_per_weight": whole.bits_per_weight}
    return Entry(row | {"kv": math.ceil(lost["left"] * here.case.stream.kv)}, lost["kl"], lost["rise"])
