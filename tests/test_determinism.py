"""The same command twice, in fresh processes: the same bytes.

Each of the two has another seed for Python's hashes, so nothing may follow
from the order of a set. `test_export` does the same with exports. Within one
process more is compared, and in every run of the suite:
`test_build_pretraining_data` (any number of workers), `test_training` and
`test_finetune_run` (a restart).
"""

import os
import subprocess
import sys

import pytest
import task_samples as samples
import test_finetune_run as tuning
import test_training as training
from test_training import model_file, records  # noqa: F401

SAMPLE = os.path.join(os.path.dirname(__file__), "..", "data", "sample")


def twice(tmp_path, module, *arguments):
    """Runs a command in two processes; `OUT` in an argument is its folder."""
    folders = []
    for number in ("1", "2"):
        folders.append(tmp_path / number)
        run = subprocess.run(
            [sys.executable, "-m", f"albert_tf2.{module}"]
            + [text.replace("OUT", str(folders[-1])) for text in arguments],
            env=os.environ | {"PYTHONHASHSEED": number},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr[-2000:]
    return folders


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.large
def test_the_builder(tmp_path):
    vocab_file = samples.write_vocab(tmp_path)
    corpus = os.path.join(SAMPLE, "corpus", "*.txt")
    first, second = twice(
        tmp_path,
        "data.build_pretraining_data",
        *("--input_file", corpus, "--vocab_file", str(vocab_file)),
        *("--output_dir", "OUT", "--max_seq_length", "64"),
    )
    assert contents(first) == contents(second)
    assert any(name.endswith(".tfrecord") for name in contents(first))


@pytest.mark.large
def test_pretraining(records, model_file, tmp_path):  # noqa: F811
    changes = {"hidden_dropout_prob": 0.1, "train_steps": 6}
    arguments = training.command(model_file, records, "OUT", **changes)
    first, second = twice(tmp_path, "pretrain", *arguments[3:])
    training.same_runs(first, second)


@pytest.mark.large
def test_finetuning(checkpoint, tmp_path):
    settings = tuning.RECIPE | {"classifier_dropout": 0.1}
    first, second = twice(
        tmp_path,
        "finetune",
        *("--task", "lcqmc", "--strategy", "one_device"),
        *("--data_dir", str(samples.write_lcqmc(tmp_path / "data"))),
        *("--init_checkpoint", str(checkpoint), "--workdir", "OUT"),
        *(f"--set={key}={value}" for key, value in settings.items()),
    )
    tuning.same_runs(first, second)
    for name in ("dev", "test"):
        files = (f / "predictions" / f"{name}.jsonl" for f in (first, second))
        assert next(files).read_bytes() == next(files).read_bytes()
