"""Released models by name: fetched once, resumed when cut, kept in a cache.

    $ALBERT_TF2_CACHE (else the platform's cache folder)
      albert_tiny_zh/
        albert_tiny.zip         the archive, as published
        albert_tiny.zip.json    its address and checksum, from the first time
        albert_tiny.zip.part    what has arrived so far
        unpacked/

Checksum and `unpacked/` appear when the archive has proved to be a model, of
the size that its name says; an error page that came in its place is removed.
A lock on the folder keeps two processes from fetching the same model twice.
$ALBERT_TF2_MIRROR names a folder on the web, or on this machine, that has the
archives under their own names, for who cannot reach the original hosts.
"""

import contextlib
import difflib
import hashlib
import http.client
import os
import shutil
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from albert_tf2 import paths
from albert_tf2.checkpoints import archives, locate, repositories
from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.paths import CACHE_VARIABLE, cache_folder

# The name of the model that comes with the package.
STARTER = "starter"
MIRROR_VARIABLE = "ALBERT_TF2_MIRROR"
CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = 30
RANGE_NOT_SATISFIABLE = 416
# Attempts in a row that bring nothing new, before giving up.
MAX_FRUITLESS_ATTEMPTS = 4


class Released(NamedTuple):
    """A published model."""

    url: str
    config: str  # the shipped configuration of the same sizes


# The addresses are those of albert_zh's and google-research/albert's READMEs.
# albert_zh never published an xxlarge.
_BRIGHTMART = "https://storage.googleapis.com/albert_zh/"
_GOOGLE = "https://storage.googleapis.com/albert_models/"
MODELS = {
    name: Released(address, config)
    for config, found in {
        "albert_tiny_zh": {
            "albert_tiny_zh": f"{_BRIGHTMART}albert_tiny.zip",
            "albert_tiny_zh_489k": f"{_BRIGHTMART}albert_tiny_489k.zip",
        },
        "albert_tiny_zh_google": {
            "albert_tiny_zh_google": f"{_BRIGHTMART}albert_tiny_zh_google.zip",
        },
        "albert_small_zh_google": {
            "albert_small_zh_google": (
                f"{_BRIGHTMART}albert_small_zh_google.zip"
            ),
        },
        "albert_base_zh": {
            "albert_base_zh": f"{_BRIGHTMART}albert_base_zh.zip",
            "albert_base_zh_additional_36k_steps": (
                f"{_BRIGHTMART}albert_base_zh_additional_36k_steps.zip"
            ),
        },
        "albert_large_zh": {
            "albert_large_zh": f"{_BRIGHTMART}albert_large_zh.zip",
        },
        "albert_xlarge_zh": {
            # "Try this one first", says albert_zh's README of the 183k.
            "albert_xlarge_zh": f"{_BRIGHTMART}albert_xlarge_zh_183k.zip",
            "albert_xlarge_zh_183k": f"{_BRIGHTMART}albert_xlarge_zh_183k.zip",
            "albert_xlarge_zh_177k": f"{_BRIGHTMART}albert_xlarge_zh_177k.zip",
        },
        **{
            f"albert_{size}_zh_google": {
                f"albert_{size}_zh_google": f"{_GOOGLE}albert_{size}_zh.tar.gz"
            }
            for size in ("base", "large", "xlarge", "xxlarge")
        },
    }.items()
    for name, address in found.items()
}


def shipped_config(source: str | os.PathLike) -> AlbertConfig | None:
    """Returns the configuration of a name, for an archive without one."""
    released = MODELS.get(os.fspath(source))
    return AlbertConfig.from_name(released.config) if released else None


def is_url(source: str | os.PathLike) -> bool:
    """Whether a source is the address of an archive on the web."""
    return os.fspath(source).startswith(("http://", "https://"))


def local_path(source: str | os.PathLike) -> Path:
    """Turns any source of a model into a local folder or prefix.

    Args:
        source: A path, an archive, a URL, a repository on a hub, a name of
            `MODELS`, or `STARTER`. What exists on disk comes first; what lies
            in a bucket is copied.
    """
    text = repositories.here(source)
    if is_url(text):
        return _fetched(_key_of_url(text), text)
    if paths.is_remote(text):
        text = _fetched_from_bucket(text)
    path = Path(paths.local(text))
    if path.is_file() and archives.is_archive(path):
        return _unpacked(path)
    if text == STARTER and not path.exists():
        return Path(str(resources.files("albert_tf2.starter")))
    if path.exists() or text not in MODELS:
        _suggest_name(path, text)
        return path
    return _fetched(text, mirrored(MODELS[text].url), shipped_config(text))


