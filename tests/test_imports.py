"""The import rule of docs/architecture.md, held by walking the syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "scalecli"

BASE = {"errors", "units", "__init__"}
MAY_IMPORT = {
    "accounting": BASE | {"accounting"},
    "data": BASE | {"accounting", "data"},
    "probes": BASE | {"accounting", "data", "probes"},
    "fitters": BASE | {"accounting", "data", "fitters"},
    "plan": BASE | {"accounting", "data", "fitters", "plan"},
    "export": BASE | {"accounting", "data", "fitters", "plan", "export"},
    "report": BASE | {"accounting", "data", "fitters", "plan", "report"},
    "quickstart": BASE | {"accounting", "data", "probes", "fitters", "plan", "export", "report"},
    "errors": BASE,
    "units": BASE,
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def area_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    """Every dotted name that the module imports, wherever the statement stands."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("scalecli.") and name.count(".") >= 1}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_areas_import_only_what_lies_before_them(path: Path) -> None:
    area = area_of(path)
    if area in {"cli", "__main__", "__init__"}:
        return
    reached = ours(imported(ast.parse(path.read_text())))
    assert reached - {"__version__"} <= MAY_IMPORT[area]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_probes_import_torch_and_only_cli_prints(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if area_of(path) != "probes":
        assert "torch" not in {name.split(".")[0] for name in imported(tree)}
    if area_of(path) != "cli":
        calls = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "print" not in calls
        assert "eval" not in calls
        assert "exec" not in calls


def test_nothing_imports_click() -> None:
    for path in MODULES:
        assert "click" not in {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}, path


def loaded_after(*arguments: str) -> set[str]:
    """Top-level modules that a command line leaves in `sys.modules`."""
    code = (
        "import sys\n"
        "from scalecli.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write('\\nLOADED ' + ' '.join(sorted({m.split('.')[0] for m in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    return set(done.stderr.rsplit("LOADED ", 1)[1].split())


def test_help_loads_no_heavy_package() -> None:
    assert not {"torch", "pandas", "scipy", "numpy"} & loaded_after("--help")


def test_fits_plans_and_exports_never_load_torch(tmp_path: Path) -> None:
    runs = Path(__file__).parent / "data" / "gadre_c4_small" / "runs.csv"
    fit, plan = tmp_path / "loss.fit.json", tmp_path / "plan.json"
    commands: list[list[object]] = [
        ["fit", runs, "--map", "loss=loss_c4_val", "--draws", 20, "--out", fit],
        ["predict", fit, "--at", "params=1B,tokens=20B"],
        [
            "plan",
            "--params",
            "1B",
            "--tokens",
            "20B",
            "--fit",
            fit,
            "--accelerator",
            "h100-80g",
            "--out",
            plan,
        ],
        ["export", plan, "--to", "markdown"],
        ["memory", "--params", "1B"],
    ]
    for words in commands:
        assert "torch" not in loaded_after(*map(str, words)), words
    assert fit.exists()
    assert plan.exists()


@pytest.mark.parametrize("command", ["fit", "plan", "predict", "validate", "memory", "export"])
def test_help_of_commands_loads_no_heavy_package(command: str) -> None:
    assert not {"torch", "pandas", "scipy"} & loaded_after(command, "--help")
