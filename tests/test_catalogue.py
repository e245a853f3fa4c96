"""The catalogue: methods read from their docstrings, without importing them."""

import sys
import time

import pytest

from secateur import catalogue

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
