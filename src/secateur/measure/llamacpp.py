"""llama.cpp, when it is there: a GGUF file as its real runtime runs it. All contact with the library is in this file.

The library is called from a process of its own (`python -m secateur.measure.llamacpp`), so that a crash in there is an
error here, and its threads and signals are nobody's. Its settings are structures that grow with every version; we never
declare them: a buffer larger than any of them is filled by the library with its defaults, and the few fields that we
set are found by the values that surround them. A version where they are not found is refused.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from secateur.types import SecateurError

#: a folder with llama.cpp's libraries
WHERE = "SECATEUR_LLAMA_CPP"
GET = f"`npm install --prefix PLACE @node-llama-cpp/linux-x64` and {WHERE}=PLACE, or `pip install llama-cpp-python`"
_INSIDE = ("lib", "bin", "build/bin", "node_modules/@node-llama-cpp/*/bins/*", "@node-llama-cpp/*/bins/*")
_PARTS = ("ggml-base", "ggml")
_ROOM = 512  # bytes; the largest of its structures has 160


class RuntimeMissingError(SecateurError):
    """No llama.cpp is installed where we look."""


# finding it


def folder() -> Path | None:
    """Where its libraries lie: the environment's word, npm's package beside this environment, llama-cpp-python's."""
    places = [Path(os.environ[WHERE])] if os.environ.get(WHERE) else [Path(sys.prefix) / "node_modules"]
    if not os.environ.get(WHERE):
        places += [Path(at) / "llama_cpp" for at in sys.path if (Path(at) / "llama_cpp").is_dir()]
    for place in places:
        for found in (place, *(one for inside in _INSIDE for one in sorted(place.glob(inside)))):
            if _library(found, "llama") is not None:
                return found
    return None


def version() -> str | None:
    """What it is called in a report, or None where there is none."""
    where = folder()
    return None if where is None else f"llama.cpp {_version(where)}"


@cache
def _version(where: Path) -> str:
    for file in (where / "_nlcBuildMetadata.json", where / ".." / ".." / "package.json"):
        if file.exists():
            told = json.loads(file.read_text())
            return str(told.get("buildOptions", {}).get("llamaCpp", {}).get("release") or told.get("version"))
    return f"in {where}"


def _library(where: Path, stem: str) -> Path | None:
    exact = [where / f"lib{stem}{end}" for end in (".so", ".dylib")] + [where / f"{stem}.dll"]
    return next((file for file in (*exact, *sorted(where.glob(f"lib{stem}.v*.so"))) if file.is_file()), None)


# asking it, from any process


def logits(model: str | Path, tokens: np.ndarray, exact: bool = True, threads: int = 1) -> np.ndarray:
    """Logits of token windows [windows, length] -> float32 [windows, length, vocabulary].

    `exact` keeps what attention looks back at in 32 bits, as our own network does; llama.cpp's habit is 16.
    """
    with tempfile.TemporaryDirectory(prefix="secateur-") as place:
        asked, given = Path(place) / "tokens.npy", Path(place) / "logits.npy"
        np.save(asked, np.ascontiguousarray(tokens, dtype=np.int32))
        _ask("logits", model, str(asked), str(given), str(int(exact)), str(threads))
        return np.load(given)


def speak(model: str | Path, prompt: str, n: int, threads: int = 0) -> Iterator[str]:
    """What the model says after a prompt, greedily, piece by piece as it comes."""
    with _child("speak", model, str(n), str(threads), stdin=prompt) as lines:
        for line in lines:
            yield json.loads(line)


def quantize(
    model: str | Path, out: str | Path, ftype: int, importance: str | Path | None = None, apart: bool = False
) -> None:
    """Its own quantizer: a file of its own mix. `importance` is an .npz of mean squared inputs by tensor name; `apart`
    leaves embeddings and head in 16 bits."""
    _ask("quantize", model, str(Path(out).absolute()), str(ftype), str(importance or ""), "apart" if apart else "")


def tokenize(model: str | Path, text: str) -> list[int]:
    """The tokens that the file's own tokenizer makes of a text, nothing added."""
    return json.loads(_ask("tokenize", model, stdin=text))


