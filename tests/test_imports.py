"""Imports run one way, and importing does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "albert_tf2": ROOT / "albert_tf2",
    "albert_tf2.data": ROOT / "data",
    "albert_tf2.hub_export": ROOT / "hub_export",
}
# The only module of the library that sees all rooms.
SEES_ALL = {"albert_tf2/quickstart.py"}


def modules():
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            yield package, path


def imported_names(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_library_never_imports_the_rooms_built_on_it():
    forbidden = {
        "albert_tf2": ("albert_tf2.data", "albert_tf2.hub_export"),
        "albert_tf2.data": ("albert_tf2.hub_export",),
        "albert_tf2.hub_export": ("albert_tf2.data",),
    }
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for package, path in modules()
        if str(path.relative_to(ROOT)) not in SEES_ALL
        for name in imported_names(path)
        if name.startswith(forbidden[package])
    ]
    assert not wrong


def test_facts_do_not_import_parts_nor_parts_services():
    ranks = {
        name: rank
        for rank, names in enumerate(
            [
                "errors",
                "files command_line features keras_api",
                "config tokenization normalization",
                "recipes",
                "layers heads losses masking",
                "models",
                "optimization input_pipeline distribution checkpoints",
                "training tasks",
                "pretrain finetune predict convert",
                "quickstart",
            ]
        )
        for name in names.split()
    }
    wrong = []
    for path in sorted((ROOT / "albert_tf2").glob("*.py")):
        rank = ranks.get(path.stem)
        for name in imported_names(path) if rank is not None else ():
            parts = name.split(".")
            if parts[0] == "albert_tf2" and len(parts) > 1:
                if ranks.get(parts[1], -1) > rank:
                    wrong.append(f"{path.name} imports {name}")
    assert not wrong


def test_nobody_imports_the_clashing_names():
    for _, path in modules():
        for name in imported_names(path):
            top = name.split(".")[0]
            assert top not in ("data", "configs", "hub_export"), path


@pytest.mark.parametrize(
    "module", ["albert_tf2", "albert_tf2.config", "albert_tf2.tokenization"]
)
def test_light_modules_do_not_load_tensorflow(module):
    code = f"import sys, {module}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
