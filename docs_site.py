"""What mkdocs does not find in `docs/`: the catalogue, a page for each format, the reference, and the order of pages.

All of it is read from the sources when the site is built, so a new method, format or command is there by itself.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "src"))

from secateur import calls, catalogue, evidence  # noqa: E402

#: guides and concepts in the order in which one would read them; others follow by name
FIRST = (
    "fit-a-size",
    "read-the-report",
    "compare-methods",
    "measure",
    "one-training",
    "law",
    "select",
    "formats",
    "add-a-method",
    "shapes",
    "cut",
    "training",
)


def on_config(config: Any) -> Any:
    config.nav = [
        {"Home": "index.md"},
        {"Tour": "tour.md"},
        {"Guides": _folder("guides")},
        {"Concepts": _folder("concepts")},
        {"Methods": ["methods/index.md", *(f"methods/{one.name}.md" for one in catalogue.methods())]},
        {"Formats": ["formats/index.md", *(f"formats/{name}.md" for name in catalogue.names("export"))]},
        {"Reference": ["reference/commands.md", "reference/python.md"]},
        {"Log": "log.md"},
    ]
    return config


def _folder(name: str) -> list[str]:
    files = sorted((ROOT / "docs" / name).glob("*.md"), key=lambda file: (_place(file.stem), file.stem))
    return [f"{name}/{file.name}" for file in files]


def _place(stem: str) -> int:
    return FIRST.index(stem) if stem in FIRST else len(FIRST)


def on_files(files: Any, config: Any) -> Any:
    pages = {"methods/index.md": methods(), "formats/index.md": formats()}
    pages |= {f"formats/{name}.md": a_format(name) for name in catalogue.names("export")}
    pages |= {"reference/commands.md": commands(), "reference/python.md": python()}
    for path, text in pages.items():
        if files.get_file_from_path(path) is None:
            files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A card gets its call in three places; links out of `docs/` lead nowhere on the site and stay as words."""
    name = Path(page.file.src_uri).stem
    if page.file.src_uri.startswith("methods/") and name != "index":
        markdown += how_to_call(catalogue.find(name))
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)+(?:src|benchmarks|tests)/[^)]*\)", r"\1", markdown)


def how_to_call(method: catalogue.Method) -> str:
    spelled = {"In a shell": ("sh", method.use), "In a recipe": ("yaml", calls.recipe(method.use))}
    spelled |= {"In Python": ("python", calls.python(method.use))}
    blocks = [f"**{title}**\n\n```{kind}\n{text}\n```\n" for title, (kind, text) in spelled.items() if text]
    link = f"Paper: {method.paper}" + (f", <{method.link}>" if method.link else "") + ".\n"
    return "\n\n## How to call it\n\n" + "\n".join(blocks) + f"\n{link}"


def methods() -> str:
    measured = evidence.claims()
    lines = [
        f"| [{one.name}]({one.name}.md) | {one.wing} | {one.year} | {one.sentence} | "
        f"{evidence.tally(measured.get(one.name, [])) or 'not yet'} |"
        for one in catalogue.methods()
    ]
    head = "| method | wing | year | what it does | its claims, as measured here |\n|---|---|---|---|---|\n"
    return (
        "# Methods\n\nEvery method comes from a paper, has a card, and makes claims that were measured: `holds` when "
        "the whole 95% interval lies on the better side, `tie` when it does not tell, `does not hold` when it lies on "
        "the worse side, at this scale. The same list: `secateur methods`.\n\n" + head + "\n".join(lines) + "\n"
    )


def formats() -> str:
    lines = [
        f"| [{name}]({name}.md) | {_docstring('export', name).partition(chr(10))[0]} |"
        for name in catalogue.names("export")
    ]
    return "# Formats\n\nMore on what each holds and who reads it: [guide](../guides/formats.md).\n\n" + (
        "| `--format` | is |\n|---|---|\n" + "\n".join(lines) + "\n"
    )


def a_format(name: str) -> str:
    first, _, rest = _docstring("export", name).partition("\n")
    use = f'secateur cut MODEL --data text.txt --budget "4 bits/weight" --format {name} -o out'
    return f"# {name}\n\n{first}\n{rest}\n\n```sh\n{use}\n```\n"


def _docstring(folder: str, name: str) -> str:
    file = ROOT / "src" / "secateur" / folder / f"{name.replace('-', '_')}.py"
    return catalogue.docstring(file.read_text(encoding="utf-8"))


def commands() -> str:
    from secateur import cli

    parts = ["# Commands\n\nEvery command answers `--help`, takes `--json`, and ends with the line to do it again.\n"]
    for name in cli.commands():
        command = cli.load(name)
        rows = [_option(one) for one in command.params]
        told = (command.help or "").strip()
        parts.append(f"## secateur {name}\n\n{told}\n\n| | what | default |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _option(one: Any) -> str:
    named = ", ".join(f"`{opt}`" for opt in one.opts) if one.param_type_name == "option" else f"`{one.name.upper()}`"
    told = (getattr(one, "help", "") or "").replace("|", "\\|").replace("\n", " ")
    usual = "" if one.default in (None, False, ()) or callable(one.default) else f"`{one.default}`"
    return f"| {named} | {told} | {'needed' if one.required else usual} |"


def python() -> str:
    """The front door's names with their signatures and docstrings, read without importing torch."""
    door = ast.parse((ROOT / "src" / "secateur" / "__init__.py").read_text(encoding="utf-8"))
    homes = {
        alias.asname: node.module
        for block in door.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    parts = ["# Python\n\n`import secateur` costs nothing; each name is loaded when it is first used.\n"]
    for name, home in homes.items():
        path = ROOT / "src" / home.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        parts += [_entry(node) for node in ast.parse(file.read_text(encoding="utf-8")).body if _named(node, name)]
    return "\n".join(parts)


def _named(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name


def _entry(node: Any) -> str:
    told = (ast.get_docstring(node) or "").strip()
    if isinstance(node, ast.ClassDef):
        fields = [ast.unparse(line) for line in node.body if isinstance(line, ast.AnnAssign)]
        said = f"class {node.name}" + (":\n    " + "\n    ".join(fields) if fields else "")
    else:
        said = f"def {node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns) if node.returns else None}"
        said = said.replace(", *, ", ",\n    *,\n    ", 1)
    example = re.search(r"\n*>>> ", told)
    words, shown = (told[: example.start()], told[example.start() :].strip()) if example else (told, "")
    return f"## {node.name}\n\n```python\n{said}\n```\n\n{words}\n" + (f"\n```pycon\n{shown}\n```\n" if shown else "")
