"""Imports run one way, room by room, and importing does nothing.

A room is a folder, or one of the two kinds of module that lie flat in
`albert_tf2/`: facts, which anyone may read, and commands, which nobody
imports. `MAY_SEE` is the plan of docs/architecture.md.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import albert_tf2

ROOT = Path(__file__).resolve().parents[1]
# Each fact may see those before it.
FACTS = (
    "errors paths features keras_api settings recipe_file config "
    "recipes command_line"
).split()
COMMANDS = (
    "__main__ clue_submission compare convert finetune hub_example plot "
    "predict pretrain quickstart serve tpu_check"
).split()
MAY_SEE = {
    # Layers for programs on Keras 3, on which no other room runs.
    "keras3": {"facts"},
    "text": {"facts"},
    "records": {"facts", "text"},
    "model": {"facts"},
    "training": {"facts", "text", "model"},
    "checkpoints": {"facts", "text", "model"},
    "pretraining": {
        *("facts", "text", "records", "model", "training", "checkpoints")
    },
    "tasks": {"facts", "text"},
    "finetuning": {
        *("facts", "text", "model", "training", "checkpoints", "tasks")
    },
    "prediction": {
        *("facts", "text", "model", "checkpoints", "tasks", "finetuning")
    },
    "data": {"facts", "text", "records"},
    "hub_export": {
        *("facts", "text", "model", "checkpoints", "tasks", "finetuning"),
        "prediction",
    },
}
# Rooms in which nothing may load TensorFlow, in any module.
WITHOUT_TENSORFLOW = ("text", "tasks")


def source_files(root: Path) -> dict[str, Path]:
    """Returns the modules by their installed names."""
    folders = {
        "albert_tf2": root / "albert_tf2",
        "albert_tf2.data": root / "data",
        "albert_tf2.hub_export": root / "hub_export",
        "albert_tf2.configs": root / "configs",
    }
    found = {}
    for package, folder in folders.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            names = [package, *(p for p in parts if p != "__init__")]
            found[".".join(names)] = path
    return found


def room_of(module: str) -> str | None:
    """Returns a module's room; None where it stands in none."""
    _, *parts = module.split(".")
    if not parts:
        return "facts"  # the version; other public names are looked up
    if parts[0] in MAY_SEE:
        return parts[0]
    if parts[0] in FACTS:  # `paths` is a folder
        return "facts"
    if len(parts) == 1 and parts[0] in COMMANDS:
        return "commands"
    return "configs" if parts[0] == "configs" else None


def imported(module: str, path: Path, known) -> Iterator[str]:
    """Yields the modules of ours that a module imports, wherever it does."""
    package = (
        module if path.name == "__init__.py" else module.rpartition(".")[0]
    )
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: None if node.level == 1 else -1]
                base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                if base == "albert_tf2" and alias.name in albert_tf2._HOMES:
                    name = f"albert_tf2.{albert_tf2._HOMES[alias.name]}"
                if name in known or base in known:
                    yield name if name in known else base


def wrong_arrows(root: Path) -> list[str]:
    """Returns every import that the plan does not allow, in words."""
    files = source_files(root)
    wrong = []
    for module, path in files.items():
        room = room_of(module)
        if room is None:
            wrong.append(f"{module} stands in no room")
        for target in imported(module, path, files):
            wanted = room_of(target)
            if room in ("commands", "configs", None) or wanted == room:
                allowed = room != "facts" or _rank(target) <= _rank(module)
            else:
                allowed = wanted in MAY_SEE.get(room, ())
            if not allowed:
                wrong.append(f"{module} imports {target}")
    return wrong


def _rank(module: str) -> int:
    name = module.removeprefix("albert_tf2").lstrip(".")
    return FACTS.index(name.partition(".")[0]) if name else -1


def test_every_module_stands_in_a_room_and_arrows_point_one_way():
    assert not wrong_arrows(ROOT)


@pytest.mark.parametrize(
    "place, line, complaint",
    [
        ("albert_tf2/helpers.py", "", "albert_tf2.helpers stands in no room"),
        ("albert_tf2/attic/box.py", "", "albert_tf2.attic.box stands in no"),
        (
            "albert_tf2/config.py",
            "from albert_tf2.recipes import load_recipe",
            "albert_tf2.config imports albert_tf2.recipes",
        ),
        (
            "albert_tf2/model/layers.py",
            "from albert_tf2 import load_pretrained",
            "albert_tf2.model.layers imports albert_tf2.checkpoints",
        ),
        (
            "albert_tf2/tasks/base.py",
            "def late():\n    from albert_tf2.training import guard",
            "albert_tf2.tasks.base imports albert_tf2.training.guard",
        ),
        (
            "data/words.py",
            "from ..hub_export import export",
            "albert_tf2.data.words imports albert_tf2.hub_export.export",
        ),
        (
            "albert_tf2/training/guard.py",
            "import albert_tf2.pretrain",
            "albert_tf2.training.guard imports albert_tf2.pretrain",
        ),
    ],
)
def test_a_wrong_arrow_is_seen(tmp_path, place, line, complaint):
    for path in source_files(ROOT).values():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    changed = tmp_path / place
    changed.parent.mkdir(exist_ok=True)
    with open(changed, "a", encoding="utf-8") as stream:
        stream.write(f"\n{line}\n")
    assert any(complaint in found for found in wrong_arrows(tmp_path))


def loads_tensorflow(modules: list[str]) -> bool:
    code = (
        f"import sys, {', '.join(modules)}; "
        "sys.exit(17 if 'tensorflow' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode in (0, 17), done.stderr.decode()
    return done.returncode == 17


@pytest.mark.parametrize("room", [*WITHOUT_TENSORFLOW, "facts", "commands"])
def test_these_rooms_do_not_load_tensorflow(room):
    modules = [
        module
        for module in source_files(ROOT)
        # `keras_api` is where TensorFlow's Keras comes in.
        if room_of(module) == room and not module.endswith(".keras_api")
    ]
    assert modules and not loads_tensorflow(modules)


def test_a_room_that_loads_tensorflow_is_seen():
    assert loads_tensorflow(["albert_tf2.model.layers"])
