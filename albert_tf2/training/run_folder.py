"""A run's folder: what it says of the run, and who owns it.

    recipe.json   how the run was asked for last; `--config` reads it again
    run.json      what it is (see `identity`)

A start compares what it is asked for with what lies there before anything is
written.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import albert_tf2
from albert_tf2 import paths, settings
from albert_tf2.errors import UserError, shown
from albert_tf2.text import vocabulary_change
from albert_tf2.text.tokenization import VOCAB_FILE, Vocabulary
from albert_tf2.training import identity
from albert_tf2.training.identity import Change, Identity

RECIPE_FILE, RUN_FILE, RESULTS_FILE = "recipe.json", "run.json", "results.json"
CONFIG_FILE = "albert_config.json"
# How a sentence calls a folder of each kind, and what to do with it.
KINDS = {
    identity.PRETRAINING: "a pre-training run (`pretrain --evaluate` and "
    "`plot` read it, `finetune --init_checkpoint` starts from it)",
    identity.FINETUNING: "a fine-tuning run (its figures are in "
    f"{RESULTS_FILE}, `plot` draws it, `predict --model` reads its model/)",
    identity.SEVERAL_SEEDS: "fine-tuning runs of several seeds (each in its "
    "seed-N/, the best model in model/)",
    identity.SWEEP: "a sweep of fine-tuning runs (each in its own folder, all "
    "of them in sweep.json, the best model in model/)",
}


@contextlib.contextmanager
def owned(
    workdir: paths.PathLike, *, worker: int = 0
) -> Iterator[paths.Lock | None]:
    """Owns a run's folder for the time of the block.

    Args:
        workdir: The run's folder, which is created.
        worker: The first worker owns the folder for all of a cluster.

    Yields:
        The lock, for `Loop.run`; None on the other workers.

    Raises:
        UserError: If another run owns it, or it is no folder.
    """
    paths.for_tensorflow(workdir)
    if paths.is_file(workdir):
        raise UserError(
            f"--workdir {workdir} is a file: name a folder for the run"
        )
    if worker:
        yield None
        return
    is_new = not paths.exists(workdir)
    try:
        with paths.lock(workdir, "run") as lock:
            yield lock
    except BaseException:
        # A first command that failed its checks leaves nothing behind.
        if is_new and not paths.names(workdir):
            paths.remove_folder(workdir)
        raise


def read(workdir: paths.PathLike) -> dict[str, Any] | None:
    """Returns what run.json holds; None where there is none."""
    path = paths.join(workdir, RUN_FILE)
    if not paths.exists(path):
        return None
    found = paths.read_json(path, dict)
    kind = found.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(
            f"{path}: `kind` must be one of {', '.join(KINDS)}. Received: "
            f"{shown(kind)}; was it written by a newer version?"
        )
    for section in identity.SECTIONS:
        if not isinstance(found.get(section), dict | None):
            raise UserError(
                f"{path}: `{section}` must hold an object. Received: "
                f"{shown(found[section])}; put the file back, or choose "
                "another --workdir"
            )
    return found


def expect(workdir: paths.PathLike, *kinds: str) -> str:
    """Returns which of some kinds of run a folder holds.

    The first one where nothing is written of it.

    Raises:
        UserError: Saying what it holds, if none of them.
    """
    if not paths.is_dir(workdir):
        raise UserError(f"{workdir} is not a folder: check the path")
    found = read(workdir)
    if found is None:
        return kinds[0]
    if found["kind"] not in kinds:
        raise UserError(
            f"{workdir} holds {KINDS[found['kind']]}, not a "
            f"{' or '.join(kinds)} run"
        )
    return found["kind"]


def read_recipe(workdir: paths.PathLike, kind: str) -> Any:
    """Returns the recipe that a run was last started with."""
    path = paths.join(workdir, RECIPE_FILE)
    if not paths.exists(path):
        raise UserError(
            f"{workdir} holds no {kind} run: it has no {RECIPE_FILE}"
        )
    try:
        return settings.create(
            identity.RECIPES[kind],
            paths.read_json(path, dict),
            paths.shown(path),
        )
    except UserError as error:
        version = (read(workdir) or {}).get("version", "unknown")
        if version == albert_tf2.__version__:
            raise
        raise UserError(
            f"{error} (the run was started by version {version} of the "
            f"program, this is {albert_tf2.__version__})"
        ) from None


def check(
    workdir: paths.PathLike, now: Identity, *, finished: bool = False
) -> list[Change]:
    """Refuses what a run cannot become; writes nothing.

    Args:
        workdir: The run's folder. One without checkpoints and results has
            nothing to go on from, and may become any run of its kind.
        now: What is asked for.
        finished: Its results will be given as they are: what could have
            changed them is refused, too.

    Returns:
        The changes that are taken; `Change.note` tells them.

    Raises:
        UserError: Naming the field, both values and the remedy.
    """
    before = read(workdir)
    if before is not None and before["kind"] != now.kind:
        raise UserError(
            f"{workdir} holds {KINDS[before['kind']]}, not a {now.kind} run: "
            "choose another --workdir"
        )
    if before is None and finished:
        raise UserError(
            f"{workdir} has results and no {RUN_FILE}: nothing tells what they "
            "are results of; choose another --workdir"
        )
    if before is None or not has_state(workdir):
        return []
    refused = {identity.REFUSED, *([identity.TOLD] if finished else [])}
    found = identity.changes(before, read_recipe(workdir, now.kind), now)
    wrong = [change for change in found if change.rule.verdict in refused]
    if wrong:
        raise _refusal(workdir, wrong, now)
    return found


def _refusal(
    workdir: paths.PathLike, wrong: list[Change], now: Identity
) -> UserError:
    first, *others = wrong
    reason = first.rule.reason or "it is finished"
    if first.name == "vocabulary":
        reason = _first_other_id(workdir, now.vocabulary) or reason
    also = ""
    if others:
        names = ", ".join(f"`{change.name}`" for change in others)
        also = f" ({names} changed, too)"
    remedy = "choose another --workdir"
    if now.kind == identity.PRETRAINING:
        remedy += f" (--init_checkpoint {workdir} starts from its weights)"
    return UserError(
        f"{workdir} holds a run with another {first}: {reason}{also}; {remedy}"
    )


def check_vocabulary(
    workdir: paths.PathLike, vocabulary: Vocabulary | None
) -> None:
    """Refuses data whose ids are not those of the run in a folder."""
    other = _first_other_id(workdir, vocabulary)
    if other:
        raise UserError(
            f"{workdir} holds a run with another vocabulary: {other}; use "
            "records of the run's vocabulary"
        )


def _first_other_id(
    workdir: paths.PathLike, now: Vocabulary | None
) -> str | None:
    """Says where two vocabularies part, if the run's still lies there."""
    for folder in (workdir, paths.join(workdir, "model")):
        path = paths.join(folder, VOCAB_FILE)
        if now is not None and paths.exists(path):
            before = Vocabulary.load(path)
            token_id = vocabulary_change.first_difference(before, now)
            if token_id is not None:
                return vocabulary_change.sentence(
                    token_id,
                    before,
                    now,
                    where_before="the run so far",
                    where_now="the data",
                )
    return None


