"""The search of recipes: equal CPU time, results kept, one table."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from albert_tf2.errors import UserError
from albert_tf2.pretraining import growth

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def search():
    spec = importlib.util.spec_from_file_location(
        "recipe_search", ROOT / "benchmarks" / "recipe_search.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FakeRun:
    """A step takes a CPU second for each layer, compiling half a minute.

    Of `short` records it takes half of that.
    """

    metrics = ("loss", "tokens")
    now = 0.0
    slow = 1  # other work on the machine
    held_out = None

    def __init__(self, recipe, data_dir, folder):
        self.recipe, self.programs = recipe, 0
        self.layers = recipe.model_config().num_hidden_layers
        self.stages = growth.stages(recipe, recipe.model_config())
        self.data_dir = data_dir

    def begin(self):
        FakeRun.now += 7 * (self.recipe.word_vectors == "counted")

    def batches(self, step):
        return 0.5 if self.data_dir == "short" else 1.0

    def run_steps(self, batches, step, count):
        seconds = count * self.layers * batches + 30 * (not self.programs)
        FakeRun.now += FakeRun.slow * seconds
        self.programs = 1
        return np.tile(np.float32([1.0, 100.0]), [count, 1])


def test_variants_get_the_same_cpu_time_and_are_kept(
    search, tmp_path, monkeypatch, capsys
):
    made = []

    def in_this_process(variant, arguments):
        made.append(variant)
        search.one(variant, arguments)

    def evaluate(run, arguments):
        loss = 5.0 + run.layers / 10 - run.recipe.learning_rate
        return {"mlm_loss": loss, "mlm_accuracy": 0.2, "sop_accuracy": 0.5}

    clock = SimpleNamespace(process_time=lambda: FakeRun.now)
    monkeypatch.setattr(search, "time", clock)
    monkeypatch.setattr(search, "new_run", FakeRun)
    monkeypatch.setattr(search, "evaluate", evaluate)
    monkeypatch.setattr(search, "in_own_process", in_this_process)
    shallow = "one layer: layers=1 learning_rate=0.01 warmup=0.1"
    command = ["--data_dir=none", f"--workdir={tmp_path}", "--minutes=4"]
    command += ["--config", str(ROOT / "configs" / "pretrain_tiny.yaml")]
    assert search.main([*command, "--variants", "baseline"]) == 0
    command += ["--variants", "baseline", shallow]
    assert search.main(command) == 0
    assert made == ["baseline", shallow]
    results = {
        name: json.loads((tmp_path / name / "result.json").read_text())
        for name in ("baseline", "one_layer")
    }
    # Compiling costs nothing: four minutes are 60 steps of four layers.
    assert {k: v["steps"] for k, v in results.items()} == {
        "baseline": 60,
        "one_layer": 240,
    }
    for result in results.values():
        assert result["cpu_seconds"] == 240
        assert result["tokens"] == 100 * result["steps"]
        assert result["curve"][-1]["step"] == result["steps"]
    short = "short first: short=short:0.5"
    assert search.main([*command[:-2], short]) == 0
    kept = json.loads((tmp_path / "short_first" / "result.json").read_text())
    assert (kept["steps"], kept["cpu_seconds"]) == (80, 40 * 2 + 40 * 4)
    spent = {row["step"]: row["cpu_seconds"] for row in kept["curve"]}
    assert spent[40] == 80
    counted = "counted: word_vectors=counted"
    assert search.main([*command[:-2], counted]) == 0
    kept = json.loads((tmp_path / "counted" / "result.json").read_text())
    assert (kept["steps"], kept["cpu_seconds"]) == (60, 247)
    monkeypatch.setattr(FakeRun, "slow", 2)
    busy = "busy: layers=2"
    assert search.main([*command[:-2], busy]) == 0
    kept = json.loads((tmp_path / "busy" / "result.json").read_text())
    assert (kept["steps"], kept["cpu_seconds"]) == (120, 480)
    with pytest.raises(UserError, match="`minutes` 4.0, not of 5"):
        search.main([*command[:-2], "2: layers=2", "--minutes=5"])
    with pytest.raises(UserError, match="`data_dir` none, not of other"):
        search.main([*command[:-2], "2: layers=2", "--data_dir=other"])
    made.clear()
    for name in ("short_first", "busy"):
        (tmp_path / name / "result.json").unlink()
    (tmp_path / "counted" / "result.json").unlink()
    assert search.main(command) == 0 and not made
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("| one layer | 20191001 | 240 | 0.02 M | 240 |")
    assert "| 5.090 | -0.305 | 20.0% | 50.0% |" in first
    assert "| 5.395 | +0.000 |" in second
    with_seed = [*command, "--seed", "7"]
    assert search.main(with_seed) == 0 and len(made) == 2
    kept = json.loads(
        (tmp_path / "one_layer-seed7" / "result.json").read_text()
    )
    assert kept["seed"] == 7


def test_every_variant_of_the_table_is_a_recipe(search, tmp_path):
    arguments = SimpleNamespace(
        config=str(ROOT / "configs" / "pretrain_tiny_budget.yaml"), seed=None
    )
    for name, changes in search.VARIANTS.items():
        recipe, own = search.recipe_of(changes.split(), arguments, tmp_path)
        growth.stages(recipe, recipe.model_config())
        assert set(own) <= set(search.OWN), name
    assert recipe.model_config().ln_type == "preln"
