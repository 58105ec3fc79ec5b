"""The notebooks: stripped, installable, and run as they stand, only smaller."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import task_samples as samples

from albert_tf2.errors import REPOSITORY

FOLDER = Path(__file__).resolve().parents[1] / "colab"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
PRETRAIN = {
    "train_steps": 2,
    "global_batch_size": 4,
    "max_seq_length": 32,
    "max_predictions_per_seq": 5,
    "warmup_steps": 1,
    "log_every": 1,
    "eval_every": 2,
    "checkpoint_every": 2,
}
# What replaces the values of the cell with the tag `parameters`.
TINY = {
    "quickstart": {
        "SETTINGS": [
            *(f"--set={key}={value}" for key, value in PRETRAIN.items()),
            "--finetune_steps=2",
        ],
    },
    "pretrain_tpu": {
        "SETTINGS": PRETRAIN,
        "MODEL": "albert_quickstart_zh",
        "VOCAB_SIZE": 1500,
    },
    "finetune_lcqmc_hub": {"EPOCHS": 1, "SEQ_LENGTH": 32},
    "export_tflite": {"SEQ_LENGTH": 32, "REPEATS": 2},
}


def cells(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))["cells"]


def code_cells(name):
    return [
        ("".join(cell["source"]), cell["metadata"].get("tags", []))
        for cell in cells(name)
        if cell["cell_type"] == "code"
    ]


def test_all_four_are_there():
    assert NOTEBOOKS == sorted(TINY)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_stripped_and_cells_compile(name):
    for cell in cells(name):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            # Plain Python without magics: it runs anywhere.
            compile("".join(cell["source"]), name, "exec")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_opens_with_install_and_parameters(name):
    (install, install_tags), (_, parameter_tags), *_ = code_cells(name)
    assert install_tags == ["install"] and parameter_tags == ["parameters"]
    assert "pip" in install and "find_spec" in install


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_uses_public_names_only(name):
    for source, _ in code_cells(name):
        # `__name__` is public, `_name` is not.
        assert not re.search(r"(\.|import )_(?!_)", source)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_explains_in_both_languages(name):
    """Every explanation says the same twice: English, then Chinese."""
    for cell in cells(name):
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            title, *parts = re.split(r"\n\n", text)
            parts = [part for part in parts if not part.startswith("[![")]
            chinese = [bool(re.search("[一-鿿]", part)) for part in parts]
            half = len(parts) // 2
            assert parts and chinese == [False] * half + [True] * half, text


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_draws_pictures(name):
    assert sum("plt.show()" in source for source, _ in code_cells(name))


def test_asks_for_the_machine_that_it_uses():
    found = {
        name: json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))[
            "metadata"
        ].get("accelerator")
        for name in NOTEBOOKS
    }
    assert found == {
        "export_tflite": None,
        "finetune_lcqmc_hub": "GPU",
        "pretrain_tpu": "TPU",
        "quickstart": None,
    }


@pytest.fixture(scope="module")
def badges():
    spec = importlib.util.spec_from_file_location(
        "badges", FOLDER / "badges.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_address_is_the_projects(badges, name):
    """Run `python colab/badges.py` where this fails."""
    text = (FOLDER / f"{name}.ipynb").read_text("utf-8")
    assert text == badges.addressed(name, text, REPOSITORY)
    found = badges.addressed(name, text, "https://github.com/owner/name.git")
    link = "colab.research.google.com/github/owner/name/blob/main/colab"
    assert f"(https://{link}/{name}.ipynb)" in found
    assert 'SOURCE = \\"git+https://github.com/owner/name.git\\"' in found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from albert_tf2.checkpoints import save_pretrained
    from albert_tf2.model.albert import AlbertPretrainer

    folder = tmp_path_factory.mktemp("notebooks")
    vocab_file = samples.write_vocab(folder)
    model = AlbertPretrainer(samples.small_config(vocab_file))
    return save_pretrained(model, folder / "model", vocab_file=vocab_file)


@pytest.mark.large
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs_on_tiny_settings(name, tmp_path, checkpoint):
    script = []
    for source, tags in code_cells(name):
        script.append(source)
        if "parameters" in tags:
            tiny = dict(TINY[name])
            if "CHECKPOINT" in source:
                tiny["CHECKPOINT"] = str(checkpoint)
            script += [f"{key} = {value!r}" for key, value in tiny.items()]
    path = tmp_path / "notebook.py"
    path.write_text("\n".join(script), "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", f"exec(open({str(path)!r}).read())"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "MPLBACKEND": "Agg", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
