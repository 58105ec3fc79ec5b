"""What is shipped, and what surrounds the code."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import albert_tf2
from albert_tf2 import errors

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tracked():
    """The files of the checkout, relative to it."""
    listing = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode:
        pytest.skip("not a git checkout: which files belong to it is unknown")
    return [
        name for name in listing.stdout.splitlines() if (ROOT / name).is_file()
    ]


@pytest.fixture(scope="module")
def built(tracked, tmp_path_factory):
    """A wheel and a source distribution, made from tracked files alone."""
    source = tmp_path_factory.mktemp("source")
    for name in tracked:
        copy = source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    for kind in ("wheel", "sdist"):
        code = f"import setuptools.build_meta as b; b.build_{kind}('dist')"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=source,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    return source / "dist"


def test_the_source_distribution_is_complete(built, tracked):
    (path,) = built.glob("*.tar.gz")
    root = f"albert_tf2-{albert_tf2.__version__}/"
    with tarfile.open(path) as archive:
        shipped = {n.removeprefix(root) for n in archive.getnames()}
    git_only = {".gitignore", ".git-blame-ignore-revs"}
    assert not set(tracked) - shipped - git_only


def test_the_wheel_holds_one_package_and_its_files(built, tracked):
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        (info,) = {n.split("/")[0] for n in names if ".dist-info" in n}
        metadata = archive.read(f"{info}/METADATA").decode()
        scripts = archive.read(f"{info}/entry_points.txt").decode()
    assert {name.split("/")[0] for name in names} == {"albert_tf2", info}
    for folder, installed in (
        ("albert_tf2", "albert_tf2"),
        ("data", "albert_tf2/data"),
        ("hub_export", "albert_tf2/hub_export"),
        ("configs", "albert_tf2/configs"),
    ):
        for name in tracked:
            if name.startswith(f"{folder}/"):
                assert installed + name.removeprefix(folder) in names
    assert "albert_tf2/py.typed" in names
    assert "albert-tf2 = albert_tf2.__main__:run" in scripts
    for line in (
        f"Version: {albert_tf2.__version__}",
        "License-Expression: Apache-2.0",
        "Provides-Extra: train",
    ):
        assert line in metadata.splitlines()
    assert "Requires-Dist: tensorflow" in metadata


def test_no_hint_asks_a_registry_for_our_name(tracked):
    wrong = []
    for name in tracked:
        if Path(name).suffix in (".py", ".md", ".ipynb", ".yaml", ".yml"):
            text = (ROOT / name).read_text(encoding="utf-8")
            for line in re.findall(r"pip install.*\balbert[-_]tf2\b.*", text):
                if " @ " not in line:
                    wrong.append(f"{name}: {line}")
    assert not wrong


def test_the_install_line_follows_the_address(monkeypatch):
    assert (
        errors.install_line("onnx")
        == "pip install -e '.[onnx]' in the checkout"
    )
    monkeypatch.setattr(errors, "REPOSITORY", "https://example.org/a.git")
    assert errors.install_line("onnx") == (
        "pip install 'albert_tf2[onnx] @ git+https://example.org/a.git'"
    )


def test_every_extra_in_a_hint_exists(tracked):
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    extras = set(re.findall(r'^    "(\w+)": ', setup, re.M)) | {"dev"}
    asked = set()
    for name in tracked:
        if name.endswith((".py", ".md", ".zh-CN.md")):
            text = (ROOT / name).read_text(encoding="utf-8")
            asked |= set(re.findall(r"install_line\(['\"](\w+)['\"]\)", text))
            for found in re.findall(r"-e\s+'?\.\[([\w,]+)\]", text):
                asked |= set(found.split(","))
    assert asked and asked <= extras


def test_the_version_is_told_the_same_everywhere():
    version = albert_tf2.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == version
    day = citation["date-released"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {version} - {day}\n" in changelog
    headings = set(re.findall(r"^### (.*)$", changelog, re.M))
    assert headings <= {
        *("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
    }


def test_workflow_and_issue_forms_name_what_exists():
    workflow = yaml.safe_load(
        (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    )
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = [
        step["run"]
        for job in workflow["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    targets = {c.split()[1] for c in commands if c.startswith("make ")}
    scripts = {c.split()[0] for c in commands if c.startswith(".ci/")}
    assert {"lint", "test", "quickstart", "large"} <= targets
    assert all(re.search(rf"^{name}:", makefile, re.M) for name in targets)
    assert scripts and all((ROOT / script).is_file() for script in scripts)
    for form in (ROOT / ".github/ISSUE_TEMPLATE").glob("*_*.yml"):
        fields = yaml.safe_load(form.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= set(fields)
        assert len({item["id"] for item in fields["body"]}) == len(
            fields["body"]
        )


def test_make_lint_judges_with_the_versions_that_are_named():
    wanted = (ROOT / "constraints/lint.txt").read_text(encoding="utf-8")
    lines = [line for line in wanted.splitlines() if line[:1] not in ("#", "")]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in lines)
    assert {"ruff", "mypy"} <= {line.split("==")[0] for line in lines}
