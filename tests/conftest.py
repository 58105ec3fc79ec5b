"""Fixtures that every test file may use."""

import os
from pathlib import Path

import hypothesis
import pytest

# Before they are imported: their assertions tell values, too.
pytest.register_assert_rewrite("checks", "effects", "leftovers")

import checks  # noqa: E402
import leftovers  # noqa: E402

# Two cores: leave one thread pool per process small and quiet.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Toys run a few steps: more than half of such a run would be LLVM's, making
# fast what is run ten times.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# A busy machine is no failure.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser):
    parser.addoption(
        "--run_large",
        action="store_true",
        help="also run the long proofs (marker `large`)",
    )
    parser.addoption(
        "--leftovers",
        action="store_true",
        help="fail if files are left in the checkout, or in the temporary one",
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("--run_large"):
        return
    skip = pytest.mark.skip(reason="a long proof: pass --run_large")
    for item in items:
        if item.get_closest_marker("large"):
            item.add_marker(skip)


def pytest_runtest_logreport(report):
    # Long before the summary: a first failure shows within minutes.
    if report.failed:
        message = str(report.longrepr).strip().splitlines()[-1:]
        print(f"\nFAILED so far: {report.nodeid}: {' '.join(message)[:200]}")


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(request):
    """No process outlives the tests that started it (see leftovers.py)."""
    leftovers.mark()
    asked = request.config.getoption("--leftovers")
    before = leftovers.files() if asked else None
    yield
    checks.end_commands()
    leftovers.check(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference data at {SHARED.name}/ beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """What the original programs answered (see testdata/README.md)."""
    return Path(__file__).parent / "testdata" / "golden"


@pytest.fixture(scope="session")
def shared_vocab(shared) -> Path:
    """The 21,128-token vocabulary of the released models."""
    return shared / "datasets" / "vocab" / "vocab.txt"


@pytest.fixture
def tiny_config():
    """A brightmart configuration small enough for any test."""
    from albert_tf2.config import AlbertConfig

    return AlbertConfig(
        vocab_size=202,
        embedding_size=16,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
    )


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A folder with a small random model, as `load_pretrained` reads it."""
    import task_samples as samples

    from albert_tf2.checkpoints import save_pretrained
    from albert_tf2.keras_api import keras
    from albert_tf2.model.albert import AlbertPretrainer

    folder = tmp_path_factory.mktemp("pretrained")
    vocab_file = samples.write_vocab(folder)
    keras.utils.set_random_seed(0)
    model = AlbertPretrainer(samples.small_config(vocab_file))
    return save_pretrained(model, folder / "model", vocab_file=vocab_file)


@pytest.fixture(scope="session")
def _warm_python():
    from warm_python import WarmPython

    python = WarmPython()
    yield python
    python.close()


@pytest.fixture(scope="module")
def warm_python(_warm_python):
    """Lets a module's processes start with TensorFlow imported.

    For `pytestmark`, so that the module's own fixtures have it too; see
    warm_python.py.
    """
    import sys

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", _warm_python.path)
        yield _warm_python
