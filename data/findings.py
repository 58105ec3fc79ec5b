"""What may be wrong with a corpus, in sentences that name the remedy."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from albert_tf2.text.normalization import normalize

from . import borders, parts

if TYPE_CHECKING:
    from .analysis import Analysis


def findings(analysis: "Analysis", result: dict[str, Any]) -> list[str]:
    """Says what may be wrong with a corpus, each with its remedy.

    Args:
        analysis: Of the corpus.
        result: Its figures.

    Returns:
        Sentences; those on borders are the builder's, word for word.
    """
    plan, counts = analysis.plan, analysis.census.counts
    found = borders.notes(
        plan.files, analysis.census.by_file, counts, plan.config.eval_fraction
    )
    about = "about " if result["duplicates_looked_for_in"] < 1 else ""
    exact = result["duplicate_documents"]
    near = result["near_duplicate_documents"]
    if exact:
        found.append(
            f"{about}{exact:,} documents stand twice: --drop_duplicates exact"
        )
    if near:
        found.append(
            f"{about}{near:,} documents are nearly the same as an earlier "
            "one: --drop_duplicates near"
        )
    found += junk(counts)
    found += _unknown_findings(result)
    simplified, traditional = (
        result["scripts"].get(name, 0) for name in ("simplified", "traditional")
    )
    if min(simplified, traditional) > 0.02:
        found.append(
            f"{100 * traditional:.1f} % of the characters are traditional and "
            f"{100 * simplified:.1f} % simplified, which are different tokens: "
            "convert one of them (for instance with OpenCC)"
        )
    if result["padding_share"] > 0.2:
        found.append(
            f"{100 * result['padding_share']:.0f} % of the places are padding:"
            " raise --max_pairs_per_record, or lower --max_seq_length"
        )
    return found


def junk(counts: Counter[str]) -> list[str]:
    """Says what web pages left behind, and what removes it."""
    found = []
    for name, what, remedy in (
        ("html_left_overs", "HTML left-overs", "--strip_html true"),
        (
            "repeated_lines",
            "lines stand twice in their document",
            "--drop_repeated_lines true",
        ),
        (
            "few_han_documents",
            "documents have few Chinese characters (less than "
            f"{100 * parts.FEW_HAN:.0f} % of their tokens)",
            f"--min_han_share {parts.FEW_HAN}",
        ),
    ):
        if counts[name]:
            found.append(f"{counts[name]:,} {what}: {remedy}")
    return found


def _unknown_findings(result: dict[str, Any]) -> list[str]:
    words = [one["word"] for one in result["unknown_words"]]
    found = []
    if foldable := result["unknown_foldable"]:
        some = [word for word in words if normalize(word) != word]
        found.append(
            f"{foldable:,} [UNK] are signs that fold into known ones"
            f"{_such_as(some)}: --normalize true"
        )
    others = round(result["unknown_share"] * result["tokens"]) - foldable
    if others > 0.0005 * result["tokens"]:
        some = [word for word in words if normalize(word) == word]
        found.append(
            f"{others:,} other [UNK]{_such_as(some)}: give the commonest "
            "tokens of their own (`python -m albert_tf2.data.vocabulary "
            "--vocab_file ... --assign ...`)"
        )
    return found


def _such_as(words: list[str]) -> str:
    return f" ({' '.join(words[:5])})" if words else ""
