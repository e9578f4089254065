"""What the documentation and our messages name exists: commands, options, warning codes, files, functions."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import scalecli
from scalecli.cli.app import app
from scalecli.fitters.landscape.survey import AXES
from scalecli.probes.machine import EXTRAS

PACKAGE = Path(scalecli.__file__).parent
ROOT = PACKAGE.parent
CONSTRAINTS = ROOT / "constraints.txt"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = sorted(PACKAGE.rglob("*.py"))
CODE = re.compile(r"W-[A-Z0-9]+(?:-[A-Z0-9]+)*")
COMMAND = re.compile(r"(?<![\w/.'-])scalecli((?: [a-z][a-z-]+)+)([^`\n]*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Every command and group with the options that it takes."""
    yield path, {"--help", "--debug"}.union(*(each.opts + each.secondary_opts for each in command.params))
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, *path, name)


OPTIONS = dict(commands(get_command(app)))


def strings(path: Path) -> Iterator[str]:
    """Texts of a module, an f-string as one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield "".join(map(str, parts))


def unknown_commands(text: str) -> Iterator[str]:
    """Of the command lines in a text those that name a command or an option that is not there.

    What stands behind `&&`, `|` or `#` is another's.
    """
    for found in COMMAND.finditer(text.replace("\\\n", " ")):
        words, path = found[1].split(), ()
        while words and (*path, words[0]) in OPTIONS:
            path = (*path, words.pop(0))
        rest = re.split(r" && | \| |#|  \(|; |, ", found[2])[0]
        if not path or set(OPTION.findall(rest)) - OPTIONS[path]:
            yield found[0]


FOREIGN = {
    "--address", "--array", "--format", "--full", "--generate", "--head", "--min-", "--noheader", "--nproc-per-node",
    "--partition", "--signal", "--standalone", "--state", "--upgrade",
}  # fmt: skip
"""Options of Ray, Slurm, torchrun and pip, and the beginning of one of ours."""
SENTENCES = {"scalecli knows versions up to ", "scalecli on one of the nodes"}
"""Of messages: about the program, no command."""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_messages_name_commands_that_exist(path: Path) -> None:
    texts = list(strings(path))
    wrong = {line for text in texts for line in unknown_commands(text)}
    assert not {line for line in wrong if not line.startswith(tuple(SENTENCES))}
    named = {option for text in texts for option in OPTION.findall(text)}
    assert named <= set().union(*OPTIONS.values()) | FOREIGN


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_commands_that_exist(page: Path) -> None:
    text = page.read_text()
    fence = re.compile(r"```\w*\n(.*?)```", flags=re.DOTALL)
    spans = (span for span in re.findall(r"`([^`]+)`", fence.sub("", text)) if span.startswith("scalecli "))
    assert not [line for code in (*fence.findall(text), *spans) for line in unknown_commands(code)]


def test_every_warning_is_listed_and_no_other() -> None:
    said = {code for path in MODULES for code in CODE.findall(path.read_text())} - {"W-EDGE"}
    edges = {f"W-EDGE-{called.replace(' ', '-').upper()}" for called in AXES.values()}
    assert said | edges == set(CODE.findall((ROOT / "docs" / "warnings.md").read_text()))
    for page in PAGES:
        assert set(CODE.findall(page.read_text())) <= said | edges, page.name


def definitions() -> dict[str, list[set[str]]]:
    """Every function and class of the package, with the names of what it takes."""
    found: dict[str, list[set[str]]] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                found.setdefault(node.name, []).append({each.arg for each in arguments})
            elif isinstance(node, ast.ClassDef):
                fields = (each.target for each in node.body if isinstance(each, ast.AnnAssign))
                found.setdefault(node.name, []).append({ast.unparse(each) for each in fields})
    return found


def test_the_architecture_names_what_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    defined, sources = definitions(), "\n".join(path.read_text() for path in MODULES)
    for code in (" ".join(found.split()) for found in re.findall(r"`([^`]+)`", text)):
        for file in re.findall(r"[\w/]+\.(?:py|toml|md)\b", code):
            assert list(ROOT.glob(file)) or list(PACKAGE.rglob(file.lstrip("/"))), file
        for word in re.findall(r"[A-Za-z_]\w{2,}", re.sub(r"[\w/.]+\.(?:py|toml|md)|\".*?\"", "", code)):
            assert re.search(rf"\b{word}\b", sources), f"{word} of {code}"
        for name, listed in re.findall(r"([A-Za-z_]\w*)\(([^()]*)\)", code):
            takes = {part.strip().split("=")[0].split(":")[0] for part in listed.split(",")} - {
                "",
                "*",
                "...",
            }
            takes = {each for each in takes if each.isidentifier()}
            assert any(takes <= known for known in defined.get(name, [])), f"{name}({listed})"


def test_every_extra_is_known_and_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(EXTRAS) == set(extras) - {"dev"}
    pinned = {line.split("==")[0].replace("_", "-").lower() for line in CONSTRAINTS.read_text().splitlines()}
    for need in (*project["dependencies"], *(need for needs in extras.values() for need in needs)):
        name = re.split(r"[\[<>=]", need)[0].replace("_", "-").lower()
        assert name == "scalecli" or name in pinned, need
