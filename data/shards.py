"""Parts -> shards: the finished set, its manifest, and its verification.

Every part deals its rows out over all shards. A shard gathers its rows from
all parts and shuffles them, so documents are spread over the whole set. It
is held in memory while that happens (`BuildConfig.num_shards` keeps it near
100 MB).
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import albert_tf2
from albert_tf2 import paths
from albert_tf2.errors import UserError
from albert_tf2.text.text_settings import SETTINGS_FILE, TextSettings
from albert_tf2.text.tokenization import VOCAB_FILE, Tokenizer, Vocabulary

from . import (
    corpus,
    part_files,
    parts,
    recognition,
    records,
    segments,
    units,
)
from .build_config import BuildConfig
from .terms import Term

if TYPE_CHECKING:
    from .duplicates import Dropped

MANIFEST = "manifest.json"
PARTS_FOLDER = ".parts"
# A manifest lists so many files of the corpus at most.
MANY_FILES = 1000
PREFIXES = {"train": "records", "eval": "eval"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """A build: all that workers need to know, and can be sent.

    Attributes:
        patterns: How the user named the files.
        only: If not empty, the (subset, shard) to write, for repairs.
        dropped: The duplicates to leave out, once they are known.
    """

    stage: ClassVar[str] = "records"

    config: BuildConfig
    files: tuple[corpus.CorpusFile, ...]
    vocabulary: Vocabulary
    terms: tuple[Term, ...]
    output_dir: str
    patterns: tuple[str, ...] = ()
    only: frozenset[tuple[str, int]] = frozenset()
    dropped: "Dropped | None" = None

    @property
    def parts_folder(self) -> str:
        return paths.join(self.output_dir, PARTS_FOLDER)

    def part_path(self, file_number: int, unit_index: int) -> str:
        name = part_files.part_name(file_number, unit_index)
        return paths.join(self.parts_folder, name)

    def units_of(self, file_number: int) -> Iterator[units.Unit]:
        """Yields the units of a file, as this build cuts them."""
        config = self.config
        for unit in units.of_file(
            self.files[file_number],
            config.unit_bytes,
            on_error=config.on_error,
        ):
            yield self.placed(unit, file_number)

    def placed(self, unit: units.Unit, file_number: int) -> units.Unit:
        """Returns a unit that knows its file's number and its duplicates."""
        found: tuple[tuple[int, str], ...] = ()
        if self.dropped is not None:
            found = self.dropped.in_unit(file_number, unit.index)
        return unit._replace(file_number=file_number, duplicates=found)

    def part_builder(self) -> Any:
        """Loads what a worker needs; TensorFlow only for static masking."""
        return parts.PartBuilder(self.config, self.vocabulary, self.terms)

    def wanted(self) -> list[tuple[str, int]]:
        """Returns the (subset, shard) that are to be gathered."""
        return sorted(self.only) or shards_of(self.config)

    def finish(self, key: tuple[str, int], blocks: Iterable[bytes]) -> Any:
        """Makes a shard of its rows; returns its entry in the manifest."""
        return write_shard(self, *key, blocks)

    def identity(self) -> dict[str, Any]:
        """What two builds must share to give the same bytes."""
        return {
            "tool_version": albert_tf2.__version__,
            "config": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in dataclasses.asdict(self.config).items()
                # Wrong bytes either stop a build or are counted: units that
                # are finished stay as they are.
                if name != "on_error"
            },
            "vocab_sha256": self.vocabulary.sha256,
            "user_terms_sha256": _digest(self.terms) if self.terms else None,
            "inputs": _inputs(self.files),
        }


def _inputs(files: Sequence[corpus.CorpusFile]) -> Any:
    """Says which files a corpus has; a million of them in one hash."""
    found = [
        {"name": file.name, "bytes": file.size, "ends_sha256": _ends(file)}
        for file in files
    ]
    if len(found) <= MANY_FILES:
        return found
    size = sum(file.size for file in files)
    return {"files": len(found), "bytes": size, "sha256": _digest(found)}


