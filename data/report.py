"""Looks at a corpus before training: what is in it, what to do about it.

Counts documents and sentences with their lengths, unknown words with where
they stand, the mix of scripts, exact and near duplicates, what web pages left
behind, the padding of the records, and the tokens and steps of an epoch; says
what seems wrong, with the flag that mends it; and shows some rows as the model
will see them. One pass on all cores, in memory that does not grow. Writes
report.txt, report.json and report.html.

python -m albert_tf2.data.report --input_file 'corpus/*.txt' --vocab_file vocab.txt --output_dir report
"""  # noqa: E501

import argparse
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from albert_tf2 import command_line, paths
from albert_tf2.errors import UserError
from albert_tf2.settings import MAX_BATCH

from . import (
    borders,
    build_pretraining_data,
    findings,
    report_page,
    shards,
    workers,
)
from .analysis import Analysis, ReportPlan
from .build_config import BuildConfig
from .read_config import ReadConfig, add_flags
from .words import default_segmenter

PROG = "python -m albert_tf2.data.report"
FORMS = ("report.txt", "report.json", "report.html")


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line, reads the corpus, writes the three files."""
    flags = _parser().parse_args(argv)
    config = command_line.of_flags(BuildConfig, flags, num_shards=1)
    plan = build_pretraining_data.make_plan(
        flags.input_file, flags.vocab_file, flags.output_dir, config,
        plan_class=ReportPlan,
    )  # fmt: skip
    if paths.is_file(flags.output_dir):
        raise UserError(f"{flags.output_dir} is a file: name a folder")
    analysis = look(plan, workers.Workers(flags.num_workers))
    if not analysis.census.counts["sentences"]:
        raise UserError("the corpus has no document: check --input_file")
    borders.must_be_readable(plan.files, analysis.census.by_file)
    result = analysis.result(flags.global_batch_size)
    result["findings"] = findings.findings(analysis, result)
    rows = report_page.rows_as_seen(analysis)
    text = as_text(result)
    pages = text, result, report_page.page(result, rows)
    for name, content in zip(FORMS, pages, strict=True):
        path = paths.join(flags.output_dir, name)
        if isinstance(content, dict):
            paths.write_json(path, content)
            continue
        with paths.atomic_file(path) as stream:
            stream.write(content)
    print(text, end="")
    print(f"wrote {', '.join(FORMS)} to {flags.output_dir}")
    return 0


def look(plan: shards.Plan, pool: workers.Workers) -> Analysis:
    """Reads a corpus and adds up what is seen."""
    analysis = Analysis(plan)
    total = sum(file.size for file in plan.files)
    with tqdm(total=total, unit="B", unit_scale=True, desc="report") as bar:
        for place, seen, size in pool.look(plan):
            analysis.add(place, seen)
            bar.update(size)
        bar.update(total - bar.n)
    return analysis


def _parser() -> argparse.ArgumentParser:
    parser = command_line.parser(__doc__, PROG)
    add = parser.add_argument
    add(
        "--input_file",
        nargs="+",
        required=True,
        metavar="FILE",
        help="the corpus: files or globs",
    )
    add(
        "--vocab_file",
        required=True,
        metavar="FILE",
        help="the vocabulary, a token on each line",
    )
    add(
        "--output_dir",
        required=True,
        metavar="FOLDER",
        help="where the three files go",
    )
    add_flags(parser, ReadConfig)
    command_line.add_settings(
        parser,
        BuildConfig,
        (
            "max_seq_length",
            "max_pairs_per_record",
            "short_seq_prob",
            "segmenter",
            "do_lower_case",
        ),
        defaults={"segmenter": default_segmenter()},
    )
    command_line.add_number(
        parser,
        "--global_batch_size",
        256,
        "Rows of a step, to count the steps of an epoch.",
        least=1,
        most=MAX_BATCH,
    )
    command_line.add_number(
        parser,
        "--num_workers",
        workers.available_cores(),
        "Processes; the figures do not depend on it.",
        least=1,
        most=4096,
    )
    return parser


def as_text(result: dict[str, Any]) -> str:
    """Lays the figures out for reading."""
    r = result
    about = "about " if r["duplicates_looked_for_in"] < 1 else ""
    lines = [
        f"{r['bytes'] / 1e6:,.1f} MB: {r['documents']:,} documents, "
        f"{r['sentences']:,} sentences, {r['tokens']:,} tokens",
        f"epoch at {r['max_seq_length']}: {r['records']:,} records with "
        f"{r['pairs']:,} pairs ({r['pairs_within_a_sentence']:,} cut inside a "
        f"sentence), {r['tokens_per_epoch']:,} tokens, "
        f"{100 * r['padding_share']:.1f} % padding; {r['steps_per_epoch']:,} "
        f"steps of {r['global_batch_size']}",
        f"sentence order: {100 * r['sentence_order_share']:.1f} % of the "
        f"documents have two sentences or more "
        f"({r['one_sentence_documents']:,} have one)",
        f"duplicate documents: {about}{r['duplicate_documents']:,}, nearly "
        f"duplicate: {about}{r['near_duplicate_documents']:,}; longer than a "
        f"unit and split: {r['documents_split']:,}; lines that cannot be "
        f"read: {r['lines_not_utf8'] + r['lines_malformed']:,}; NUL: "
        f"{r['nul_characters']:,}",
        f"[UNK]: {100 * r['unknown_share']:.3f} % of the tokens; commonest: "
        + " ".join(f"{u['word']} {u['count']:,}" for u in r["unknown_words"]),
        "scripts: "
        + ", ".join(f"{n} {100 * s:.2f} %" for n, s in r["scripts"].items()),
    ]
    for name in ("sentence_lengths", "document_lengths"):
        h = r[name]
        lines.append(
            f"{name.replace('_', ' ')} in tokens: mean {h['mean']:.1f}, "
            f"median {h['median']:,}, longest {h['longest']:,}"
        )
        most = max(1, *h["counts"])
        for limit, count in zip(h["up_to"], h["counts"], strict=True):
            label = f"<= {limit:,}" if limit else "more"
            bar = "#" * round(40 * count / most)
            lines.append(f"  {label:>9} {count:>12,} {bar}")
    lines.append("what to look at:" if r["findings"] else "nothing amiss found")
    lines += [f"- {finding}" for finding in r["findings"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    command_line.run(main)
