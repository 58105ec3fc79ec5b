"""Builds pre-training records from a corpus, on all cores of one machine.

Input: text, one sentence per line and a blank line between documents, or JSON
Lines, tables and Parquet; plain or compressed (docs/data.md). Output: TFRecord shards, `vocab.txt` and `manifest.json`.
A killed build goes on where it stopped when the same command is run again,
and any number of workers writes the same bytes. `--verify` checks a finished
set and rebuilds damaged shards.

python -m albert_tf2.data.build_pretraining_data --input_file 'corpus/*.txt' --vocab_file vocab.txt --output_dir records
"""  # noqa: E501

import argparse
import dataclasses
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from albert_tf2 import command_line, paths
from albert_tf2.errors import UserError
from albert_tf2.text.bulk_tokenization import BulkTokenizer
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import Tokenizer, Vocabulary

from . import (
    borders,
    duplicates,
    findings,
    parts,
    recognition,
    segments,
    shards,
    words,
    workers,
)
from .build_config import BuildConfig
from .census import Census
from .read_config import add_flags
from .terms import Term, read_terms
from .words import default_segmenter

PROG = "python -m albert_tf2.data.build_pretraining_data"
STATE = "build.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line, builds or verifies, prints a summary."""
    parser = argument_parser(__doc__, PROG)
    command_line.add_number(
        parser,
        "--num_workers",
        workers.available_cores(),
        "Processes; the records do not depend on it.",
        least=1,
        most=4096,
    )
    flags = parser.parse_args(argv)
    run(flags, workers.Workers(flags.num_workers))
    return 0


def run(flags: argparse.Namespace, pool: Any) -> None:
    """Does what the flags of `argument_parser` say."""
    if flags.verify:
        print(verify(flags.output_dir, pool, flags.input_file))
    else:
        manifest = build(plan_of_flags(flags), pool)
        print(summary(manifest, flags.output_dir))


def argument_parser(doc: str, prog: str) -> argparse.ArgumentParser:
    """Returns the flags: where, how fast, and the fields of BuildConfig."""
    parser = command_line.parser(doc, prog)
    add = parser.add_argument
    add(
        "--input_file",
        nargs="+",
        metavar="FILE",
        help="the corpus: files or globs, also comma-separated",
    )
    add(
        "--vocab_file",
        metavar="FILE",
        help="the vocabulary, a token on each line",
    )
    add(
        "--output_dir",
        required=True,
        metavar="FOLDER",
        help="where the records go",
    )
    add(
        "--user_dictionary",
        nargs="+",
        default=[],
        metavar="FILE",
        help="terms the segmenter must know, in jieba's form",
    )
    add(
        "--verify",
        action="store_true",
        help="check a finished set and rebuild damaged shards",
    )
    add_flags(parser, BuildConfig, segmenter=default_segmenter())
    return parser


def plan_of_flags(flags: argparse.Namespace) -> shards.Plan:
    """Checks the flags and reads the small files."""
    for name in ("input_file", "vocab_file"):
        if not getattr(flags, name):
            raise UserError(f"--{name} is missing (see `{PROG} --help`)")
    config = command_line.of_flags(BuildConfig, flags)
    return make_plan(
        flags.input_file,
        flags.vocab_file,
        flags.output_dir,
        config,
        user_dictionaries=flags.user_dictionary,
    )


def make_plan(
    input_file: Sequence[str] | str,
    vocab_file: str,
    output_dir: str,
    config: BuildConfig,
    *,
    user_dictionaries: Sequence[str] = (),
    plan_class: type[shards.Plan] = shards.Plan,
) -> shards.Plan:
    """Finds the corpus, loads the vocabulary, fills in the settings."""
    vocabulary = Vocabulary.load(vocab_file)
    patterns = (input_file,) if isinstance(input_file, str) else input_file
    files = recognition.find(patterns, config)
    terms = tuple(t for path in user_dictionaries for t in read_terms(path))
    if terms:
        _tell_terms_without_effect(terms, vocabulary, config)
    return plan_class(
        config=config.resolved(sum(file.size for file in files)),
        files=tuple(files),
        vocabulary=vocabulary,
        terms=terms,
        output_dir=os.fspath(output_dir),
        patterns=tuple(patterns),
    )


def _tell_terms_without_effect(
    terms: Sequence[Term], vocabulary: Vocabulary, config: BuildConfig
) -> None:
    """Names the terms of the user dictionaries that can never be a word."""
    settings = TextSettings(do_lower_case=config.do_lower_case)
    useless = words.without_effect(
        words.Segmenter(config.segmenter, terms, fold=config.normalize),
        BulkTokenizer(Tokenizer(vocabulary, settings)),
        terms,
        max_tokens=config.max_seq_length - segments.SPECIAL_TOKENS_PER_PAIR,
    )
    if useless:
        some = [f"{term!r} ({why})" for term, why in [*useless.items()][:5]]
        more = f" and {len(useless) - 5} more" if len(useless) > 5 else ""
        print(
            f"note: {len(useless)} of {len(terms)} terms of the user "
            f"dictionary have no effect: {', '.join(some)}{more}",
            file=sys.stderr,
        )


