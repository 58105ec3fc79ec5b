"""The tasks by name, with their label sets and file names."""

import difflib
from collections.abc import Sequence
from typing import Any

from albert_tf2.errors import UserError
from albert_tf2.tasks import base, text_rows
from albert_tf2.tasks.classification import Classification
from albert_tf2.tasks.multiple_choice import C3, ChID
from albert_tf2.tasks.own_files import OwnFiles
from albert_tf2.tasks.reading import SPLITS
from albert_tf2.tasks.reading_comprehension import ReadingComprehension
from albert_tf2.tasks.tagging import CLUENER_TYPES, Tagging

BINARY = ("0", "1")
# The order in CLUE's own baselines. Labels leave this package as text, never
# as indices: others number them otherwise.
NLI = ("contradiction", "entailment", "neutral")
# 105 and 111 do not exist.
TNEWS = tuple(str(n) for n in range(100, 117) if n not in (105, 111))
IFLYTEK = tuple(str(n) for n in range(119))

# CLUE 1.1 names its test files so, or numbers them; FewCLUE has others.
_TEST = ("test.json", "test1.1.json", "test1.0.json", "test_public.json")
_FEW = {
    "train": ("train.json", "train_few_all.json"),
    "dev": ("dev.json", "dev_few_all.json"),
    "test": _TEST,
}
_TEXT = {split: (f"{split}.txt", f"{split}.tsv") for split in SPLITS}
_CMNLI = {
    split: (f"{split}.json", f"cmnli_public/{split}.json") for split in SPLITS
}
_OCNLI = {
    "train": (
        *(f"train.{size}.json" for size in ("50k", "30k", "10k", "3k")),
        "train.json",
    )
}
_XNLI = {
    "train": (
        "XNLI-MT-1.0/multinli/multinli.train.zh.tsv",
        "multinli.train.zh.tsv",
        "train.tsv",
        "train.jsonl",
    ),
    **{
        split: (
            f"XNLI-1.0/xnli.{split}.tsv",
            f"xnli.{split}.tsv",
            f"xnli.{split}.jsonl",
            f"{split}.tsv",
            f"{split}.jsonl",
        )
        for split in ("dev", "test")
    },
}
_CMRC = {
    "train": ("train.json", "cmrc2018_train.json"),
    "dev": ("dev.json", "cmrc2018_dev.json"),
    "test": ("test.json", "cmrc2018_test_2k.json", "cmrc2018_test.json"),
}
_DRCD = {
    split: (f"{split}.json", f"DRCD_{name}.json")
    for split, name in zip(SPLITS, ("training", "dev", "test"), strict=True)
}
_C3 = {
    **{
        split: (
            (f"m-{split}.json", f"d-{split}.json"),
            (f"c3-m-{split}.json", f"c3-d-{split}.json"),
            f"{split}.json",
        )
        for split in ("train", "dev")
    },
    "test": ("test1.1.json", "test1.0.json", "test.json")
    + (("m-test.json", "d-test.json"),),
}
_CHID = {"test": ("test1.1.json", "test1.0.json", "test.json")}
_BIO = {
    split: tuple(f"{split}.{end}" for end in ("bio", "txt", "tsv", "conll"))
    for split in SPLITS
}

_pairs = text_rows.pair_row
_CLASSIFICATION: dict[str, dict[str, Any]] = {
    "lcqmc": dict(
        labels=BINARY,
        parse=text_rows.lcqmc_row,
        records=text_rows.lcqmc_records,
        files=_TEXT,
    ),
    "afqmc": dict(labels=BINARY, parse=_pairs),
    "tnews": dict(labels=TNEWS, files=_FEW),
    "iflytek": dict(labels=IFLYTEK),
    "cmnli": dict(labels=NLI, parse=_pairs, files=_CMNLI),
    "ocnli": dict(labels=NLI, parse=_pairs, files=_OCNLI),
    "xnli": dict(
        labels=NLI,
        parse=text_rows.xnli_row,
        records=text_rows.xnli_records,
        files=_XNLI,
    ),
    "wsc": dict(
        labels=("true", "false"),
        parse=text_rows.wsc_row,
        files={"test": ("test1.1.json", *_TEST)},
    ),
    "csl": dict(labels=BINARY, parse=text_rows.csl_row),
}
TASKS = (
    *_CLASSIFICATION,
    "cmrc2018",
    "drcd",
    "cluener",
    "bio",
    "c3",
    "chid",
    "csv",
)


def create(
    name: str, *, labels: Sequence[str] = (), columns: Sequence[str] = ()
) -> base.Task:
    """Returns a task by name.

    Args:
        name: One of `TASKS`.
        labels: For tasks whose labels or entity types the data tell: takes
            these instead.
        columns: For `csv` (see `own_files.OwnFiles`).
    """
    if name in _CLASSIFICATION:
        settings = dict(_CLASSIFICATION[name])
        if labels:
            settings["labels"] = labels
        return Classification(name, **settings)
    if name == "csv":
        return OwnFiles(labels=labels, columns=columns)
    if name == "cmrc2018":
        return ReadingComprehension(name, files=_CMRC)
    if name == "drcd":
        return ReadingComprehension(name, files=_DRCD)
    if name == "cluener":
        return Tagging(name, types=CLUENER_TYPES)
    if name == "bio":
        return Tagging(name, types=labels, files=_BIO)
    if name == "c3":
        return C3(name, files=_C3)
    if name == "chid":
        return ChID(name, files=_CHID)
    near = difflib.get_close_matches(name, TASKS, n=1)
    hint = f" did you mean `{near[0]}`?" if near else ""
    raise UserError(
        f"no task is named `{name}`;{hint} known tasks: {', '.join(TASKS)}"
    )


def from_description(description: dict[str, Any]) -> base.Task:
    """Makes a task again from `Task.describe`, as `task.json` holds it."""
    task = create(
        description["task"],
        labels=description.get("types") or description["labels"],
        columns=description.get("columns", ()),
    )
    if isinstance(task, Classification):
        task.pairs = description.get("pairs")
    return task