def mirrored(url: str) -> str:
    """Returns where a released archive is fetched from.

    Raises:
        UserError: If `ALBERT_TF2_MIRROR` is no address.
    """
    mirror = os.environ.get(MIRROR_VARIABLE, "").rstrip("/")
    if not mirror:
        return url
    if not mirror.startswith(("http://", "https://", "file://")):
        raise UserError(
            f"{MIRROR_VARIABLE} must be an address such as "
            f"https://mirror.example/albert or file:///data/albert. Received: "
            f"{mirror!r}"
        )
    return f"{mirror}/{_file_name(url)}"


def _fetched_from_bucket(source: str) -> str:
    """Copies what belongs to one checkpoint; it stays until the end.

    A run keeps many checkpoints with all their slots: of a folder
    `checkpoints` the one that is in use is taken.
    """
    here = paths.kept_folder(paths.name(source))
    if archives.is_archive(Path(source)):
        goal = paths.join(here, paths.name(source))
        paths.copy_file(source, goal)
        return goal
    if paths.is_dir(source):
        goal = paths.join(here, paths.name(source))
        _copy_model(source, goal)
        return goal
    folder, prefix = paths.parent(source), paths.name(source)
    goal = paths.join(here, paths.name(folder))
    if paths.name(folder) == "checkpoints":
        _copy_texts(paths.parent(folder), here)
    _copy_texts(folder, goal)
    _copy_checkpoint(folder, goal, locate.without_ending(prefix))
    return paths.join(goal, prefix)


def _copy_model(source: str, goal: str) -> None:
    for entry, is_folder in paths.entries(source):
        here, there = paths.join(source, entry), paths.join(goal, entry)
        if not is_folder:
            paths.copy_file(here, there)
        elif entry != "checkpoints":
            paths.copy_folder(here, there)
        else:
            _copy_texts(here, there)
            state = paths.join(here, "checkpoint")
            latest = (
                locate.latest_of(paths.read_text(state))
                if paths.is_file(state)
                else None
            )
            _copy_checkpoint(here, there, latest or "")


def _copy_checkpoint(source: str, goal: str, prefix: str) -> None:
    """Copies the files of a prefix, or of all; no error if there are none."""
    for name in paths.names(source):
        if name.startswith(f"{prefix}." if prefix else "") and (
            name.endswith((".index", ".meta")) or ".data-" in name
        ):
            paths.copy_file(paths.join(source, name), paths.join(goal, name))


def _copy_texts(source: str, goal: str) -> None:
    """Copies configuration, vocabulary and list of checkpoints."""
    for name in paths.names(source):
        if name == "checkpoint" or name.endswith((".json", ".txt")):
            paths.copy_file(paths.join(source, name), paths.join(goal, name))


def _suggest_name(path: Path, text: str) -> None:
    if path.exists() or path.parent != Path(".") or "." in text:
        return
    names = [*MODELS, STARTER]
    near = difflib.get_close_matches(text, names, n=1)
    hint = f"did you mean `{near[0]}`?" if near else "known names:"
    raise UserError(
        f"`{text}` is neither a folder nor a released model; {hint} "
        f"{'' if near else ', '.join(names)}".rstrip()
    )


def _key_of_url(url: str) -> str:
    name = archives.stem(_file_name(url))
    return f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def _file_name(url: str) -> str:
    path = urllib.parse.unquote(urllib.parse.urlsplit(url).path)
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    if not name.lower().endswith(archives.SUFFIXES) or name.startswith("."):
        raise UserError(
            f"{url} is not the address of an archive: it must end in "
            f"{', '.join(archives.SUFFIXES)}"
        )
    return name


def _unpacked(archive: Path) -> Path:
    """Unpacks a local archive into the cache, once per content."""
    digest = paths.sha256(archive)
    folder = cache_folder() / f"{archives.stem(archive.name)}-{digest[:12]}"
    with locked(folder):
        target = folder / "unpacked"
        if not target.exists():
            archives.unpack(archive, target)
    return target


def _fetched(key: str, url: str, config: AlbertConfig | None = None) -> Path:
    """Fetches and unpacks a model unless the cache has it.

    Args:
        key: The folder of the cache.
        url: Of the archive.
        config: What the model's sizes must be, if that is known.
    """
    folder = cache_folder() / key
    archive = folder / _file_name(url)
    with locked(folder):
        target = folder / "unpacked"
        if target.exists():
            return target
        came_now = not archive.exists()  # else a user may have put it there
        if came_now:
            download(url, archive)
        unproven = folder / "unpacking"
        try:
            _check_against_record(archive)
            archives.unpack(archive, unproven)
            _must_be_model(unproven, config)
        except UserError as error:
            shutil.rmtree(unproven, ignore_errors=True)
            if not came_now:
                raise
            archive.unlink()
            raise UserError(
                f"what {url} sent was removed again: {error}"
            ) from error
        _record(archive, url)
        os.replace(unproven, target)
    return target


