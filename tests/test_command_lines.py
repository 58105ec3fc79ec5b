"""Every command answers --help at once, and bad input gets one sentence."""

import json
import re
import shlex
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
COMMANDS = sorted(
    f"{package}.{path.stem}"
    for package, folder in FOLDERS.items()
    for path in folder.glob("*.py")
    if "command_line.run(main)" in path.read_text(encoding="utf-8")
)
# Fails the command if TensorFlow loads before it has judged its arguments.
BLOCKER = """
import importlib.abc, runpy, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("tensorflow", "torch"):
            sys.exit(99)
sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run(module, *arguments, may_load_tensorflow=False, cwd=ROOT):
    start = ["-m"] if may_load_tensorflow else ["-c", BLOCKER]
    return subprocess.run(
        [sys.executable, *start, module, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
    )


def test_all_commands_are_found():
    assert {
        "albert_tf2.convert",
        "albert_tf2.data.build_pretraining_data",
        "albert_tf2.data.vocabulary",
        "albert_tf2.finetune",
        "albert_tf2.hub_export.export",
        "albert_tf2.predict",
        "albert_tf2.pretrain",
        "albert_tf2.quickstart",
    } <= set(COMMANDS)


@pytest.mark.parametrize("module", COMMANDS)
def test_help_opens_with_the_purpose_and_ends_in_a_command(module):
    result = run(module, "--help")
    assert result.returncode == 0, result.stderr
    usage, _, text = result.stdout.partition("\n\n")
    assert usage.startswith(f"usage: python -m {module}")
    assert f"python -m {module}" in text.split("\noptions:")[0]


@pytest.mark.parametrize("module", COMMANDS)
def test_unknown_flag(module):
    result = run(module, "--no_such_flag")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A folder with one of each kind of bad file."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.txt").write_text("")
    (folder / "latin1.txt").write_bytes(b"caf\xe9\n")
    (folder / "text.txt").write_text("今天天气很好。\n明天会下雨。\n\n")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "天", "今"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "no_mask.txt").write_text("\n".join(vocabulary[:4]) + "\n")
    (folder / "recipe.yaml").write_text("train_stepz: 3\n")
    (folder / "config.json").write_text(json.dumps({"vocab_size": "x"}))
    return folder


BUILD = "albert_tf2.data.build_pretraining_data --output_dir {out} "
CASES = {
    "missing corpus": (
        BUILD + "--input_file {bad}/none.txt --vocab_file {bad}/vocab.txt",
        "none.txt",
    ),
    "empty corpus": (
        BUILD + "--input_file {bad}/empty.txt --vocab_file {bad}/vocab.txt",
        "empty.txt",
    ),
    "corpus that is not UTF-8": (
        BUILD + "--input_file {bad}/latin1.txt --vocab_file {bad}/vocab.txt",
        "latin1.txt, line 1",
    ),
    "missing vocabulary": (
        BUILD + "--input_file {bad}/text.txt --vocab_file {bad}/none.txt",
        "none.txt",
    ),
    "vocabulary without [MASK]": (
        BUILD + "--input_file {bad}/text.txt --vocab_file {bad}/no_mask.txt",
        "[MASK]",
    ),
    "unknown recipe key": (
        "albert_tf2.pretrain --config {bad}/recipe.yaml --data_dir {bad} "
        "--workdir {out}",
        "recipe.yaml: unknown key `train_stepz`; did you mean `train_steps`?",
    ),
    "missing recipe": (
        "albert_tf2.pretrain --config {bad}/none.yaml --data_dir {bad} "
        "--workdir {out}",
        "none.yaml",
    ),
    "wrong model file": (
        "albert_tf2.pretrain --set model={bad}/config.json --data_dir {bad} "
        "--workdir {out}",
        "config.json: `vocab_size` must be a whole number",
    ),
    "unknown model": (
        "albert_tf2.pretrain --set model=albert_tyni_zh --data_dir {bad} "
        "--workdir {out}",
        "did you mean `albert_tiny_zh`",
    ),
    "wrong override": (
        "albert_tf2.pretrain --set train_steps=many --data_dir {bad} "
        "--workdir {out}",
        "--set: `train_steps` must be a whole number",
    ),
    "checkpoint that is not there": (
        "albert_tf2.hub_export.export --checkpoint {bad}/none "
        "--export_dir {out}",
        "none",
    ),
    "conversion of nothing": (
        "albert_tf2.convert --input {bad}/none --output {out} --to tf1",
        "none",
    ),
    "missing task files": (
        "albert_tf2.finetune --task lcqmc --data_dir {bad}/none "
        "--init_checkpoint {bad} --workdir {out}",
        "none",
    ),
}
# These must open a checkpoint, which is TensorFlow's file.
MAY_LOAD = ("checkpoint", "conversion")


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_sentence(name, bad, tmp_path):
    line, expected = CASES[name]
    out = tmp_path / "out"
    module, *arguments = shlex.split(line.format(bad=bad, out=out))
    result = run(
        module,
        *arguments,
        may_load_tensorflow=name.startswith(MAY_LOAD),
        cwd=tmp_path,
    )
    assert result.returncode == 2, result.stdout + result.stderr
    errors = [
        line
        for line in result.stderr.splitlines()
        if re.match(r"error: ", line)
    ]
    assert len(errors) == 1 and expected in errors[0], result.stderr
    assert "Traceback" not in result.stderr
    # `.parts` is what a build resumes from, not a result.
    leftovers = [p for p in out.rglob("*") if ".parts" not in p.parts]
    assert not [path for path in leftovers if path.is_file()], leftovers
