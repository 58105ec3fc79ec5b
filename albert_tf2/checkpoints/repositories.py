"""Models from where people keep them: `hf:owner/name`, `kaggle:owner/...`.

Each hub's own library does the work, with its cache, its tokens and its ways
around a slow line: a mirror (HF_ENDPOINT), no line at all (HF_HUB_OFFLINE=1).
"""

import os
import re
from pathlib import Path
from typing import Any

from albert_tf2.errors import UserError, install_line

HUGGING_FACE, KAGGLE = "hf:", "kaggle:"
EXTRA = "hubs"

_HF_ADDRESS = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([^@\s]+))?")
_KAGGLE_ADDRESS = re.compile(r"kaggle:([\w.-]+(?:/[\w.-]+){3}(?:/\d+)?)")

# What a model is made of, of all that a repository may hold. Pickled weights
# are fetched only where there are no others.
_PARTS = (
    "*.json *.txt *.md *.safetensors *.index *.meta *.data-* checkpoint *.pb"
).split()
_PICKLED = ["*.bin", "*.pt", "*.pth"]
_WEIGHTS = ("*.safetensors", "*.index", "*.pb")


def is_address(source: str | os.PathLike) -> bool:
    """Whether a source names a repository on one of the hubs."""
    return os.fspath(source).startswith((HUGGING_FACE, KAGGLE))


def here(source: str | os.PathLike) -> str:
    """Returns the local folder of a repository; any other source as it is.

    Args:
        source: `hf:owner/name`, `hf:owner/name@revision`,
            `kaggle:owner/model/framework/variation` (with `/version` at the
            end if wanted), or whatever else a model may be read from.

    Raises:
        UserError: If the address is none, the library is not installed, or
            the hub does not give the repository.
    """
    text = os.fspath(source)
    if text.startswith(HUGGING_FACE):
        return str(_of_hugging_face(text))
    if text.startswith(KAGGLE):
        return str(_of_kaggle(text))
    return text


def _of_hugging_face(address: str) -> Path:
    repository, revision = _parsed(address)
    library = _hugging_face()

    def fetch(patterns: list[str]) -> Path:
        return Path(
            library.snapshot_download(
                repository, revision=revision, allow_patterns=patterns
            )
        )

    try:
        folder = fetch(_PARTS)
        if not any(any(folder.rglob(name)) for name in _WEIGHTS):
            folder = fetch([*_PARTS, *_PICKLED])
    except library.errors.EntryNotFoundError as error:  # in the cache
        raise _refused(address, "it is not in the cache", error) from error
    except (OSError, ValueError, library.errors.HfHubHTTPError) as error:
        raise _refused(address, _first_line(error), error) from error
    return folder


def _parsed(address: str) -> tuple[str, str | None]:
    found = _HF_ADDRESS.fullmatch(address)
    if not found:
        raise UserError(
            f"{address!r} is no address of a repository: write "
            "hf:owner/name, or hf:owner/name@revision"
        )
    return found[1], found[2]


def _hugging_face() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise UserError(
            f"{HUGGING_FACE}owner/name needs huggingface_hub: "
            f"{install_line(EXTRA)}"
        ) from None
    return huggingface_hub


def _refused(address: str, reason: str, error: Exception) -> UserError:
    endpoint = os.environ.get("HF_ENDPOINT", "its hub")
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        remedy = "unset HF_HUB_OFFLINE to fetch it"
    elif isinstance(error, ConnectionError | FileNotFoundError):
        remedy = "check the connection, or name a mirror in HF_ENDPOINT"
    else:
        remedy = (
            "check the name, and HF_TOKEN if the repository is private; a "
            "mirror is named in HF_ENDPOINT"
        )
    return UserError(
        f"{address} could not be fetched from {endpoint} ({reason}): {remedy}"
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200].rstrip(". ")


def _of_kaggle(address: str) -> Path:
    found = _KAGGLE_ADDRESS.fullmatch(address)
    if not found:
        raise UserError(
            f"{address!r} is no address of a model: write "
            "kaggle:owner/model/framework/variation, as its page on Kaggle "
            "does, with /version behind it if wanted"
        )
    try:
        import kagglehub
    except ImportError:
        raise UserError(
            f"{KAGGLE}owner/model/... needs kagglehub: {install_line(EXTRA)}"
        ) from None
    try:
        return Path(kagglehub.model_download(found[1]))
    except Exception as error:  # its kinds are not part of its interface
        raise UserError(
            f"{address} could not be fetched from Kaggle "
            f"({_first_line(error)}): check the name and the connection, and "
            "KAGGLE_API_TOKEN if the model is private"
        ) from error


def check_push(address: str) -> None:
    """Refuses what `push` could not do, before any work is done."""
    if not address.startswith(HUGGING_FACE):
        raise UserError(
            f"--push takes hf:owner/name, not {address!r}: for Kaggle, "
            "python -m albert_tf2.hub_export.export writes the folders to "
            "upload"
        )
    _, revision = _parsed(address)
    if revision is not None:
        raise UserError(
            f"--push takes hf:owner/name without @{revision}: it writes to "
            "the main branch"
        )
    if not _hugging_face().get_token():
        raise UserError(
            "--push needs a token that may write: set HF_TOKEN, or run "
            "`hf auth login`"
        )


def push(folder: str | os.PathLike, address: str, *, private: bool) -> str:
    """Uploads a folder as one commit; creates the repository if need be.

    Args:
        folder: What `convert --to huggingface` wrote.
        address: `hf:owner/name` (see `check_push`).
        private: Whether a repository that is created is private.

    Returns:
        The address of the commit.
    """
    repository, _ = _parsed(address)
    library = _hugging_face()
    try:
        library.create_repo(repository, private=private, exist_ok=True)
        commit = library.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Upload of albert_tf2",
        )
    except (OSError, ValueError, library.errors.HfHubHTTPError) as error:
        raise UserError(
            f"{folder} could not be uploaded to {address} "
            f"({_first_line(error)}): the folder is whole; check the name and "
            "the rights of HF_TOKEN, and push it again"
        ) from error
    return str(commit.commit_url)
