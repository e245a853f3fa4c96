"""What a model does on a text, beside others and against a reference: loss, divergence, size, speed, memory.

`measure(["model", "out"], "text.txt", against="model")["rows"]` has a row for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def measure(
    models: Sequence[str],
    data: str | Path,
    *,
    against: str | None = None,
    samples: int | None = None,
    seq_len: int | None = None,
    stride: int | None = None,
    bos: bool = False,
    seed: int = 0,
    device: str | None = None,
    tasks: Sequence[str] = (),
    tell: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """One row a model, all on the same text; `against` a reference with KL, agreement, and the rise of the loss.

    Losses are nats per token, their standard errors are over windows. The whole text is measured, or `samples` windows
    of it, spread evenly; `measure/windows.py` says which tokens `stride` lets count. Everything is computed in float32,
    whatever the files hold, so that rows differ by their weights alone. `seconds` are those of this computation, not of
    the runtime that a file is made for; `peak_rss_bytes` is the process's peak until then. `bos` begins every window
    with the tokenizer's first token, which Gemma cannot do without. `tasks` are lm-eval's, run on the same weights.
    """
    from secateur.parts.vision import is_vision

    if any(is_vision(name) for name in (*models, *([against] if against else ()))):
        of_text = {"seq_len": seq_len, "stride": stride, "bos": bos, "tasks": tasks}
        return _pictures(models, data, against, samples, device, tell, of_text)
    from secateur.measure import tasks as harness
    from secateur.measure.models import open_model
    from secateur.measure.rows import Desk, same_tokens
    from secateur.measure.windows import Texts, length_for, read_text

    if tasks:
        harness.check(tasks)
    opened = [open_model(name) for name in models]
    reference = [open_model(against)] if against is not None else []
    length = length_for([*opened, *reference], seq_len)
    texts = Texts(read_text(data), str(data), length, samples, stride, bos, seed)
    windows = [texts.windows(model) for model in [*opened, *reference]]
    same = same_tokens([*opened, *reference], windows, against is not None)
    with TemporaryDirectory(prefix="secateur-") as place:
        desk = Desk(device, Path(place), tell or (lambda *_: None))
        standard = desk.read(reference[0], windows[-1]) if reference else None
        rows = [desk.row(model, at, standard) for model, at in zip(opened, windows, strict=False)]
        for model, row in zip(opened, rows, strict=True) if tasks else ():
            row["tasks"] = harness.run(model.network().to(desk.device), model.tokenizer, tasks, seed)
    about = {"data": str(data), "against": against, "seq_len": length, "stride": texts.step, "same_tokens": same}
    return {**about, "windows": len(windows[0].tokens), "rows": rows}


def _pictures(
    models: Sequence[str],
    data: str | Path,
    against: str | None,
    samples: int | None,
    device: str | None,
    tell: Callable[[str, int, int], None] | None,
    of_text: dict[str, Any],
) -> dict[str, Any]:
    """Image models go their own way; what only texts have may not be asked of them."""
    from secateur.measure.pictures import measure_pictures
    from secateur.types import SecateurError

    if asked := [name for name, value in of_text.items() if value]:
        raise SecateurError(f"`--{asked[0].replace('_', '-')}` is for language models", "leave it out for image models")
    tell = tell or (lambda *_: None)
    return measure_pictures(models, data, against=against, samples=samples, device=device, tell=tell)
