"""Run a network that never is in memory as a whole: one block at a time over all samples, hidden states parked between.

No architecture is known here. The network's own forward pass runs with its blocks replaced by recorders, which note
what each block is called with (masks, positions, rotary angles) and hand the hidden states on; after that, the real
blocks are called the same way, one after the other. Backward passes go from the last block to the first, each one
recomputed from its parked input, so that memory does not grow with depth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.model.anatomy import Anatomy, anatomy, load_block, skeleton, unload
from secateur.model.checkpoint import Checkpoint
from secateur.model.load import collect, pages_of_their_own
from secateur.model.matrix import put, view
from secateur.model.parked import States, parked
from secateur.types import Matrix, ModelError, SecateurError, Unit

#: bytes of logits that may be in memory at once
LOGITS = 32 * 2**20
#: bytes of unloaded weights that are worth the 20 ms of telling the system
_MUCH = 16 * 2**20
_SEEN = 4  # windows on which a runtime's logits are compared with ours


def device_of(name: str | None = None) -> torch.device:
    """The device of this name, seen to work; the best there is without one."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        said = str(error).splitlines()[0]
        raise SecateurError(f"there is no device `{name}` here ({said})", "use --device cpu") from error
    if device.type == "cuda":  # convolutions would be rounded to 10 bits, 0.9% of a MobileNet's logits, by default
        torch.backends.cudnn.allow_tf32 = False
    return device


class _Stop(Exception):
    """Every block has been recorded: nothing after them is needed."""


class _Recorder(nn.Module):
    """Stands in for a block: notes how it is called, and hands on what `swap` says (or what came in)."""

    swap: Tensor | None

    def __init__(self, block: nn.Module, seen: list[dict[str, Any]], last: bool):
        super().__init__()
        self.__dict__["block"] = block  # not a submodule: the real one stays where it is
        self.seen, self.last, self.swap, self.wrap = seen, last, None, False

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["block"], name)  # some networks ask a block what kind it is

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.seen.append({"args": args, "kwargs": kwargs, "hidden": hidden})
        if self.last and self.swap is None:
            raise _Stop
        hidden = hidden if self.swap is None else self.swap
        return (hidden,) if self.wrap else hidden


