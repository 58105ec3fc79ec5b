"""What the READMEs say is what happens."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
READMES = ("README.md", "README.zh-CN.md")


def blocks(name):
    """Yields (language, code) of a README's fenced blocks."""
    text = (ROOT / name).read_text(encoding="utf-8")
    yield from re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)


def without_comments(code):
    return [
        re.sub(r" *#.*", "", line)
        for line in code.splitlines()
        if re.sub(r" *#.*", "", line)
    ]


def programs(name):
    return [
        (language, without_comments(code))
        for language, code in blocks(name)
        if language in ("bash", "python")
    ]


def test_both_readmes_run_the_same_programs():
    english, chinese = map(programs, READMES)
    assert english == chinese


def test_both_open_with_the_two_commands():
    for name in READMES:
        language, lines = programs(name)[0]
        assert (language, lines) == ("bash", ["make quickstart", "make test"])


def tree_of(name):
    """Returns the files that a README's tree names, by their paths."""
    (tree,) = [
        code
        for language, code in blocks(name)
        if not language and code.startswith("albert_tf2/")
    ]
    folder, found = {}, set()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        entries = line.split()
        if entries[0].endswith("/"):
            above = folder.get(depth - 1, "") if depth else ""
            folder = {**folder, depth: above + entries[0]}
        elif entries[0].startswith("("):  # a group, not a folder
            folder = {**folder, depth: folder[depth - 1]}
        else:
            found |= {folder[depth - 1] + entry for entry in entries}
    return found


@pytest.mark.parametrize("name", READMES)
def test_the_tree_names_every_file(name):
    there = {
        str(path.relative_to(ROOT))
        for folder in ("albert_tf2", "data", "hub_export", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert tree_of(name) == there


def test_links_lead_somewhere():
    for name in READMES:
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)", text):
            if not target.startswith("http"):
                assert (ROOT / target).exists(), f"{name}: {target}"


@pytest.mark.parametrize(
    ("name", "start"),
    [("README.md", "docs/index.md"), ("README.zh-CN.md", "docs/zh/index.md")],
)
def test_a_visitor_finds_the_way_on(name, start):
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in (start, "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"):
        assert f"]({target})" in text, target


@pytest.mark.large
def test_the_programs_run(tmp_path):
    """Runs the README from top to bottom, in a folder beside the data."""
    for folder in ("data", "configs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="2")
    ran = 0
    for language, lines in programs("README.md"):
        if language == "python":
            commands = [["-c", "\n".join(lines)]]
        else:
            commands = [
                shlex.split(line)[1:]
                for line in lines
                # The quick start has its own test; nobody has a bucket here.
                if line.startswith("python -m")
                and "quickstart\n" not in line + "\n"
                and "gs://" not in line
            ]
        for arguments in commands:
            result = subprocess.run(
                [sys.executable, *arguments],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
            )
            assert result.returncode == 0, (arguments, result.stderr[-3000:])
            ran += 1
    assert ran >= 12
