"""What a checkpoint is, by the content of its files."""

import hashlib

from albert_tf2 import paths
from albert_tf2.checkpoints import download, locate


def fingerprint(source: paths.PathLike) -> tuple[str, str]:
    """Returns what a checkpoint is called, and its SHA-256.

    The same weights with the same configuration have the same sum wherever
    they lie. A run's folder stands for its newest checkpoint, so it has
    another sum once that run goes on; the name says which one it was.

    Args:
        source: What `load_pretrained` reads.
    """
    location = locate.locate(download.local_path(source))
    weights = location.weights
    parts = [weights]
    if location.kind != "huggingface":  # a prefix
        parts = sorted(weights.parent.glob(f"{weights.name}.data-*"))
        parts.append(weights.with_name(f"{weights.name}.index"))
    if location.kind == "hub":
        parts.append(location.folder / locate.SAVED_MODEL)
    elif location.config_file is not None:
        parts.append(location.config_file)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(paths.sha256(part).encode())
    name = str(source)
    if weights.name not in name:
        name += f" ({weights.name})"
    return name, digest.hexdigest()
