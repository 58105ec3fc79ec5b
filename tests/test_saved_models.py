"""SavedModels with sums of their files, and those that have none."""

import os
import shutil

import pytest
import tensorflow as tf

from albert_tf2 import UserError, paths
from albert_tf2.paths import saved_models
from albert_tf2.paths.saved_models import SUMS_FILE


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A SavedModel with a variable and a file of its own."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    asset = folder.parent / "vocab.txt"
    asset.write_text("[PAD]\n", "utf-8")
    root = tf.Module()
    root.rate = tf.Variable(2.0)
    root.vocab_file = tf.saved_model.Asset(str(asset))

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def scale(value):
        return value * root.rate

    root.scale = scale
    saved_models.save(root, folder, signatures=scale)
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "moved")


def listed(folder):
    return paths.read_json(folder / SUMS_FILE)


def test_what_the_loader_reads_is_listed(exported):
    files = listed(exported)
    assert list(files) == [
        "assets/vocab.txt",
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
        "variables/variables.index",
    ]
    for name, facts in files.items():
        assert facts == {
            "bytes": (exported / name).stat().st_size,
            "sha256": paths.sha256(exported / name),
        }


def test_a_moved_copy_loads(folder):
    assert float(saved_models.load(folder).scale(3.0)) == 6.0
    # A program's own files beside it are its own business.
    (folder / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"")
    (folder / "README.md").write_text("mine", "utf-8")
    saved_models.check(folder)


def test_every_listed_file_is_compared(folder):
    for name in listed(folder):
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(UserError, match=rf"{name} is not what .*it has"):
            saved_models.load(folder)
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(UserError, match=rf"{name} is not .*SHA-256.*again"):
            saved_models.load(folder)
        path.unlink()
        with pytest.raises(UserError, match=f"{name} is not .*missing"):
            saved_models.load(folder)
        path.write_bytes(whole)
    saved_models.check(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda files: files.clear(),
        lambda files: files.pop("saved_model.pb"),
        lambda files: files.update({"assets/vocab.txt": None}),
        lambda files: files.update({"assets/vocab.txt": {"bytes": 6}}),
        lambda files: files.update({"../x": files["saved_model.pb"]}),
        lambda files: files.update({"assets/..": files["saved_model.pb"]}),
        lambda files: files.update({"/etc/x": files["saved_model.pb"]}),
    ],
)
def test_a_damaged_list_is_told(folder, damage):
    files = listed(folder)
    damage(files)
    paths.write_json(folder / SUMS_FILE, files)
    with pytest.raises(UserError, match=f"{SUMS_FILE} is damaged"):
        saved_models.check(folder)


def test_one_of_another_program_is_parsed_first(folder, monkeypatch):
    shutil.rmtree(folder / "assets.extra")
    assert float(saved_models.load(folder).scale(3.0)) == 6.0
    monkeypatch.setattr(
        tf.saved_model, "load", lambda path: pytest.fail("was loaded")
    )
    graph = folder / "saved_model.pb"
    whole = graph.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="saved_model.pb is .*damaged"):
        saved_models.load(folder)
    os.truncate(graph, 6 << 30)  # its loader would take the memory
    with pytest.raises(UserError, match="saved_model.pb is larger than"):
        saved_models.load(folder)
    graph.write_bytes(whole)
    for path in (graph, folder / "fingerprint.pb"):
        path.unlink()
        os.mkfifo(path)  # its loader would wait
        with pytest.raises(UserError, match=f"{path.name} cannot be read"):
            saved_models.load(folder)
        path.unlink()
        path.write_bytes(whole)


def test_what_the_loader_raises_is_told(folder):
    """A graph that parses, of a model that does not fit its files."""
    shutil.rmtree(folder / "assets.extra")
    (folder / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UserError, match=r"moved cannot be loaded \(.*again"):
        saved_models.load(folder)
