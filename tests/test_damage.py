"""Damaged and hostile files of every kind: a sentence, or nothing amiss.

Never a traceback, an abort, a hang, 4 GB of memory, or anything written
outside of where it belongs. The default suite makes a few tries of the kinds
that need no TensorFlow, in one process. `make large` makes 300 of these and 60
of the others. DAMAGE_SEED is the seed, DAMAGE_TRIES the number of tries for all
kinds; 300 of those that need TensorFlow take one to eight minutes each:

    DAMAGE_SEED=$RANDOM DAMAGE_TRIES=300 \
      python -m pytest tests/test_damage.py --run_large -k each_kind
"""

import os

import damage
import damage_kinds
import numpy as np
import pytest

from albert_tf2 import UserError, finetune, paths
from albert_tf2.paths import arrays
from albert_tf2.prediction.similarity import Whitening
from albert_tf2.tasks import question_files, reading, registry, tables


def test_a_few_of_each_kind(tmp_path):
    for kind in damage_kinds.LIGHT:
        damage_kinds.write(kind, tmp_path / kind)
    damage.survives(",".join(damage_kinds.LIGHT), tmp_path, 15)


@pytest.mark.large
@pytest.mark.parametrize("kind", [*damage_kinds.LIGHT, *damage_kinds.HEAVY])
def test_hundreds_of_each_kind(kind, tmp_path):
    usual = 300 if kind in damage_kinds.LIGHT else damage.HEAVY_TRIES
    tries = int(os.environ.get("DAMAGE_TRIES", usual))
    seed = int(os.environ.get("DAMAGE_SEED", 1))
    folder = damage_kinds.write(kind, tmp_path / kind)
    damage.survives(kind, folder, tries, seed)


def test_a_line_has_an_end(tmp_path):
    """20 GB of zeros are not read to their end to find none."""
    path = tmp_path / "train.csv"
    path.write_text("甲" * 100 + "\n" + "乙" * 101 + "\n", "utf-8")
    with pytest.raises(UserError, match="line 2: has more than 100 char"):
        list(reading.numbered_lines(path, 100))
    assert len(list(reading.numbered_lines(path, 101))) == 2


def test_json_has_an_end(monkeypatch):
    """Sixteen million values take a gigabyte, whatever the file's bytes."""
    monkeypatch.setattr(paths.reading, "MOST_JSON_VALUES", 10)
    assert paths.parse_json("[[],[],[]]", "x") == [[], [], []]
    with pytest.raises(UserError, match="more than 10 values of JSON"):
        paths.parse_json("[[],[],[],[],[],[]]", "x")


def test_a_table_has_an_end(tmp_path, monkeypatch):
    """A few bytes of Parquet may stand for any number of cells."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "train.parquet"
    columns = {"text": ["好"] * 3_000, "label": [1] * 3_000}
    parquet.write_table(pyarrow.table(columns), path)
    assert path.stat().st_size < 2_000
    table = tables.read(str(path))
    assert (table.names, len(table.rows)) == (("text", "label"), 3_000)
    assert table.rows[-1] == (f"{path}, row 3000", ["好", 1])
    monkeypatch.setattr(tables, "MOST_CELLS", 5_999)
    with pytest.raises(UserError, match="5,999 cells unpacked"):
        tables.read(str(path))


@pytest.fixture
def array_file(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    return path


def test_arrays_are_what_numpy_wrote(array_file, tmp_path):
    expected = np.load(array_file)
    for read in (arrays.read_array, arrays.map_array):
        np.testing.assert_array_equal(read(array_file), expected)
    path = tmp_path / "b.npz"
    named = {"x": expected, "n": np.array(3), "t": np.array(["甲", "乙丙"])}
    np.savez_compressed(path, **named)
    found = arrays.read_arrays(path)
    assert set(found) == set(named)
    for name, value in named.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("read", [arrays.read_array, arrays.map_array])
def test_an_array_is_no_larger_than_its_file(array_file, read):
    """NumPy would take the memory that a header asks for."""
    whole = array_file.read_bytes()
    assert b"(2, 3)" in whole
    for shape in (b"(2, 4)", b"(-2,3)", b"(9**9)"):
        array_file.write_bytes(whole.replace(b"(2, 3)", shape))
        with pytest.raises(UserError, match="not an array of numbers"):
            read(array_file)
    for content in (b"", b"PK\x03\x04", whole[:20], whole[:-1]):
        array_file.write_bytes(content)
        with pytest.raises(UserError, match="not an array of numbers"):
            read(array_file)
    np.save(array_file, np.array([{}], object))
    with pytest.raises(UserError, match="objects"):
        read(array_file)


def test_arrays_have_an_end(array_file, tmp_path):
    with pytest.raises(UserError, match="larger than 47 bytes"):
        arrays.read_array(array_file, most=47)
    path = tmp_path / "b.npz"
    np.savez_compressed(path, a=np.zeros(100), b=np.zeros(100))
    with pytest.raises(UserError, match="larger than 700 bytes"):
        arrays.read_arrays(path, most=1_500)


def test_a_whitening_of_another_model_is_told(tmp_path):
    whitening = Whitening(np.zeros(3), np.eye(3))
    whitening.save(tmp_path / "w.npz")
    loaded = Whitening.load(tmp_path / "w.npz")
    np.testing.assert_array_equal(loaded(np.ones([2, 3])), np.ones([2, 3]))
    with pytest.raises(UserError, match="of 3 numbers.*this model's have 4"):
        loaded(np.ones([2, 4]))
    np.savez(tmp_path / "w.npz", mean=np.zeros(2), kernel=np.eye(3))
    with pytest.raises(UserError, match="not a whitening"):
        Whitening.load(tmp_path / "w.npz")


def test_labels_of_thousands_of_digits(tmp_path):
    """Python reads no number of 5,000 digits."""
    rows = "".join(f"甲{n}\t{'9' * 5_000}\n乙{n}\t0\n" for n in range(9))
    for name in ("classification", "regression"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.tsv").write_text(rows, "utf-8")
    recipe = finetune.read_recipe("classification", None, [])
    task = registry.from_recipe("classification", recipe)
    finetune.read_data(task, tmp_path / "classification", recipe, say=len)
    assert task.labels == ("0", "9" * 5_000)
    task = registry.from_recipe("regression", recipe)
    with pytest.raises(UserError, match="all scores are 0"):
        finetune.read_data(task, tmp_path / "regression", recipe, say=len)


def test_types_of_entities_have_an_end(tmp_path):
    """Each row was compared with every type: minutes for a small file."""
    rows = "".join(f"甲 B-{number}\n\n" for number in range(1_001))
    (tmp_path / "train.txt").write_text(rows, "utf-8")
    task = registry.create("ner")
    with pytest.raises(UserError, match="1,001 types of entities"):
        task.prepare(tmp_path, on_error="fail")


@pytest.mark.parametrize("start", [None, 1, 2, 5, 7, 9, 99])
def test_an_answer_is_found_near_its_place(start):
    """On the left where both are as far, and at no cost of its number."""
    context = "甲乙乙甲甲丙甲丙甲乙甲"
    report = reading.ReadingReport()
    places = [at for at, sign in enumerate(context) if sign == "甲"]
    expected = min(places, key=lambda at: abs(at - (start or 0)))
    assert question_files._locate("甲", start, context, report) == expected
    assert question_files._locate("丁", start, context, report) == -1