def _ask(what: str, model: str | Path, *words: str, stdin: str = "") -> str:
    with _child(what, model, *words, stdin=stdin) as lines:
        return "".join(lines)


@contextmanager
def _child(what: str, model: str | Path, *words: str, stdin: str) -> Iterator[IO[str]]:
    """What the child says on its standard output, line by line; SecateurError if it does not end well.

    Its other streams are files: the library writes pages to its standard error, and would wait for a reader.
    """
    where = folder()
    if where is None:
        raise RuntimeMissingError("llama.cpp is not installed here", GET)
    at = str(Path(__file__).resolve().parents[2])
    around = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (at, os.environ.get("PYTHONPATH"))))}
    command = [sys.executable, "-m", "secateur.measure.llamacpp", str(where), what, str(Path(model).resolve()), *words]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as asked, tempfile.TemporaryFile("w+", errors="replace") as log:
        asked.write(stdin)
        asked.seek(0)
        child = subprocess.Popen(command, stdin=asked, stdout=subprocess.PIPE, stderr=log, encoding="utf-8", env=around)
        try:
            assert child.stdout is not None
            yield child.stdout
            code = child.wait()
        finally:  # whoever stops listening stops it
            child.kill()
            child.wait()
            child.stdout.close()  # type: ignore[union-attr]
        log.seek(0)
        said = [line for line in log.read().splitlines() if line.strip()]
    if code:
        how = f"was killed by signal {-code}" if code < 0 else "refused"
        why = next((line for line in reversed(said) if "rror" in line), said[-1] if said else "it did not say why")
        raise SecateurError(
            f"llama.cpp {how} with {Path(model).name}: {why.strip()}",
            "this llama.cpp does not run files of this kind, or the file is damaged; `secateur doctor` names versions",
        )


# the library itself, in the child


class _Settings(ctypes.Structure):
    """Any of its structures of settings: passed by reference or on the stack, a longer one does no harm."""

    _fields_ = (("raw", ctypes.c_uint8 * _ROOM),)

    def ints(self) -> Any:
        return ctypes.cast(self.raw, ctypes.POINTER(ctypes.c_int32))