def shard_name(config: BuildConfig, subset: str, shard: int) -> str:
    """Returns for instance records-00003-of-00008.tfrecord."""
    total = parts.num_shards(config, subset)
    return f"{PREFIXES[subset]}-{shard:05d}-of-{total:05d}.tfrecord"


def shards_of(config: BuildConfig) -> list[tuple[str, int]]:
    """Returns every (subset, shard) of a set."""
    subsets = ["train", "eval"] if config.eval_fraction else ["train"]
    return [
        (subset, shard)
        for subset in subsets
        for shard in range(parts.num_shards(config, subset))
    ]


def make_part(
    plan: Plan, builder: Any, path: str, unit: units.Unit
) -> parts.Head:
    """Turns one unit into a part on disk: the work of a worker."""
    part = builder.build(unit)
    if plan.only:
        wanted = {*plan.only, (parts.CONTINUED, 0)}
        groups = {k: v for k, v in part.groups.items() if k in wanted}
        part = part._replace(groups=groups)
    part_files.write_part(path, part)
    return part.head


def write_shard(
    plan: Plan, subset: str, shard: int, blocks: Iterable[bytes]
) -> dict[str, Any]:
    """Shuffles and writes one shard.

    Args:
        plan: The build.
        subset: With `shard`, which one.
        shard: Its number.
        blocks: Its rows, in the order of the corpus.

    Returns:
        Its entry in the manifest.
    """
    frames = [frame for b in blocks for frame in records.split_frames(b)]
    rng = segments.rng_of(plan.config.seed, "shuffle", subset, shard)
    # Not `rng.shuffle`, whose order Python does not promise to keep.
    order = sorted((rng.random(), i) for i in range(len(frames)))
    digest = hashlib.sha256()
    name = shard_name(plan.config, subset, shard)
    size = 0
    with paths.atomic_file(paths.join(plan.output_dir, name), "wb") as stream:
        for _, number in order:
            stream.write(frames[number])
            digest.update(frames[number])
            size += len(frames[number])
    return {
        "name": name,
        "subset": subset,
        "records": len(frames),
        "bytes": size,
        "sha256": digest.hexdigest(),
    }


def part_names(plan: Plan) -> list[str]:
    """Returns the parts on disk, in the order of the corpus."""
    names = paths.names(plan.parts_folder)
    return [name for name in names if name.endswith(part_files.PART)]


def manifest_of(
    plan: Plan, entries: list[dict[str, Any]], counts: Counter[str]
) -> dict[str, Any]:
    """Describes a finished set."""
    config = plan.config
    identity = plan.identity()
    return {
        "tool_version": identity["tool_version"],
        "masking": config.masking,
        "max_seq_length": config.max_seq_length,
        "max_pairs_per_record": config.max_pairs_per_record,
        "vocab_size": len(plan.vocabulary),
        "vocab_sha256": identity["vocab_sha256"],
        "token_dtype": records.token_dtype(len(plan.vocabulary)),
        "seed": config.seed,
        "on_error": config.on_error,
        "counts": {name: counts[name] for name in sorted(counts)},
        "shards": sorted(
            entries, key=lambda e: (e["subset"] == "eval", e["name"])
        ),
        "identity": identity,
        "input_file": list(plan.patterns),
        "user_terms": [list(term) for term in plan.terms],
    }


def read_manifest(output_dir: str) -> dict[str, Any]:
    """Reads the manifest of a finished set.

    Raises:
        UserError: If it lacks something, or holds what none does.
    """
    path = paths.join(output_dir, MANIFEST)
    manifest = paths.read_json(path, dict)
    try:
        for name, kind in _KINDS.items():
            _typed(manifest, name, kind)
        for name in manifest["counts"]:
            _typed(manifest["counts"], name, int)
        for entry in manifest["shards"]:
            _typed(entry, "records", int)
            _typed(entry, "bytes", int)
            _typed(entry, "sha256", str)
            name, subset = _typed(entry, "name", str), entry["subset"]
            if not name.startswith(f"{PREFIXES[subset]}-") or "/" in name:
                raise TypeError(f"a shard is called {name!r}")
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged or of another version ({error}): build the "
            "set again in another folder"
        ) from None
    return manifest


