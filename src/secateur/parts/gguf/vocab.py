"""Tokenizers as GGUF metadata, and back.

Two kinds of vocabulary are told apart. Byte-level BPE (`gpt2`) stores its merges, and names how text is split into
words beforehand: llama.cpp knows those rules by name, so a rule is recognised by its pattern. SentencePiece (`llama`)
stores a score for every token, the best merge first; a tokenizer.json of that kind has merges instead, whose rank is
the score.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from secateur.types import DataError, ExportError

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_ENDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
#: how words are split before they are tokenized -> llama.cpp's name of it; None is what ByteLevel does by itself
RULES = {
    None: "gpt-2",
    rf"{_ENDS}|{_WORD}|\p{{N}}{{1,3}}|{_REST}": "llama-bpe",
    rf"{_ENDS}|{_WORD}|\p{{N}}|{_REST}": "qwen2",
}
#: stands where a tokenizer has no merges: llama.cpp asks for one, and this never applies to single characters
_NEVER = "[NONE] [NONE]"


def metadata(folder: Path, size: int) -> dict[str, Any]:
    """The tokenizer that lies in a folder, for a model that chooses among `size` tokens. `no_vocab` where none lies."""
    file = folder / "tokenizer.json"
    pieces = folder / "tokenizer.model"
    if pieces.exists():
        out = _sentencepiece(pieces)
        told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    elif file.exists():
        told = json.loads(file.read_text(encoding="utf-8"))
        out = _from_json(told, file)
    else:
        return {"tokenizer.ggml.model": "no_vocab"}
    tokens, types = list(out["tokens"]), list(out["token_type"])
    for added in told.get("added_tokens") or ():
        _grow(tokens, types, added["id"] + 1)
        tokens[added["id"]] = added["content"]
        if types[added["id"]] in (NORMAL, UNUSED, USER):
            types[added["id"]] = CONTROL if added["special"] else USER
    if len(tokens) > size:
        raise ExportError(
            f"the tokenizer in {folder} has {len(tokens)} tokens, but the model only {size}",
            "tokenizer and weights are of different models",
        )
    _grow(tokens, types, size)
    out |= {"tokens": tokens, "token_type": types}
    if "scores" in out:
        out["scores"] = [*out["scores"], *[-1e4] * (size - len(out["scores"]))]
    return {f"tokenizer.ggml.{key}": value for key, value in out.items()} | _settings(folder, tokens)


def _grow(tokens: list[str], types: list[int], size: int) -> None:
    """Rows of the embedding that no token has get names of their own: llama.cpp wants them different."""
    for at in range(len(tokens), size):
        tokens.append(f"[PAD{at}]")
        types.append(UNUSED)


def _settings(folder: Path, tokens: list[str]) -> dict[str, Any]:
    """Special tokens, whether a text begins or ends with one, and the chat template: as transformers says."""
    from secateur.model.text import load_tokenizer

    tokenizer = load_tokenizer(folder)
    out: dict[str, Any] = {}
    for name, ours in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        found = getattr(tokenizer, f"{ours}_token_id", None)
        if found is not None and found < len(tokens):
            out[f"tokenizer.ggml.{name}_token_id"] = found
    said = tokenizer("a")["input_ids"]
    for name, place in (("bos", 0), ("eos", -1)):
        known = out.get(f"tokenizer.ggml.{name}_token_id")
        out[f"tokenizer.ggml.add_{name}_token"] = known is not None and said[place] == known
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    return out | ({"tokenizer.chat_template": template} if template else {})


def rule(folder: Path) -> str | None:
    """Why the words of this tokenizer may be split in another way by llama.cpp, or None."""
    file = folder / "tokenizer.json"
    told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if not told or _is_sentencepiece(told) or _pattern(told) in RULES:
        return None
    return "its tokenizer splits words by a rule that we cannot name to llama.cpp, which will take its default"


# from tokenizer.json


def _from_json(told: Mapping[str, Any], file: Path) -> dict[str, Any]:
    model = told.get("model") or {}
    if model.get("type", "BPE") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise ExportError(
            f"{file} holds a tokenizer of the kind {model.get('type')}, which is not written to GGUF files",
            "byte-level BPE and SentencePiece are; write another format, --format packed for example",
        )
    vocab: dict[str, int] = model["vocab"]
    tokens: list[str] = []
    types: list[int] = []
    _grow(tokens, types, max(vocab.values()) + 1)
    for token, at in vocab.items():
        tokens[at], types[at] = token, NORMAL
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    if not _is_sentencepiece(told):
        pre = RULES.get(_pattern(told), "default")
        return {"model": "gpt2", "pre": pre, "tokens": tokens, "token_type": types, "merges": merges or [_NEVER]}
    rank: dict[str, int] = {}
    for at, pair in enumerate(merges):
        rank.setdefault(pair.replace(" ", "", 1), at)
    for at, token in enumerate(tokens):
        if token == model.get("unk_token"):
            types[at] = UNKNOWN
        elif len(token) == 6 and token.startswith("<0x"):
            types[at] = BYTE
    scores = [-float(rank.get(token, len(merges))) for token in tokens]
    space = json.dumps([told.get("normalizer"), told.get("pre_tokenizer")])
    prefix = '"Prepend"' in space or ('"Metaspace"' in space and '"never"' not in space)
    return {
        "model": "llama",
        "pre": "default",
        "tokens": tokens,
        "scores": scores,
        "token_type": types,
        "add_space_prefix": prefix,
    }


def _is_sentencepiece(told: Mapping[str, Any]) -> bool:
    return bool((told.get("model") or {}).get("byte_fallback"))


def _pattern(told: Mapping[str, Any]) -> str | None:
    """The rule that splits words; None is ByteLevel's own, "" is one that is not a plain pattern."""
    steps = told.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    splits = [step for step in steps if step.get("type") == "Split"]
    if len(splits) == 1 and splits[0].get("behavior") == "Isolated":
        return splits[0]["pattern"].get("Regex", "")
    plain = [step for step in steps if step.get("type") == "ByteLevel" and step.get("use_regex", True)]
    return None if plain and len(steps) == 1 else ""


