"""The command line: arguments, exit codes, and every recipe that ships."""

import subprocess
import sys
from importlib import resources

import pytest
from small_records import write_set

from albert_tf2 import AlbertConfig, pretrain
from albert_tf2.errors import UserError
from albert_tf2.recipes import PretrainRecipe, load_recipe
from albert_tf2.training.run_log import read_rows

pytestmark = pytest.mark.usefixtures("warm_python")

RECIPES = sorted(
    entry.name
    for entry in resources.files("albert_tf2.configs").iterdir()
    if entry.name.startswith("pretrain_")
)


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    folder = tmp_path_factory.mktemp("problem")
    write_set(folder / "records", [9, 8], held_out=5)
    AlbertConfig(
        vocab_size=999,  # the records' 200 replaces it
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    ).to_json(folder / "albert_config.json")
    return folder


def test_train_then_evaluate_alone(problem, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {problem}/albert_config.json\n"
        "vocab_size_from_data: true\n"
        "train_steps: 4\nglobal_batch_size: 4\nlearning_rate: 1e-2\n"
        "max_seq_length: 32\nlog_every: 2\nwarmup_steps: 1\n"
    )
    shared = ["--data_dir", f"{problem}/records", "--workdir", f"{tmp_path}/w"]
    arguments = ["--config", str(recipe), "--show_variables", *shared]
    assert pretrain.main([*arguments, "--scale_learning_rate", "1"]) == 0
    printed = capsys.readouterr().out
    assert "learning rate: 0 to 0.02" in printed  # sqrt(4 / 1) times 1e-2
    assert "step 4: held-out loss" in printed
    assert "encoder/embeddings/word_embeddings" in printed
    assert f"done: 4 steps; the model is in {tmp_path}/w" in printed
    assert f"--checkpoint {tmp_path}/w --export_dir" in printed
    rows = read_rows(tmp_path / "w" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4]
    assert pretrain.main(["--evaluate", *shared]) == 0
    printed = capsys.readouterr().out
    last = read_rows(tmp_path / "w" / "evaluation.jsonl")[-1]
    assert f"{last['mlm_loss']:.6g}" in printed


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "albert_tf2.pretrain", *arguments],
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--set", "learning_rat=1"], "did you mean `learning_rate`"),
        (["--set", "optimizer=sgd"], "optimizer=sgd"),
        (["--set", "train_steps=0"], "train_steps=0"),
        (["--set", "model=albert_tyny_zh"], "albert_tiny_zh"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_mistakes_are_told_before_tensorflow_loads(
    arguments, message, monkeypatch
):
    monkeypatch.setattr(pretrain, "_run", lambda *_: pytest.fail("went on"))
    with pytest.raises(UserError, match=message):
        pretrain.main(["--data_dir", "d", "--workdir", "w", *arguments])


def test_a_missing_folder_is_one_line_and_exit_code_2(tmp_path):
    done = run("--data_dir", str(tmp_path / "none"), "--workdir", str(tmp_path))
    assert done.returncode == 2
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error:")]
    assert "is not a folder of records" in line
    assert "Traceback" not in done.stderr


def test_help_ends_in_a_command():
    done = run("--help")
    assert done.returncode == 0
    assert "python -m albert_tf2.pretrain --config" in done.stdout


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_read_and_their_arithmetic_is_right(name):
    with resources.as_file(
        resources.files("albert_tf2.configs").joinpath(name)
    ) as path:
        recipe = load_recipe(PretrainRecipe, path)
        text = path.read_text(encoding="utf-8")
    config = recipe.model_config()
    assert recipe.max_seq_length <= config.max_position_embeddings
    assert name in text or "quickstart" in name  # the command to copy
    assert recipe.warmup_steps < recipe.train_steps
    if "FLOP in all" in text:
        from albert_tf2.model.flops import training_flops

        per_row = training_flops(
            config, recipe.max_seq_length, recipe.max_predictions_per_seq
        )
        total = per_row * recipe.global_batch_size * recipe.train_steps
        stated = float(text.split("Time: ")[1].split(" FLOP")[0])
        assert stated == pytest.approx(total, rel=0.04)
        rows = recipe.global_batch_size // 8
        rows //= recipe.gradient_accumulation_steps
        assert f"{rows} rows of 512 at a time" in text


def test_there_is_a_recipe_for_every_size():
    sizes = ("tiny", "small", "base", "large", "xlarge", "xxlarge")
    assert {f"pretrain_{size}.yaml" for size in sizes} <= set(RECIPES)


def test_arithmetic_is_the_published_formula():
    from albert_tf2.model.flops import forward_flops, training_flops

    tiny = AlbertConfig.from_name("albert_tiny_zh")
    base = AlbertConfig.from_name("albert_base_zh")
    # The batches of docs/results.md: 134 and 540 GFLOP per step.
    assert 32 * training_flops(tiny, 128, 20) == pytest.approx(134e9, rel=0.01)
    assert 8 * training_flops(base, 128, 20) == pytest.approx(540e9, rel=0.01)
    assert training_flops(tiny, 128, 0) == 3 * forward_flops(tiny, 128)
    # A step computes the last layer where heads look: 0.84 of the formula.
    done = training_flops(tiny, 128, 20, 21) / training_flops(tiny, 128, 20)
    assert done == pytest.approx(0.84, abs=0.005)
    assert forward_flops(tiny, 128, 128) == forward_flops(tiny, 128)
