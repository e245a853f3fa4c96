"""What there is to choose from: methods, formats and runtimes, found by path and read without importing them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent

#: the lines that follow the first sentence of a method's docstring (CONTRIBUTING.md says what goes into each)
HEADER = ("Paper", "Wing", "Shape", "Applies to", "Use")
SHAPES = ("cut", "train", "tune", "study", "policy", "law")


@dataclass(frozen=True)
class Method:
    """One paper, one file: what its docstring says of it."""

    name: str
    sentence: str
    paper: str
    arxiv: str
    year: int
    wing: str
    shape: str
    applies_to: str
    use: str
    file: str
    link: str = ""


def methods(folder: Path = HERE / "methods") -> list[Method]:
    """Every method under `folder`, by wing and name; private files (`_like_this.py`) are none."""
    files = sorted(file for file in folder.rglob("*.py") if not file.name.startswith("_"))
    return [_method(file, folder) for file in files]


def _method(file: Path, folder: Path) -> Method:
    words = docstring(file.read_text(encoding="utf-8"))
    sentence = words.partition("\n")[0].strip()
    says = {key: _line(words, key) for key in HEADER}
    reference = re.search(r"\((?:arXiv (\d{4}\.\d{4,5}), )?(\d{4})\)", says["Paper"])
    arxiv = (reference[1] or "") if reference else ""
    return Method(
        name=slug(file),
        sentence=sentence,
        paper=says["Paper"],
        arxiv=arxiv,
        year=int(reference[2]) if reference else 0,
        wing=says["Wing"] or file.parent.name,
        shape=says["Shape"],
        applies_to=says["Applies to"],
        use=says["Use"],
        file=file.relative_to(folder.parent).as_posix(),
        link=_line(words, "Link") or (f"https://arxiv.org/abs/{arxiv}" if arxiv else ""),
    )


def find(name: str, among: Iterable[Method] | None = None) -> Method:
    """The method of this name, or a SecateurError that names the nearest."""
    from secateur.types import SecateurError  # brings numpy along, which the list does without

    found = list(methods() if among is None else among)
    one = next((method for method in found if method.name == name.replace("_", "-")), None)
    if one is None:
        close = nearest(name, [method.name for method in found])
        hint = f"did you mean `{close}`?" if close else "`secateur methods` lists them all"
        raise SecateurError(f"there is no method `{name}`", hint)
    return one


def _line(words: str, key: str) -> str:
    """The rest of the line that begins with `key:`, with the lines indented under it."""
    found = re.search(rf"^{key}:[ \t]*(.*(?:\n[ \t]+\S.*)*)", words, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def slug(file: Path) -> str:
    """A method's name: its file's, with `-` for `_`."""
    return file.stem.replace("_", "-")


def docstring(source: str) -> str:
    """The docstring of a module, from its text. Parses no further than the closing quotes: a hundred files, no wait."""
    head = source.split('"""', 2)
    if len(head) == 3:
        try:
            return ast.get_docstring(ast.parse('"""'.join(head[:2]) + '"""')) or ""
        except SyntaxError:
            pass  # not a docstring after all; read the whole file
    return ast.get_docstring(ast.parse(source)) or ""


def names(folder: str) -> list[str]:
    """The names that the files of one of our folders stand for: `names("export")` are the formats."""
    return sorted(slug(file) for file in (HERE / folder).glob("*.py") if not file.name.startswith("_"))


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name that looks most like this one, or nothing."""
    return next(iter(get_close_matches(word, list(known), n=1)), "")


@dataclass(frozen=True)
class Runtime:
    """Somebody else's program that reads or measures what we write."""

    name: str
    module: str
    what_for: str
    get: str

    @property
    def version(self) -> str:
        """The installed version; nothing where it is not installed."""
        try:
            return version(self.name)
        except PackageNotFoundError:
            return ""


RUNTIMES = (
    Runtime(
        "transformers",
        "transformers",
        "reads models, and our plain and compressed-tensors files",
        "pip install transformers",
    ),
    Runtime(
        "compressed-tensors",
        "compressed_tensors",
        "the format of vLLM: transformers decodes it with this",
        "pip install 'secateur[vllm]'",
    ),
    Runtime("vllm", "vllm", "serves compressed-tensors files", "pip install vllm"),
    Runtime("gguf", "gguf", "writes and reads files of llama.cpp", "pip install 'secateur[gguf]'"),
    Runtime("onnxruntime", "onnxruntime", "runs ONNX files", "pip install 'secateur[onnx]'"),
    Runtime("lm-eval", "lm_eval", "tasks of the evaluation harness in `measure`", "pip install 'secateur[eval]'"),
    Runtime("pyarrow", "pyarrow", "reads .parquet data", "pip install 'secateur[data]'"),
    Runtime("datasets", "datasets", "reads hf: data", "pip install 'secateur[data]'"),
    Runtime("botorch", "botorch", "searches by Gaussian process", "pip install 'secateur[study]'"),
    Runtime("ray", "ray", "many evaluations at once", "pip install 'secateur[ray]'"),
)


def runtime(module: str) -> Runtime | None:
    """The runtime that brings the Python module of this name."""
    return next((one for one in RUNTIMES if one.module == module), None)