# What a manifest holds at least.
_KINDS: dict[str, type] = {
    "counts": dict,
    "shards": list,
    "identity": dict,
    "max_seq_length": int,
    "vocab_sha256": str,
}


def _typed(values: Any, name: str, kind: type) -> Any:
    """Returns a value; raises what a missing one raises if it is another."""
    if not isinstance(values, dict) or not isinstance(values[name], kind):
        raise TypeError(f"{name!r} is not what it should be")
    return values[name]


def must_be_free(plan: Plan) -> None:
    """Refuses a folder in which a new build would replace others' files."""
    settings = dataclasses.asdict(_tokenizer(plan).settings)
    path = paths.join(plan.output_dir, SETTINGS_FILE)
    foreign = []
    if paths.exists(path):
        try:
            is_ours = paths.read_json(path, None) == json.loads(
                json.dumps(settings)
            )
        except UserError:
            is_ours = False
        foreign += [] if is_ours else [path]
    path = paths.join(plan.output_dir, VOCAB_FILE)
    if paths.exists(path):
        is_ours = paths.read_bytes(path) == plan.vocabulary.to_bytes()
        foreign += [] if is_ours else [path]
    if paths.exists(plan.parts_folder):
        foreign += [
            paths.join(plan.parts_folder, name)
            for name in paths.names(plan.parts_folder)
            if not name.startswith(("build.json", "."))
        ]
    if foreign:
        raise UserError(
            f"{foreign[0]} is not of this build, which would replace it: "
            "choose another --output_dir or move it away"
        )


def _tokenizer(plan: Plan) -> Tokenizer:
    """Returns what a finished set keeps beside its records."""
    settings = TextSettings(
        do_lower_case=plan.config.do_lower_case,
        normalize=plan.config.normalize,
    )
    return Tokenizer(plan.vocabulary, settings)


def write_manifest(plan: Plan, manifest: dict[str, Any]) -> None:
    """Writes the vocabulary, its settings and, last of all, the manifest."""
    _tokenizer(plan).save(plan.output_dir)
    paths.write_json(paths.join(plan.output_dir, MANIFEST), manifest)


def is_intact(output_dir: str, entry: dict[str, Any]) -> bool:
    """Whether a shard is what its entry in the manifest says."""
    path = paths.join(output_dir, entry["name"])
    try:
        if paths.size(path) != entry["bytes"]:
            return False
        return paths.sha256(path) == entry["sha256"]
    except UserError:
        return False


def plan_of_manifest(
    output_dir: str, manifest: dict, input_file: Sequence[str] | None = None
) -> Plan:
    """Rebuilds the plan of a finished set, to repair it."""
    try:
        config = BuildConfig(
            **manifest["identity"]["config"], on_error=manifest["on_error"]
        )
        patterns = tuple(input_file or manifest["input_file"])
        terms = tuple((term, freq) for term, freq in manifest["user_terms"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{paths.join(output_dir, MANIFEST)} is of another version of "
            f"the builder ({error}): build the set again"
        ) from None
    return Plan(
        config=config,
        files=tuple(recognition.find(patterns, config)),
        vocabulary=vocabulary_of_manifest(output_dir, manifest),
        terms=terms,
        output_dir=output_dir,
        patterns=patterns,
    )


def vocabulary_of_manifest(output_dir: str, manifest: dict) -> Vocabulary:
    """Loads the vocabulary of a finished set, and no other."""
    path = paths.join(output_dir, VOCAB_FILE)
    vocabulary = Vocabulary.load(path)
    if vocabulary.sha256 != manifest.get("vocab_sha256"):
        raise UserError(
            f"{path} is not the vocabulary that the set was built with: put "
            "it back first"
        )
    return vocabulary


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _ends(file: corpus.CorpusFile) -> str:
    """Hashes the ends of a file: enough to notice another file."""
    digest = hashlib.sha256()
    with paths.open_binary(file.path) as stream:
        digest.update(stream.read(1 << 16))
        stream.seek(max(0, file.size - (1 << 16)))
        digest.update(stream.read(1 << 16))
    return digest.hexdigest()
