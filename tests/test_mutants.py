"""The lists of breaks stay true (run_mutants.py): cheap, no TensorFlow."""

import ast
import functools
from pathlib import Path

import pytest
import run_mutants

MUTANTS = run_mutants.read_lists()


@functools.cache
def source(file):
    return (run_mutants.CHECKOUT / file).read_text("utf-8")


@functools.cache
def names_in(file):
    """Returns the tests of a file, by `ast`: importing them takes seconds."""
    return {
        node.name
        for node in ast.walk(ast.parse(source(file)))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


@pytest.mark.parametrize("room", sorted({mutant.room for mutant in MUTANTS}))
def test_every_break_can_be_made_and_has_its_tests(room):
    for mutant in MUTANTS:
        if mutant.room != room:
            continue
        broken = mutant.applied(source(mutant.file))
        assert ast.dump(ast.parse(broken)) != ast.dump(
            ast.parse(source(mutant.file))
        ), mutant
        assert mutant.tests, mutant
        for test in mutant.tests:
            file, _, name = test.partition("::")
            name = name.partition("[")[0]  # one of its parameters
            assert name in names_in(file), f"{mutant}: there is no {test}"


def test_a_break_that_stands_nowhere_or_twice_is_told():
    mutant = run_mutants.Mutant("room", "name", "", "a.py", "x", "y", ())
    assert mutant.applied("a = x") == "a = y"
    for text in ("a = b", "x = x"):
        with pytest.raises(ValueError, match="room/name.*must stand there"):
            mutant.applied(text)


def test_breaks_are_made_in_a_copy_alone(tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    (checkout / "albert_tf2").mkdir(parents=True)
    module = checkout / "albert_tf2" / "a.py"
    module.write_text("x = 1\n")
    monkeypatch.setattr(run_mutants, "CHECKOUT", checkout)
    tree = run_mutants.Tree(tmp_path / "tree")
    mutant = run_mutants.Mutant(
        "room", "name", "", "albert_tf2/a.py", "1", "2", ()
    )
    copy = tree.root / "albert_tf2" / "a.py"
    tree.put(mutant)
    assert copy.read_text() == "x = 2\n"
    assert module.read_text() == "x = 1\n"
    tree.restore(mutant)
    assert copy.read_text() == "x = 1\n"
    assert Path(tree.root, "albert_tf2", "data").is_symlink()


def test_the_share_counts_what_was_tried():
    a, b, c = MUTANTS[:3]
    ends = {a: "killed", b: "timed out", c: "skipped"}
    assert run_mutants.share(ends) == 1.0
    assert run_mutants.share(ends | {c: "survived"}) == pytest.approx(2 / 3)
    last = run_mutants.table(ends).splitlines()[-1]
    assert last.split() == ["all", "1", "1", "0", "1"]


def test_tests_are_told_apart_by_their_whole_names():
    baseline = run_mutants.Baseline(
        frozenset({"t.py::test_a", "t.py::test_ab", "t.py::test_b[1-x]"}), {}
    )
    assert baseline.of(["t.py::test_a"]) == {"t.py::test_a"}
    assert baseline.of(["t.py::test_b"]) == {"t.py::test_b[1-x]"}
    assert baseline.of(["t.py"]) == baseline.passed
