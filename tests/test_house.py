"""The laws of the house: imports point down, methods stand alone, nothing heavy at import, nothing undeclared."""

import ast
import doctest
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "secateur"
FILES = sorted(SOURCE.rglob("*.py"))
METHODS = sorted(file for file in (SOURCE / "methods").rglob("*.py") if not file.name.startswith("_"))

DOORS = {"__init__", "__main__"}
#: where each part of the package stands; a file may import from lower floors, and from its own part
FLOORS = {
    "types": 0,
    "maths": 1,
    "model": 2,
    "parts": 3,
    "measure": 3,
    "methods": 4,
    "export": 4,
    "cut": 5,
    "bench": 5,
    "report": 5,
    "train": 5,
    "law": 5,
    "cli": 6,
}
#: a job is a file that stands alone in the package: cut.py, recipe.py, report.py ...
FLOORS |= {file.stem: 5 for file in SOURCE.glob("*.py") if file.stem not in (*FLOORS, *DOORS)}
#: floors whose parts may know each other
OPEN = {3, 5}


def module(file: Path) -> str:
    """`secateur.maths.grids` for its `__init__.py` as for any file."""
    words = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


def part(name: str) -> str:
    """`maths` for `secateur.maths.grids`; the package itself for `secateur`."""
    words = name.split(".")
    return words[1] if len(words) > 1 else "__init__"


