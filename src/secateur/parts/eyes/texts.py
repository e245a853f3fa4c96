"""A language model that looks at documents or rows, each read by itself from its beginning.

A document begins as the tokenizer begins a text, where it has a token for that, and is read as far as `length` tokens.
Neighbours of about the same length are read together, the shorter ones filled up behind their end: a model that reads
from left to right does not see that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from secateur.measure.models import Model
from secateur.measure.passes import left_to_right
from secateur.model.pool import Texts
from secateur.parts.eyes import Charge, Seen, Until, noting, stops, sure
from secateur.types import ModelError

#: documents that are sorted by length together, and numbers that may be in memory at once for the logits of a batch
_SORTED, _ROOM = 512, 1 << 23
#: tokens of a batch; characters of a document that are tokenized at once
_TOKENS, _PIECE = 4096, 2_000_000
#: characters of a document that are shown
TOLD = 600


@dataclass(frozen=True)
class _Document:
    place: int  # among those that are looked at
    ids: Tensor


class TextEye:
    """A network before the documents of a pool, or before those of them that are `numbers`."""

    def __init__(
        self,
        model: Model,
        pool: Texts,
        length: int,
        device: torch.device,
        charge: Charge,
        numbers: Tensor | None = None,
        target: TextEye | None = None,
        tell: Callable[[str, int, int], None] = lambda *_: None,
    ):
        self.model, self.pool, self.length, self.device = model, pool, length, device
        self.charge, self.tell = charge, tell
        self.target = target
        self.network: Any = target.network if target is not None else model.network().to(device)
        self.numbers = torch.tensor([at for at, _ in pool.texts()]) if numbers is None else numbers
        self.seen: Seen | None = None
        self.glanced: Tensor | None = None
        self._tokens = torch.zeros(len(self.numbers), dtype=torch.long)

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def stops(self) -> dict[str, float]:
        """Where it can stop early."""
        return stops(self.network, torch.zeros(1, 4, dtype=torch.long, device=self.device))

    def tokens(self) -> Tensor:
        """Of every document how many tokens all of it has; nothing is looked at."""
        if not int(self._tokens.min()):
            for _ in self._documents(None):
                pass
        return self._tokens

    @property
    def longer(self) -> int:
        """How many documents are longer than what is read of them."""
        return int((self.tokens() + self._begin > self.length).sum())

    @torch.no_grad()
    def see(self, at: Tensor | None = None) -> Seen:
        """A whole pass; one over all documents is kept."""
        if at is None and self.seen is not None:
            return self.seen
        numbers = self.numbers if at is None else self.numbers[at]
        n = len(numbers)
        known = {name: torch.zeros(n) for name in ("loss", "entropy", "margin")}
        vectors: Tensor | None = None
        self._check()
        for some, ids in self._batches(at, "looking", self.model.vocabulary):
            with noting(self.network.get_output_embeddings()) as read:
                logits = self.network(ids, use_cache=False).logits
            if vectors is None:
                vectors = torch.zeros(n, read[-1].shape[-1])
            for row, one in enumerate(some):
                size = len(one.ids)
                vectors[one.place] = self._mean(read[-1][row, :size])
                for name, value in self._known(logits[row, :size], ids[row, :size]).items():
                    known[name][one.place] = value
        self.charge.add("whole passes", n)
        assert vectors is not None
        found = Seen(numbers, vectors, known).checked(self.model.name)
        self.seen = found if at is None else self.seen
        return found

    @torch.no_grad()
    def glance(self, stop: str, at: Tensor | None = None) -> Tensor:
        """The mean over the places, behind a module; a glance at all documents is kept."""
        numbers = self.numbers if at is None else self.numbers[at]
        network, found = Until(self.network, stop), None
        for some, ids in self._batches(at, f"glancing as far as {stop}", 1):
            states = network(ids, use_cache=False)
            found = torch.zeros(len(numbers), states.shape[-1]) if found is None else found
            for row, one in enumerate(some):
                found[one.place] = self._mean(states[row, : len(one.ids)])
        self.charge.add(f"as far as {stop}", len(numbers), self.stops[stop])
        assert found is not None
        vectors = Seen(numbers, found, {}).checked(self.model.name).vectors
        self.glanced = vectors if at is None else self.glanced
        return vectors

    def beside(self, name: str) -> list[Any]:
        """What stands in a column of the table, of each example."""
        told = self.pool.beside(name)
        return [told[number] for number in self.numbers.tolist()]

    def shown(self, at: Tensor) -> tuple[list[str], list[str]]:
        """What there is to look at of some documents, in the order of the pool: their beginnings; and no pictures."""
        wanted = set(self.numbers[at].tolist())
        return [text[:TOLD] for number, text in self.pool.texts() if number in wanted], []

    @property
    def _begin(self) -> int:
        return 0 if self.model.tokenizer.bos_token_id is None else 1

    def _mean(self, states: Tensor) -> Tensor:
        return states[1 if len(states) > 1 else 0 :].float().mean(0).cpu()

    def _known(self, logits: Tensor, ids: Tensor) -> dict[str, float]:
        """Means over what was predicted; a single token that nothing comes before predicts only what may follow."""
        step = max(1, _ROOM // (4 * logits.shape[-1]))
        sums, n = {"entropy": 0.0, "margin": 0.0, "loss": 0.0}, len(ids)
        for start in range(0, max(n - 1, 1), step):
            part = logits[start : min(start + step, max(n - 1, 1))]
            for name, value in sure(part).items():
                sums[name] += float(value.double().sum())
            if n > 1:
                label = ids[start + 1 : start + 1 + len(part), None]
                sums["loss"] -= float(part.float().log_softmax(-1).gather(1, label).double().sum())
        return {name: total / max(n - 1, 1) for name, total in sums.items()}

    def _check(self) -> None:
        """ModelError of a network that reads in both directions."""
        x = torch.arange(8, device=self.device)[None] % self.model.vocabulary
        run: Callable[[Tensor], Tensor] = lambda x: self.network(x, use_cache=False).logits  # noqa: E731
        left_to_right(self.model.name, run, x, (x + 1) % self.model.vocabulary)

    def _batches(self, at: Tensor | None, what: str, width: int) -> Iterator[tuple[list[_Document], Tensor]]:
        """Documents of about one length and their ids, filled up."""
        documents, done, n = self._documents(at), 0, len(self) if at is None else len(at)
        while some := sorted(islice(documents, _SORTED), key=lambda one: (len(one.ids), one.place)):
            while some:
                long = len(some[-1].ids)
                fit = max(1, min(_TOKENS // long, _ROOM // (long * width)))
                batch, some = some[-fit:], some[:-fit]
                self.tell(what, done, n)
                ids = torch.zeros(len(batch), long, dtype=torch.long)
                for row, one in enumerate(batch):
                    ids[row, : len(one.ids)] = one.ids
                yield batch, ids.to(self.device)
                done += len(batch)
        self.tell(what, done, n)

    def _documents(self, at: Tensor | None) -> Iterator[_Document]:
        numbers = self.numbers if at is None else self.numbers[at]
        place = {number: at for at, number in enumerate(numbers.tolist())}
        begin = [self.model.tokenizer.bos_token_id] if self._begin else []
        for number, text in self.pool.texts():
            if number not in place:
                continue
            found, tokens = self._ids(text)
            if at is None:
                self._tokens[place[number]] = tokens
            ids = torch.tensor([*begin, *found][: self.length] or [0])
            if int(ids.max()) >= self.model.vocabulary:
                raise ModelError(
                    f"the tokenizer in {self.model.folder} gives token {int(ids.max())}, but the model has only "
                    f"{self.model.vocabulary}",
                    "tokenizer and weights are of different models",
                )
            yield _Document(place[number], ids)

    def _ids(self, text: str) -> tuple[list[int], int]:
        """The tokens that are read, and how many all are."""
        first, n = [], 0
        for at in range(0, len(text), _PIECE):
            ids = self.model.tokenizer(text[at : at + _PIECE], add_special_tokens=False, verbose=False)["input_ids"]
            first, n = first or ids[: self.length], n + len(ids)
        return first, n
