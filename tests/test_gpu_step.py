"""The exported step, run by JAX, computes what TensorFlow computes."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from albert_tf2 import AlbertConfig

pytestmark = pytest.mark.usefixtures("warm_python")

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = str(ROOT / "benchmarks" / "gpu_step.py")


@pytest.mark.skipif(
    importlib.util.find_spec("jax") is None,
    reason="no JAX: pip install -e '.[tpu_check]'",
)
def test_jax_runs_the_step_with_the_same_results(tmp_path):
    AlbertConfig(
        vocab_size=200,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    ).to_json(tmp_path / "albert_config.json")
    shape = ["--batch_size=4", "--max_seq_length=64", "--precision=float32"]
    for part in (
        ["export", "--model", str(tmp_path / "albert_config.json"), *shape],
        ["run", "--steps", "2"],
    ):
        done = subprocess.run(
            [sys.executable, PROGRAM, *part, "--folder", str(tmp_path)],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "apart from TensorFlow: losses" in done.stdout
    assert "examples/s" in done.stdout
