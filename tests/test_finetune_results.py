"""The table of results: both starts, several seeds, one command."""

import importlib.util
import json
from pathlib import Path

import task_samples as samples

PATH = Path(__file__).parents[1] / "benchmarks" / "finetune_results.py"


def load_benchmark():
    spec = importlib.util.spec_from_file_location("finetune_results", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_holds_both_starts_and_the_spread_of_seeds(tmp_path, capsys):
    from albert_tf2.checkpoints import save_pretrained
    from albert_tf2.model.albert import AlbertPretrainer

    samples.write_lcqmc(tmp_path / "lcqmc")
    vocab_file = samples.write_vocab(tmp_path)
    model = AlbertPretrainer(samples.small_config(vocab_file))
    checkpoint = save_pretrained(model, tmp_path / "m", vocab_file=vocab_file)
    command = ["--data_dir", str(tmp_path), "--init_checkpoint"]
    command += [str(checkpoint), "--workdir", str(tmp_path / "w")]
    command += ["--tasks", "lcqmc", "--set", "num_seeds=2"]
    command += ["--set", "max_train_steps=3", "--set", "max_seq_length=24"]
    command += ["--set", "global_batch_size=4"]
    assert load_benchmark().main(command) == 0
    results = json.loads((tmp_path / "w/results.json").read_text())
    assert [row["start"] for row in results] == ["pre-trained", "random"]
    for row in results:
        assert row["seeds"] == 2 and row["steps"] == 3
        mean, spread = map(float, row["figures"]["accuracy"].split(" ± "))
        values = [
            json.loads(path.read_text())["test"]["accuracy"]
            for path in sorted(
                (tmp_path / f"w/lcqmc-{row['start']}").glob(
                    "seed-*/results.json"
                )
            )
        ]
        assert len(values) == 2
        assert mean == round(50 * sum(values), 1) and spread >= 0
    table = (tmp_path / "w/results.md").read_text()
    assert table in capsys.readouterr().out
    assert table.count("| lcqmc |") == 2