def imports(tree: ast.AST, here: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Every import in a file, also inside functions: its line and the module it names, relative ones resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here.split(".")
            base = base[: len(base) - node.level + is_package] if node.level else []
            named = ".".join([*base, *filter(None, [node.module])])
            # `from secateur import cut` and `from secateur.methods.quantize import rtn` name files by their last word
            if any((SOURCE.parent / named.replace(".", "/") / f"{alias.name}.py").exists() for alias in node.names):
                yield from ((node.lineno, f"{named}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, named


def offence(here: str, there: str) -> str | None:
    """Why one module may not import another, or None."""
    mine, theirs = part(here), part(there)
    if theirs not in FLOORS:
        return None if theirs in DOORS else f"{theirs} has no floor: add it to FLOORS"
    if FLOORS[theirs] > FLOORS[mine]:
        return f"floor {FLOORS[mine]} may not look up to floor {FLOORS[theirs]}"
    if mine == theirs == "methods" and here != there:
        return "methods never import methods"
    if mine != theirs and FLOORS[mine] == FLOORS[theirs] and FLOORS[mine] not in OPEN:
        return f"{mine} and {theirs} stand on the same floor"
    return None


@pytest.mark.parametrize("file", FILES, ids=module)
def test_imports_only_point_down(file: Path):
    here = module(file)
    if part(here) in DOORS:
        pytest.skip("the package's own door opens every room")
    assert part(here) in FLOORS, f"{file} stands on no floor: add `{part(here)}` to FLOORS"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    ours = [(line, name) for line, name in imports(tree, here, file.stem == "__init__") if name.startswith("secateur")]
    wrong = [f"{file}:{line} imports {name}: {why}" for line, name in ours if (why := offence(here, name))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("here", "there", "word"),
    [
        ("secateur.maths.sums", "secateur.model.watch", "look up"),
        ("secateur.methods.quantize.rtn", "secateur.methods.quantize.gptq", "never"),
        ("secateur.methods.quantize.rtn", "secateur.export.safetensors", "same floor"),
        ("secateur.maths.sums", "secateur.sheds", "no floor"),
    ],
)
def test_the_guard_names_the_offence(here: str, there: str, word: str):
    assert word in (offence(here, there) or "")


def test_the_guard_sees_every_kind_of_import():
    tree = ast.parse("from . import b\nfrom ..c import d\ndef f():\n    import secateur.e\n")
    assert [name for _, name in imports(tree, "secateur.a.b", False)] == ["secateur.a", "secateur.c", "secateur.e"]


@pytest.mark.parametrize("file", [file for file in FILES if part(module(file)) == "types"], ids=module)
def test_the_ground_floor_knows_no_torch(file: Path):
    named = [name for _, name in imports(ast.parse(file.read_text(encoding="utf-8")), module(file), False)]
    assert not [name for name in named if name.partition(".")[0] in ("torch", "transformers")]


@pytest.mark.parametrize("file", [file for file in FILES if part(module(file)) == "maths"], ids=module)
def test_maths_knows_tensors_only(file: Path):
    named = {name for _, name in imports(ast.parse(file.read_text(encoding="utf-8")), module(file), False)}
    outside = {"logging", "pathlib", "json", "torch.nn", "transformers", "safetensors"}
    assert not named & outside, f"{file} imports {named & outside}; maths has tensors in and tensors out"


def test_importing_the_package_imports_nothing_heavy():
    code = "import secateur, sys; print(sorted({'torch', 'transformers', 'numpy', 'rich', 'typer'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_the_names_of_the_front_door_are_there():
    import secateur
    from secateur.types import Budget

    assert secateur.Budget is Budget
    for name in secateur._HOME:
        assert callable(getattr(secateur, name)), name
        assert name in dir(secateur)
    with pytest.raises(AttributeError, match="no `prune_everything`"):
        secateur.prune_everything  # noqa: B018


@pytest.mark.parametrize(
    "first", ["from secateur.cut import survey", "from secateur import cut", "import secateur.cut"]
)
def test_a_verb_may_be_a_module_too_whoever_comes_first(first: str):
    code = (
        f"{first}\nimport secateur, secateur.cut as home\nassert callable(secateur.cut) and home.cut and home.survey\n"
    )
    code += "assert all(callable(getattr(secateur, name)) for name in secateur._HOME)"
    subprocess.run([sys.executable, "-c", code], check=True)


def declared() -> set[str]:
    """The distributions that pyproject.toml names, in the core or in an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    return {re.split(r"[\[<>=!~; ]", line)[0].lower() for line in lines} - {"secateur"}


@pytest.mark.parametrize("file", FILES, ids=module)
def test_every_foreign_import_is_declared(file: Path):
    spelled = {"yaml": "pyyaml", "PIL": "pillow", "compressed_tensors": "compressed-tensors", "lm_eval": "lm-eval"}
    tree = ast.parse(file.read_text(encoding="utf-8"))
    roots = {name.partition(".")[0] for _, name in imports(tree, module(file), file.stem == "__init__")}
    foreign = roots - set(sys.stdlib_module_names) - {"secateur"}
    if ".rivals." in module(file) and not file.stem.startswith("_"):  # its own library is installed elsewhere
        own = getattr(importlib.import_module(module(file)), "DISTRIBUTION", "").replace("-", "_")
        foreign -= {own}
    missing = {root for root in foreign if spelled.get(root, root) not in declared()}
    assert not missing, f"{file} imports {missing}, which pyproject.toml does not name"


def test_all_means_all():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    everything = set(re.findall(r"\[(.*)\]", extras["all"][0])[0].split(","))
    assert everything == set(extras) - {"all", "dev", "docs"}


@pytest.mark.parametrize("file", [file for file in FILES if ">>>" in file.read_text(encoding="utf-8")], ids=module)
def test_examples_in_docstrings_run(file: Path):
    found = doctest.testmod(importlib.import_module(module(file)))
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("file", METHODS, ids=lambda file: file.stem)
def test_a_method_comes_with_its_test_its_card_and_its_claim(file: Path):
    slug = file.stem.replace("_", "-")
    inside = file.relative_to(SOURCE).parent
    wanted = [
        ROOT / "tests" / inside / f"test_{file.stem}.py",
        ROOT / "docs" / "methods" / f"{slug}.md",
        ROOT / "benchmarks" / "claims" / f"{slug}.py",
    ]
    missing = [str(path.relative_to(ROOT)) for path in wanted if not path.exists()]
    assert not missing, f"{slug} lacks {', '.join(missing)}"


@pytest.mark.parametrize("file", METHODS, ids=lambda file: file.stem)
def test_a_method_says_what_it_is(file: Path):
    from secateur.catalogue import HEADER, SHAPES, methods

    method = next(one for one in methods() if one.file == file.relative_to(SOURCE).as_posix())
    told = {"Paper": method.paper, "Wing": method.wing, "Shape": method.shape}
    told |= {"Applies to": method.applies_to, "Use": method.use}
    assert method.sentence.endswith("."), f"{file}: the first line of the docstring is one sentence"
    assert all(told[key] for key in HEADER), f"{file}: the docstring lacks {[key for key in HEADER if not told[key]]}"
    assert method.year, f"{file}: `Paper:` ends with (arXiv NNNN.NNNNN, YEAR), or (YEAR) where there is no arXiv number"
    assert method.shape in SHAPES, f"{file}: `Shape:` is one of {', '.join(SHAPES)}"
    assert method.wing == file.relative_to(SOURCE / "methods").parts[0], f"{file}: `Wing:` is its folder"


def test_no_registry_is_named_in_the_repository():
    hosts = [
        ".".join(words) for words in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("debian", "org"))
    ]
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    named = []
    for name in filter(None, listed.stdout.split("\0")):
        file = ROOT / name
        if file.is_file() and file.stat().st_size < 2_000_000:
            text = file.read_bytes().decode(errors="ignore")
            named += [f"{name} names {host}" for host in hosts if host in text]
    assert not named, "\n".join(named)
