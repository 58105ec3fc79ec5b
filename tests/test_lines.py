"""The lines of TensorFlow that are promised are the lines that are tested."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PRIMARY = ("2.20", "3.11")
ADDONS = ("2.15", "3.11")


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def in_turns():
    """The lines of which `.ci/run` takes one a day: version, Python."""
    (lines,) = re.findall(r"^lines=\((.*)\)$", text(".ci/run"), re.M)
    return {tuple(line.split()) for line in re.findall(r'"(.*?)"', lines)}


def pinned(version):
    """The TensorFlow of a line's constraints."""
    lines = text(f"constraints/tf{version.replace('.', '')}.txt")
    (found,) = re.findall(r"^tensorflow==(.*)$", lines, re.M)
    return found


def test_each_line_has_constraints_of_its_own():
    files = {p.stem for p in (ROOT / "constraints").glob("tf*.txt")}
    lines = in_turns() | {PRIMARY, ADDONS}
    assert files == {f"tf{v.replace('.', '')}" for v, _ in lines}
    assert all(pinned(v).startswith(f"{v}.") for v, _ in lines)


def test_metadata_promises_from_the_oldest_line_to_the_newest():
    (wanted,) = re.findall(r'"tensorflow(>.*?)"', text("setup.py"))
    versions = sorted(
        (tuple(map(int, v.split("."))) for v, _ in in_turns()), reverse=True
    )
    newest, oldest = versions[0], versions[-1]
    assert wanted.startswith(f">=2.{oldest[1]},")
    assert wanted.endswith(f"<2.{newest[1] + 1}")
    assert all(pinned(v) in SpecifierSet(wanted) for v, _ in in_turns())
    project = text("pyproject.toml")
    (pythons,) = re.findall(r'requires-python = "(.*)"', project)
    named = re.findall(r"Python :: (3\.\d+)", project)
    tested = {p for _, p in in_turns()} | {PRIMARY[1]}
    assert set(named) == tested
    assert tested == {
        f"3.{n}" for n in range(8, 30) if f"3.{n}" in SpecifierSet(pythons)
    }


def test_the_workflow_runs_each_line():
    jobs = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]
    rows = jobs["lines"]["strategy"]["matrix"]["include"]
    found = {(row["line"], row["python"]) for row in rows}
    assert found == in_turns() | {ADDONS}


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readmes_table_has_each_line(name):
    rows = re.findall(
        r"^\| (2\.\d+)\.\d+ \| (3\.\d+) \|.*\| (?:20\d\d-\d\d-\d\d|—) \|$",
        text(name),
        re.M,
    )
    assert in_turns() | {PRIMARY, ADDONS} <= set(rows)


def test_the_core_names_tests_that_exist():
    lines = text(".ci/core").splitlines()
    names = [line for line in lines if not line.startswith("#")]
    assert len(names) == len(set(names)) > 10
    for name in names:
        file, _, function = name.partition("::")
        assert (ROOT / file).is_file(), name
        assert f"\ndef {function}" in text(file), name