def has_state(workdir: paths.PathLike) -> bool:
    """Whether a folder holds something to go on from."""
    return any(
        paths.find(paths.join(workdir, *pattern))
        for pattern in (
            ("checkpoints", "*.index"),
            (RESULTS_FILE,),
            ("seed-*", RESULTS_FILE),
        )
    )


def describe(
    workdir: paths.PathLike,
    now: Identity,
    changes: Sequence[Change] = (),
    *,
    say: Callable[[str], None] = print,
) -> None:
    """Writes what a run is, and tells what changed.

    Args:
        workdir: The run's folder.
        now: What it is.
        changes: What `check` returned.
        say: Receives a sentence for each.
    """
    values = now.to_dict()
    before = read(workdir) if has_state(workdir) else None
    if before is None and has_state(workdir):
        say(
            f"note: {workdir} has checkpoints and no {RUN_FILE}: what they "
            "were trained on cannot be compared"
        )
    for change in changes:
        say(change.note())
    start = values["init_checkpoint"]
    if before is not None and (start is None or start["sha256"] is None):
        values["init_checkpoint"] = before.get("init_checkpoint")
    paths.write_json(
        paths.join(workdir, RECIPE_FILE), dataclasses.asdict(now.recipe)
    )
    # Last, for it says that the rest is there.
    paths.write_json(paths.join(workdir, RUN_FILE), values)
