"""The benchmark of what users wait for: turns, table, contenders."""

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import measuring
import numpy as np
import pytest
import user_waits
import waits_ours
import waits_peers
import waits_table
from user_waits import Command, Live, Row

from albert_tf2.errors import UserError

# The classifier's encoder is converted without the heads of pre-training.
pytestmark = pytest.mark.filterwarnings("ignore:.*has no mlm and no sop head")
FAKES = str(Path(__file__).with_name("fake_contenders.py"))
SAMPLE = Path(__file__).parents[1] / "data" / "sample"


def fake(**turn):
    return Live(FAKES, "steady", {"turn": turn})


def datasets(folder):
    """Makes the folders that users are asked for, of the shipped samples."""
    for name, source in (("lcqmc", "pairs"), ("corpus", "corpus")):
        (folder / name).symlink_to(SAMPLE / source)
    return folder


@pytest.fixture
def data_dir(tmp_path):
    return datasets(tmp_path)


@pytest.fixture
def args(tmp_path):
    return SimpleNamespace(workdir=str(tmp_path), rounds=3, threads=1)


def test_contenders_take_turns_and_their_answers_are_compared(args):
    answer = f"{sys.executable} -c print(1.5)".split()
    row = Row(
        "a wait",
        "rows",
        {
            "ours": fake(units=8, wall=2.0, cpu=4.0, result=[1.0, 2.0]),
            "peer": fake(units=8, wall=4.0, cpu=4.0, result=[1.0, 2.5]),
        },
    )
    found = user_waits.measure(row, args)
    assert found["apart"] == {"peer": 0.5}
    assert [list(turns) for turns in found["rounds"]] == [["ours", "peer"]] * 3
    # The result is compared, and not kept: it may be long.
    assert all("result" not in turn for turn in found["rounds"][0].values())
    assert found["machine"]["commit"] and found["machine"]["versions"]["numpy"]
    command = Row(
        "another", "answer", {"ours": Command(answer, read=float)}, per=""
    )
    turn = user_waits.measure(command, args)["rounds"][0]["ours"]
    assert turn["units"] == 1 and 0 < turn["cpu"] and 0 < turn["wall"] < 30


def test_contenders_that_do_not_do_the_same_are_refused(args):
    row = Row(
        "a wait",
        "rows",
        {"ours": fake(units=1, result=[1.0]), "p": fake(units=1, result=[])},
    )
    with pytest.raises(UserError, match="p answers with 0 numbers, .* with 1"):
        user_waits.measure(row, args)


def test_last_words_of_a_contender_are_told(args):
    row = Row("a wait", "rows", {"ours": Live(FAKES, "dies")})
    with pytest.raises(UserError, match=r"dies ended: .*no memory left"):
        user_waits.measure(row, args)


def rounds(*several):
    return {
        "title": "a wait",
        "unit": "rows",
        "per": "s",
        "threads": 2,
        "apart": {"peer": 2e-7},
        "rounds": several,
        "machine": {
            "processor": "P",
            "instructions": ["avx2"],
            "cores": 2,
            "load_average": 0.0,
            "python": "3",
            "versions": {"numpy": "2"},
            "commit": "c",
            "time": "2026-11-29 10:00",
        },
    }


def turn(units, wall, cpu, **more):
    return {"units": units, "wall": wall, "cpu": cpu, **more}


