"""Sweeps: what is tried, what is taken, what is asked of the test rows."""

import json

import pytest
import task_samples as samples

from albert_tf2 import finetune
from albert_tf2.errors import UserError
from albert_tf2.finetuning import chosen, sweep
from albert_tf2.recipes import FinetuneRecipe
from albert_tf2.training import run_folder

RECIPE = FinetuneRecipe()


def test_all_combinations_are_tried():
    found = sweep.points(
        RECIPE,
        ["learning_rate=2e-5,0.0001", "num_train_epochs=3, 5"],
    )
    assert [point.name for point in found] == [
        f"learning_rate={rate},num_train_epochs={epochs}"
        for rate in ("2e-5", "0.0001")
        for epochs in (3, 5)
    ]
    assert [point.recipe.learning_rate for point in found] == (
        [2e-5] * 2 + [1e-4] * 2
    )
    assert found[1].recipe.num_train_epochs == 5.0
    assert found[0].recipe.seed == RECIPE.seed
    (alone,) = sweep.points(RECIPE, [])
    assert alone.recipe == RECIPE


def test_a_value_has_one_folder_however_it_is_written():
    def names(text):
        return [point.name for point in sweep.points(RECIPE, [text])]

    assert names("learning_rate=2e-5") == names("learning_rate=0.00002")
    close = names("learning_rate=1.23456789e-4,1.23456788e-4")
    assert len(set(close)) == 2
    folders = names("teacher=null,runs/a,runs_a")
    assert len(set(folders)) == 3 and not any("/" in name for name in folders)
    assert names("class_weights=none,balanced")[1] == "class_weights=balanced"


MANY = ",".join(f"0.{n:03d}" for n in range(1, 51))


@pytest.mark.parametrize(
    "sweeps, reason",
    [
        (["learning_rate"], "--sweep must be key=a,b,c"),
        (["learning_rat=1"], "--sweep: unknown key `learning_rat`; did you"),
        (["learning_rate=1e-4,fast"], "--sweep: `learning_rate` must be a"),
        (["learning_rate=1e-4,"], "--sweep: `learning_rate` must be a"),
        (["learning_rate=1e-4,0.0001"], "has 0.0001 twice"),
        (["r_drop=1,2", "r_drop=3"], "`r_drop` is there twice"),
        (["max_train_rows=10,20"], "use --set, and a workdir for each"),
        (["seed=1,2"], "num_seeds=3 gives each run several"),
        (
            [f"{key}={MANY}" for key in ("r_drop", "weight_decay")],
            "2,500 runs are more than 1,000",
        ),
        (
            ["gradient_accumulation_steps=1,3"],
            "--sweep: `global_batch_size` must be divisible",
        ),
    ],
)
def test_what_cannot_be_swept(sweeps, reason):
    with pytest.raises(UserError) as error:
        sweep.points(RECIPE, sweeps)
    assert reason in str(error.value) and "\n" not in str(error.value)


