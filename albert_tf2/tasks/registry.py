"""The tasks by name, with their label sets and file names.

A task of one's own is a class and an entry:

    class Poems(Classification):
        def __init__(self, name, given):
            super().__init__(name, reader=KnownLayout(...), labels=POETS)

    registry.register("poems", Poems)

and from then on `--task poems` is one like the others, in the program that
registered it. A package that declares it as an entry point has it in every
command:

    [project.entry-points."albert_tf2.tasks"]
    poems = "my_package:Poems"
"""

import dataclasses
import difflib
import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any

from albert_tf2.errors import UserError
from albert_tf2.tasks import base, file_names, reading, text_rows
from albert_tf2.tasks.classification import Classification
from albert_tf2.tasks.multi_label import MultiLabel
from albert_tf2.tasks.multiple_choice import C3, ChID
from albert_tf2.tasks.reading_comprehension import ReadingComprehension
from albert_tf2.tasks.regression import Regression
from albert_tf2.tasks.sentence_vectors import SentenceVectors
from albert_tf2.tasks.tagging import CLUENER_TYPES, Tagging
from albert_tf2.tasks.text_task import KnownLayout

Maker = Callable[[str, base.Given], base.Task]
ENTRY_POINTS = "albert_tf2.tasks"

BINARY = ("0", "1")
# The order in CLUE's own baselines. Labels leave this package as text, never
# as indices: others number them otherwise.
NLI = ("contradiction", "entailment", "neutral")
# 105 and 111 do not exist.
TNEWS = tuple(str(n) for n in range(100, 117) if n not in (105, 111))
IFLYTEK = tuple(str(n) for n in range(119))


def _classes(parse=None, walk=reading.json_lines, **settings) -> Maker:
    """Returns what makes a published task of one label per text or pair."""

    def make(name: str, given: base.Given) -> base.Task:
        named = {"labels": given.labels} if given.labels else {}
        reader = KnownLayout(parse or text_rows.sentence_row, walk)
        return Classification(name, reader=reader, **{**settings, **named})

    return make


def _tagging(**settings) -> Maker:
    return lambda name, given: Tagging(
        name, **{"types": given.labels, **settings}
    )


def _fixed(task_class, **settings) -> Maker:
    return lambda name, given: task_class(name, **settings)


_pair = text_rows.pair_row
_table = (text_rows.table_row, text_rows.pair_records)
_MAKERS: dict[str, Maker] = {
    "lcqmc": _classes(*_table, labels=BINARY, files=file_names.PAIRS),
    "bq": _classes(*_table, labels=BINARY, files=file_names.PAIRS),
    "atec": _classes(*_table, labels=BINARY, files=file_names.ATEC),
    "pawsx": _classes(*_table, labels=BINARY, files=file_names.PAWSX),
    "chnsenticorp": _classes(
        text_rows.table_row,
        text_rows.review_records,
        labels=BINARY,
        files=file_names.SENTIMENT,
    ),
    "afqmc": _classes(_pair, labels=BINARY, files=file_names.CLUE),
    "tnews": _classes(labels=TNEWS, files=file_names.CLUE),
    "iflytek": _classes(labels=IFLYTEK, files=file_names.CLUE),
    "cmnli": _classes(_pair, labels=NLI, files=file_names.CMNLI),
    "ocnli": _classes(_pair, labels=NLI, files=file_names.OCNLI),
    "xnli": _classes(
        text_rows.xnli_row,
        text_rows.xnli_records,
        labels=NLI,
        files=file_names.XNLI,
    ),
    "wsc": _classes(
        text_rows.wsc_row, labels=("true", "false"), files=file_names.CLUE
    ),
    "csl": _classes(text_rows.csl_row, labels=BINARY, files=file_names.CLUE),
    "cmrc2018": _fixed(ReadingComprehension, files=file_names.CMRC),
    "drcd": _fixed(ReadingComprehension, files=file_names.DRCD),
    "cluener": _fixed(Tagging, types=CLUENER_TYPES, files=file_names.CLUE),
    "msra": _tagging(files=file_names.MSRA),
    "weibo": _tagging(files=file_names.WEIBO),
    "resume": _tagging(files=file_names.RESUME),
    "peoples_daily": _tagging(files=file_names.PEOPLES_DAILY),
    "c3": _fixed(C3, files=file_names.C3),
    "chid": _fixed(ChID, files=file_names.CHID),
    # The user's own files.
    "classification": Classification.of_own_files,
    "multi_label": MultiLabel.of_own_files,
    "regression": Regression.of_own_files,
    "sentence_vectors": SentenceVectors.of_own_files,
    "ner": _tagging(files=file_names.NAMES),
    "qa": _fixed(
        ReadingComprehension,
        files=file_names.QUESTIONS,
        may_be_unanswerable=True,
    ),
}
# Earlier names.
ALIASES = {"csv": "classification", "bio": "ner"}
# Tasks that train by another one's recipe.
_RECIPES = {
    "bq": "lcqmc",
    "atec": "lcqmc",
    "pawsx": "lcqmc",
    "chnsenticorp": "classification",
    "msra": "ner",
    "weibo": "ner",
    "resume": "ner",
    "peoples_daily": "ner",
    "multi_label": "classification",
    "regression": "classification",
    "qa": "cmrc2018",
}
TASKS = tuple(_MAKERS)


