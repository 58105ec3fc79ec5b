"""Damaged and hostile task files: rows or one sentence, never a traceback."""

import json
import random

import pytest
import task_samples as samples

from albert_tf2.errors import UserError
from albert_tf2.tasks import base, registry
from albert_tf2.tasks.reading import ReadingReport
from albert_tf2.text.tokenization import Tokenizer

WRITERS = {
    "lcqmc": samples.write_lcqmc,
    "cluener": samples.write_cluener,
    "cmrc2018": samples.write_cmrc,
    "c3": samples.write_c3,
    "chid": samples.write_chid,
    "multi_label": samples.write_reviews,
    "regression": samples.write_scores,
    "ner": samples.write_spans,
    "qa": samples.write_own_questions,
    "sentence_vectors": samples.write_lcqmc,
}
VALUES = [
    *(None, True, 0, -1, 1.5, "", [], {}, [None], [[1]], "文", {"text": [1]}),
    *("9" * 5000, float("nan"), [["a"]], {"answer_start": -5}),
]
SIGNS = [
    *('"', "\t", ",", "\n", "\0", "[", "{", "]", "}", "\r", "\u2028", "||"),
    *("\n\n", "label", "文", "9", '{"id": ', "\ud800"),
]


def changed(value, rng):
    """Puts a strange value somewhere into a JSON value."""
    if not isinstance(value, list | dict) or not value or rng.random() < 0.2:
        return rng.choice(VALUES)
    value = value.copy()
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = rng.choice(keys)
    if rng.random() < 0.2:
        del value[key]
    else:
        value[key] = changed(value[key], rng)
    return value


def damaged(data, rng):
    text = data.decode()
    if rng.random() < 0.5:
        try:
            return json.dumps(changed(json.loads(text), rng)).encode()
        except ValueError:
            lines = text.splitlines()
            place = rng.randrange(len(lines))
            if lines[place].startswith("{"):
                value = changed(json.loads(lines[place]), rng)
                lines[place] = json.dumps(value)
                return "\n".join(lines).encode()
    letters = list(text)
    for _ in range(rng.choice([1, 2, 9])):
        place = rng.randrange(len(letters) + 1)
        if rng.random() < 0.4:
            del letters[place : place + rng.choice([1, 5, 40])]
        else:
            letters[place:place] = rng.choice(SIGNS)
    return "".join(letters).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_files(tmp_path, name):
    rng = random.Random(name)
    tokenizer = Tokenizer(samples.write_vocab(tmp_path))
    folder = tmp_path / "data"
    folder.mkdir()
    WRITERS[name](folder)
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    lengths = base.Lengths(max_seq_length=40, max_query_length=8)
    read = 0
    for _ in range(60):
        for path, data in whole.items():
            hit = rng.random() < 2 / len(whole)
            path.write_bytes(damaged(data, rng) if hit else data)
        on_error = rng.choice(["fail", "skip"])
        try:
            task = registry.create(name)
            task.prepare(folder, on_error=on_error)
            rows = {}
            for split in ("train", "dev", "test"):
                report = ReadingReport()
                rows[split] = task.read(
                    folder, split, on_error=on_error, report=report
                )
                task.encode(rows[split], tokenizer, lengths)
                assert all("\n" not in line for line in report.lines())
            task.overview(**rows)
            read += 1
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
            assert str(folder) in str(error), error
    assert read