def build(plan: shards.Plan, pool: Any) -> dict[str, Any]:
    """Builds a set, or what an earlier run left to do.

    Args:
        plan: What to build.
        pool: Runs the work: `workers.Workers`, or Spark's.

    Returns:
        The manifest.
    """
    with paths.lock(plan.output_dir, "build"):
        finished = _prepare(plan)
        if finished is not None:
            return finished
        plan = duplicates.without_duplicates(plan, pool)
        census = pool.make_parts(plan)
        continued = census.close()
        _check_counts(plan, census)
        entries = pool.gather(plan, continued)
        manifest = shards.manifest_of(plan, entries, census.counts)
        must_add_up(plan.output_dir, manifest)
        if damaged := pool.check_shards(plan.output_dir, entries):
            path = paths.join(plan.output_dir, damaged[0]["name"])
            raise UserError(
                f"{path} is not what was written: does another program write "
                "here, or is the disk failing? Run the same command again"
            )
        begun = paths.read_json(paths.join(plan.parts_folder, STATE), dict)
        if manifest["identity"] != begun:
            raise UserError(
                f"{plan.output_dir}: the corpus changed while it was read; "
                "remove the folder and build again"
            )
        shards.write_manifest(plan, manifest)
        paths.remove_folder(plan.parts_folder)
        return manifest


def _prepare(plan: shards.Plan) -> dict[str, Any] | None:
    """Returns the manifest of a finished set; else makes the folder ready."""
    manifest_path = paths.join(plan.output_dir, shards.MANIFEST)
    state_path = paths.join(plan.parts_folder, STATE)
    identity = plan.identity()
    if paths.exists(manifest_path):
        manifest = shards.read_manifest(plan.output_dir)
        _must_agree(plan.output_dir, manifest.get("identity"), identity)
        paths.remove_folder(plan.parts_folder)
        print(f"{plan.output_dir} is complete already", file=sys.stderr)
        return manifest
    if paths.exists(state_path):
        _must_agree(
            plan.output_dir, paths.read_json(state_path, dict), identity
        )
    elif any(n.endswith(".tfrecord") for n in paths.names(plan.output_dir)):
        raise UserError(
            f"{plan.output_dir} holds records of another origin: choose "
            "another --output_dir or remove them"
        )
    else:
        shards.must_be_free(plan)
    paths.make_folder(plan.parts_folder)
    paths.write_json(state_path, identity)
    return None


def _check_counts(plan: shards.Plan, census: Census) -> None:
    """Says what seems wrong with the corpus; refuses one without pairs."""
    borders.must_be_readable(plan.files, census.by_file)
    for note in borders.notes(
        plan.files, census.by_file, census.counts, plan.config.eval_fraction
    ):
        print(f"note: {note}", file=sys.stderr)
    if not census.counts["pairs"]:
        paths.remove_folder(plan.parts_folder)
        first, *others = plan.files
        more = f" and {len(others)} more files" if others else ""
        if few := census.counts["dropped_few_han"]:
            raise UserError(
                f"{first.path}{more}: --min_han_share "
                f"{plan.config.min_han_share:g} leaves out {few:,} documents, "
                "and no other has two tokens: lower it"
            )
        raise UserError(
            f"{first.path}{more}: no document of at least two tokens in "
            f"{census.counts['bytes']} bytes; check --input_file"
        )


def must_add_up(output_dir: str, manifest: dict[str, Any]) -> None:
    """Refuses a manifest whose shards do not hold what was counted."""
    counts = manifest["counts"]
    for subset in parts.SUBSETS:
        counted = counts.get(f"{subset}_records", 0)
        held = sum(
            entry["records"]
            for entry in manifest["shards"]
            if entry["subset"] == subset
        )
        if held != counted:
            raise UserError(
                f"{output_dir}: the {subset} shards hold {held:,} of "
                f"{counted:,} records: did another builder write here? Remove "
                "the folder and build again"
            )


def _must_agree(
    output_dir: str,
    old: Any,
    new: dict[str, Any],
    remedy: str = "choose another --output_dir or remove it",
) -> None:
    """Refuses a folder that was begun with other settings or inputs."""
    differing = [
        f"{key} was {_shown(was)}, now {_shown(now)}"
        for key, was, now in _differences(old or {}, new)
    ]
    if differing:
        more = f"; {len(differing) - 3} more" if differing[3:] else ""
        raise UserError(
            f"{output_dir} was built differently "
            f"({'; '.join(differing[:3])}{more}): {remedy}"
        )


def _shown(value: Any) -> str:
    told = "missing" if value is None else repr(value)
    return told if len(told) <= 100 else f"{told[:100]}..."


def _differences(old: Any, new: Any, path: str = "") -> Iterator[tuple]:
    if path == "inputs":  # by their names, of which a thousand may be there
        old, new = (
            {one.get("name"): one for one in found}
            if isinstance(found, list)
            and all(isinstance(x, dict) for x in found)
            else found
            for found in (old, new)
        )
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(
                old.get(key), new.get(key), f"{path}.{key}".lstrip(".")
            )
    elif old != new:
        yield path, old, new