def register(name: str, make: Maker) -> None:
    """Adds a task of one's own (see the module).

    Args:
        name: As `--task` spells it.
        make: Takes the name and what the recipe says of the files, returns
            the task: a class with such an `__init__`, or a function.
    """
    if not name.isidentifier():
        raise UserError(
            f"a task's name must be letters, digits and _. Received: {name!r}"
        )
    if _MAKERS.get(name, make) is not make or name in ALIASES:
        raise UserError(f"there is a task `{name}` already: choose another")
    _MAKERS[name] = make


def recipe_name(name: str) -> str:
    """Returns whose recipe among configs/ a task trains by."""
    name = ALIASES.get(name, name)
    return _RECIPES.get(name, name)


def create(
    name: str,
    *,
    labels: Sequence[str] = (),
    columns: Sequence[str] = (),
    delimiter: str | None = None,
    label_separator: str | None = None,
    pooling: str = "mean",
    vector_loss: str | None = None,
) -> base.Task:
    """Returns a task by name.

    Args:
        name: One of `TASKS`, or one that was registered.
        labels: For tasks whose labels or entity types the data tell: takes
            these instead.
        columns: For the user's own tables (see `columns.py`).
        delimiter: Between the cells of such a table; None finds it.
        label_separator: Between several labels in a cell; None finds it.
        pooling: Of sentence vectors (see `settings.POOLINGS`).
        vector_loss: How they are learned; None decides by the files.
    """
    name = ALIASES.get(name, name)
    given = base.Given(
        labels=tuple(map(str, labels)),
        columns=tuple(columns),
        delimiter=delimiter,
        label_separator=label_separator,
        pooling=pooling,
        vector_loss=vector_loss,
    )
    return _maker(name)(name, given)


def from_recipe(name: str, recipe: Any) -> base.Task:
    """Returns a task by name, with what a recipe says of its files."""
    given = {
        f.name: getattr(recipe, f.name) for f in dataclasses.fields(base.Given)
    }
    return create(name, **given)


def _maker(name: str) -> Maker:
    if name not in _MAKERS:
        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
            if entry.name == name:
                register(name, entry.load())
    if name in _MAKERS:
        return _MAKERS[name]
    known = [*_MAKERS, *ALIASES]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" did you mean `{near[0]}`?" if near else ""
    raise UserError(
        f"no task is named `{name}`;{hint} known tasks: {', '.join(_MAKERS)}"
    )


def from_description(description: dict[str, Any]) -> base.Task:
    """Makes a task again from `Task.describe`, as `task.json` holds it."""
    task = create(base.taken(description, "task", str))
    task.restore(description)
    return task
