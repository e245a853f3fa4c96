"""One small table per architecture: what its runtime fuses (and must be cut alike), and what is never cut.

A table is a file here with a `FAMILY`, and `recount` where an attention counts its heads; nothing else names it. The
names are module paths relative to a block. What no table knows goes by `GENERIC`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Group:
    """Linear layers of a block that see the same input and that runtimes run as one matrix."""

    name: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A part of a block that adds to the residual stream: what it can lose (see `Side`), the layers that make its
    channels, the one that mixes them, and the norms that are its own. Experts stand in one module, which is both.

    `fused`: how one matrix holds queries, keys and values, all of each "below" the other or a head's three "together".
    `heads_told`: whether a config can say that all blocks have fewer heads of the same width.
    """

    by: str
    makers: tuple[str, ...]
    mixer: str
    norms: tuple[str, ...] = ()
    router: str = ""
    fused: str = ""
    heads_told: bool = True


@dataclass(frozen=True)
class Family:
    """`types` are the config's `model_type`s. `same_input`: a group's members share one input statistic."""

    types: tuple[str, ...]
    groups: tuple[Group, ...] = ()
    routers: tuple[str, ...] = ()
    same_input: bool = True
    parts: tuple[Part, ...] = ()

    @property
    def name(self) -> str:
        return self.types[0]


QKV = Group("self_attn.qkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"))
GATE_UP = Group("mlp.gate_up", ("mlp.gate_proj", "mlp.up_proj"))

ATTENTION = Part("heads", QKV.members, "self_attn.o_proj", ("input_layernorm",))
MLP = Part("channels", GATE_UP.members, "mlp.down_proj", ("post_attention_layernorm",))
EXPERTS = Part("experts", ("mlp.experts",), "mlp.experts", router="mlp.gate")

#: for architectures without a table: the usual names are still cut alike, but nothing is assumed about their inputs
GENERIC = Family(
    types=("generic",),
    groups=(QKV, GATE_UP),
    routers=("mlp.gate", "mlp.router", "router", "shared_expert_gate"),
    same_input=False,
    parts=(Part("", QKV.members, "self_attn.o_proj"), Part("channels", GATE_UP.members, "mlp.down_proj")),
)


def family(model_type: str) -> Family:
    """The table of an architecture, or `GENERIC`."""
    found = _module(model_type)
    return found.FAMILY if found else GENERIC


def recount(model_type: str, attention: Any) -> None:
    """Let an attention whose matrices have fewer heads count as many as they have; those of most architectures look at
    their matrices and count nothing. A family's file says how, in a function of the same name."""
    count = getattr(_module(model_type), "recount", None)
    if count is not None:
        count(attention)


def _module(model_type: str) -> ModuleType | None:
    modules = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))
    return next((one for one in modules if model_type in one.FAMILY.types), None)