def _must_be_model(folder: Path, config: AlbertConfig | None) -> None:
    """Refuses a folder without a checkpoint, or with one of other sizes."""
    found = locate.locate(folder)
    if config is None or found.config_file is None:
        return
    held = AlbertConfig.from_json(found.config_file)
    for name in ("hidden_size", "num_hidden_layers", "vocab_size"):
        expected, received = getattr(config, name), getattr(held, name)
        if expected != received:
            raise UserError(
                f"{found.config_file} says `{name}` {received}, and the model "
                f"of this name has {expected}"
            )


def _record_of(archive: Path) -> Path:
    return archive.with_name(f"{archive.name}.json")


def _record(archive: Path, url: str) -> None:
    """Keeps the checksum of the first download; later ones must equal it."""
    if not _record_of(archive).exists():
        paths.write_json(
            _record_of(archive),
            {
                "url": url,
                "sha256": paths.sha256(archive),
                "bytes": archive.stat().st_size,
            },
        )


def _check_against_record(archive: Path) -> None:
    """Refuses an archive that is not what the first download was."""
    record_file = _record_of(archive)
    if not record_file.exists():
        return
    digest = paths.sha256(archive)
    known = paths.read_json(record_file, dict).get("sha256")
    if known != digest:
        raise UserError(
            f"{archive} has the SHA-256 {digest}, but the first download had "
            f"{known}: the published file changed or this one is damaged; "
            f"remove {archive} to fetch it again, and {record_file.name} too "
            "to accept a new one"
        )


@contextlib.contextmanager
def locked(folder: Path, what: str = "download") -> Iterator[None]:
    """Waits for a folder of the cache, and holds it.

    Args:
        folder: The folder, which is created.
        what: Why it is held, for who waits.

    Raises:
        UserError: If the cache cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(paths.lock(folder, what, wait=True))
        except UserError as error:
            raise UserError(
                f"the cache folder cannot be used ({error}): set "
                f"{CACHE_VARIABLE} to a folder you may write to"
            ) from None
        yield


def download(url: str, archive: Path, *, retry_seconds: float = 1.0) -> None:
    """Downloads a file; what has arrived survives any cut.

    Args:
        url: Where from.
        archive: Where to; it appears when it is complete.
        retry_seconds: First pause between attempts; doubles each time.
    """
    part = archive.with_name(f"{archive.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    fruitless = 0
    error: Exception | None = None
    while fruitless < MAX_FRUITLESS_ATTEMPTS:
        before = part.stat().st_size if part.exists() else 0
        try:
            _continue_download(url, part)
            os.replace(part, archive)
            part.with_name(f"{part.name}.json").unlink(missing_ok=True)
            return
        except urllib.error.HTTPError as http_error:
            error = http_error
            if http_error.code == RANGE_NOT_SATISFIABLE:
                # Nothing is left to send, or the file shrank: start afresh.
                part.unlink()
            elif http_error.code < 500 and http_error.code not in (408, 429):
                break
        except (OSError, http.client.HTTPException) as network_error:
            error = network_error
            if isinstance(getattr(error, "reason", None), socket.gaierror):
                break  # no such name, or no network at all
        after = part.stat().st_size if part.exists() else 0
        fruitless = 0 if after > before else fruitless + 1
        if fruitless < MAX_FRUITLESS_ATTEMPTS:
            time.sleep(retry_seconds * 2**fruitless)
    raise UserError(
        f"{url} could not be fetched ({getattr(error, 'reason', None) or error}"
        f"): without a connection, put the file at {archive} yourself and run "
        "this again"
    )


def _continue_download(url: str, part: Path) -> None:
    """Makes one attempt to fetch what `part` still lacks.

    The server is asked for the rest only if the file is still the same one
    (`If-Range`); a server that cannot, sends the whole file again.
    """
    state_file = part.with_name(f"{part.name}.json")
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "albert_tf2", "Accept-Encoding": "identity"}
    validator = None
    if start and state_file.exists():
        validator = paths.read_json(state_file).get("validator")
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    else:
        start = 0
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        # A weak ETag promises the same meaning, not the same bytes.
        etag = response.headers.get("ETag")
        strong = etag and not etag.startswith("W/")
        validator = etag if strong else response.headers.get("Last-Modified")
        paths.write_json(state_file, {"url": url, "validator": validator})
        _receive(response, part, start, total)


def _receive(response, part: Path, start: int, total: int | None) -> None:
    from tqdm import tqdm

    with (
        open(part, "r+b" if start else "wb") as sink,
        tqdm(
            desc=part.name.removesuffix(".part"),
            total=total,
            initial=start,
            unit="B",
            unit_scale=True,
        ) as progress,
    ):
        sink.seek(start)
        while chunk := response.read(CHUNK_BYTES):
            sink.write(chunk)
            progress.update(len(chunk))
        arrived = sink.tell()
    if total is not None and arrived != total:
        raise ConnectionError(f"{arrived:,} of {total:,} bytes arrived")
