"""torch-pruning: channels away by the norm of their whole group, the same ranking for all layers (arXiv 2301.12900)."""

from __future__ import annotations

from typing import Any

NAME = "torch-pruning"
DISTRIBUTION = "torch-pruning"
MORE = ("numpy", "safetensors", "torch")
FORMAT = "safetensors"
#: it cuts image models, and is asked for FLOPs as well as for bytes
PICTURES = True
WHOLE = True
#: a network takes a moment, so that every share is tried and none is guessed
QUICK = True
#: networks are ours, so its interpreter reads our package too
OURS = True
#: the share of channels that stay, in hundredths
SETTINGS = tuple(f"keep{share}" for share in range(95, 5, -5))
SHAPE = r"keep([1-9]\d?)"


def bits(setting: str, rows: int, cols: int) -> float:
    """Of a weight that stays, spread over those that there were; about, for what goes is counted on both sides."""
    return 32.0 * (int(setting[4:]) / 100) ** 2


def cut(job: Any) -> str:
    """Its `BasePruner` with group magnitudes over all layers at once, in one step and nothing trained; then means and
    variances of the normalisations are renewed on the calibration pictures, as ours are.

    Shortcuts that add empty channels are not in its graph: of such networks only channels inside blocks may go.
    """
    from importlib import import_module
    from importlib.metadata import version

    import numpy as np
    import torch
    from safetensors.torch import save_file

    from secateur.parts.vision import open_vision

    tp: Any = import_module("torch_pruning")
    opened = open_vision(str(job.model))
    network, x = opened.network.eval(), torch.from_numpy(np.load(job.tokens))
    example = opened.example(1)
    kept = left_alone(network, example)
    how = {"importance": tp.importance.GroupMagnitudeImportance(p=2), "global_pruning": True, "ignored_layers": kept}
    tp.pruner.BasePruner(network, example, pruning_ratio=1 - int(job.setting[4:]) / 100, **how).step()
    renew(network, x)
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, job.packed / job.model.name)
    return version(DISTRIBUTION)


def left_alone(network: Any, example: Any) -> list[Any]:
    """Layers that keep all outputs: the classifier, and of a network whose shortcuts add empty channels every layer
    outside its blocks."""
    from importlib import import_module

    from torch import nn

    tp: Any = import_module("torch_pruning")
    kept = [one for one in network.modules() if isinstance(one, nn.Linear)]
    if not getattr(network, "shortcuts_by_width", False):
        return kept
    graph = tp.DependencyGraph().build_dependency(network, example_inputs=example)
    return kept + [one for one in network.modules() if isinstance(one, nn.Conv2d) and _coupled(tp, graph, one)]


def _coupled(tp: Any, graph: Any, conv: Any) -> bool:
    """Whether other convolutions must lose the same outputs."""
    group = graph.get_pruning_group(conv, tp.prune_conv_out_channels, idxs=[0])
    outs = {id(one.dep.target.module) for one in group if one.dep.handler == tp.prune_conv_out_channels}
    return len(outs) > 1


def renew(network: Any, x: Any) -> None:
    """Means and variances of all normalisations, as plain means over batches."""
    import torch

    norms = [one for one in network.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    network.train()
    with torch.no_grad():
        for at, some in enumerate(x.split(256)):
            for norm in norms:
                norm.momentum = 1 / (at + 1)
            network(some)
    network.eval()