def verify(
    output_dir: str, pool: Any, input_file: Sequence[str] | None = None
) -> str:
    """Checks every shard against the manifest; rebuilds the damaged ones.

    Args:
        output_dir: A finished set.
        pool: Runs the work, as in `build`.
        input_file: Where the corpus is now, if it has moved.

    Returns:
        One sentence on what was found and done.

    Raises:
        UserError: If a damaged shard cannot be rebuilt as it was.
    """
    path = paths.join(output_dir, shards.MANIFEST)
    if not paths.exists(path):
        raise UserError(
            f"{path} does not exist: the build is not finished; run it again "
            "without --verify"
        )
    manifest = shards.read_manifest(output_dir)
    must_add_up(output_dir, manifest)
    shards.vocabulary_of_manifest(output_dir, manifest)
    damaged = pool.check_shards(output_dir, manifest["shards"])
    if not damaged:
        return f"{output_dir}: all {len(manifest['shards'])} shards are intact"
    names = ", ".join(sorted(entry["name"] for entry in damaged))
    print(f"damaged: {names}; rebuilding", file=sys.stderr)
    _rebuild(output_dir, manifest, damaged, pool, input_file)
    still = pool.check_shards(output_dir, damaged)
    if still:
        raise UserError(
            f"{still[0]['name']} could not be rebuilt as it was: has the "
            "corpus changed?"
        )
    return f"{output_dir}: rebuilt {names}; all shards are intact"


def _rebuild(
    output_dir: str,
    manifest: dict[str, Any],
    damaged: Sequence[dict[str, Any]],
    pool: Any,
    input_file: Sequence[str] | None,
) -> None:
    """Writes the damaged shards of a set anew, from its corpus."""
    plan = shards.plan_of_manifest(output_dir, manifest, input_file)
    by_name = {
        shards.shard_name(plan.config, *key): key
        for key in shards.shards_of(plan.config)
    }
    _must_agree(
        output_dir,
        manifest["identity"],
        plan.identity(),
        "pass its corpus with --input_file, or build the set again",
    )
    unknown = [e["name"] for e in damaged if e["name"] not in by_name]
    if unknown:
        raise UserError(
            f"{paths.join(output_dir, shards.MANIFEST)} names {unknown[0]}, "
            "which is none of its set: build the set again in another folder"
        )
    plan = dataclasses.replace(
        plan, only=frozenset(by_name[entry["name"]] for entry in damaged)
    )
    with paths.lock(output_dir, "build"):
        # Parts of a repair hold the damaged shards only: start afresh.
        paths.remove_folder(plan.parts_folder)
        paths.make_folder(plan.parts_folder)
        plan = duplicates.without_duplicates(plan, pool)
        census = pool.make_parts(plan)
        pool.gather(plan, census.close())
        paths.remove_folder(plan.parts_folder)


def summary(manifest: dict[str, Any], output_dir: str) -> str:
    """Says in a few lines what was built and what was left out."""
    counts = Counter(manifest["counts"])
    size = sum(entry["bytes"] for entry in manifest["shards"])
    total = counts["train_records"] + counts["eval_records"]
    padding = counts["padding_tokens"] / (
        max(1, total) * manifest["max_seq_length"]
    )
    lines = [
        f"{counts['documents']:,} documents, {counts['sentences']:,} "
        f"sentences, {counts['tokens']:,} tokens "
        f"({100 * counts['unknown_tokens'] / max(1, counts['tokens']):.2f} % "
        "[UNK])",
        f"{counts['pairs']:,} pairs "
        f"({counts['pairs_within_a_sentence']:,} of them cut inside a "
        f"sentence) in {total:,} records of "
        f"{manifest['max_seq_length']} ({counts['eval_records']:,} held out), "
        f"{100 * padding:.1f} % padding, {size / 1e6:,.1f} MB",
        f"left out: {counts['dropped_documents']:,} documents too short for "
        f"a pair, {counts['dropped_tokens']:,} tokens, "
        f"{counts['lines_not_utf8'] + counts['lines_malformed']:,} lines that "
        "could not be read",
        f"junk: {'; '.join(findings.junk(counts)) or 'none found'}"
        + _dropped(counts),
        f"{len(manifest['shards'])} shards in {output_dir}",
    ]
    return "\n".join(lines)


def _dropped(counts: Mapping[str, int]) -> str:
    """Says which documents were left out because a flag asked for it."""
    found = [
        f"{counts[f'dropped_{name}']:,} {told}"
        for name, told in (
            ("exact_duplicates", "duplicates"),
            ("near_duplicates", "near duplicates"),
            ("few_han", "of few Chinese characters"),
        )
        if counts.get(f"dropped_{name}")
    ]
    return f"; documents dropped: {', '.join(found)}" if found else ""


if __name__ == "__main__":
    command_line.run(main)