def test_figures_are_medians_and_ratios_those_of_a_round():
    # The second round was ten times as slow for all: no ratio changes.
    found = rounds(
        *(
            {
                "ours": turn(10, 1.0 * slow, 2.0, flops=40.0),
                "peer": turn(20, 4.0 * slow, 6.0),
                "gemm": {"flops_per_second": 80.0 / slow},
            }
            for slow in (1, 10, 1)
        )
    )
    said = waits_table.figures(found)
    assert said["ours"]["figure"] == 10 and said["peer"]["figure"] == 5
    assert said["ours"]["cpu"] == 0.2 and said["peer"]["cpu"] == 0.3
    assert said["peer"]["ours"] == 2 and "ours" not in said["ours"]
    # 4 flops a row, so the limit is 20 rows a second.
    assert said["ours"]["share"] == 0.5 and said["peer"]["share"] == 0.25
    limit = said["limit: arithmetic of the real tokens"]
    assert limit == {"figure": 20, "ours": 0.5}
    shown = waits_table.table({"a": found}).splitlines()
    assert shown[2:4] == [
        "| a wait, rows/s | ours | 10.0 |  | 200 |  | 50% |  |",
        "|  | peer | 5.00 | 2.00 x | 300 | 1.50 x | 25% | 2.0e-07 |",
    ]
    assert "P (avx2), 2 cores, 2 threads" in shown[-1]


def test_seconds_are_better_where_they_are_few():
    found = rounds({"ours": turn(1, 2, 3), "limit: x": turn(1, 1.5, 1)})
    found["per"] = ""
    said = waits_table.figures(found)
    assert said["ours"]["figure"] == 2 and said["limit: x"]["figure"] == 1.5
    assert said["ours"]["share"] == said["limit: x"]["ours"] == 0.75
    found["per"] = "CPU-s"
    said = waits_table.figures(found)
    assert said["ours"]["figure"] == pytest.approx(1 / 3)
    assert said["ours"]["share"] == pytest.approx(1 / 3)


