"""One rule for where documents and sentences end, spoken wherever it matters.

A corpus is meant to have a sentence per line and a blank line between
documents. Where it has not, nothing fails: pairs are cut inside sentences, or
a whole file counts as one document. The builder and the report say so in the
same words, each with its remedy.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from albert_tf2.errors import UserError

from .corpus import CorpusFile

# So many sentences in one document are rather a file without blank lines...
MANY_SENTENCES = 1000
# ... and in a corpus of so few documents, any number of them.
FEW_DOCUMENTS = 20
# Documents of one sentence each are no documents.
MOST = 0.9
# The mean tokens of sentences that are longer than people write.
LONG = 128
# The share of a file's lines that may be left out.
MOST_BAD = 0.1

# What the rule needs to know about each file.
COUNTED = (
    "documents",
    "one_sentence_documents",
    "sentences",
    "tokens",
    "pairs",
    "pairs_within_a_sentence",
    "other_line_ends",
    "sentences_cut",
    "lines_read",
    "lines_not_utf8",
    "lines_malformed",
)


def notes(
    files: Sequence[CorpusFile],
    counts_of: Mapping[int, Sequence[int]],
    counts: Counter[str],
    eval_fraction: float,
) -> list[str]:
    """Says where the borders of a corpus seem to be wrong.

    Args:
        files: The corpus.
        counts_of: By the number of a file, its counts (`COUNTED`).
        counts: Those of the whole corpus.
        eval_fraction: Share of the documents that was to be held out.

    Returns:
        A sentence for each finding, with the first file that shows it.
    """
    found: dict[str, list[str]] = {}
    for number, file in enumerate(files):
        figures = counts_of.get(number)
        if figures is None:
            continue
        here = dict(zip(COUNTED, figures, strict=True))
        finding = _finding(file, here, counts["documents"])
        if finding is not None:
            kind, problem = finding
            found.setdefault(kind, []).append(f"{file.path}{problem}")
    told = [
        first + (f" (and {len(others):,} more files)" if others else "")
        for first, *others in found.values()
    ]
    if eval_fraction and counts["documents"] and not counts["eval_documents"]:
        told.append(
            f"none of the {counts['documents']:,} documents is held out "
            f"(--eval_fraction {eval_fraction:g}), so training cannot be "
            "evaluated: raise --eval_fraction"
        )
    return told


def _finding(
    file: CorpusFile, here: Mapping[str, int], all_documents: int
) -> tuple[str, str] | None:
    """Returns what is wrong with one file: its kind, and the sentence."""
    sentences, documents = here["sentences"], here["documents"]
    if not sentences:
        return None
    cut = (
        f"{here['pairs_within_a_sentence']:,} of {here['pairs']:,} pairs are "
        "cut inside a sentence"
    )
    mean = here["tokens"] / sentences
    # Where sentences were split, these ends were cut at.
    if here["other_line_ends"] > sentences / 10 and not here["sentences_cut"]:
        return "line ends", (
            f" has {here['other_line_ends']:,} line ends that are not LF (CR "
            "alone, U+2028, NEL or page breaks), and they end no sentence "
            f"({cut}): pass --split_sentences true, which cuts there too"
        )
    if documents > 2 and here["one_sentence_documents"] > MOST * documents:
        if file.format == "text" and mean <= LONG:
            return "borders everywhere", (
                f": each document is one sentence, so {cut}: blank lines "
                "after every line? Keep those between documents (or pass "
                "--split_sentences true if each line is a document)"
            )
        return "long lines", (
            f": each document is one line, of {mean:.0f} tokens on average, "
            f"so {cut}: pass --split_sentences true"
        )
    if mean > LONG:
        return "long lines", (
            f": sentences have {mean:,.0f} tokens on average, and {cut}: pass "
            "--split_sentences true"
        )
    many = sentences >= MANY_SENTENCES or all_documents < FEW_DOCUMENTS
    if documents == 1 and sentences > 1 and many:
        return "borders nowhere", (
            f" has no blank line, so its {sentences:,} sentences count as one "
            "document: if it holds many, put blank lines between them"
        )
    return None


def must_be_readable(
    files: Sequence[CorpusFile], counts_of: Mapping[int, Sequence[int]]
) -> None:
    """Refuses a file of which more than a tenth was left out.

    Raises:
        UserError: It names the file; `--on_error skip` is for slips.
    """
    for number, file in enumerate(files):
        here = dict(zip(COUNTED, counts_of.get(number, ()), strict=False))
        bad = here.get("lines_not_utf8", 0) + here.get("lines_malformed", 0)
        lines = bad + here.get("lines_read", 0)
        if bad > MOST_BAD * lines:
            raise UserError(
                f"{file.path}: {bad:,} of {lines:,} lines cannot be read as "
                f"{file.format} in {file.encoding}, more than a tenth: check "
                "--encoding and the file"
            )
