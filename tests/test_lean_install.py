"""Without extras: what works works, the rest says what it wants at once."""

import sys

import pytest

from albert_tf2 import convert, errors, finetune, plot, pretrain, quickstart
from albert_tf2.errors import UserError

LAMB = ("official", "tensorflow_addons")


@pytest.fixture
def hide(monkeypatch):
    """Makes modules look as if they were not installed."""

    def hide(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


@pytest.mark.parametrize(
    "command, line, hidden, expected",
    [
        (
            pretrain,
            "--data_dir none --workdir {out}",
            LAMB,
            "LAMB comes with tf-models-official.*train.*optimizer=adamw",
        ),
        (
            finetune,
            "--task lcqmc --data_dir none --init_checkpoint none "
            "--workdir {out} --set optimizer=lamb",
            LAMB,
            "LAMB comes with",
        ),
        (quickstart, "--workdir {out}", LAMB, "LAMB comes with"),
        (
            quickstart,
            "--workdir {out} --set optimizer=adamw",
            ["matplotlib"],
            "the quickstart's picture needs matplotlib: pip install.*plot",
        ),
        (plot, "{here}", ["matplotlib"], "plot needs matplotlib: .*plot"),
        (
            convert,
            "--input none --output {out} --to onnx",
            ["tf2onnx", "onnxruntime"],
            # A line without these extras misses more than what is hidden.
            "--to onnx needs tf2onnx,.* onnxruntime: pip install.*onnx",
        ),
        (
            convert,
            "--input none --output {out} --to huggingface-bert",
            ["torch"],
            "--to huggingface-bert needs torch[^:]*: pip install.*huggingface",
        ),
    ],
)
def test_one_sentence_before_anything_starts(
    command, line, hidden, expected, hide, tmp_path
):
    hide(*hidden)
    out = tmp_path / "out"
    arguments = line.format(out=out, here=tmp_path).split()
    with pytest.raises(UserError, match=expected):
        command.main(arguments)
    assert not out.exists()


def test_the_service_says_what_it_wants(hide):
    from albert_tf2 import serve

    hide("fastapi", "uvicorn", "pydantic")
    expected = "needs fastapi, uvicorn, pydantic: .*serve"
    with pytest.raises(UserError, match=expected):
        serve.main(["--model", "none"])


def test_the_service_refuses_a_pydantic_that_cannot_do(monkeypatch):
    """The line with Addons holds it at 1."""
    from albert_tf2 import serve

    monkeypatch.setattr(serve, "require", lambda *_: None)
    monkeypatch.setattr(serve.metadata, "version", lambda name: "1.10.26")
    with pytest.raises(UserError, match="pydantic 2, and this .* 1.10.26: pip"):
        serve.main(["--model", "none"])


def test_adamw_wants_nothing(hide, tmp_path):
    hide(*LAMB)
    with pytest.raises(UserError, match="none"):
        pretrain.main(
            ["--data_dir", f"{tmp_path}/none", "--workdir", f"{tmp_path}/out"]
            + ["--set", "optimizer=adamw"]
        )


def test_what_is_installed_is_not_asked_for():
    errors.require("this", ["json", "numpy"], "train")
