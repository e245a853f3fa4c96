"""The shape Train as a job: a network learns a text or pictures, and many sizes of it where a method makes it elastic.

`train("model", "text.txt", out="out", elastic="width,depth")` leaves the network, how its loss went (`training.json`)
and what was done (`trained.json`) in a folder; `draw("out", ["50% flops"], out="small")` takes a smaller one out of it.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from secateur import catalogue
from secateur.measure.speed import peak_rss
from secateur.model.elastic import Supernet, full, least, parse
from secateur.model.fit import Plugs, fit
from secateur.model.goals import order
from secateur.model.history import History
from secateur.model.norms import normalised, renew
from secateur.model.ordered import put_in_order
from secateur.model.resume import Keep
from secateur.model.stream import device_of
from secateur.parts.losses import towards
from secateur.parts.schedules import Schedule
from secateur.train.draw import draw
from secateur.train.judging import judged, row
from secateur.train.subject import FILE, Subject, open_subject
from secateur.types import SecateurError

__all__ = ["draw", "train"]

#: what a training does where nobody says otherwise
STEPS, RATE, PASSES, METHOD = 300, 1e-3, 2, "sortednet"
#: how often the loss on what is held out is measured on the way
LOOKS = 10

Tell = Callable[[str, int, int], None]


def train(
    model: str,
    data: str,
    *,
    out: str | Path,
    elastic: str = "",
    method: str | None = None,
    policy: str = "uniform",
    passes: int | None = None,
    steps: int | None = None,
    tokens: int | None = None,
    epochs: float | None = None,
    lr: float = RATE,
    batch: int | None = None,
    seq_len: int | None = None,
    schedule: str = "cosine",
    warm: int | None = None,
    teacher: str | None = None,
    augment: str = "",
    scratch: bool = False,
    precision: str = "auto",
    seed: int = 0,
    device: str | None = None,
    resume: bool = True,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Train a model on data and write it to a folder as it was stored, with its history.

    `elastic` names axes ("width,heads,depth", "width:8"): then every pass of a step trains a slice that the `method`
    chooses, by its `policy`, `passes` a step (2 where it is elastic, else 1). Channels and heads of a network that has
    learned are put in order of their weight before, which changes nothing of what it says. How long: `steps`, `tokens`
    (examples) read, or `epochs`; 300 steps if none is said. `teacher` is a model whose answers are learned as well,
    "self" what the network is before. `augment` varies pictures from pass to pass: "flip,shift:4". `scratch` begins
    with weights of chance. `resume` takes up a run that broke off, which ends with the same bytes, and one that is
    finished. Losses are nats per token (example of an image model).
    """
    out, tell = Path(out), tell or (lambda *_: None)
    subject = open_subject(model, device_of(device), seed if scratch else None)
    if out.exists() and Path(model).exists() and out.resolve() == Path(model).resolve():
        raise SecateurError(f"{out} is the model itself", "give another folder with -o")
    net = subject.supernet(parse(elastic)) if elastic else Supernet((), ())
    method = method or (METHOD if net.axes else "")
    parts = passes or (PASSES if net.axes else 1)
    learn, held = subject.data(data, seq_len, seed)
    vary = subject.varied(augment, learn) if augment else None
    size = min(batch or subject.batch, len(learn))
    if batch and batch > len(learn):
        raise SecateurError(f"a batch of {batch} is more than the {len(learn)} examples of {data}", f"--batch {size}")
    each = subject.goal.labels(subject.some(learn, torch.arange(1))).numel()
    steps = _steps(steps, tokens, epochs, len(learn), size * parts, each)
    warm = min(max(steps // 20, 1), 100) if warm is None else warm
    half = _half(precision, device_of(device))
    about = {
        "model": subject.digest,
        "data": subject.digest_of(learn),
        "seq_len": seq_len,
        "elastic": {axis.name: list(axis.shares) for axis in net.axes},
        "method": method,
        "policy": policy if net.axes else "",
        "passes": parts,
        "steps": steps,
        "lr": lr,
        "batch": size,
        "schedule": schedule,
        "warm": warm,
        "teacher": teacher or "",
        "augment": augment,
        "scratch": scratch,
        "bfloat16": half,
        "seed": seed,
    }
    if net.axes and not scratch:
        put_in_order(subject.network, net)
    keep = Keep(out / ".train" / "checkpoint.safetensors", json.dumps(about, sort_keys=True))
    if resume and (done := _finished(out, about)):
        return done | {"resumed": True}
    if not resume:
        keep.clear()
    taken = keep.file.exists()
    plugs = _plugs(subject, net, method, policy)
    plugs = replace(plugs, select=vary) if vary else plugs
    if teacher:
        plugs = replace(plugs, extra=towards(_teacher(teacher, subject), subject.goal))

    def held_loss() -> float:
        return judged(subject, net, full(net.axes), None, held).loss

    before = held_loss() if not taken else None
    history = _learned(subject, learn, about, plugs, keep, held_loss, tell)
    known = _renewed(subject, learn, seed)
    rows = _rows(subject, net, known, held, tell)
    if not history.held_steps:
        history.held(steps, rows[-1]["loss"])
    result = {
        "model": model,
        "data": data,
        "out": str(out),
        "about": about,
        "each": subject.goal.each,
        "steps": steps,
        "read": history.tokens[-1],
        "loss_before": before,
        "loss_after": rows[-1]["loss"],
        "slices": rows,
        "seconds": history.seconds,
        "peak_rss_bytes": peak_rss(),
    }
    return _written(subject, history, result, out, keep) | {"resumed": taken}


def _learned(
    subject: Subject,
    learn: Any,
    about: Mapping[str, Any],
    plugs: Plugs,
    keep: Keep,
    held_loss: Callable[[], float],
    tell: Tell,
) -> History:
    """Go through the loop as `about` says; what is held out is looked at on the way where no statistics lag behind."""
    steps, which = about["steps"], order(len(learn), about["batch"], about["seed"])
    look = None if normalised(subject.network) else (max(1, steps // LOOKS), held_loss)
    return fit(
        subject.network,
        lambda at: subject.some(learn, which(at)),
        subject.goal,
        steps=steps,
        rate=about["lr"],
        course=Schedule(about["schedule"], about["warm"]),
        plugs=plugs,
        parts=about["passes"],
        half=about["bfloat16"],
        seed=about["seed"],
        keep=keep,
        look=look,
        tell=tell,
    )


def _steps(steps: int | None, tokens: int | None, epochs: float | None, n: int, batch: int, each: int) -> int:
    said = [name for name, value in (("steps", steps), ("tokens", tokens), ("epochs", epochs)) if value is not None]
    if len(said) > 1:
        raise SecateurError(f"--{said[0]} and --{said[1]} both say how long to train", "give one of them")
    if tokens is not None:
        return max(1, math.ceil(tokens / (batch * each)))
    if epochs is not None:
        return max(1, math.ceil(epochs * n / batch))
    return STEPS if steps is None else steps


def _half(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16: where it is asked for, and by itself on a GPU that can."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise SecateurError(f"there is no precision `{precision}`", "there are auto, float32, bfloat16")
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bfloat16"


def _plugs(subject: Subject, net: Supernet, method: str, policy: str) -> Plugs:
    """What the method of this name plugs in: a file of `methods/elastic/` has a class of its file's name."""
    if not method:
        return Plugs()
    found = catalogue.find(method)
    if found.wing != "elastic":
        raise SecateurError(f"`{method}` is of the wing {found.wing}, and trains no network", "--method sortednet")
    if not net.axes:
        raise SecateurError(f"`{method}` trains what is elastic, and nothing is said to be", "--elastic width,depth")
    name = Path(found.file).stem
    module = import_module(f"secateur.methods.elastic.{name}")
    return getattr(module, name.title().replace("_", ""))(policy=policy)(subject.network, net)


def _teacher(name: str, subject: Subject) -> torch.nn.Module:
    """Frozen: the network as it is now, or another one."""
    device = next(subject.network.parameters()).device
    made = copy.deepcopy(subject.network) if name == "self" else open_subject(name, device, None).network
    return made.eval().requires_grad_(False)


def _renewed(subject: Subject, learn: Any, seed: int) -> list[torch.Tensor] | None:
    """The batches by which normalisations are renewed, where there are some; those of the whole network are."""
    if not normalised(subject.network):
        return None
    which = order(len(learn), min(128, len(learn)), seed)
    batches = [subject.inputs(subject.some(learn, which(at))) for at in range(min(10, len(learn) // 128) or 1)]
    renew(subject.network, batches)
    return batches


def _rows(subject: Subject, net: Supernet, known: Any, held: Any, tell: Tell) -> list[dict[str, Any]]:
    """What some slices lose: the smallest, each axis at its smallest alone, all axes half way, and the whole."""
    whole, small = dict(full(net.axes).sizes), dict(least(net.axes).sizes)
    middle = {axis.name: axis.shares[(len(axis.shares) - 1) // 2] for axis in net.axes}
    alone = [whole | {name: share} for name, share in small.items()]
    chosen: list[Mapping[str, float]] = [small, middle, *alone, whole]
    some = {tuple(one[axis.name] for axis in net.axes): one for one in chosen}
    rows = []
    for at, one in enumerate(some.values()):
        rows.append(row(subject, net, one, known, held))
        tell("measuring slices", at + 1, len(some))
    return rows


def _finished(out: Path, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a run of these settings has left, if it is whole."""
    try:
        told = json.loads((out / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = (out / "config.json").exists() and isinstance(told, dict) and told.get("about") == about
    return told if whole else None


def _written(subject: Subject, history: History, result: dict[str, Any], out: Path, keep: Keep) -> dict[str, Any]:
    """Everything into the folder, config.json last; then the checkpoint of the run goes."""
    from secateur.export._write import write_text

    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").unlink(missing_ok=True)
    history.save(out)
    result["bytes_on_disk"] = subject.bytes()
    write_text(out / FILE, json.dumps(result, indent=1) + "\n")
    subject.write(dict(subject.network.state_dict()), out)
    keep.clear()
    if keep.file.parent.is_dir() and not any(keep.file.parent.iterdir()):
        keep.file.parent.rmdir()
    return result
