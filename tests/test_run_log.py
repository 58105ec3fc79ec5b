"""The rows of a run: each step once, always JSON, nothing lost."""

import json
import time

import pytest
import tensorflow as tf

from albert_tf2 import UserError
from albert_tf2.training import run_log
from albert_tf2.training.run_log import RunLog, read_rows

OPTIONS = {"train_steps": 12, "steps_per_epoch": 4.0, "progress": False}


def opened(workdir, start_step, **options):
    log = RunLog(workdir, **(OPTIONS | options))
    log.open(start_step)
    return log


def rows_of(*steps, **more):
    return [{"step": step, "loss": step / 2} | more for step in steps]


def write(path, rows, end="\n"):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text.removesuffix("\n") + end, encoding="utf-8")


def test_a_log_goes_on_where_its_checkpoint_is(tmp_path):
    write(tmp_path / "metrics.jsonl", rows_of(2, 4, 6, 8))
    write(tmp_path / "evaluation.jsonl", rows_of(0, 6))
    log = opened(tmp_path, 5)
    log.training({"step": 6, "loss": 1.0}, {})
    log.close()
    assert read_rows(tmp_path / "metrics.jsonl") == [
        *rows_of(2, 4),
        {"step": 6, "loss": 1.0},
    ]
    assert read_rows(tmp_path / "evaluation.jsonl") == rows_of(0)


def test_after_a_rollback_each_step_stands_once(tmp_path):
    log = opened(tmp_path, -1)
    for step in (2, 4, 6, 8):
        log.training({"step": step, "loss": 0.5}, {})
    log.evaluation({"step": 6, "loss": 0.5})
    log.rewind(5)
    for step in (6, 8):
        log.training({"step": step, "loss": 0.25}, {})
    log.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert [row["loss"] for row in rows] == [0.5, 0.5, 0.25, 0.25]
    assert read_rows(tmp_path / "evaluation.jsonl") == []


def test_rows_that_stand_twice_are_mended(tmp_path):
    write(tmp_path / "metrics.jsonl", rows_of(2, 4, 6, 8))
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 6, "loss": 9.0}\n{"step": 8, "loss": 9.5}\n')
    opened(tmp_path, 12).close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    losses = [(r["step"], r["loss"]) for r in map(json.loads, lines)]
    assert losses == [(2, 1.0), (4, 2.0), (6, 9.0), (8, 9.5)]


