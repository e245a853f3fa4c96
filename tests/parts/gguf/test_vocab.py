"""Tokenizers into GGUF metadata and back: byte-level BPE, SentencePiece from either file, and what is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from secateur.parts.gguf import vocab
from secateur.types import DataError, ExportError

TEXT = ["the quick brown fox jumps over the lazy dog 123 times", "don't stop, it's naïve!", "tree trees treed 42"] * 4


def bytelevel(folder: Path, pattern: str | None = None) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    from tokenizers import Regex

    split = pre_tokenizers.Split(Regex(pattern or ""), "isolated")
    made.pre_tokenizer = plain if pattern is None else pre_tokenizers.Sequence([split, plain])
    made.decoder = decoders.ByteLevel()
    start = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=300, initial_alphabet=start, special_tokens=["<s>"]))
    words = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="<s>")
    words.chat_template = "{{ messages }}"
    words.save_pretrained(folder)
    return words


@pytest.mark.parametrize("rule", list(vocab.RULES), ids=lambda rule: vocab.RULES[rule])
def test_byte_level_there_and_back(rule, tmp_path):
    words = bytelevel(tmp_path, rule)
    told = vocab.metadata(tmp_path, 310)
    assert told["tokenizer.ggml.model"] == "gpt2" and told["tokenizer.ggml.pre"] == vocab.RULES[rule]
    assert len(told["tokenizer.ggml.tokens"]) == len(set(told["tokenizer.ggml.tokens"])) == 310
    assert told["tokenizer.ggml.token_type"][0] == vocab.CONTROL and told["tokenizer.ggml.bos_token_id"] == 0
    assert told["tokenizer.chat_template"] == "{{ messages }}"
    assert vocab.rule(tmp_path) is None
    back = vocab.tokenizer(told)
    for text in [*TEXT, "<s>the tree", "  two  spaces\n\nlines"]:
        assert back(text)["input_ids"] == words(text)["input_ids"]
        assert back.decode(back(text)["input_ids"]) == words.decode(words(text)["input_ids"])


def test_a_rule_that_llamacpp_has_no_name_for_is_said(tmp_path):
    bytelevel(tmp_path, r"\p{L}+|\s+")
    assert vocab.metadata(tmp_path, 310)["tokenizer.ggml.pre"] == "default"
    assert "splits words by a rule that we cannot name" in str(vocab.rule(tmp_path))


def sentencepiece_json(folder: Path) -> PreTrainedTokenizerFast:
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.train_from_iterator(
        ["▁" + text.replace(" ", "▁") for text in TEXT], trainers.BpeTrainer(vocab_size=330, special_tokens=special)
    )
    told = json.loads(made.to_str())
    told["added_tokens"] = told["added_tokens"][:3]  # bytes are plain tokens
    made = Tokenizer.from_str(json.dumps(told))
    words = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    words.save_pretrained(folder)
    return words


def test_sentencepiece_from_json_there_and_back(tmp_path):
    words = sentencepiece_json(tmp_path)
    told = vocab.metadata(tmp_path, len(words))
    assert told["tokenizer.ggml.model"] == "llama" and told["tokenizer.ggml.add_space_prefix"]
    types = told["tokenizer.ggml.token_type"]
    assert types[:4] == [vocab.UNKNOWN, vocab.CONTROL, vocab.CONTROL, vocab.BYTE]
    back = vocab.tokenizer(told)
    for text in ["the quick fox", "naïve trees", "over the lazy dog"]:
        assert back.decode(back(text)["input_ids"]) == text


def message(field: int, value: bytes | int | float) -> bytes:
    if isinstance(value, float):
        return bytes([field << 3 | 5]) + struct.pack("<f", value)
    if isinstance(value, int):
        return bytes([field << 3, value])
    return bytes([field << 3 | 2, len(value)]) + value


def test_sentencepiece_from_its_own_file(tmp_path):
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("▁t", -1.0, 1), ("<0x41>", 0.0, 6)]
    raw = b"".join(message(1, message(1, p.encode()) + message(2, s) + message(3, kind)) for p, s, kind in pieces)
    raw += message(2, message(3, 2)) + message(3, message(3, 0))
    (tmp_path / "tokenizer.model").write_bytes(raw)
    told = vocab._sentencepiece(tmp_path / "tokenizer.model")
    assert told["tokens"] == [piece for piece, _, _ in pieces] and told["token_type"] == [2, 3, 1, 6]
    assert told["scores"] == [0.0, 0.0, -1.0, 0.0] and told["add_space_prefix"] is False
    (tmp_path / "tokenizer.model").write_bytes(message(2, message(3, 1)))
    with pytest.raises(ExportError, match="of the unigram kind"):
        vocab._sentencepiece(tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x05\xff")
    with pytest.raises(DataError, match="is not a SentencePiece model"):
        vocab._sentencepiece(tmp_path / "tokenizer.model")


def test_what_is_refused(tmp_path):
    assert vocab.metadata(tmp_path, 10) == {"tokenizer.ggml.model": "no_vocab"}
    with pytest.raises(DataError, match="this GGUF file holds no tokenizer"):
        vocab.tokenizer({"tokenizer.ggml.model": "no_vocab"})
    bytelevel(tmp_path)
    with pytest.raises(ExportError, match="tokens, but the model only 200"):
        vocab.metadata(tmp_path, 200)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece", "vocab": {"a": 0}}}))
    with pytest.raises(ExportError, match="a tokenizer of the kind WordPiece"):
        vocab.metadata(tmp_path, 10)
