"""Experts that a checkpoint keeps in one 3-D tensor, under the names that files have had for them one by one."""

from __future__ import annotations

from functools import cache


def separate(model_type: str, tensor: str, index: int) -> tuple[str, ...]:
    """Names of the tensors that make up expert `index`, in the order of its rows (gate, then up); empty if unknown.

    transformers joins such tensors when it loads; its table of what it joins is read backwards.
    """
    for target, sources in _joined(model_type):
        if tensor.endswith(target):
            return tuple(tensor.removesuffix(target) + source.replace("*", str(index)) for source in sources)
    return ()


@cache
def _joined(model_type: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    found = []
    for rule in get_checkpoint_conversion_mapping(model_type) or ():
        kinds = [type(op).__name__ for op in getattr(rule, "operations", ())]
        joins = kinds in (["MergeModulelist"], ["MergeModulelist", "Concatenate"])
        if isinstance(rule, WeightConverter) and joins and all("*" in source for source in rule.source_patterns):
            found += [(target, tuple(rule.source_patterns)) for target in rule.target_patterns]
    return tuple(found)