class Stream:
    """A checkpoint, walked block by block. `tokens` passed to its methods are `samples x length`."""

    #: every token has a loss of its own
    one_loss = False

    def __init__(self, checkpoint: Checkpoint, device: torch.device | str = "cpu", batch: int = 8):
        pages_of_their_own()
        self.checkpoint, self.device, self.batch = checkpoint, torch.device(device), batch
        self.network = skeleton(checkpoint, device=self.device)
        self.anatomy: Anatomy = anatomy(checkpoint, self.network)
        if not self.anatomy.blocks:
            raise ModelError(
                f"{checkpoint.folder} has no list of blocks that could be walked",
                "language models made of repeated blocks can be cut this way",
            )
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        self._wrap = False
        self._calls: dict[int, list[dict[str, Any]]] = {}

    @property
    def blocks(self) -> tuple[str, ...]:
        return self.anatomy.blocks

    # what surrounds the blocks

    def embed(
        self, tokens: Tensor, park: Path | None = None, cut: Mapping[Matrix, Tensor] | None = None, copies: int = 1
    ) -> States:
        """Hidden states at the first block, [samples, length, width], parked; and how every block is to be called.

        `copies` says how many such states the caller will hold at once.
        """
        with torch.no_grad(), self.front(cut) as front:
            first = front(tokens[:1])
            hidden = parked((len(tokens), *first.shape[1:]), park, copies)
            for start in range(0, len(tokens), self.batch):
                batch = tokens[start : start + self.batch]
                hidden[start : start + len(batch)] = front(batch)
        return hidden

    @contextmanager
    def front(self, cut: Mapping[Matrix, Tensor] | None = None) -> Iterator[Callable[[Tensor], Tensor]]:
        """Inside: a function from tokens to hidden states at the first block; gradients flow through it."""
        with self.loaded(*self._around(head=False), cut=cut):
            yield self._record

    @contextmanager
    def tail(self, cut: Mapping[Matrix, Tensor] | None = None) -> Iterator[Callable[[Tensor], Tensor]]:
        """Inside: a function from hidden states behind the last block to logits; gradients flow through it."""
        with self.loaded(*self._around(head=True), cut=cut):
            yield self._tail

    # what it computes and keeps for every token

    def per_weight(self, unit: Unit, matrix: Matrix) -> float:
        """Floating-point operations a token for every weight: two; of experts on average, and looking up is free."""
        if unit.kind == "embedding":
            return 2.0 if self.anatomy.tied else 0.0
        if unit.kind == "experts":
            chosen = getattr(self._config, "num_experts_per_tok", None) or getattr(self._config, "top_k", None) or 1
            return 2.0 * min(1.0, chosen / len({m.tap for m in unit.matrices}))
        return 2.0

    def elsewhere(self, cut: Collection[str]) -> int:
        """Floating-point operations a token of the matrices whose modules are not among these, routers included."""
        cut = {*cut, self.anatomy.head} if self.anatomy.tied else cut
        count = 0
        for path, module in self.network.named_modules():
            weight = getattr(module, "weight", None)
            matrix = isinstance(weight, Tensor) and weight.dim() == 2 and not isinstance(module, nn.Embedding)
            count += 2 * weight.numel() if matrix and path not in cut else 0  # type: ignore[union-attr]
        return count

    @property
    def kv(self) -> int:
        """Bytes of keys and values that a token leaves in the cache, at 16 bits a number; 0 where no config says."""
        config = self._config
        queries = getattr(config, "num_attention_heads", 0)
        heads = getattr(config, "num_key_value_heads", None) or queries
        width = getattr(config, "head_dim", None) or config.hidden_size // max(queries, 1)
        latent = getattr(config, "kv_lora_rank", None)  # one vector for all heads, and the part that is rotated
        if latent:
            return 2 * len(self.blocks) * (latent + getattr(config, "qk_rope_head_dim", 0))
        return 2 * 2 * len(self.blocks) * heads * width

    @property
    def _config(self) -> Any:
        return self.network.config.get_text_config()  # type: ignore[operator,union-attr]

    # what samples are: windows of tokens

    def windows(self, length: int) -> int:
        """How many windows of this length may have their logits in memory at once."""
        return max(1, min(self.batch, LOGITS // (4 * length * self._vocabulary())))

    def places(self, tokens: Tensor) -> int:
        """How many predictions they are: one a token."""
        return tokens.numel()

    def answers(self, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The logits that are scored, [windows, places, vocabulary], and their labels: the tokens that come next."""
        return logits[:, :-1], tokens[:, 1:]

    def some(self, tokens: Tensor) -> Tensor:
        """A few tokens, to hold a runtime's logits against ours."""
        return tokens[:_SEEN, : max(2, LOGITS // (4 * _SEEN * self._vocabulary()))]

    def inputs(self, tokens: Tensor) -> Tensor:
        """What a runtime is given."""
        return tokens

    def digest(self, *samples: Tensor) -> str:
        """A short hash of windows."""
        tokens = torch.cat(samples).numpy()
        return hashlib.sha256(repr(tokens.shape).encode() + tokens.tobytes()).hexdigest()[:16]

    def _vocabulary(self) -> int:
        head: Any = self.network.get_submodule(self.anatomy.head) if self.anatomy.head else None
        return 1 if head is None else head.weight.shape[0]

    def _tail(self, hidden: Tensor) -> Tensor:
        with self._recorders() as (recorders, _):
            recorders[-1].swap = hidden
            embedding: Any = self.network.get_input_embeddings()  # type: ignore[operator]
            width = getattr(embedding, "embedding_dim", hidden.shape[-1])
            stand_in = hidden.new_zeros(*hidden.shape[:2], width)
            return self.network(inputs_embeds=stand_in, use_cache=False).logits

    def _around(self, head: bool) -> list[str]:
        """Modules outside the blocks: what comes before them, or (`head`) what comes after."""
        ends = (self.anatomy.embedding,) if head and not self.anatomy.tied else () if head else (self.anatomy.head,)
        inside = tuple(block + "." for block in self.blocks)
        return [
            path
            for path, module in self.network.named_modules()
            if next(module.parameters(recurse=False), None) is not None
            and path not in ends
            and not (path + ".").startswith(inside)
        ]

    # the blocks

    def behind(self, index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the states behind a block, from that before it."""
        return shape

    @contextmanager
    def loaded(self, *paths: str, cut: Mapping[Matrix, Tensor] | None = None) -> Iterator[None]:
        """Inside, these modules hold their weights, and what of `cut` lies in them is put over; one around the blocks
        holds only its own."""
        modules = [self.network.get_submodule(path) for path in paths]
        whole = [bool(path) and not self.blocks[0].startswith(path + ".") for path in paths]
        tied: dict[Any, Tensor] = {}  # a tied head and the embedding get one tensor: a cut of it is a cut of both
        for path, module, deep in zip(paths, modules, whole, strict=True):
            load_block(self.checkpoint, self.anatomy, path, module, torch.float32, self.device, recurse=deep, made=tied)
        for parameter in (p for module in modules for p in module.parameters()):
            parameter.requires_grad_(False)
        try:
            for matrix, values in (cut or {}).items():
                if not view(self.network, matrix).is_meta:
                    put(self.network, matrix, values)
            yield
        finally:
            freed = sum(tensor.nbytes for tensor in tied.values())
            for module, deep in zip(modules, whole, strict=True):
                unload(module, recurse=deep)
            tied.clear()
            if freed >= _MUCH:
                collect()

    def call(self, index: int, hidden: Tensor) -> Tensor:
        """One (loaded) block on one batch of hidden states."""
        calls = self._calls.get(len(hidden)) or self._calls[max(self._calls)]
        call = calls[index]
        out = self.network.get_submodule(self.blocks[index])(hidden, *call["args"], **call["kwargs"])
        self._wrap = isinstance(out, tuple)
        return out[0] if self._wrap else out

    @contextmanager
    def without(self, index: int) -> Iterator[None]:
        """Inside, a block hands on what it is given."""
        block: Any = self.network.get_submodule(self.blocks[index])
        block.forward = lambda hidden, *args, **kwargs: (hidden,) if self._wrap else hidden
        try:
            yield
        finally:
            del block.forward

    def through(self, index: int, hidden: States, out: States | None = None) -> States:
        """A loaded block over all parked samples, without gradient; into `out` (which may be `hidden` itself)."""
        out = torch.empty(*hidden.shape) if out is None else out
        with torch.no_grad():
            for start in range(0, len(hidden), self.batch):
                part = hidden[start : start + self.batch].to(self.device)
                out[start : start + self.batch] = self.call(index, part)
        return out

    # how blocks are called

    @contextmanager
    def _recorders(self) -> Iterator[tuple[list[_Recorder], list[dict[str, Any]]]]:
        parent_path, _, name = self.blocks[0].rpartition(".")[0].rpartition(".")
        parent = self.network.get_submodule(parent_path)
        real = getattr(parent, name)
        seen: list[dict[str, Any]] = []
        recorders = [_Recorder(block, seen, i == len(real) - 1) for i, block in enumerate(real)]
        for recorder in recorders:
            recorder.wrap = self._wrap
        setattr(parent, name, nn.ModuleList(recorders))
        try:
            yield recorders, seen
        finally:
            setattr(parent, name, real)

    def meet(self, tokens: Tensor) -> None:
        """See how every block is to be called with these windows, and park nothing: when a broken walk goes on."""
        with torch.no_grad(), self.front() as front:
            for size in {1, min(self.batch, len(tokens)), len(tokens) % self.batch or 1}:
                front(tokens[:size])

    def _record(self, tokens: Tensor) -> Tensor:
        """Run what comes before the blocks; returns the hidden states and keeps the calls for this batch size."""
        for wrap in (self._wrap, not self._wrap):
            self._wrap = wrap
            with self._recorders() as (_, seen):
                try:
                    self.network(input_ids=tokens.to(self.device), use_cache=False)
                except _Stop:
                    pass
                except (TypeError, ValueError, IndexError, RuntimeError):
                    if wrap != self._wrap or len(seen) == len(self.blocks):
                        raise
            # a network that expects a tuple takes the first sample of a tensor for the hidden states
            if len(seen) == len(self.blocks) and len({call["hidden"].shape for call in seen}) == 1:
                self._calls[len(tokens)] = seen
                first = seen[0]["hidden"]
                for call in seen:
                    del call["hidden"]
                return first
        raise ModelError(
            f"cannot follow the forward pass of {type(self.network).__name__} through its blocks",
            "this architecture does more between its blocks than hand on hidden states",
        )
