"""CLUE submissions: files in the form that the leaderboard reads, checked.

Each of these once cost somebody a score of 0: class indices for TNEWS in
place of "100".."116", `ocnli_predict.json` for `ocnli_50k_predict.json`, a
row short, ids that begin anew in each batch.
"""

import datetime
import json
import re
import zipfile
from collections.abc import Sequence
from typing import Any

from albert_tf2 import paths
from albert_tf2.errors import UserError, check_choice
from albert_tf2.tasks import base, registry
from albert_tf2.tasks import reading as reading

VERSIONS = ("1.1", "1.0")
# Tasks whose test set differs between the two versions have it in the name.
_STEMS = {
    "tnews": "tnews{v}",
    "wsc": "cluewsc{v}",
    "c3": "c3{v}",
    "chid": "chid{v}",
    "ocnli": "ocnli_50k",
}
SUBMITTED = (
    "afqmc",
    "tnews",
    "iflytek",
    "cmnli",
    "ocnli",
    "wsc",
    "csl",
    "cmrc2018",
    "c3",
    "chid",
    "cluener",
)
# Rows of the official test files, by task and version.
TEST_ROWS = {
    "afqmc": {"1.1": 3861, "1.0": 3861},
    "tnews": {"1.1": 10000, "1.0": 10000},
    "iflytek": {"1.1": 2600, "1.0": 2600},
    "cmnli": {"1.1": 13880, "1.0": 13880},
    "ocnli": {"1.1": 3000, "1.0": 3000},
    "wsc": {"1.1": 2574, "1.0": 290},
    "csl": {"1.1": 3000, "1.0": 3000},
    "cluener": {"1.1": 1345, "1.0": 1345},
}


def file_name(task: str, version: str = "1.1") -> str:
    """Returns the name that the leaderboard expects.

    >>> file_name("tnews"), file_name("wsc", "1.0"), file_name("ocnli")
    ('tnews11_predict.json', 'cluewsc10_predict.json', 'ocnli_50k_predict.json')
    """
    if task not in SUBMITTED:
        raise UserError(
            f"CLUE has no task `{task}` to submit; it has "
            f"{', '.join(SUBMITTED)}"
        )
    stem = _STEMS.get(task, task).format(v=version.replace(".", ""))
    return f"{stem}_predict.json"


def read_test_rows(
    task_name: str, data_dir: paths.PathLike, version: str
) -> tuple[base.Task, list[Any]]:
    """Reads the test rows that a submission answers, none dropped."""
    task = registry.create(task_name)
    # tnews and iflytek take their labels from here; the leaderboard's are
    # the official ones, whatever the folder holds.
    official = task.labels
    task.prepare(data_dir, on_error="skip")
    if official and task.labels != official:
        raise UserError(
            f"{data_dir}/labels.json is not the label set that CLUE scores "
            f"{task_name} by: the submission would score 0"
        )
    # What `finetune` finds, but for the other version's.
    (other,) = set(VERSIONS) - {version}
    names = [n for n in task.files["test"] if n != f"test{other}.json"]
    names.sort(key=lambda name: name != f"test{version}.json")
    task.files["test"] = tuple(names)
    return task, task.read(data_dir, reading.TEST, on_error="skip")


def read_predictions(path: paths.PathLike) -> list[dict[str, Any]]:
    """Reads what `finetune` wrote as `predictions/test.jsonl`."""
    return reading.parse_rows(
        reading.json_lines(path),
        reading.json_object,
        on_error="fail",
        report=reading.ReadingReport(),
    )


def check(
    task: base.Task,
    rows: Sequence[Any],
    predictions: Sequence[dict[str, Any]],
    *,
    version: str = "1.1",
    any_size: bool = False,
) -> None:
    """Refuses predictions that would score 0 (or less than they could).

    Args:
        task: The task.
        rows: The rows of its test file.
        predictions: One per row, in the same order.
        version: Of CLUE.
        any_size: Accept another number of rows than the official test file.

    Raises:
        UserError: Saying what is wrong, and in which row.
    """
    official = TEST_ROWS.get(task.name, {}).get(version)
    if official and len(rows) != official and not any_size:
        raise UserError(
            f"{task.name}: the official test file of CLUE {version} has "
            f"{official} rows, this one {len(rows)}; is it another version's?"
        )
    if len(predictions) != len(rows):
        raise UserError(
            f"{task.name}: {len(predictions)} predictions for {len(rows)} "
            "test rows: a file with another number of rows scores 0"
        )
    for number, (row, prediction) in enumerate(
        zip(rows, predictions, strict=True), 1
    ):
        place = f"{task.name}, prediction {number}"
        if prediction.get("id") != row.row_id:
            raise UserError(
                f"{place}: has id {prediction.get('id')!r}, and the test row "
                f"{row.row_id!r}: the order must be that of the test file"
            )
        fault = _fault(task, row, prediction)
        if fault:
            raise UserError(f"{place} (id {row.row_id}): {fault}")
    if task.name == "chid":
        _check_distinct(rows, predictions)


