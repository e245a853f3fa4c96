"""The catalogue: methods read from their docstrings, without importing them."""

import json
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from secateur import catalogue, evidence
from secateur.types import SecateurError

ROOT = Path(__file__).parent.parent

HEAD = '''"""Round every weight to the nearest point of its grid.

Paper: A Survey of Rounding (arXiv 2103.13630, 2021)
Wing: quantize
Shape: cut
Applies to: linear layers,
    embeddings
Use: secateur cut MODEL --round nearest

Nothing else.
"""

raise RuntimeError("a method was imported")
'''


def test_a_method_by_hand(tmp_path):
    folder = tmp_path / "methods"
    (folder / "quantize").mkdir(parents=True)
    (folder / "quantize" / "round_to_nearest.py").write_text(HEAD)
    (folder / "quantize" / "_helper.py").write_text('"""No method."""\n')
    (folder / "quantize" / "__init__.py").write_text('"""A wing."""\n')
    assert catalogue.methods(folder) == [
        catalogue.Method(
            name="round-to-nearest",
            sentence="Round every weight to the nearest point of its grid.",
            paper="A Survey of Rounding (arXiv 2103.13630, 2021)",
            arxiv="2103.13630",
            year=2021,
            wing="quantize",
            shape="cut",
            applies_to="linear layers, embeddings",
            use="secateur cut MODEL --round nearest",
            file="methods/quantize/round_to_nearest.py",
            link="https://arxiv.org/abs/2103.13630",
        )
    ]
    assert not [name for name in sys.modules if "round_to_nearest" in name]


def test_a_paper_without_a_number_still_has_a_year():
    words = HEAD.replace("(arXiv 2103.13630, 2021)", "(NeurIPS, 1989)").replace("NeurIPS, ", "")
    assert "(1989)" in catalogue.docstring(words)


@pytest.mark.parametrize(
    "source",
    [
        '"""One."""\nx = 1\n',
        "'''One.'''\nx = \"\"\"two\"\"\"\n",
        '# a comment\n"""One."""\n',
        '"One."\n',
        'r"""One."""\n',
    ],
)
def test_docstrings_in_every_dress(source):
    assert catalogue.docstring(source) == "One."


def test_no_docstring_is_none():
    assert catalogue.docstring('x = """not a docstring"""\n') == ""


def test_four_hundred_methods_take_no_time(tmp_path):
    folder = tmp_path / "methods" / "quantize"
    folder.mkdir(parents=True)
    for at in range(400):
        (folder / f"method_{at}.py").write_text(HEAD + "x = [1, 2, 3]\n" * 150)
    start = time.process_time()
    assert len(catalogue.methods(folder.parent)) == 400
    assert time.process_time() - start < 1.0


def test_nearest_names_a_neighbour_or_nobody():
    assert catalogue.nearest("serch", ["search", "cut"]) == "search"
    assert catalogue.nearest("zzz", ["search", "cut"]) == ""


def test_runtimes_are_found_by_module_and_say_their_version():
    torch_reader = catalogue.runtime("transformers")
    assert torch_reader is not None
    assert torch_reader.version[0].isdigit()
    assert catalogue.runtime("no_such_module") is None


def test_what_is_not_there_names_its_neighbour():
    assert catalogue.find("layerwise_quant").name == "layerwise-quant"
    with pytest.raises(SecateurError, match="did you mean `gptq`"):
        catalogue.find("gtpq")


def test_nothing_is_without_its_twin():
    """Methods, cards, claims, tests and measured rows: each names the others' slugs and no more."""
    slugs = {method.name for method in catalogue.methods()}
    tests = (ROOT / "tests" / "methods").rglob("test_*.py")
    twins = {
        "a card in docs/methods/": {file.stem for file in (ROOT / "docs" / "methods").glob("*.md")} - {"index"},
        "a claim in benchmarks/claims/": {
            file.stem for file in (ROOT / "benchmarks" / "claims").glob("*.py") if not file.name.startswith("_")
        },
        "a test in tests/methods/": {file.stem.removeprefix("test_").replace("_", "-") for file in tests},
        "a row in benchmarks/claims.csv": set(evidence.claims()),
    }
    for what, there in twins.items():
        assert not slugs - there, f"{sorted(slugs - there)} lack {what}"
        assert not there - slugs, f"{sorted(there - slugs)} have {what} and are no methods"


def test_the_list_needs_no_torch_and_no_numpy():
    code = (
        "import sys; sys.argv = ['secateur', 'methods', '--json']; from secateur.cli import main; main();"
        "print({'torch', 'transformers', 'numpy'} & set(sys.modules), file=sys.stderr)"
    )
    start = time.process_time()
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "set()" in said.stderr
    listed = json.loads(said.stdout)["methods"]
    assert [method["name"] for method in listed] == [method.name for method in catalogue.methods()]
    assert all(method["claim"]["verdict"] in ("holds", "tie", "does not hold") for method in listed)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("name", [method.name for method in catalogue.methods()])
def test_all_about_one(secateur, name):
    done = secateur("methods", name, "--json")
    told = json.loads(done.stdout)
    assert told["card"].startswith(f"# {name}") and evidence.BEGIN not in told["card"]
    assert told["calls"]["shell"] and told["parts"] and told["claims"] and told["link"].startswith("https://")


def test_a_card_in_words(secateur):
    said = secateur("methods", "rtn").stdout
    for word in ("arXiv 2103.13630", "in a shell", "in a recipe", "in python", "effect", "What the paper claims"):
        assert word in said, word
    assert secateur("methods", "rtm").returncode == 2
    assert "there is no wing" in secateur("methods", "--wing", "kitchen").stderr


def test_the_wheel_carries_cards_and_claims():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    carried = project["wheel"]["force-include"]
    assert carried == {"benchmarks/claims.csv": "secateur/shelf/claims.csv", "docs/methods": "secateur/shelf/methods"}
    assert all(any(path.startswith(kept) for kept in project["sdist"]["include"]) for path in carried)
