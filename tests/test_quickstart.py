"""The way from text to hub.KerasLayer, small, as a user walks it."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from albert_tf2 import quickstart
from albert_tf2.errors import UserError

pytestmark = pytest.mark.usefixtures("warm_python")

SMALL = [
    "--set=train_steps=4",
    "--set=warmup_steps=2",
    "--set=eval_every=4",
    "--set=checkpoint_every=4",
    "--set=log_every=2",
    "--set=global_batch_size=8",
    "--finetune_steps=2",
]


def run(workdir, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "albert_tf2.quickstart"]
        + ["--workdir", str(workdir), *SMALL, *arguments],
        capture_output=True,
        text=True,
        cwd=workdir.parent,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("quickstart") / "run"
    result = run(workdir)
    assert result.returncode == 0, result.stdout + result.stderr
    return workdir, result.stdout


def test_every_stage_leaves_its_product(finished):
    workdir, output = finished
    for product in (
        "vocab.txt",
        "records/manifest.json",
        "pretrain/albert_config.json",
        "pretrain/curves.png",
        "hub/encoder/1/saved_model.pb",
        "hub/preprocessor/1/saved_model.pb",
        "hub/tflite/1",
        "hub_example.json",
        "starter/encoder/1/saved_model.pb",
        "starter_example.json",
    ):
        assert (workdir / product).exists(), product
    assert re.search(
        r"masked-word loss +\d.*first step.*frequency.*trained", output
    )
    assert "Three commands to try next" in output


def test_second_run_says_what_exists(finished):
    workdir, _ = finished
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*.pb")}
    result = run(workdir)
    assert result.returncode == 0
    assert result.stdout.count("already there") == 8
    assert before == {p: p.stat().st_mtime_ns for p in workdir.rglob("*.pb")}


def test_other_settings_need_another_workdir(finished):
    workdir, _ = finished
    result = run(workdir, "--vocab_size", "2000")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "`vocab_size`" in result.stderr
    assert result.stderr.count("\n") == 1


def test_deleted_product_is_made_again(finished):
    workdir, _ = finished
    (workdir / "hub_example.json").unlink()
    result = run(workdir)
    assert result.returncode == 0
    assert result.stdout.count("already there") == 7
    assert "test_accuracy" in json.loads(
        (workdir / "hub_example.json").read_text()
    )


def test_next_commands_are_real(finished):
    workdir, _ = finished
    for command in quickstart.next_commands(workdir)[:1]:
        result = subprocess.run(
            [sys.executable, *shlex.split(command)[1:]],
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr


def test_sample_is_as_large_as_promised():
    documents = []
    for path in Path(quickstart.sample("corpus")).glob("*.txt"):
        documents += path.read_text(encoding="utf-8").strip().split("\n\n")
    assert len(documents) == len(set(documents)) >= 240
    assert sum(len(d.encode()) for d in documents) >= 120_000
    pairs = set()
    for name in ("train", "dev", "test"):
        lines = quickstart.sample("pairs", f"{name}.txt").read_text(
            encoding="utf-8"
        )
        header, *rows = lines.strip().split("\n")
        assert header == "text_a\ttext_b\tlabel"
        for row in rows:
            text_a, text_b, label = row.split("\t")
            assert label in "01" and text_a and text_b
            pairs.add(frozenset((text_a, text_b)))
    assert len(pairs) >= 600


def test_stage_that_fails_stops_the_run(tmp_path):
    stage = quickstart.Stage(
        "broken",
        "albert_tf2.data.vocabulary",
        [],
        tmp_path / "x",
        fresh_process=True,
    )
    with pytest.raises(UserError, match="stopped with exit code 2"):
        quickstart.run_stages([stage], lambda line: None)