def strict(text):
    """Parses as others do, who know no NaN."""

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_none_are_null(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n')
    log = opened(tmp_path, 1)
    log.training({"step": 2, "loss": 1.0, "norm": float("inf")}, {})
    log.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [strict(line) for line in lines] == [
        {"step": 1, "loss": None},
        {"step": 2, "loss": 1.0, "norm": None},
    ]


DAMAGE = {
    "not UTF-8": b'{"step": 4, "loss": "\xff\xfe"}',
    "half a row": b'{"step": 4, "lo',
    "no step": b'{"loss": 2.0}',
    "a step that is none": b'{"step": "4"}',
    "a bare number": b"4",
    "a list": b"[4]",
    "brackets": b"[" * 100_000,
    "digits": b'{"step": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("line", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_line_costs_no_other_and_is_kept_aside(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    whole = [json.dumps(row).encode() for row in rows_of(2, 6)]
    path.write_bytes(b"\n".join([whole[0], line, whole[1], b""]))
    assert read_rows(path) == rows_of(2, 6)
    told = []
    opened(tmp_path, 6, say=told.append).close()
    assert read_rows(path) == rows_of(2, 6)
    (sentence,) = told
    assert "1 line(s)" in sentence and "metrics.jsonl.damaged" in sentence
    kept = (tmp_path / "metrics.jsonl.damaged").read_text()
    assert kept == line.decode("utf-8", "backslashreplace") + "\n"
    # The next start finds nothing to tell.
    opened(tmp_path, 6, say=pytest.fail).close()


@pytest.mark.parametrize("end", ["", '\n{"step": 6, "lo'])
def test_a_row_that_a_killed_process_was_writing_is_left_out(tmp_path, end):
    write(tmp_path / "metrics.jsonl", rows_of(2, 4), end=end)
    log = opened(tmp_path, 4, say=pytest.fail)
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 6}\n')
    assert read_rows(tmp_path / "metrics.jsonl") == [
        *rows_of(2, 4),
        {"step": 6},
    ]
    assert not (tmp_path / "metrics.jsonl.damaged").exists()


def test_rows_on_a_file_system_of_tensorflow():
    workdir = "ram://logged/run"
    for start, steps in ((-1, (2, 4)), (2, (4, 6))):
        log = opened(workdir, start)
        for step in steps:
            log.training({"step": step, "loss": 0.0}, {})
        log.close()
    rows = read_rows(f"{workdir}/metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert tf.io.gfile.listdir(f"{workdir}/tensorboard")


def test_lines_say_speed_and_time_left_once_they_are_known(tmp_path):
    told = []
    log = opened(tmp_path, -1, say=told.append)
    log.training({"step": 2, "loss": 0.71234}, {})
    log.training({"step": 6, "loss": 0.5, "steps_per_second": 0.05}, {})
    log.close()
    assert told == [
        "step 2/12  epoch 0.50/3.00  loss 0.7123",
        "step 6/12  epoch 1.50/3.00  loss 0.5000  0.05 steps/s  2.0 min left",
    ]


def test_the_bar_begins_after_the_first_steps(tmp_path, capsys):
    """So nothing that compiling prints can break it, nor its estimate."""
    log = opened(tmp_path, 4, progress=True)
    log.say("compiling")
    assert capsys.readouterr() == ("compiling\n", "")
    log.advance(2, {"loss": 0.5})
    log.say("a line above the bar")
    log.advance(3, {"loss": 0.25})
    bar = log._bar
    log.close()
    assert (bar.initial, bar.n, bar.total) == (6, 9, 12)
    captured = capsys.readouterr()
    assert "a line above the bar" in captured.out and "9/12" in captured.err


def test_other_workers_write_nothing(tmp_path):
    log = opened(tmp_path, -1, enabled=False, progress=True, say=pytest.fail)
    log.advance(1, {})
    log.training({"step": 1, "loss": 0.0}, {})
    log.rewind(0)
    log.say("nothing")
    log.close()
    assert not list(tmp_path.iterdir())


def test_a_run_tells_once_when_it_will_end(tmp_path, monkeypatch):
    clock = [1000.0]
    # Noon; the clock on the wall plays no part in the speed.
    monkeypatch.setattr(run_log.time, "monotonic", lambda: clock[0])
    noon = time.mktime((2026, 11, 28, 12, 0, 0, 0, 0, -1))
    monkeypatch.setattr(run_log.time, "time", lambda: noon)
    told = []
    log = opened(tmp_path, -1, train_steps=310, say=told.append)
    log.advance(10, {})  # compiles: its time tells nothing
    for _ in range(3):
        clock[0] += 30.0
        log.advance(5, {})
    log.close()
    # 10 steps took 60 seconds, and 290 are left.
    assert told == ["at this speed the run ends at 12:29, in 29 min"]


def cheap_at_first(step):
    """What a run costs whose first 100 steps cost a quarter of the others."""
    return step / 4 if step <= 100 else step - 75


def test_cheap_steps_do_not_promise_an_early_end(tmp_path):
    told = []
    log = opened(
        tmp_path, -1, train_steps=200, work=cheap_at_first, say=told.append
    )
    for step in (40, 140):
        log.training({"step": step, "loss": 1.0, "steps_per_second": 1.0}, {})
    log.close()
    left = [line.split("steps/s")[1].strip() for line in told]
    # (60 cheap steps + 100 that take four times as long), then 60.
    assert left == [f"{460 / 60:.1f} min left", "1.0 min left"]


def test_the_bar_knows_which_steps_are_cheap(tmp_path, capsys):
    options = {"train_steps": 200, "work": cheap_at_first, "progress": True}
    log = opened(tmp_path, -1, **options)
    log.advance(40, {})
    # It began ten seconds ago, at step 0.
    log._bar.initial, log._bar.start_t = 0, log._bar.start_t - 10
    log._bar.refresh()
    log.close()
    # Four steps a second: 460 quarters of a second are left.
    assert "<01:55, " in capsys.readouterr().err


@pytest.mark.parametrize(
    "seconds, told",
    [
        (90, "at 23:01, in 2 min"),
        (3600 - 1, "at 23:59, in 1 h 0 min"),
        (26 * 3600, "at 2026-11-30 01:00, in 26 h 0 min"),
    ],
)
def test_the_end_of_a_run_has_a_date_if_it_is_not_today(
    monkeypatch, seconds, told
):
    late = time.mktime((2026, 11, 28, 23, 0, 0, 0, 0, -1))
    monkeypatch.setattr(run_log.time, "time", lambda: late)
    assert run_log._in(seconds) == told


def test_a_tensorflow_without_xla_trains_too(tmp_path, monkeypatch):
    def function(*_, **__):
        raise tf.errors.UnimplementedError(None, None, "no XLA here")

    monkeypatch.setattr(tf, "function", function)
    opened(tmp_path, -1).close()


def test_epochs_stand_beside_steps(tmp_path, capsys):
    told = []
    log = opened(tmp_path, -1, say=told.append)
    log.training({"step": 6, "loss": 0.5}, {})
    log.close()
    assert told == ["step 6/12  epoch 1.50/3.00  loss 0.5000"]
    log = opened(tmp_path, -1, progress=True)
    log.advance(6, {"loss": 0.5})
    log.close()
    assert "epoch=1.50/3.00" in capsys.readouterr().err


def test_a_full_disk_is_no_lack_of_memory(tmp_path, monkeypatch):
    def full(folder):
        raise tf.errors.ResourceExhaustedError(None, None, "no\nevents writer")

    monkeypatch.setattr(tf.summary, "create_file_writer", full)
    with pytest.raises(UserError, match="could not be written .no events wri"):
        opened(tmp_path, 0)