# from SentencePiece's own file: protocol buffers, of which two fields are read


def _sentencepiece(file: Path) -> dict[str, Any]:
    import struct

    tokens: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    prefix = True
    try:
        for field, value in _fields(file.read_bytes()):
            if field == 1:
                piece = dict(_fields(value))
                tokens.append(piece[1].decode("utf-8"))
                scores.append(struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0)
                types.append(piece.get(3, NORMAL))
            elif field == 2 and dict(_fields(value)).get(3, 1) != 2:
                raise ExportError(
                    f"{file} is a SentencePiece model of the unigram kind, which is not written to GGUF files",
                    "write another format, --format packed for example",
                )
            elif field == 3:
                prefix = bool(dict(_fields(value)).get(3, 1))
    except (IndexError, KeyError, UnicodeDecodeError, struct.error) as error:
        raise DataError(f"{file} is not a SentencePiece model ({error})", "download or copy it again") from error
    return {
        "model": "llama",
        "pre": "default",
        "tokens": tokens,
        "scores": scores,
        "token_type": types,
        "add_space_prefix": prefix,
    }


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of every field of one message: whole numbers, four or eight bytes, or a run of bytes."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = raw[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(raw):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
            continue
        length = {1: 8, 5: 4}.get(kind) or number()
        yield key >> 3, raw[at : at + length]
        at += length


# and back


def tokenizer(told: Mapping[str, Any]) -> Any:
    """transformers' tokenizer from a file's metadata; DataError if it holds none, or one that we cannot build."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    own = {key.removeprefix("tokenizer.ggml."): value for key, value in told.items() if "tokenizer." in key}
    kind = own.get("model")
    if kind not in ("gpt2", "llama"):
        raise DataError(
            f"this GGUF file holds {'no tokenizer' if kind in (None, 'no_vocab', 'none') else f'a tokenizer `{kind}`'}",
            "put the model's tokenizer.json beside it",
        )
    vocab = {token: at for at, token in enumerate(own["tokens"])}
    types = own.get("token_type") or [NORMAL] * len(vocab)
    if kind == "gpt2":
        made = Tokenizer(models.BPE(vocab, [_pair(merge) for merge in own.get("merges", ()) if merge != _NEVER]))
        pattern = {name: rule for rule, name in RULES.items()}.get(own.get("pre", "default"))
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
        made.pre_tokenizer = (
            plain
            if pattern is None
            else pre_tokenizers.Sequence(  # type: ignore[assignment]
                [pre_tokenizers.Split(Regex(pattern), "isolated"), plain]
            )
        )
        made.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    else:
        unknown = next((token for token, at in vocab.items() if types[at] == UNKNOWN), None)
        merges = _merges(vocab, own["scores"], types)
        made = Tokenizer(models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
        space = [normalizers.Prepend("▁")] if own.get("add_space_prefix", True) else []
        made.normalizer = normalizers.Sequence([*space, normalizers.Replace(" ", "▁")])  # type: ignore[assignment]
        back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        made.decoder = decoders.Sequence([*back, *([decoders.Strip(" ", 1, 0)] if space else [])])  # type: ignore[assignment]
    for at, token in enumerate(own["tokens"]):
        if types[at] in (CONTROL, UNKNOWN):
            made.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        elif types[at] == USER:
            made.add_tokens([AddedToken(token, normalized=False)])
    ids = {name: own[f"{key}_token_id"] for name, key in _SPECIAL.items() if f"{key}_token_id" in own}
    words = {name: own["tokens"][at] for name, at in ids.items()}
    if own.get("add_bos_token") and "bos_token" in words:
        bos = words["bos_token"]
        made.post_processor = processors.TemplateProcessing(f"{bos} $A", None, [(bos, ids["bos_token"])])  # type: ignore[assignment]
    out = PreTrainedTokenizerFast(tokenizer_object=made, **words)
    out.chat_template = own.get("tokenizer.chat_template")
    return out


_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _merges(vocab: Mapping[str, int], scores: list[float], types: list[int]) -> list[tuple[str, str]]:
    """All ways to make a token of two, the best token first."""
    found = []
    for token, at in vocab.items():
        if types[at] == NORMAL and len(token) > 1:
            pairs = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
            found += [(-scores[at], at, *pair) for pair in pairs if pair[0] in vocab and pair[1] in vocab]
    return [(left, right) for _, _, left, right in sorted(found, key=lambda merge: merge[:2])]