class _Batch(ctypes.Structure):
    """`struct llama_batch`, the same for years."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


class _Importance(ctypes.Structure):
    """`struct llama_model_imatrix_data`; an array of them ends with an empty one."""

    _fields_ = (("name", ctypes.c_char_p), ("data", ctypes.POINTER(ctypes.c_float)), ("size", ctypes.c_size_t))


def _plain_buffers(raw: bytes) -> int:
    """Where `use_extra_bufts` lies in the settings of a model. On processors with AMX, decoding crashes with it.

    Its neighbours by version: mmap and mlock beside it (2025), direct i/o too (early 2026), neither (since then).
    """
    for at in (64, 72):
        for known in ((0, 1, 0, 0, 1), (0, 1, 0, 0, 0, 1), (0, 1, 1, 0, 0, 1), (0, 0, 1)):
            pointers = raw[at - 32 : at]
            if not any(pointers) and tuple(raw[at : at + len(known)]) == known and not raw[at + len(known)]:
                return at + len(known) - 1
    raise SystemExit("Error: this llama.cpp lays out its model settings in a way that is not known")


@dataclass(frozen=True)
class _Places:
    """Where the settings of a context lie, in 32-bit words."""

    threads: int
    flash: int
    cache: int


def _places(words: Sequence[int]) -> _Places:
    """By their defaults: four threads twice; four choices left open (-1); two types of cache (f16 is 1) behind them."""
    n = range(4, 40)
    flash = next((i + 3 for i in n if list(words[i : i + 4]) == [-1] * 4), 0)
    threads = next((i for i in n if words[i] == words[i + 1] and 0 < words[i] < 512 and i < flash), 0)
    kept = next((i for i in n if list(words[i - 4 : i + 2]) == [0, 0, 0, 0, 1, 1] and i > flash), 0)
    if not (threads and flash and kept and list(words[:3]) == [512, 2048, 512]):
        raise SystemExit("Error: this llama.cpp lays out its context settings in a way that is not known")
    return _Places(threads, flash, kept)


class _Llama:
    """The loaded library and one model."""

    def __init__(self, where: Path, model: str | None = None, vocabulary_only: bool = False):
        self.lib = _load(where)
        for name in ("llama_model_default_params", "llama_context_default_params"):
            getattr(self.lib, name).restype = _Settings
        for name in ("model_load_from_file", "init_from_model", "get_logits", "model_get_vocab", "get_memory"):
            getattr(self.lib, f"llama_{name}").restype = ctypes.c_void_p
        self.lib.llama_model_load_from_file.argtypes = (ctypes.c_char_p, _Settings)
        self.lib.llama_init_from_model.argtypes = (ctypes.c_void_p, _Settings)
        self.lib.llama_get_logits.argtypes = self.lib.llama_get_memory.argtypes = (ctypes.c_void_p,)
        self.lib.llama_model_get_vocab.argtypes = self.lib.llama_vocab_n_tokens.argtypes = (ctypes.c_void_p,)
        self.lib.llama_decode.argtypes = (ctypes.c_void_p, _Batch)
        self.lib.llama_memory_clear.argtypes = (ctypes.c_void_p, ctypes.c_bool)
        self.lib.llama_backend_init()
        if model is not None:
            settings = self.lib.llama_model_default_params()
            at = _plain_buffers(bytes(settings.raw))
            settings.raw[at] = 0
            if vocabulary_only:
                settings.raw[72 if at >= 72 else 64] = 1
            self.model = self.lib.llama_model_load_from_file(model.encode(), settings)
            if not self.model:
                raise SystemExit(1)  # it has said why
            self.vocabulary = self.lib.llama_model_get_vocab(self.model)
            self.size = self.lib.llama_vocab_n_tokens(self.vocabulary)

    def context(self, length: int, exact: bool, threads: int) -> Any:
        settings = self.lib.llama_context_default_params()
        words = settings.ints()
        at = _places(words[:60])
        words[0] = words[1] = words[2] = length  # context, batch, physical batch
        for i in range(4, at.threads):  # how many outputs there may be, where it asks
            words[i] = length if words[i] == 1 else words[i]
        words[at.threads] = words[at.threads + 1] = threads or len(os.sched_getaffinity(0))
        if exact:
            words[at.cache] = words[at.cache + 1] = words[at.flash] = 0  # float32, and no flash attention
        made = self.lib.llama_init_from_model(self.model, settings)
        if not made:
            raise SystemExit("Error: no context could be made")
        return made

    def decode(self, context: Any, tokens: Sequence[int], start: int, every: bool) -> np.ndarray:
        """Logits of all places, or of the last; [places, vocabulary]."""
        n = len(tokens)
        ids, places = (ctypes.c_int32 * n)(*tokens), (ctypes.c_int32 * n)(*range(start, start + n))
        counts, zero = (ctypes.c_int32 * n)(*[1] * n), ctypes.c_int32(0)
        of = (ctypes.POINTER(ctypes.c_int32) * n)(*[ctypes.pointer(zero)] * n)
        asked = (ctypes.c_int8 * n)(*[int(every or i == n - 1) for i in range(n)])
        if self.lib.llama_decode(context, _Batch(n, ids, None, places, counts, of, asked)):
            raise SystemExit("Error: llama_decode failed")
        found = ctypes.cast(self.lib.llama_get_logits(context), ctypes.POINTER(ctypes.c_float))
        rows = n if every else 1
        return np.ctypeslib.as_array(found, (rows, self.size)).copy()

    def forget(self, context: Any) -> None:
        self.lib.llama_memory_clear(self.lib.llama_get_memory(context), True)

    def tokens(self, text: str, special: bool) -> list[int]:
        raw = text.encode()
        room = (ctypes.c_int32 * (len(raw) + 16))()
        self.lib.llama_tokenize.argtypes = (
            *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32), ctypes.c_int32),
            *(ctypes.c_bool, ctypes.c_bool),
        )
        n = self.lib.llama_tokenize(self.vocabulary, raw, len(raw), room, len(room), special, special)
        if n < 0:
            raise SystemExit("Error: the file's tokenizer cannot read the prompt")
        return list(room[:n])

    def piece(self, token: int) -> bytes:
        room = ctypes.create_string_buffer(512)
        n = self.lib.llama_token_to_piece(
            ctypes.c_void_p(self.vocabulary), token, room, ctypes.c_int32(512), ctypes.c_int32(0), ctypes.c_bool(False)
        )
        return room.raw[: max(n, 0)]

    def ends(self, token: int) -> bool:
        return bool(self.lib.llama_vocab_is_eog(ctypes.c_void_p(self.vocabulary), token) & 1)


def _load(where: Path) -> Any:
    parts = [ctypes.CDLL(str(found), ctypes.RTLD_GLOBAL) for stem in _PARTS if (found := _library(where, stem))]
    for part in parts:
        if hasattr(part, "ggml_backend_load_all_from_path"):
            part.ggml_backend_load_all_from_path(str(where).encode())
    return ctypes.CDLL(str(_library(where, "llama")))


def _logits(llama: _Llama, asked: str, given: str, exact: str, threads: str) -> None:
    windows = np.load(asked)
    context = llama.context(windows.shape[1], exact == "1", int(threads))
    out = np.lib.format.open_memmap(given, "w+", np.float32, (*windows.shape, llama.size))
    for i, window in enumerate(windows):
        llama.forget(context)
        out[i] = llama.decode(context, window.tolist(), 0, every=True)


def _speak(llama: _Llama, prompt: str, n: int, threads: int) -> None:
    import codecs

    tokens = llama.tokens(prompt, special=True)
    if not tokens:
        raise SystemExit("Error: the prompt is empty, and the file names no token that begins a text")
    context, at = llama.context(len(tokens) + n, False, threads), 0
    decode = codecs.getincrementaldecoder("utf-8")("replace")
    for _ in range(n):
        scores = llama.decode(context, tokens, at, every=False)[0]
        at, token = at + len(tokens), int(scores.argmax())
        if llama.ends(token):
            break
        if said := decode.decode(llama.piece(token)):
            print(json.dumps(said), flush=True)
        tokens = [token]
    print(json.dumps(decode.decode(b"", final=True)))


def _quantize(llama: Any, model: str, out: str, ftype: str, importance: str, apart: str) -> None:
    llama.llama_model_quantize_default_params.restype = _Settings
    settings = llama.llama_model_quantize_default_params()
    words = settings.ints()
    if words[6] | words[7] | words[8] | words[9] or words[4] & 0xFF:  # flags, then the pointer, from byte 16 on
        raise SystemExit("Error: this llama.cpp lays out its quantizer's settings in a way that is not known")
    words[0], words[1] = 1, int(ftype)
    if apart:
        words[2] = words[3] = 1  # of the head, then of the embeddings: GGML_TYPE_F16
    held = dict(np.load(importance)) if importance else {}
    notes = (_Importance * (len(held) + 1))()
    for note, (name, values) in zip(notes, held.items(), strict=False):
        held[name] = np.ascontiguousarray(values, dtype=np.float32)
        note.name, note.size = name.encode(), values.size
        note.data = held[name].ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    if held:
        ctypes.cast(settings.raw, ctypes.POINTER(ctypes.c_void_p))[3] = ctypes.addressof(notes)
    llama.llama_model_quantize.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_Settings))
    if code := llama.llama_model_quantize(model.encode(), out.encode(), ctypes.byref(settings)):
        raise SystemExit(f"Error: llama_model_quantize returned {code}")


def main(where: str, what: str, model: str, *words: str) -> None:
    """What the child does."""
    if what == "logits":
        _logits(_Llama(Path(where), model), *words)
    elif what == "speak":
        _speak(_Llama(Path(where), model), sys.stdin.read(), int(words[0]), int(words[1]))
    elif what == "tokenize":
        print(json.dumps(_Llama(Path(where), model, vocabulary_only=True).tokens(sys.stdin.read(), special=False)))
    elif what == "quantize":
        _quantize(_load(Path(where)), model, *words)


if __name__ == "__main__":
    main(*sys.argv[1:])