def arguments(folder, checkpoint, workdir, *more):
    return [
        *("--task", "lcqmc", "--data_dir", str(folder)),
        *("--init_checkpoint", str(checkpoint), "--workdir", str(workdir)),
        *("--strategy", "one_device", "--set", "max_seq_length=32"),
        *("--set", "global_batch_size=4", "--set", "max_train_steps=8"),
        *("--set", "num_train_epochs=10"),
        *more,
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return samples.write_lcqmc(tmp_path_factory.mktemp("data"))


def read(path):
    return json.loads(path.read_text("utf-8"))


SWEEP = ("--sweep", "learning_rate=1e-9,3e-3")


def test_the_best_of_a_sweep_is_what_a_single_run_leaves(
    data, checkpoint, tmp_path, capsys
):
    """Chosen by dev rows; of the test rows only the chosen one knows."""
    workdir = tmp_path / "sweep"
    assert finetune.main(arguments(data, checkpoint, workdir, *SWEEP)) == 0
    told = capsys.readouterr().out
    found = read(workdir / "sweep.json")
    assert [run["folder"] for run in found["runs"]] == [
        f"learning_rate={rate}" for rate in ("1e-9", "0.003")
    ]
    values = [run["dev"]["accuracy"] for run in found["runs"]]
    assert values[1] == max(values) > values[0]
    assert found["best"] == "learning_rate=0.003"
    (line,) = [line for line in told.splitlines() if line.endswith("taken")]
    assert line.startswith("learning_rate=0.003") and f"{values[1]:.4f}" in line
    assert "note: " not in told  # two values do not tell a side
    for run in found["runs"]:
        assert run["seconds"] > 0
        of_run = read(workdir / run["folder"] / "results.json")
        assert "test" not in of_run and of_run["dev"] == run["dev"]
        answers = workdir / run["folder"] / "predictions"
        assert [p.name for p in answers.iterdir()] == ["dev.jsonl"]
    # As a run with that value alone would have left it.
    single = tmp_path / "single"
    command = arguments(data, checkpoint, single, "--set", "learning_rate=3e-3")
    assert finetune.main(command) == 0
    results, alone = (
        read(workdir / "results.json"),
        read(single / "results.json"),
    )
    assert results.pop("sweep") == {"learning_rate": 0.003}
    for timed in (results, alone):
        timed.pop("seconds")
    assert results == alone
    for name in ("predictions/test.jsonl", "report/test.json"):
        assert (workdir / name).read_bytes() == (single / name).read_bytes()
    assert (workdir / "model" / "task.json").is_file()
    # Again, with one value more: only that one is trained.
    more = (SWEEP[0], f"{SWEEP[1]},2e-8")
    assert finetune.main(arguments(data, checkpoint, workdir, *more)) == 0
    told = capsys.readouterr().out
    assert told.count("is finished already") == 2
    assert len(read(workdir / "sweep.json")["runs"]) == 3
    assert "note: the best `learning_rate` is the largest" in told
    assert run_folder.read(workdir)["kind"] == "sweep of fine-tuning"
    # Another base is another run, and a sweep's folder is no single run's.
    with pytest.raises(UserError, match="another `warmup_proportion`"):
        finetune.main(
            arguments(
                data,
                checkpoint,
                workdir,
                *(*SWEEP, "--set", "warmup_proportion=0.5"),
            )
        )
    with pytest.raises(UserError, match="holds a sweep of fine-tuning runs"):
        finetune.main(arguments(data, checkpoint, workdir))


def test_each_point_may_have_several_seeds(data, checkpoint, tmp_path, capsys):
    more = ("--set", "num_seeds=2", "--set", "max_train_steps=1")
    command = arguments(data, checkpoint, tmp_path, *SWEEP[:1])
    command += ["learning_rate=1e-3", *more]
    assert finetune.main(command) == 0
    results = read(tmp_path / "results.json")
    for split in ("dev", "test"):
        assert len(results[split]["accuracy"]["values"]) == 2
    found = read(tmp_path / "sweep.json")
    best = tmp_path / found["best"]
    # Dev and test rows of the sample are the same: so are the figures.
    assert results["test"]["accuracy"] == results["dev"]["accuracy"]
    assert (best / f"seed-{results['best_seed']}" / "model").is_dir()
    assert "±" in capsys.readouterr().out


def test_a_sweep_without_dev_rows_is_refused(data, checkpoint, tmp_path):
    folder = tmp_path / "data"
    samples.write_lcqmc(folder, splits=("train", "test"))
    with pytest.raises(UserError, match="--sweep chooses by the dev rows"):
        finetune.main(arguments(folder, checkpoint, tmp_path / "w", *SWEEP))
    assert not (tmp_path / "w").exists()


def test_the_spread_is_the_samples_and_what_is_undefined_is_worst():
    found = chosen.of_seeds([{"f1": 1.0}, None, {"f1": 3.0}])
    assert found["f1"]["mean"] == 2.0
    assert found["f1"]["spread"] == pytest.approx(2**0.5)
    runs = [{"dev": {"f1": f1}} for f1 in (float("nan"), -1.0, 0.5, 0.5)]
    assert chosen.best(runs, "f1") is runs[2]  # the first of equal ones
    assert chosen.best(runs[:2], "f1") is runs[1]
