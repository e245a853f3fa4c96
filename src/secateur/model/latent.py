"""A cache of latents: of keys and values that two thin matrices make, what lies between the two is all that is kept.

A key projection U D of low rank makes c = D x of a token, r numbers for all heads together, and U c of it whenever keys
are read; behind U come what its network does to keys (a norm in some) and the turn by the token's position. Values go
the same way, without the turn. So a token leaves r numbers behind in place of as many as there are channels, and
nothing that is computed is different: the file's own projections are of this rank.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateur.types import ModelError

#: families whose attention makes keys so: `k_proj`, a norm of each head or none, and one rotary turn for all blocks
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen2_moe", "qwen3_moe")
#: what makes keys and values in them
KEYS, VALUES = "k_proj", "v_proj"


def caches(config: Mapping[str, Any]) -> bool:
    """Whether the attention of a network can read its keys and values from latents."""
    return config.get("model_type") in FAMILIES and not config.get("use_sliding_window") and not _slides(config)


def _slides(config: Mapping[str, Any]) -> bool:
    """Whether some blocks forget what lies behind a window: mistral says so by a width alone."""
    return bool(config.get("sliding_window")) and config.get("model_type") in ("mistral", "mixtral")


class Thin(nn.Module):
    """A projection through r numbers: `down` [r, cols], `up` [r, rows]. What its last call had between the two is
    `latent` [..., r], for the cache."""

    def __init__(self, up: Tensor, down: Tensor, bias: Tensor | None):
        super().__init__()
        self.up, self.down = nn.Parameter(up, requires_grad=False), nn.Parameter(down, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.latent: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.latent = x @ self.down.mT
        return self.made(self.latent)

    def made(self, latent: Tensor) -> Tensor:
        """Keys or values [..., rows] of latents [..., r]."""
        out = latent @ self.up
        return out if self.bias is None else out + self.bias


def thin(network: nn.Module, factors: Mapping[str, tuple[Tensor, Tensor]]) -> nn.Module:
    """Put two thin matrices, up [r, rows] and down [r, cols], in the place of linear layers, by path; the network."""
    if not factors:
        return network
    for path, (up, down) in factors.items():
        owner, _, name = path.rpartition(".")
        was: Any = network.get_submodule(path)
        setattr(network.get_submodule(owner), name, Thin(up, down, was.bias))
    _rotary(network).register_forward_pre_hook(_see, with_kwargs=True)
    return network


def latent_cache(network: Any) -> Any:
    """An empty cache for `network(..., past_key_values=cache)` and `network.generate(...)`, of a network that `thin`
    has changed: blocks whose keys or values are `Thin` keep latents, the others what everybody keeps. ModelError if no
    block's are."""
    if not any(isinstance(module, Thin) for module in network.modules()):
        hint = "cut with --budget '50% kv' --format packed, and read that with latents=True"
        raise ModelError("no keys or values of this network go through a low rank", hint)
    from transformers.cache_utils import Cache, DynamicLayer

    class Latents(DynamicLayer):
        """One block's share: of each of both, latents [batch, tokens, r] or, as ever, [batch, heads, tokens, width].
        The first block's has the positions [batch, tokens, 1] for all."""

        def __init__(self, attention: Any, first: Any):
            super().__init__()
            self.attention, self.first = attention, first or self
            self.positions: Any = None

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            k, v = getattr(self.attention, KEYS), getattr(self.attention, VALUES)
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            keys = self.keys = _longer(self.keys, k.latent if isinstance(k, Thin) else key_states)
            values = self.values = _longer(self.values, v.latent if isinstance(v, Thin) else value_states)
            if self.first is self:
                self.positions = _longer(self.positions, _rotary(network).seen.expand(len(key_states), -1)[..., None])
            width = value_states.shape[-1]
            if isinstance(k, Thin):
                keys = _turned(network, self.attention, _heads(k.made(keys), width), self.first.positions[..., 0])
            if isinstance(v, Thin):
                values = _heads(v.made(values), width).transpose(1, 2)
            return keys, values

        def crop(self, tokens_to_remove: int) -> None:
            super().crop(tokens_to_remove)
            if self.positions is not None and tokens_to_remove:
                self.positions = self.positions[:, :tokens_to_remove]

        def reset(self) -> None:
            super().reset()
            self.positions = None

        def reorder_cache(self, beam_idx: Any) -> None:
            super().reorder_cache(beam_idx)
            self._chosen(lambda held: held.index_select(0, beam_idx.to(held.device)))

        def batch_repeat_interleave(self, repeats: int) -> None:
            super().batch_repeat_interleave(repeats)
            self._chosen(lambda held: held.repeat_interleave(repeats, dim=0))

        def batch_select_indices(self, indices: Tensor) -> None:
            super().batch_select_indices(indices)
            self._chosen(lambda held: held[indices])

        def _chosen(self, of: Any) -> None:
            self.positions = None if self.positions is None else of(self.positions)

    class Gone(DynamicLayer):
        """A block without an attention keeps nothing; whoever asks it for its length means the text's."""

        def get_seq_length(self) -> int:
            return first.get_seq_length()

        # there is nothing to shorten, to forget or to bring into another order
        def crop(self, tokens_to_remove: int) -> None: ...
        def reset(self) -> None: ...
        def reorder_cache(self, beam_idx: Any) -> None: ...
        def batch_repeat_interleave(self, repeats: int) -> None: ...
        def batch_select_indices(self, indices: Tensor) -> None: ...

    attentions = {module.layer_idx: module for module in network.modules() if _attends(module)}
    at = min(attentions)
    first = Latents(attentions.pop(at), None)
    blocks = range(network.config.num_hidden_layers)
    layers: list[Any] = [Latents(attentions[block], first) if block in attentions else Gone() for block in blocks]
    layers[at] = first
    return Cache(layers=layers)


def numbers(cache: Any) -> int:
    """How many numbers of keys and values one token of one text has left in a cache."""
    held = [one for layer in cache.layers for one in (layer.keys, layer.values) if one is not None]
    return sum(one.numel() // (one.shape[0] * one.shape[-2]) for one in held)


def _attends(module: Any) -> bool:
    return hasattr(module, KEYS) and hasattr(module, VALUES)


def _longer(held: Tensor | None, new: Tensor) -> Tensor:
    """With more tokens, which lie along the last axis but one."""
    return new if held is None or not held.numel() else torch.cat([held, new], -2)


def _heads(flat: Tensor, width: int) -> Tensor:
    """[batch, tokens, heads, width]."""
    return flat.unflatten(-1, (-1, width))


def _turned(network: nn.Module, attention: nn.Module, keys: Tensor, positions: Tensor) -> Tensor:
    """Keys [batch, heads, tokens, width] as the attention makes them behind its projection."""
    norm: Any = getattr(attention, "k_norm", None)
    keys = (keys if norm is None else norm(keys)).transpose(1, 2)
    cos, sin = _rotary(network).forward(keys, positions)  # not as a call, which would be seen as new positions
    return sys.modules[type(attention).__module__].apply_rotary_pos_emb(keys, keys, cos, sin)[1]


def _rotary(network: nn.Module) -> Any:
    return next(module for module in network.modules() if hasattr(module, "inv_freq"))


def _see(rotary: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    rotary.seen = named["position_ids"] if "position_ids" in named else given[1]
