"""Where `load_pretrained` looks, and what it says when it finds nothing."""

import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from albert_tf2 import AlbertPretrainer, UserError
from albert_tf2.checkpoints import load_pretrained, locate, save_pretrained


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    from albert_tf2 import AlbertConfig

    config = AlbertConfig(
        vocab_size=30,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    folder = tmp_path_factory.mktemp("saved") / "model"
    return save_pretrained(AlbertPretrainer(config), folder)


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_prefix_in_any_spelling(suffix, folder):
    assert load_pretrained(folder / f"model{suffix}").config.vocab_size == 30


def test_stale_checkpoint_file(folder):
    """albert_zh's archives name a checkpoint that was renamed since."""
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "/home/someone/model.ckpt-250000"\n'
    )
    assert locate.locate(folder).weights == folder / "model"


def test_checkpoint_file_of_another_machine(folder):
    for path in list(folder.glob("model.*")):
        shutil.copy(path, folder / path.name.replace("model", "older"))
    with pytest.raises(UserError, match=r"several checkpoints \(model, older"):
        load_pretrained(folder)
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "C:\\\\work\\\\older"\n'
    )
    assert locate.locate(folder).weights == folder / "older"


def test_names_of_released_archives(folder):
    (folder / "albert_config.json").rename(folder / "albert_config_tiny.json")
    (folder / "vocab_chinese.txt").write_text("[PAD]\n")
    model = load_pretrained(folder)
    assert model.vocab_file == folder / "vocab_chinese.txt"


def test_nested_folder(folder, tmp_path):
    (tmp_path / "outer" / "__MACOSX").mkdir(parents=True)
    folder.rename(tmp_path / "outer" / "albert_base")
    assert load_pretrained(tmp_path / "outer").config.vocab_size == 30


def test_local_archive(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ALBERT_TF2_CACHE", str(tmp_path / "cache"))
    archive = tmp_path / "albert.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in folder.iterdir():
            opened.write(path, f"albert/{path.name}")
    assert load_pretrained(archive).config.vocab_size == 30
    assert load_pretrained(archive).config.vocab_size == 30  # from the cache


def test_released_archive_without_configuration(tmp_path, monkeypatch):
    """The shipped configuration of the same name stands in."""
    from albert_tf2 import AlbertConfig

    config = AlbertConfig.from_name("albert_tiny_zh").replace(
        vocab_size=30, max_position_embeddings=16
    )
    monkeypatch.setattr(AlbertConfig, "from_name", lambda name: config)
    monkeypatch.setenv("ALBERT_TF2_CACHE", str(tmp_path))
    target = tmp_path / "albert_tiny_zh" / "unpacked"
    save_pretrained(AlbertPretrainer(config), target)
    (target / "albert_config.json").unlink()
    monkeypatch.chdir(tmp_path / "albert_tiny_zh")
    assert load_pretrained("albert_tiny_zh").config == config


RELEASED = {
    # As albert_zh zips its models, and as Google tars its Chinese ones.
    "albert_tiny.zip": (
        "brightmart_postln_toy",
        {
            "albert_config.json": "albert_config_tiny.json",
            "vocab.txt": "vocab.txt",
        },
        "albert_model.ckpt",
    ),
    "albert_base_zh.tar.gz": (
        "google_toy",
        {
            "albert_config.json": "albert_base/albert_config.json",
            "vocab.txt": "albert_base/vocab_chinese.txt",
        },
        "albert_base/model.ckpt-best",
    ),
}


@pytest.mark.parametrize("name", RELEASED)
def test_archives_as_they_were_released(
    name, golden_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("ALBERT_TF2_CACHE", str(tmp_path / "cache"))
    layout, members, prefix = RELEASED[name]
    source = golden_folder / "pretraining" / layout
    for suffix in (".index", ".data-00000-of-00001"):
        members = {**members, f"albert_model.ckpt{suffix}": prefix + suffix}
    archive = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w") as opened:
            for file, member in members.items():
                opened.write(source / file, member)
            opened.writestr("checkpoint", 'model_checkpoint_path: "x-9"\n')
    else:
        with tarfile.open(archive, "w:gz") as opened:
            for file, member in members.items():
                opened.add(source / file, member)
    model = load_pretrained(archive)
    expected = load_pretrained(source)
    assert model.config == expected.config
    assert model.vocab_file.read_text() == expected.vocab_file.read_text()
    for ours, theirs in zip(model.variables, expected.variables, strict=True):
        assert (ours.numpy() == theirs.numpy()).all()


def test_no_configuration(folder):
    (folder / "albert_config.json").unlink()
    with pytest.raises(UserError, match="has no albert_config.json"):
        load_pretrained(folder)


def test_data_file_is_missing(folder):
    (folder / "model.data-00000-of-00001").unlink()
    with pytest.raises(UserError, match="model.data-00000-of-00001 is missing"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("albert_tiny_zn", "did you mean `albert_tiny_zh`"),
        ("no/such/folder", "does not exist"),
    ],
)
def test_nothing_there(source, message):
    with pytest.raises(UserError, match=message):
        load_pretrained(source)


def test_empty_folder(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint"):
        load_pretrained(tmp_path)


def test_a_wrong_name_fails_before_tensorflow_loads():
    code = (
        "import sys, albert_tf2.checkpoints as c\n"
        "try: c.load_pretrained('albert_tiny_zn')\n"
        "except ValueError: print('tensorflow' in sys.modules)"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output.strip() == "False"


def test_newest_version_of_a_hub_export(tmp_path):
    """encoder/2 and encoder/10: the number counts, not the spelling."""
    for part, version in (
        ("encoder", "2"),
        ("encoder", "10"),
        ("tflite", "11"),
    ):
        folder = tmp_path / part / version
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").touch()
    found = locate.locate(tmp_path)
    assert found.kind == "hub"
    assert found.folder == tmp_path / "encoder" / "10"
    assert locate.locate(tmp_path / "encoder" / "2").folder.name == "2"