def _fault(task, row, prediction) -> str | None:
    """Returns what is wrong with one prediction, or None."""
    if task.kind == base.CLASSIFICATION:
        label = prediction.get("label")
        if label not in task.labels:
            return (
                f"label {label!r} is not one of {', '.join(task.labels[:20])}"
                ": labels are strings, never class indices"
            )
    elif task.kind == base.CHOICE:
        label = prediction.get("label")
        if isinstance(label, bool) or label not in range(len(row.choices)):
            return f"choice {label!r} is not in 0..{len(row.choices) - 1}"
    elif task.kind == base.SPAN:
        answer = prediction.get("answer")
        if not isinstance(answer, str) or not answer.strip():
            return "the answer is empty"
        if answer not in row.context:
            return f"the answer {answer!r} does not stand in the text"
    else:
        for entity in prediction.get("entities", ()):
            start, end = entity["start"], entity["end"]
            if entity["type"] not in task.types:
                return f"entity type {entity['type']!r} is unknown"
            if row.text[start:end] != entity["text"] or start >= end:
                return f"{entity['text']!r} does not stand at {start}:{end}"
    return None


def _check_distinct(rows, predictions) -> None:
    taken: dict[tuple[int, int], str] = {}
    for row, prediction in zip(rows, predictions, strict=True):
        key = (row.group, prediction["label"])
        if key in taken:
            raise UserError(
                f"chid: blanks {taken[key]} and {row.row_id} of one row chose "
                f"the same idiom {prediction['label']}"
            )
        taken[key] = str(row.row_id)


def content(
    task: base.Task, rows: Sequence[Any], predictions: Sequence[dict]
) -> str:
    """Returns the text of a submission file."""
    if task.kind == base.SPAN:
        return _json({p["id"]: p["answer"] for p in predictions}) + "\n"
    if task.name == "chid":
        return _json({p["id"]: p["label"] for p in predictions}) + "\n"
    if task.kind == base.TAGGING:
        lines = [
            {"id": row.row_id, "text": row.text, "label": _cluener_label(p)}
            for row, p in zip(rows, predictions, strict=True)
        ]
    else:
        lines = [{"id": p["id"], "label": p["label"]} for p in predictions]
    return "".join(_json(line) + "\n" for line in lines)


def _cluener_label(prediction: dict[str, Any]) -> dict[str, Any]:
    label: dict[str, dict[str, list[list[int]]]] = {}
    for entity in prediction["entities"]:
        surfaces = label.setdefault(entity["type"], {})
        # CLUENER counts the last character in.
        surfaces.setdefault(entity["text"], []).append(
            [entity["start"], entity["end"] - 1]
        )
    return label


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def write_submission(
    tasks: dict[str, tuple[paths.PathLike, paths.PathLike]],
    output_dir: paths.PathLike,
    *,
    team: str,
    version: str = "1.1",
    date: datetime.date | None = None,
    any_size: bool = False,
) -> str:
    """Checks predictions and writes the files and the zip.

    Args:
        tasks: By task name: predictions (`test.jsonl`) and data folder.
        output_dir: Created whole, or not at all.
        team: Part of the zip's name: letters, digits, - and _.
        version: Of CLUE.
        date: Part of the zip's name; None takes today.
        any_size: See `check`.

    Returns:
        The path of the zip.
    """
    check_choice("version", version, VERSIONS)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", team):
        raise UserError(
            f"the team's name must be letters, digits, - and _. Got: {team!r}"
        )
    texts = {}
    for name, (predictions_file, data_dir) in tasks.items():
        target = file_name(name, version)
        task, rows = read_test_rows(name, data_dir, version)
        predictions = read_predictions(predictions_file)
        check(task, rows, predictions, version=version, any_size=any_size)
        texts[target] = content(task, rows, predictions)
    day = (date or datetime.date.today()).strftime("%Y%m%d")
    zip_name = f"submit_{team}_{day}.zip"
    with paths.atomic_directory(output_dir) as folder:
        with zipfile.ZipFile(
            folder / zip_name, "w", zipfile.ZIP_DEFLATED
        ) as archive:
            for name, text in texts.items():
                (folder / name).write_text(text, "utf-8", newline="\n")
                archive.writestr(name, text)
    return paths.join(output_dir, zip_name)