def test_what_was_measured_is_kept(tmp_path, monkeypatch, capsys, data_dir):
    made = []

    def measured(row, args):
        made.append(row)
        return rounds({"ours": turn(1, 1, len(made))})

    monkeypatch.setattr(user_waits, "rows_of", lambda _: {"a": 1, "b": 2})
    monkeypatch.setattr(user_waits, "prepare", lambda _: None)
    monkeypatch.setattr(user_waits, "measure", measured)
    flags = [f"--data_dir={data_dir}", f"--workdir={tmp_path}/waits"]
    assert user_waits.main([*flags, "--rows", "b"]) == 0
    assert user_waits.main(flags) == 0
    assert made == [2, 1]
    kept = json.loads((tmp_path / "waits" / "waits.json").read_text())
    assert list(kept) == ["a", "b"]
    assert (tmp_path / "waits" / "waits.md").read_text() in (
        capsys.readouterr().out
    )
    assert user_waits.main([*flags, "--rows", "b", "--again"]) == 0
    assert made == [2, 1, 2]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--data_dir", "none"], "none has no lcqmc/train.txt"),
        (["--rows", "lunch"], "--rows takes some of fine_tune, .*: lunch"),
    ],
)
def test_bad_input_is_one_sentence(
    flags, message, data_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(user_waits, "first_answers", lambda _: {})
    given = [f"--data_dir={data_dir}", f"--workdir={tmp_path}", *flags]
    with pytest.raises(UserError, match=message):
        user_waits.main(given)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """What workers get, with little of everything, and what is prepared."""
    for needed in ("torch", "transformers"):  # theirs start from our weights
        pytest.importorskip(needed, reason="[huggingface]")
    folder = tmp_path_factory.mktemp("waits")
    flags = "--tuning_rows 24 --sentences 20 --batch_size 8 --steps 2"
    flags += " --pretraining_rows 4 --megabytes 0.03 --threads 2"
    args = user_waits._parse(
        [
            f"--data_dir={datasets(folder)}",
            f"--workdir={folder}/work",
            *flags.split(),
        ]
    )
    waits_ours.prepare(args)
    return args


@pytest.fixture
def asked(small, monkeypatch):
    # Threads are as this process has them.
    monkeypatch.setattr(measuring, "use_threads", lambda count: None)
    return argparse.Namespace(**vars(small), compiled=False)


LARGE = pytest.param("pretrain", None, marks=pytest.mark.large)


@pytest.mark.parametrize(
    "name, count", [("fine_tune", 24), ("classify", 20), ("embed", 20), LARGE]
)
def test_ours_and_theirs_start_alike_and_answer_alike(name, count, asked):
    answers = []
    for module in (waits_ours, waits_peers):
        contender = getattr(module, name)(asked)
        turn = contender.turn()
        answers.append(np.array(turn.get("result", contender.result)))
        if count is not None:
            assert turn["units"] == count
        else:  # no padding in theirs, hardly any in ours
            assert 0.8 * 2 * 4 * 128 < turn["units"] <= 2 * 4 * 128
    assert len(answers[0]) > 1
    # float32 rounds a sum by a share of its largest terms, not of what is left.
    atol = max(2e-5, 1e-5 * np.abs(answers[1]).max())
    np.testing.assert_allclose(*answers, atol=atol)


# The benchmark asks for it by `dynamo=False`: the newer one wants onnxscript.
@pytest.mark.filterwarnings("ignore:.*legacy TorchScript:DeprecationWarning")
@pytest.mark.large
def test_onnx_answers_alike(asked):
    for needed in ("onnx", "onnxruntime", "sympy"):
        pytest.importorskip(needed, reason="[onnx]")
    waits_peers.prepare_onnx(asked)
    for name in ("classify", "embed"):
        expected = getattr(waits_ours, name)(asked).turn()["result"]
        for int8, tolerance in ((False, 2e-5), (True, 1.0)):
            asked.int8 = int8
            found = getattr(waits_peers, f"onnx_{name}")(asked).turn()
            assert found["units"] == 20
            np.testing.assert_allclose(
                found["result"], expected, atol=tolerance
            )


def test_the_arithmetic_is_that_of_real_tokens(asked):
    """L T (8 H^2 + 4 H I + 4 T H) + 2 E H T + 2 H^2, three times to train."""
    from albert_tf2 import Tokenizer

    tokenizer = Tokenizer(waits_ours.prepared(asked) / "tuned" / "vocab.txt")

    def work(*texts):
        tokens = 1 + sum(len(tokenizer.tokenize(t).ids) + 1 for t in texts)
        layer = 8 * 312**2 + 4 * 312 * 1248 + 4 * tokens * 312
        return tokens * (4 * layer + 2 * 128 * 312) + 2 * 312**2

    rows = waits_ours.rows_of(asked)
    assert waits_ours.embed(asked).turn()["flops"] == sum(
        map(work, rows["sentences"])
    )
    assert waits_ours.classify(asked).turn()["flops"] == sum(
        work(*pair) for pair in rows["pairs"]
    )
    assert waits_ours.fine_tune(asked).turn()["flops"] == 3 * sum(
        work(a, b) for a, b, _ in rows["train"]
    )


def test_the_limit_of_the_builder_reads_the_whole_corpus(asked):
    corpus = (waits_ours.prepared(asked) / "corpus.txt").read_text("utf-8")
    parts = list(waits_ours._parts(corpus, 1000))
    assert "".join(parts) == corpus and len(parts) > 3
    assert all(part.endswith("\n") for part in parts)
    done = waits_ours.tokens_and_words(asked).turn()
    assert done["units"] == len(corpus.encode()) / 1e6


@pytest.mark.large
def test_every_row_of_the_table(data_dir, tmp_path, capsys):
    flags = "--tuning_rows 64 --sentences 32 --steps 1 --pretraining_rows 4"
    flags += " --megabytes 0.1 --rounds 1 --seconds 0.3 --clients 2"
    given = [f"--data_dir={data_dir}", f"--workdir={tmp_path}/w"]
    assert user_waits.main([*given, *flags.split()]) == 0
    shown = capsys.readouterr().out
    for title in ("fine-tuning", "predict classify", "predict embed",
                  "first answer", "service, 2 clients", "builder",
                  "pre-training", "export: encoder", "export: tflite",
    ):  # fmt: skip
        assert f"| {title}" in shown
