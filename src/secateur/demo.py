"""A small real language model, made here from text that every machine has: Python's own library.

Nothing is downloaded. The model is a Llama of a million parameters that reads Python sources: large enough that its
matrices differ in how much they mind a cut, small enough to be trained in a minute on two cores.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor
    from transformers import LlamaForCausalLM

    from secateur.model.history import History

    Tell = Callable[[str, int, int], None]

VOCABULARY, CONTEXT = 1024, 128
STEPS, BATCH, RATE = 640, 8, 4e-3
#: characters of source taken; more is read by no step
ENOUGH = 6_000_000
#: every so many files, one is set aside for calibration and the next for measuring
SET_ASIDE = 20
#: every so many steps the loss is measured on so many stretches of the latter
LOOK, LOOKED = 64, 16


def prepare(folder: Path, seed: int = 0, tell: Tell | None = None) -> tuple[Path, Path, Path]:
    """The folder's model, calibration text and held-out text; made on the first call, found on the next."""
    model, calibration, heldout = folder / "model", folder / "calibration.txt", folder / "heldout.txt"
    if not model.exists():
        folder.mkdir(parents=True, exist_ok=True)
        training, *rest = library()
        for text, file in zip(rest, (calibration, heldout), strict=True):
            file.write_text(text, encoding="utf-8")
        partial = folder / "model.partial"
        shutil.rmtree(partial, ignore_errors=True)
        train(training, rest[1], partial, seed, tell or (lambda *_: None))
        os.replace(partial, model)
    return model, calibration, heldout


def library() -> tuple[str, str, str]:
    """Python's own library as text: for training, for calibration, for measuring. No file is in two of them."""
    root = Path(sysconfig.get_paths()["stdlib"])
    outside = {"site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__", "pydoc_data", "encodings"}
    files = [file for file in sorted(root.rglob("*.py")) if not outside & set(file.relative_to(root).parts)]
    texts = [file.read_text(encoding="utf-8", errors="ignore") for file in files]
    piles = [texts[0::SET_ASIDE], texts[1::SET_ASIDE]]
    training = [text for at, text in enumerate(texts) if at % SET_ASIDE > 1]
    return "\n".join(training)[:ENOUGH], "\n".join(piles[0]), "\n".join(piles[1])


def train(text: str, heldout: str, folder: Path, seed: int, tell: Tell) -> None:
    """Train tokenizer and model on `text` and save both in Hugging Face layout, weights in 16 bits; with them how the
    loss went, on `heldout` as well."""
    import torch
    from transformers import PreTrainedTokenizerFast

    words = _tokenizer(text)
    tokens, others = (torch.tensor(words.encode(one).ids) for one in (text, heldout[: 400 * CONTEXT]))
    model = _model(seed)
    history = _fit(model, tokens, _spread(others), seed, tell)
    model.half().save_pretrained(folder)
    history.save(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=CONTEXT).save_pretrained(folder)


def _tokenizer(text: str) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    words.train_from_iterator(text[:1_000_000].splitlines(keepends=True), trainer)
    return words


def _model(seed: int) -> LlamaForCausalLM:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(shape)


def _spread(tokens: Tensor) -> Tensor:
    """Stretches for a look at how it goes, evenly over the tokens."""
    import torch

    starts = torch.arange(LOOKED) * (len(tokens) - CONTEXT - 1) // LOOKED
    return tokens[starts[:, None] + torch.arange(CONTEXT + 1)]


def _fit(model: LlamaForCausalLM, tokens: Tensor, others: Tensor, seed: int, tell: Tell) -> History:
    """Warm-up and a straight way down; each step reads `BATCH` stretches taken at random, and every `LOOK` steps the
    loss on the `others` is measured."""
    import torch
    from torch.nn import functional

    from secateur.model.fit import fit
    from secateur.model.goals import next_token
    from secateur.parts.schedules import Schedule

    goal = next_token()

    def batch(at: int) -> Tensor:
        draw = torch.Generator().manual_seed(seed * 1_000_003 + at)
        starts = torch.randint(len(tokens) - CONTEXT - 1, (BATCH, 1), generator=draw)
        return tokens[starts + torch.arange(CONTEXT + 1)]

    def look() -> float:
        return float(functional.cross_entropy(goal.logits(model, others), goal.labels(others)))

    course = Schedule("linear", warm=20)
    how = {"steps": STEPS, "rate": RATE, "course": course, "seed": seed, "look": (LOOK, look), "tell": tell}
    return fit(model, batch, goal, **how)
