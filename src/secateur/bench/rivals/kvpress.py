"""kvpress: the cache of a prompt shortened once it is read, by which of its tokens matter; the network stays whole.

No file changes, so that it is met at bytes of keys and values alone, and on what comes behind the prompt: the first
part of every window is read, its cache is pressed, and the rest is scored on what is left. The presses: SnapKV (arXiv
2404.14469), expected attention (2510.00636), norms of the keys (2406.11430), StreamingLLM (2309.17453) and TOVA
(2401.06104).
"""

from __future__ import annotations

from typing import Any

NAME = "kvpress"
DISTRIBUTION = "kvpress"
FORMAT = "packed"
#: of ours, heads and attentions may go where the cache is to be smaller
EDITS = ("heads", "drop")
#: the share of every window that is the prompt; with such a rival everybody is scored on what comes behind it
PROMPT = 0.75
PRESSES = {
    "snapkv": "SnapKVPress",
    "expected": "ExpectedAttentionPress",
    "knorm": "KnormPress",
    "streaming": "StreamingLLMPress",
    "tova": "TOVAPress",
}
#: the press, and the share of the prompt's cache that is left
SETTINGS = tuple(f"{press}-{left}" for left in ("0.75", "0.5", "0.375", "0.25", "0.125") for press in PRESSES)
SHAPE = rf"({'|'.join(PRESSES)})-(1|0\.\d+)"


def bits(setting: str, rows: int, cols: int) -> float:
    """The weights are as they were."""
    return 16.0


def left(setting: str) -> float:
    """The share of the prompt's keys and values that stays."""
    return float(setting.partition("-")[2])


def cut(job: Any) -> str:
    """What every window loses behind its prompt, against the same network on the whole cache.

    Presses have their own defaults, but SnapKV looks from a sixth of the prompt where its 64 tokens would be more.
    """
    import json
    from importlib.metadata import version

    import kvpress
    import torch

    press = getattr(kvpress, PRESSES[job.setting.partition("-")[0]])(compression_ratio=1 - left(job.setting))
    if hasattr(press, "window_size"):
        press.window_size = max(1, min(press.window_size, job.prompt // 6))
    model, windows = job.load(), job.windows().to(job.device)
    found: dict[str, Any] = {"kl": [], "rise": [], "agreement": [], "left": 0.0}
    with torch.no_grad():
        for some in windows.split(8):
            lost, kept = behind(model, press, some, job.prompt)
            found |= {name: found[name] + values.mean(1).tolist() for name, values in lost.items()}
            found["left"] = max(found["left"], kept / job.prompt)
    (job.out / "windows.json").write_text(json.dumps(found) + "\n")
    return version(DISTRIBUTION)


def behind(model: Any, press: Any, tokens: Any, prompt: int) -> tuple[dict[str, Any], float]:
    """KL, rise of the loss, and whether first choices agree, of every token that is predicted on the pressed cache; and
    how many tokens are left in it, the mean over layers.

    Tokens behind the prompt keep their true places, though fewer keys lie before them.
    """
    import torch
    from transformers import DynamicCache

    whole = model(input_ids=tokens, use_cache=False).logits[:, prompt:-1]
    cache = DynamicCache(config=model.config)
    with press(model):
        model(input_ids=tokens[:, :prompt], past_key_values=cache, use_cache=True)
    layers: Any = cache.layers
    kept = sum(layer.keys.shape[2] for layer in layers) / len(layers)
    places = torch.arange(prompt, tokens.shape[1], device=tokens.device).expand(len(tokens), -1)
    rest = model(input_ids=tokens[:, prompt:], past_key_values=cache, position_ids=places, use_cache=True)
    theirs, ours = (x.float().log_softmax(-1) for x in (whole, rest.logits[:, :-1]))
    label = tokens[:, prompt + 1 :, None]
    lost = {
        "kl": (theirs.exp() * (theirs - ours)).sum(-1).double(),
        "rise": (theirs - ours).gather(-1, label)[..., 0].double(),
        "agreement": (theirs.argmax(-1) == ours.argmax(-1)).double(),
    }
    return lost, kept
