"""`secateur doctor`: what this machine has, and what it would take to have the rest."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.cli.options import Device, Json, Seed

if TYPE_CHECKING:
    from rich.console import RenderableType


def doctor(seed: Seed = 0, device: Device = None, as_json: Json = False) -> None:
    """This machine: Python, torch, cores, memory, disk; every runtime, there or not, and how to get it."""
    from secateur.cli.frame import job

    with job(as_json) as work:
        work.say("looking at this machine; trying one small asymmetric file takes a few seconds")
        work.give(
            {
                "machine": _machine(),
                "torch": _torch(),
                "runtimes": _runtimes(),
                "rivals": _rivals(),
                "checks": _checks(),
            },
            _page,
        )


def _machine() -> dict[str, Any]:
    flags = _cpu_flags()
    return {
        "python": platform.python_version(),
        "secateur": _version(),
        "system": platform.platform(terse=True),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "avx512": "avx512f" in flags,
        "amx": "amx_tile" in flags,
        "memory_bytes": _memory("MemTotal"),
        "memory_free_bytes": _memory("MemAvailable"),
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
    }


def _version() -> str:
    from secateur import __version__

    return __version__


def _cpu_flags() -> set[str]:
    """The processor's own words for what it can; none where there is no /proc."""
    return set(_proc("cpuinfo", "flags").split())


def _memory(name: str) -> int | None:
    """A line of /proc/meminfo in bytes; None where there is none."""
    words = _proc("meminfo", name).split()
    return int(words[0]) * 1024 if words else None


def _proc(file: str, name: str) -> str:
    try:
        lines = Path("/proc", file).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2] for line in lines if line.partition(":")[0].strip() == name), "")


def _torch() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
    return {"version": torch.__version__, "threads": torch.get_num_threads(), "cuda": torch.version.cuda, "gpus": gpus}


def _runtimes() -> list[dict[str, Any]]:
    from secateur.catalogue import RUNTIMES

    found = [
        {"name": one.name, "version": one.version or None, "for": one.what_for, "get": one.get} for one in RUNTIMES
    ]
    from secateur.measure import llamacpp

    llama = {"name": "llama.cpp", "version": llamacpp.version(), "for": "runs GGUF files", "get": llamacpp.GET}
    return [*found, llama]


def _rivals() -> list[dict[str, Any]]:
    """Tools of others that `secateur bench --rivals` can run."""
    from secateur.bench.rivals import every

    told = [(one, one.version()) for one in every({})]
    return [
        {"name": one.name, "version": there, "for": one.sentence.partition(": ")[2].rstrip("."), "get": one.get()}
        for one, there in told
    ]


def _checks() -> list[dict[str, Any]]:
    """Things that only trying tells."""
    return [
        _try("asymmetric compressed-tensors files load in the installed transformers", _asymmetric),
        _try("ONNX can be written, and the installed ONNX Runtime multiplies by 2, 4 and 8 bits", _narrow),
    ]


def _narrow() -> bool:
    from secateur.export._graph import ready, widths

    ready()
    return widths() == (2, 4, 8)


def _asymmetric() -> bool:
    from secateur.export.compressed_tensors import asymmetric_reloads

    return asymmetric_reloads()


def _try(what: str, check: Callable[[], bool]) -> dict[str, Any]:
    try:
        return {"check": what, "holds": check(), "why": None}
    except Exception as error:  # whatever a foreign library throws is the finding
        return {
            "check": what,
            "holds": None,
            "why": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        }


def _page(found: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from secateur.cli.show import size

    machine, torch = found["machine"], found["torch"]
    extras = [word for word, there in (("AVX-512", machine["avx512"]), ("AMX", machine["amx"])) if there]
    facts = Table.grid(padding=(0, 2))
    facts.add_row("secateur", f"{machine['secateur']} on Python {machine['python']}, {machine['system']}")
    facts.add_row("torch", f"{torch['version']}, {torch['threads']} threads, {', '.join(torch['gpus']) or 'no GPU'}")
    facts.add_row("processor", f"{machine['cores']} cores{', ' + ', '.join(extras) if extras else ''}")
    if machine["memory_bytes"]:
        facts.add_row("memory", f"{size(machine['memory_bytes'])}, {size(machine['memory_free_bytes'])} of it free")
    facts.add_row("disk", f"{size(machine['disk_free_bytes'])} free here")
    runtimes = _listed("runtime", found["runtimes"])
    rivals = _listed("rival, for bench", found["rivals"])
    checks = [
        Text(f"{check['check']}: {'yes' if check['holds'] else check['why'] or 'no'}") for check in found["checks"]
    ]
    return Group(facts, Text(), runtimes, Text(), rivals, Text(), *checks)


def _listed(what: str, rows: list[dict[str, Any]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(what, "version", "what for", "how to get it", box=None, header_style="bold", pad_edge=False)
    for one in rows:
        there = one["version"]
        table.add_row(one["name"], Text(there or "not here"), Text(one["for"]), Text("" if there else one["get"]))
    return table
