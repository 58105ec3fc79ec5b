"""Where the file for LiteRT comes from: named, or made once and kept.

    model.tflite, or a folder of `export --what litert`     taken as it is
    any other source                                        converted once:

    $ALBERT_TF2_CACHE/litert/<content>/litert/1/model_fp32.tflite
                                                model_dynamic_int8.tflite

<content> is a hash of the weights and all that decides answers, so that the
same model is converted once wherever it lies, and another one never taken for
it. Finding it again needs no TensorFlow. Converting does: `export --what
litert` runs in a process of its own, whose memory and TensorFlow end with it.
"""

import hashlib
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from albert_tf2 import __version__, paths
from albert_tf2.checkpoints import HUB_ENCODER, download, locate, repositories
from albert_tf2.checkpoints.fingerprint import fingerprint
from albert_tf2.errors import UserError, require
from albert_tf2.prediction import litert_file
from albert_tf2.prediction.tuned_model import tuned_folder
from albert_tf2.tasks.base import TASK_FILE
from albert_tf2.text.text_settings import SETTINGS_FILE

if TYPE_CHECKING:
    from albert_tf2.prediction.litert import LiteTuned, Loaded

# By engine: the precision in the files' names.
PRECISIONS = {"litert": "fp32", "litert-int8": "dynamic_int8"}
# Beside the weights, what tells how texts are read and answers made.
SMALL_FILES = (SETTINGS_FILE, TASK_FILE, "tokenizer_config.json")
# Where an export of version 1 puts the part.
PLACE = ("litert", "1")


def check_engine(engine: str, source: paths.PathLike) -> None:
    """Raises a `UserError` unless an engine is there, and takes a source.

    Args:
        engine: One of `settings.ENGINES`.
        source: The model.
    """
    if engine in PRECISIONS:
        require(f"the engine {engine}", ["ai_edge_litert"], "litert")
    elif is_file(source):
        raise UserError(
            f"{source} is a file for LiteRT: say --engine litert, or "
            "litert-int8 for one of eight bits"
        )


def is_file(source: paths.PathLike) -> bool:
    """Whether a source is a file for LiteRT, by its name."""
    return str(source).endswith(litert_file.ENDING)


def load(
    source: paths.PathLike, engine: str, vocab_file: paths.PathLike | None
) -> "tuple[Loaded, LiteTuned | None]":
    """Opens a model with LiteRT; makes the file first where there is none.

    Args:
        source: What `Predictor` takes.
        engine: Of `PRECISIONS`.
        vocab_file: The vocabulary, where none lies beside the weights.

    Returns:
        The opened file, and what it was fine-tuned for.
    """
    from albert_tf2.prediction import litert

    name = litert_file.file_name(PRECISIONS[engine])
    if is_file(source):
        found = litert_file.read(source)
        if found.precision != PRECISIONS[engine]:
            fit = [k for k, v in PRECISIONS.items() if v == found.precision]
            raise UserError(
                f"{source} is of {found.precision}: say --engine "
                f"{' or '.join(fit or PRECISIONS)}"
            )
        return litert.load(source)
    here = repositories.here(source)
    if not download.is_url(here) and paths.is_file(paths.join(here, name)):
        return litert.load(paths.join(here, name))
    folder = paths.cache_folder() / "litert" / content_of(source, vocab_file)
    path = folder.joinpath(*PLACE, name)
    if path.exists():
        try:
            return litert.load(path)
        except UserError as error:
            print(f"{error}: it is made anew", file=sys.stderr)
    with download.locked(folder, "conversion"):
        try:  # somebody else may have made it meanwhile
            return litert.load(path)
        except UserError:
            _convert(source, vocab_file, folder)
    return litert.load(path)


def content_of(
    source: paths.PathLike, vocab_file: paths.PathLike | None
) -> str:
    """Returns a hash of all that decides what a model answers.

    Raises:
        UserError: If the source is missing, or a SavedModel.
    """
    tuned = tuned_folder(source)
    here = download.local_path(tuned or source)
    location = locate.locate(here)
    if location.kind == "hub" or (location.folder / HUB_ENCODER).is_dir():
        raise UserError(
            f"{source} holds a SavedModel, whose graph is not this project's "
            "to change: name the checkpoint that it was exported from, or "
            "leave --engine out"
        )
    parts: list[Path | None] = [location.vocab_file]
    parts += [location.folder / name for name in SMALL_FILES]
    if location.weights.name.endswith(locate.INDEX_ENDING):
        # The weights lie in files that this one names.
        shards = paths.read_json(location.weights, dict)["weight_map"]
        parts += [location.folder / name for name in sorted({*shards.values()})]
    if vocab_file is not None and tuned is None:
        named = paths.fetched(vocab_file)
        parts += [Path(named), Path(named).with_name(SETTINGS_FILE)]
    digest = hashlib.sha256(f"{litert_file.FORM} {__version__}".encode())
    digest.update(fingerprint(here)[1].encode())
    for part in parts:
        found = b"-"
        if part is not None and part.is_file():
            found = paths.sha256(part).encode()
        digest.update(found)
    return digest.hexdigest()[:32]


def _convert(
    source: paths.PathLike, vocab_file: paths.PathLike | None, folder: Path
) -> None:
    """Lets a process with TensorFlow export a model into the cache."""
    if not util.find_spec("tensorflow"):
        raise UserError(
            f"{source} was not converted for LiteRT here, which needs "
            "TensorFlow: where that is, run python -m albert_tf2.hub_export"
            ".export --what litert, and name the file that it writes"
        )
    print(
        f"converting {source} for LiteRT, once, with TensorFlow; kept in "
        f"{folder}",
        file=sys.stderr,
    )
    command = [sys.executable, "-m", "albert_tf2.hub_export.export"]
    command += ["--checkpoint", str(source), "--export_dir", str(folder)]
    command += ["--what", PLACE[0], "--version", PLACE[1], "--overwrite"]
    if vocab_file is not None and tuned_folder(source) is None:
        command += ["--vocab_file", str(vocab_file)]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason was told"])[
            -1
        ]
        raise UserError(
            f"{source} could not be converted for LiteRT: "
            f"{reason.removeprefix('error: ')}"
        )
