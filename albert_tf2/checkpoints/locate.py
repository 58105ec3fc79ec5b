"""What a folder holds: which kind of checkpoint, its config, its vocabulary."""

import re
from pathlib import Path
from typing import NamedTuple

from albert_tf2 import paths
from albert_tf2.errors import UserError

SAFETENSORS = "model.safetensors"
TORCH_BINARY = "pytorch_model.bin"
# Of the file that says in which part of a sharded model a tensor is.
INDEX_ENDING = ".index.json"
# Files of tensors that may be named themselves.
TENSOR_FILES = (".safetensors", ".bin", ".pt", ".pth", INDEX_ENDING)
SAVED_MODEL = "saved_model.pb"


class Location(NamedTuple):
    """Where the parts of a checkpoint are.

    `kind` is "bundle" (TensorFlow 1 or 2: its index says which),
    "huggingface" or "hub"; `weights` a checkpoint's prefix or a weights file.
    """

    kind: str
    folder: Path
    weights: Path
    config_file: Path | None
    vocab_file: Path | None


def locate(source: paths.PathLike) -> Location:
    """Finds the checkpoint in a folder, or around a checkpoint's prefix.

    Args:
        source: A folder; or a prefix such as `folder/model.ckpt-2000`, also
            spelled with `.index`, `.meta` or `.data-00000-of-00001`.
    """
    source = Path(source)
    if not source.is_dir():
        return _at_prefix(source)
    folder = _latest_version(_innermost(source))
    if (folder / SAVED_MODEL).is_file():
        prefix = folder / "variables" / "variables"
        assets = folder / "assets"
        return Location(
            "hub",
            folder,
            prefix,
            _config(folder, assets),
            _vocab(folder, assets),
        )
    for name in (SAFETENSORS, TORCH_BINARY):
        for candidate in (folder / name, folder / f"{name}{INDEX_ENDING}"):
            if candidate.is_file():
                return _tensors(candidate)
    for place in (folder, folder / "checkpoints"):
        newest = _latest(place)
        if newest is not None:
            return Location(
                "bundle", folder, newest, _config(folder), _vocab(folder)
            )
    raise UserError(
        f"{source} holds no checkpoint: looked for *.index (TensorFlow), "
        f"{SAFETENSORS}, {TORCH_BINARY} (Hugging Face) and {SAVED_MODEL} "
        "(hub export)"
    )


def _tensors(path: Path) -> Location:
    """Returns where a file of tensors is, and what lies beside it."""
    folder = path.parent
    config_file = folder / "config.json"
    return Location(
        "huggingface",
        folder,
        path,
        config_file if config_file.is_file() else None,
        _vocab(folder),
    )


def _innermost(folder: Path) -> Path:
    """Steps into the one folder that an archive wraps everything in."""
    for _ in range(3):
        entries = [e for e in folder.iterdir() if not e.name.startswith(".")]
        entries = [e for e in entries if e.name != "__MACOSX"]
        if len(entries) != 1 or not entries[0].is_dir():
            break
        folder = entries[0]
    return folder


def _latest_version(folder: Path) -> Path:
    """Steps into encoder/3, as hub exports are laid out."""
    if (folder / "encoder").is_dir():
        folder = folder / "encoder"
    if not folder.is_dir() or (folder / SAVED_MODEL).is_file():
        return folder
    versions = [e for e in folder.iterdir() if e.name.isdecimal()]
    return max(versions, key=lambda e: int(e.name), default=folder)


def without_ending(name: str) -> str:
    """Returns the prefix that the name of a checkpoint's file begins with."""
    return re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", name)


def latest_of(state: str) -> str | None:
    """Returns the name of the checkpoint that a `checkpoint` file names.

    The path in that file is often another machine's: the last part counts.
    """
    match = re.search(r'^model_checkpoint_path: "(.*)"', state, re.M)
    return re.split(r"[/\\]", match[1])[-1] if match else None


def _at_prefix(source: Path) -> Location:
    if source.is_file() and source.name.endswith(TENSOR_FILES):
        return _tensors(source)
    name = without_ending(source.name)
    prefix = source.with_name(name)
    if not prefix.with_name(f"{name}.index").is_file():
        raise UserError(
            f"{source} does not exist: give a folder with a checkpoint, an "
            "archive of one, a URL, or a model's name (python -m "
            "albert_tf2.convert --list)"
        )
    folder = prefix.parent
    if folder.name == "checkpoints":
        folder = folder.parent
    places = (prefix.parent, folder)
    return Location("bundle", folder, prefix, _config(*places), _vocab(*places))


def _latest(folder: Path) -> Path | None:
    """Returns the checkpoint that the `checkpoint` file names, else the one.

    In albert_zh's archives the checkpoint was renamed after that file was
    written, so the name counts only if it exists.
    """
    if not folder.is_dir():
        return None
    state = folder / "checkpoint"
    if state.is_file():
        text = paths.read_bytes(state).decode("utf-8", "replace")
        name = latest_of(text)
        if name and (folder / f"{name}.index").is_file():
            return folder / name
    found = sorted(folder.glob("*.index"))
    if len(found) > 1:
        listed = ", ".join(path.name.removesuffix(".index") for path in found)
        raise UserError(
            f"{folder} holds several checkpoints ({listed}): name one of "
            f"them, for instance {folder / found[-1].stem}"
        )
    return found[0].with_suffix("") if found else None


def _one_of(places: tuple[Path, ...], patterns: tuple[str, ...]) -> Path | None:
    for place in places:
        for pattern in patterns:
            found = sorted(place.glob(pattern))
            if len(found) == 1:
                return found[0]
            if found:
                listed = ", ".join(path.name for path in found)
                raise UserError(
                    f"{place} holds several files of the same purpose "
                    f"({listed}): keep the one of this checkpoint"
                )
    return None


def _config(*places: Path) -> Path | None:
    # albert_zh's archives have albert_config_tiny.json and so on; some of
    # Google's say bert_config.json.
    return _one_of(
        places, ("albert_config.json", "albert_config*.json", "*config*.json")
    )


def _vocab(*places: Path) -> Path | None:
    return _one_of(places, ("vocab.txt", "vocab*.txt"))
