"""A language model that is trained: opened whole, its text in windows, and written as it was stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.export._convert import companions
from secateur.export._renumber import config_of_blocks
from secateur.export._verify import verify_in_transformers
from secateur.export._widths import unreadable, untold, widths
from secateur.export._write import file_bytes, layout_bytes, layout_of, write_config, write_model
from secateur.measure.windows import cut, encode, read_text
from secateur.model import axes
from secateur.model.anatomy import Anatomy, anatomy, load_block, skeleton
from secateur.model.axes import Asked
from secateur.model.checkpoint import DTYPES, Checkpoint, open_checkpoint
from secateur.model.elastic import Slice, Supernet, of, shapes
from secateur.model.goals import Goal, next_token
from secateur.model.load import SMALLER, config_of
from secateur.model.text import load_tokenizer
from secateur.types import DataError, ModelError

#: every so many windows one is held back, and how many at least and at most
HELD, LEAST, MOST = 20, 4, 64
#: tokens in a window where nobody says
USUAL = 256
#: logits computed at once when nothing is learned, as numbers
ROOM = 1 << 23


@dataclass(frozen=True)
class Language:
    """A checkpoint and its network in memory, in float32."""

    checkpoint: Checkpoint
    found: Anatomy
    network: nn.Module

    goal: Goal = field(default_factory=next_token)
    batch: int = 16

    @classmethod
    def open(cls, model: str, device: torch.device, scratch: int | None) -> Language:
        """From a folder or the hub; with `scratch` its weights are drawn anew from that seed."""
        checkpoint = open_checkpoint(model)
        if SMALLER in checkpoint.config:
            hint = "turn it into a plain one first: `secateur export`"
            raise ModelError(f"{model} has blocks of different shapes, and a training keeps a plain one", hint)
        empty = skeleton(checkpoint)
        found = anatomy(checkpoint, empty)
        network = load_block(checkpoint, found, "", empty) if scratch is None else _random(checkpoint, scratch)
        return cls(checkpoint, found, network.to(device))

    @property
    def name(self) -> str:
        return str(self.checkpoint.folder)

    @property
    def digest(self) -> str:
        return self.checkpoint.fingerprint

    def supernet(self, asked: Asked) -> Supernet:
        """What of it is elastic, of the axes that are asked for; head counts that no config can tell are left out."""
        asked, config = dict(asked), self.checkpoint.config
        if "heads" in asked:
            if why := untold(config):
                raise ModelError(why, "name other axes with --elastic")
            n = int(config.get("num_key_value_heads") or config["num_attention_heads"])
            asked["heads"] = tuple(s for s in asked["heads"] if not unreadable(config, of(n, s)))
        return axes.of_blocks(self.found, self.network, asked)

    # its data

    def data(self, data: str, seq_len: int | None, seed: int) -> tuple[Any, Any]:
        """All of a text in windows that lie side by side: to learn from, and held back, one of twenty."""
        every = self._windows(data, seq_len)
        n = len(every)
        held = min(max(n // HELD, LEAST), MOST)
        if n < 4 * LEAST:
            hint = "give more text, or shorter windows with --seq-len"
            raise DataError(f"{data} gives only {n} windows of {every.shape[1]} tokens to learn from", hint)
        back = torch.zeros(n, dtype=torch.bool)
        back[((torch.arange(held) + 0.5) * n / held).long()] = True
        return every[~back], every[back]

    def judged(self, data: str, seq_len: int | None, samples: int | None, seed: int) -> tuple[Any, Any]:
        """Nothing to renew with, and the windows to measure on: those of `secateur measure`."""
        encoded = encode(load_tokenizer(self.checkpoint.folder), read_text(data))
        return None, cut(encoded, self._length(seq_len), samples, seed=seed, name=data).tokens

    def _length(self, seq_len: int | None) -> int:
        config = self.checkpoint.config
        context = config.get("max_position_embeddings") or config.get("n_positions") or 512
        length = seq_len or min(context, USUAL)
        if not 2 <= length <= context:
            raise DataError(f"windows of {length} tokens do not fit a context of {context}", f"--seq-len {context}")
        return length

    def _windows(self, data: str, seq_len: int | None) -> Tensor:
        config, length = self.checkpoint.config, self._length(seq_len)
        ids = encode(load_tokenizer(self.checkpoint.folder), read_text(data)).ids
        if len(ids) and int(ids.max()) >= (size := config.get("vocab_size", math.inf)):
            hint = "tokenizer and weights are of different models"
            raise DataError(f"the tokenizer gives token {int(ids.max())}, but the model has only {size}", hint)
        return ids[: len(ids) // length * length].view(-1, length)

    def varied(self, asked: str, learn: Any) -> Callable[[Any, Any], Any]:
        """Windows of a text are what they are."""
        raise DataError(f"a text cannot be varied by `{asked}`", "leave --augment out: it is for pictures")

    def digest_of(self, learn: Any) -> str:
        import hashlib

        return hashlib.sha256(learn.numpy().tobytes()).hexdigest()[:16]

    def some(self, data: Any, which: Tensor) -> Any:
        return data[which].to(next(self.network.parameters()).device)

    def inputs(self, data: Any) -> Tensor:
        """What the network is given of some examples."""
        return data

    def logits(self, inputs: Tensor) -> Tensor:
        return self.network(inputs, use_cache=False).logits

    def answers(self, data: Any) -> tuple[Tensor, Tensor]:
        """Logits [windows, places, tokens] and what comes next, [windows, places]."""
        return self.logits(data)[:, :-1], data[:, 1:]

    def rows(self, data: Any) -> int:
        """How many examples may have their logits in memory at once."""
        return max(1, ROOM // (data.shape[1] * int(self.checkpoint.config.get("vocab_size", 1 << 16))))

    # what a slice is, on disk and at work

    def spent(self, net: Supernet, one: Slice) -> dict[str, float]:
        """Bytes of the file, header and all, FLOPs a token and bytes of cache a token, as a cut counts them."""
        small = shapes(self.network, net, one)
        stored = {
            tensor: (self.checkpoint.tensors[tensor].dtype, shape) for tensor, shape in self._stored(small).items()
        }
        layers = [
            f"{path}.weight"
            for path, module in self.network.named_modules()
            if getattr(module, "weight", None) is not None and not isinstance(module, nn.Embedding)
        ]
        products = sum(math.prod(small[name]) for name in layers if len(small.get(name, ())) == 2)
        heads = {group.n for group in net.groups if group.axis == "heads"}
        told: Any = self.network.config.get_text_config()  # type: ignore[operator,union-attr]
        pairs = heads.pop() if heads else getattr(told, "num_key_value_heads", None) or told.num_attention_heads
        width = getattr(told, "head_dim", None) or told.hidden_size // told.num_attention_heads
        blocks = of(net.stacks[0].n, one.share("depth")) if net.stacks else len(self.found.blocks)
        weights = sum(entry.size for entry in self.checkpoint.tensors.values())
        return {
            "bytes": file_bytes(stored),
            "bits_per_weight": 8 * sum(map(layout_bytes, stored.values())) / weights,
            "flops": 2 * products,
            "kv": 2 * 2 * blocks * of(pairs, one.share("heads")) * width,
            "parameters": sum(math.prod(shape) for _, shape in stored.values()),
        }

    def _stored(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """The same by the names on disk; of a tied pair one."""
        pieces = {name: some for name, some in self.found.sources.items() if name in own}
        return {some[0].tensor: own[name] for name, some in pieces.items() if len(some) == 1 and some[0].index is None}

    def tensors(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is written: by the names, and in the number types, that the checkpoint has; experts one by one."""
        out = self._stored(own)
        for name, pieces in self.found.sources.items():
            for piece in pieces if name in own else ():
                if piece.index is not None:
                    out[piece.tensor] = own[name][piece.index, piece.start : piece.stop]
        return {name: value.to(DTYPES[self.checkpoint.tensors[name].dtype]) for name, value in out.items()}

    def write(
        self, own: Mapping[str, Tensor], folder: Path, net: Supernet | None = None, one: Slice | None = None
    ) -> int:
        """A folder that transformers loads; config.json, last of all, says the slice's sizes. Bytes of its tensors'
        files."""
        tensors = self.tensors({name: value.cpu() for name, value in own.items()})
        config = dict(self.checkpoint.config)
        if net is not None and one is not None:
            whole = dict(self.network.state_dict(keep_vars=True))
            less = {n: s for n, s in shapes(self.network, net, one).items() if s != tuple(whole[n].shape)}
            if net.stacks and (kept := of(net.stacks[0].n, one.share("depth"))) < net.stacks[0].n:
                config = config_of_blocks(config, range(kept), config_of(self.checkpoint))
            config |= widths(config, less)
        layouts = {name: layout_of(value) for name, value in tensors.items()}
        files = write_model(folder, layouts, tensors.__getitem__)
        companions(self.checkpoint.folder, folder)
        write_config(folder, config)
        return sum(file.stat().st_size for file in files)

    def bytes(self) -> int:
        """Of the file of the whole network."""
        return int(self.spent(Supernet((), ()), Slice(()))["bytes"])

    def probe(self) -> Tensor:
        """Inputs of chance, to compare logits on."""
        size = int(self.checkpoint.config["vocab_size"])
        ids = torch.randint(size, (2, 32), generator=torch.Generator().manual_seed(0))
        return ids.to(next(self.network.parameters()).device)

    def verify(self, folder: Path, logits: Tensor, inputs: Tensor) -> dict[str, Any]:
        return verify_in_transformers(folder, logits.cpu(), inputs.cpu())


def _random(checkpoint: Checkpoint, seed: int) -> nn.Module:
    """A network of this config with weights of chance, as transformers draws them."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config_of(checkpoint), dtype=torch.float32).eval()
