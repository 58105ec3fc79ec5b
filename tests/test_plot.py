"""The curves of a run, as one PNG."""

import json

import pytest

from albert_tf2 import plot
from albert_tf2.errors import UserError


def write_run(folder):
    names = ("loss", "mlm_loss", "sop_loss", "mlm_accuracy", "sop_accuracy")
    rows = [
        {"step": step, "learning_rate": 0.1} | dict.fromkeys(names, 1 / step)
        for step in (10, 20, 30)
    ]
    held_out = [row | {"unigram_loss": 2.0} for row in rows]
    for name, lines in (("metrics", rows), ("evaluation", held_out)):
        text = "".join(json.dumps(row) + "\n" for row in lines)
        (folder / f"{name}.jsonl").write_text(text)


def test_main_draws_one_png(tmp_path, capsys):
    write_run(tmp_path)
    assert plot.main([str(tmp_path)]) == 0
    image = (tmp_path / "curves.png").read_bytes()
    assert image.startswith(b"\x89PNG") and len(image) > 20_000
    assert "curves.png" in capsys.readouterr().out


def test_the_curves_hold_what_the_files_hold(tmp_path):
    from matplotlib.figure import Figure

    write_run(tmp_path)
    axes = Figure().subplots()
    training = [{"step": 1, "mlm_loss": 3.0}, {"step": 2, "mlm_loss": 2.0}]
    held_out = [{"step": 2, "mlm_loss": 2.5, "unigram_loss": 4.0}]
    plot._panel(axes, "mlm_loss", training, held_out)
    curves = {
        line.get_label(): line.get_xydata().tolist() for line in axes.lines
    }
    assert curves["training"] == [[1, 3.0], [2, 2.0]]
    assert curves["held-out"] == [[2, 2.5]]
    assert curves["guessing by character frequency"][0][1] == 4.0


def test_a_run_without_evaluation_or_with_a_torn_last_row(tmp_path):
    write_run(tmp_path)
    (tmp_path / "evaluation.jsonl").unlink()
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 40, "lo')
    assert plot.draw(tmp_path, tmp_path / "a" / "b.png").exists()


def test_folders_without_a_run_are_named(tmp_path):
    with pytest.raises(UserError, match="metrics.jsonl"):
        plot.main([str(tmp_path)])
    with pytest.raises(UserError, match="is not a folder"):
        plot.main([str(tmp_path / "none")])


@pytest.mark.parametrize("evaluated", [True, False])
def test_fine_tuning_is_drawn_with_its_own_figures(
    tmp_path, evaluated, monkeypatch
):
    from matplotlib.figure import Figure

    titles = []
    finished = Figure.savefig

    def look(figure, *args, **kwargs):
        titles.extend(axes.get_title() for axes in figure.axes)
        finished(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", look)
    (tmp_path / "run.json").write_text('{"kind": "fine-tuning"}')
    row = {"loss": 1.0, "learning_rate": 0.1, "gradient_norm": 2.0}
    lines = [json.dumps({"step": step, **row}) for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if evaluated:
        figures = {"step": 2, "accuracy": 0.5, "macro_f1": 0.4, "rows": 8}
        (tmp_path / "evaluation.jsonl").write_text(json.dumps(figures) + "\n")
    plot.main([str(tmp_path)])
    own = ["dev: accuracy", "dev: macro f1"] if evaluated else []
    assert titles == [
        *("loss", "learning rate", "norm of the gradients", "speed"),
        *own,
    ]
