"""From what the user calls data to windows of token ids: some to calibrate with, some held back to measure on."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.types import DataError

log = logging.getLogger("secateur")

LEAST_WINDOWS, LEAST_TOKENS = 5, 256  # four to calibrate, one to measure; and not next to nothing
_LOOKED_AT = 1000  # rows, for a column that holds text
_MOST_CHARACTERS = 16_000_000  # of text kept in memory; more is thinned out evenly
_AS_WRITTEN = ("PreTrainedTokenizerFast", "TokenizersBackend")  # classes that are what tokenizer.json says
_KINDS = (".txt", ".md", ".rst", ".jsonl", ".csv", ".parquet")


def windows(
    data: str | Path,
    tokenizer: Any,
    samples: int,
    seq_len: int | None = None,
    seed: int = 0,
    *,
    context: int | None = None,
    vocabulary: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Token ids `windows x seq_len`: to calibrate with (at most `samples`), and held back.

    `data` is a text file, a `.jsonl`, `.csv` or `.parquet` with a text column, any of these (but parquet) as `.gz`, a
    folder of them, or `hf:name[:config[:split]]`. Windows never overlap and are spread evenly over the text, every one
    at a random place within its share; documents follow one another without special tokens. Held-back windows lie
    between the others: one for every four, at least 16 and at most 128 where the text allows, one in five of all
    windows where it does not (then there are fewer than `samples`, and the log says so). `tokenizer` may be the folder
    it lies in; `context` is the longest window the model takes, `vocabulary` its number of token ids. `seq_len` None is
    the context, at most 512.
    """
    if isinstance(tokenizer, str | Path):
        tokenizer = load_tokenizer(tokenizer)
    length = _length(tokenizer, seq_len, context)
    if samples < 1:
        raise DataError(f"asked for {samples} samples", "ask for at least 4")
    text, _ = whole(data)
    held = min(max(16, samples // 4), 128)
    random = torch.Generator().manual_seed(seed)
    cut = _from_shares(text, tokenizer, samples + held, length, random)
    if cut is None:
        cut = _from_all(str(data), _ids(tokenizer, text), samples + held, length, random)
    if vocabulary is not None and int(cut.max()) >= vocabulary:
        raise DataError(
            f"the tokenizer gives token {int(cut.max())}, but the model has only {vocabulary}",
            "tokenizer and weights are of different models",
        )
    return _hold_back(str(data), cut, samples, held)


def whole(data: str | Path) -> tuple[str, int]:
    """The data as one text, and how many characters it has: of more than 16 million, pieces spread evenly are taken."""
    seen = 0

    def counted() -> Iterator[str]:
        nonlocal seen
        for text in documents(str(data)):
            seen += len(text) + 1
            yield text

    text = "\n".join(_thin(counted(), _MOST_CHARACTERS))
    if not text.strip():
        raise DataError(f"{data} holds no text", "give a file with some")
    return text, max(seen - 1, 0)


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer that lies beside the weights, as its own files describe it.

    For some architectures (Qwen2) transformers puts a class of its own in the place of one that is said to be whatever
    tokenizer.json holds, and splits words in its own way: so the class that the files name is taken at its word.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tokenizer_config.json")
    if not any((Path(folder) / name).exists() for name in names):
        raise DataError(
            f"{folder} holds no tokenizer", "copy tokenizer.json and tokenizer_config.json beside the weights"
        )
    try:
        plain = (Path(folder) / "tokenizer.json").exists() and _class_of(Path(folder)) in _AS_WRITTEN
        kind = PreTrainedTokenizerFast if plain else AutoTokenizer
        return kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # slow and fast tokenizers fail each in their own way
        raise DataError(
            f"the tokenizer in {folder} cannot be read ({error})", "download or copy its files again"
        ) from error


def _class_of(folder: Path) -> str:
    """The class that a tokenizer's settings name, or ""."""
    try:
        return str(json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("tokenizer_class"))
    except (OSError, ValueError, AttributeError):
        return ""


def _length(tokenizer: Any, seq_len: int | None, context: int | None) -> int:
    if context is None:
        most = getattr(tokenizer, "model_max_length", None)
        context = most if isinstance(most, int) and most < 10**7 else None  # 1e30 means that nobody set it
    if seq_len is None:
        return min(context or 512, 512)
    if seq_len < 2:
        raise DataError(f"windows of {seq_len} tokens predict nothing", "use --seq-len 2 or more")
    if context is not None and seq_len > context:
        raise DataError(
            f"windows of {seq_len} tokens are longer than the model's context of {context}", f"--seq-len {context}"
        )
    return seq_len


def _ids(tokenizer: Any, text: str) -> Tensor:
    return torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=torch.long)


def _from_shares(text: str, tokenizer: Any, n: int, length: int, random: torch.Generator) -> Tensor | None:
    """One window from each of `n` equal shares of a long text, tokenizing only those; None if the text is not long."""
    probe = max(1, len(text) // 64)
    seen = [text[at : at + 1000] for at in range(0, len(text), probe)]
    per_token = sum(map(len, seen)) / max(1, sum(len(_ids(tokenizer, part)) for part in seen))
    share, slice_ = len(text) / n, int(1.5 * per_token * length) + 64
    if share < 2 * slice_:
        return None
    cut = []
    for at, loose in enumerate(torch.rand(n, generator=random, dtype=torch.float64).tolist()):
        end = int((at + 1) * share)
        start = _boundary(text, int(at * share + loose * (share - 1.5 * slice_)), slice_ // 4)
        ids = _ids(tokenizer, text[start : min(end, start + slice_)])
        if len(ids) < length:  # text of long tokens
            ids = _ids(tokenizer, text[start:end])
        if len(ids) < length:
            return None
        cut.append(ids[:length])
    return torch.stack(cut)


def _boundary(text: str, start: int, reach: int) -> int:
    """The next beginning of a line within reach, or of a word, so that no word is cut in two."""
    line = text.find("\n", start, start + reach)
    return line + 1 if line >= 0 else max(start, text.find(" ", start, start + reach))


def _from_all(data: str, ids: Tensor, n: int, length: int, random: torch.Generator) -> Tensor:
    """Up to `n` windows of a short text, which is tokenized as a whole."""
    least = max(LEAST_WINDOWS * length, LEAST_TOKENS)
    if len(ids) < least:
        shorter = f", or shorter windows: --seq-len {len(ids) // LEAST_WINDOWS}" if len(ids) >= LEAST_TOKENS else ""
        raise DataError(
            f"{data} gives only {len(ids)} tokens; windows of {length} need at least {least}",
            "give more text" + shorter,
        )
    n = min(n, len(ids) // length)
    share = len(ids) / n
    loose = torch.rand(n, generator=random, dtype=torch.float64) * (share - length)
    starts = (torch.arange(n, dtype=torch.float64) * share + loose).long().clamp(max=len(ids) - length)
    return ids[starts[:, None] + torch.arange(length)]


def _hold_back(data: str, cut: Tensor, samples: int, held: int) -> tuple[Tensor, Tensor]:
    n = len(cut)
    if n < samples + held:
        held = min(held, n // LEAST_WINDOWS)
    back = torch.zeros(n, dtype=torch.bool)
    back[((torch.arange(held) + 0.5) * n / held).long()] = True
    calibrate, kept = cut[~back][:samples], cut[back]
    log.info("%s: %d windows of %d tokens to calibrate, %d held back", data, len(calibrate), cut.shape[1], len(kept))
    if len(calibrate) < samples:
        log.warning("%s is short: %d calibration windows instead of the %d asked for", data, len(calibrate), samples)
    return calibrate, kept


# ---------------------------------------------------------------------------------------------- where text comes from


def documents(data: str) -> Iterator[str]:
    """The texts in `data`, one after the other; lines of a text file are texts."""
    if data.startswith("hf:"):
        yield from _from_hub(data, _MOST_CHARACTERS)
        return
    path = Path(data).expanduser()
    if not path.exists():
        raise DataError(f"there is no file {data}", "give a text file, .jsonl, .csv, .parquet, a folder, or hf:name")
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.is_file() and _kind(f) in _KINDS)
        if not files:
            raise DataError(f"the folder {data} holds no text", f"it should hold {', '.join(_KINDS)} files")
        for file in files:
            yield from _read(file)
    else:
        yield from _read(path)


def _kind(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def _read(path: Path) -> Iterator[str]:
    kind = _kind(path)
    if kind == ".npz":
        raise DataError(f"{path} holds arrays, not text", "a language model needs text")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", "give a file with some text")
    if kind == ".parquet":
        return _column(path, _parquet(path))
    if kind == ".jsonl":
        return _column(path, (row for _, row in json_rows(_lines(path), path)))
    if kind == ".csv":
        csv.field_size_limit(sys.maxsize)
        return _column(path, csv.DictReader(_lines(path)))
    return _lines(path)


def _lines(path: Path) -> Iterator[str]:
    """Pieces of a text file (their joins lie between lines), checked to be UTF-8 text."""
    decode = codecs.getincrementaldecoder("utf-8-sig")()
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    rest = ""
    try:
        with opener(path, "rb") as file:
            while block := file.read(1 << 20):
                if b"\0" in block:
                    raise DataError(f"{path} is a binary file, not text", "give a text file in UTF-8")
                *whole, rest = (rest + decode.decode(block)).split("\n")
                yield from whole
        yield rest + decode.decode(b"", final=True)
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{path} is not text in UTF-8 ({error})", "give a text file, or convert it to UTF-8") from None


def json_rows(lines: Iterable[str], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every line that holds something, and the row that it is; DataError names the first that is no JSON."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}, is not JSON ({error})", "one JSON object on every line") from None
        yield line, row if isinstance(row, dict) else {"text": row}


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise DataError(f"reading {path} needs pyarrow", "pip install pyarrow") from None
    try:
        for batch in parquet.ParquetFile(path).iter_batches(256):
            yield from batch.to_pylist()
    except ArrowInvalid as error:
        raise DataError(f"{path} is not a parquet file ({error})", "download or write it again") from None


def _column(where: str | Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    name, rows = text_column(where, rows)
    return (str(row.get(name) or "") for row in rows)


def text_column(where: str | Path, rows: Iterable[Mapping[str, Any]]) -> tuple[str, Iterator[Mapping[str, Any]]]:
    """The name of the text column (`text`, `content`, or the only one that holds text), and all the rows."""
    rows, seen = iter(rows), []
    for row in rows:  # rows without text may come first
        seen.append(row)
        if any(isinstance(value, str) for value in row.values()) or len(seen) == _LOOKED_AT:
            break
    if not seen:
        raise DataError(f"{where} has no rows", "give a file with some text")
    last = seen[-1]
    texts = [name for name, value in last.items() if isinstance(value, str)]
    name = next((n for n in ("text", "content") if n in texts), texts[0] if len(texts) == 1 else None)
    if name is None and {"text", "content"} & set(last):
        raise DataError(f"{where} has nothing in its column of text", "give a file with some text")
    if name is None:
        raise DataError(f"{where} has no column `text`", f"rename one of its columns: {', '.join(map(str, last))}")
    return name, chain(seen, rows)


def _from_hub(data: str, most: int) -> Iterator[str]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise DataError(f"reading {data} needs the datasets library", "pip install datasets") from None
    name, config, split = (*data.removeprefix("hf:").split(":"), None, None)[:3]
    try:
        rows = load_dataset(name, config, split=split or "train", streaming=True)
        got = 0
        for text in _column(data, rows):
            yield text
            got += len(text)
            if got > most:  # a stream has no known length to spread over: its beginning
                return
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{data} cannot be read ({error})", "check name, config and split: hf:name:config:split"
        ) from error


def _thin(texts: Iterable[str], most: int) -> list[str]:
    """All of it, or evenly spaced chunks that make `most` to twice as many characters, however long the stream."""
    kept: list[str] = []
    stride = size = 0
    for at, chunk in enumerate(_chunks(texts)):
        if not stride or at % stride == 0:
            kept.append(chunk)
            size += len(chunk)
        if size > 2 * most:
            kept, stride = kept[::2], 2 * (stride or 1)
            size = sum(map(len, kept))
    return kept


def _chunks(texts: Iterable[str], least: int = 1 << 16) -> Iterator[str]:
    """Neighbouring texts joined to chunks of about 64 KiB."""
    chunk, size = [], 0
    for text in texts:
        chunk.append(text)
        size += len(text) + 1
        if size >= least:
            yield "\n".join(chunk)
            chunk, size = [], 0
    if chunk:
        yield "\n".join(chunk)
