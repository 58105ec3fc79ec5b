"""Units -> what the report tells about a corpus, in one pass.

Workers build every unit as the builder would and look at it meanwhile; what
they saw is added up in the order of the corpus. So the figures are the same
for any number of workers, and memory does not grow (`sketches`).
"""

import dataclasses
import heapq
import unicodedata
from collections import Counter
from typing import Any, ClassVar, NamedTuple

import numpy as np

from albert_tf2.text.normalization import normalize
from albert_tf2.text.tokenization import Vocabulary

from . import duplicates, parts, segments, shards, sketches, units
from .build_config import BuildConfig
from .census import Census
from .scripts import script_of

# Upper ends of the histograms, in tokens.
SENTENCE_BINS = (5, 10, 20, 30, 40, 60, 80, 120, 200, 500)
DOCUMENT_BINS = (16, 32, 64, 128, 256, 512, 1024, 2048, 8192, 32768)
COMMONEST = 30
# Rows of records that are kept to be shown.
SAMPLES = 6
# Characters around an unknown word, and at the beginning of a document.
CONTEXT, BEGINNING = 12, 40


class Look(NamedTuple):
    """What was seen in a unit.

    Attributes:
        head: What its part would tell.
        characters: uint32 [C] code points, and int64 [C] how often each.
        unknown: How often each unknown word, and its first context.
        foldable: The [UNK] that `--normalize true` would make known.
        sentences: int64 [S], their tokens.
        documents: int64 [D], the tokens of documents, or of what is here.
        keys: Of the documents.
        beginnings: By the exact key of a document: how often it is here, and
            how it begins.
        sample: Rows of the records that were drawn here, each behind a hash
            by which the corpus draws among them.
    """

    head: parts.Head
    characters: tuple[np.ndarray, np.ndarray]
    unknown: dict[str, tuple[int, str]]
    foldable: int
    sentences: np.ndarray
    documents: np.ndarray
    keys: duplicates.Keys
    beginnings: dict[int, tuple[int, str]]
    sample: list[tuple[float, bytes]]


@dataclasses.dataclass(frozen=True)
class ReportPlan(shards.Plan):
    """Looks at a corpus with the means of a build."""

    stage: ClassVar[str] = "report"

    def part_builder(self) -> "Looker":
        """Loads what a worker needs."""
        return Looker(self.config, self.vocabulary)


class Looker(parts.PartBuilder):
    """Builds units as the builder does, and tells what was in them."""

    def __init__(self, config: BuildConfig, vocabulary: Vocabulary):
        super().__init__(config, vocabulary)
        self._is_word = duplicates.words_of(vocabulary)

    def look(self, unit: units.Unit) -> Look:
        """Looks at a unit."""
        part, content = self.build_and_show(unit)
        text, tokens, found = content
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        unknown = self._unknown(content)
        keys = duplicates.keys_of(text, tokens, found, self._is_word)
        bounds = [(ends[0], ends[-1]) for ends in found.sentence_ends]
        begins, ends = np.array(bounds, int).reshape(-1, 2).T
        return Look(
            part.head,
            np.unique(codes, return_counts=True),
            unknown,
            self._foldable(unknown),
            np.concatenate(
                [np.empty(0, int), *map(np.diff, found.sentence_ends)]
            ),
            ends - begins,
            keys,
            _beginnings(text, tokens.starts[begins].tolist(), keys),
            self._sample(unit, part),
        )

    def _unknown(self, content: parts.Content) -> dict[str, tuple[int, str]]:
        """Returns the unknown words, with the first context of each."""
        text, tokens, _ = content
        found: dict[str, tuple[int, str]] = {}
        places = np.flatnonzero(tokens.ids == self.vocabulary.unknown_id)
        bounds = np.append(tokens.starts, len(text))
        for begin, end in zip(
            bounds[places].tolist(), bounds[places + 1].tolist(), strict=True
        ):
            word = text[begin:end].split()[0][:20]
            if word in found:
                found[word] = found[word][0] + 1, found[word][1]
                continue
            first = max(begin - CONTEXT, text.rfind("\n", 0, begin) + 1)
            last = begin + len(word) + CONTEXT
            line_end = text.find("\n", begin, last)
            context = text[first : line_end if line_end >= 0 else last]
            found[word] = 1, _shown(context)
        return found

    def _foldable(self, unknown: dict[str, tuple[int, str]]) -> int:
        """Counts the unknown words that are known once signs are folded."""
        words = list(unknown)
        folded = [normalize(word) for word in words]
        tokens = self.tokenizer.tokenize("\n".join(folded))
        ends = np.cumsum([len(word) + 1 for word in folded])
        still = tokens.starts[tokens.ids == self.vocabulary.unknown_id]
        lost = {*np.searchsorted(ends, still, side="right").tolist()}
        return sum(
            unknown[word][0]
            for number, word in enumerate(words)
            if number not in lost
        )

    def _sample(
        self, unit: units.Unit, part: parts.Part
    ) -> list[tuple[float, bytes]]:
        """Draws a few rows of the unit."""
        rows = [row for key in sorted(part.groups) for row in part.groups[key]]
        rng = segments.rng_of(
            self.config.seed, "sample", unit.file.name, unit.index
        )
        drawn = rng.sample(rows, min(SAMPLES, len(rows)))
        return [(rng.random(), bytes(row)) for row in drawn]


def _beginnings(
    text: str, begins: list[int], keys: duplicates.Keys
) -> dict[int, tuple[int, str]]:
    """Returns how often each document is here, and how it begins."""
    found: dict[int, tuple[int, str]] = {}
    ends = [*begins, len(text)][1:]
    for key, begin, end in zip(keys.exact.tolist(), begins, ends, strict=True):
        if key in found:
            found[key] = found[key][0] + 1, found[key][1]
        else:
            found[key] = 1, _shown(text[begin : min(end, begin + BEGINNING)])
    return found


def _shown(text: str) -> str:
    """Returns a piece of text in one line, without control characters."""
    return "".join(
        " " if unicodedata.category(c)[0] in "CZ" else c for c in text
    ).strip()


class Analysis:
    """What was seen in a corpus so far."""

    def __init__(self, plan: shards.Plan):
        self.plan = plan
        self.census = Census()
        self.characters: np.ndarray = np.zeros(0x110000, np.int64)
        self.unknown = sketches.Commonest()
        self.foldable = 0
        self.sentences, self.documents = sketches.Lengths(), sketches.Lengths()
        self.sample = sketches.DocumentSample()
        self.beginnings = sketches.Commonest()
        self._rows: list[tuple[float, bytes]] = []
        # The file and the tokens of a document that may go on.
        self._open: tuple[int, int] | None = None

    def add(self, place: tuple[int, int], look: Look) -> None:
        """Takes in what was seen in a unit; in the order of the corpus."""
        self.census.add(place, look.head)
        codes, counts = look.characters
        self.characters[codes] += counts
        self.unknown.add(look.unknown)
        self.foldable += look.foldable
        self.sentences.add(look.sentences)
        self._add_documents(place[0], look)
        self.sample.add(look.keys, duplicates.document_id(*place, 0))
        self.beginnings.add(look.beginnings)
        self._rows = heapq.nsmallest(SAMPLES, [*self._rows, *look.sample])

    def _add_documents(self, file_number: int, look: Look) -> None:
        """Counts documents, of which units may hold pieces."""
        begins_inside, ends_inside, *_ = look.head.joint
        lengths = look.documents.tolist()
        if self._open is not None:
            number, before = self._open
            if begins_inside and number == file_number:
                lengths[:1] = [before + sum(lengths[:1])]
            else:
                self.documents.add(np.array([before]))
            self._open = None
        if ends_inside and lengths:
            self._open = file_number, lengths.pop()
        self.documents.add(np.array(lengths, int))

    def rows(self) -> list[bytes]:
        """Returns the frames of a few rows of the records."""
        return [row for _, row in sorted(self._rows)]

    def result(self, global_batch_size: int) -> dict[str, Any]:
        """Returns the figures of the report, once all is seen."""
        self.census.close()
        if self._open is not None:
            self.documents.add(np.array([self._open[1]]))
            self._open = None
        counts = self.census.counts
        config = self.plan.config
        exact, near = self.sample.duplicates()
        records = counts["train_records"] + counts["eval_records"]
        places = records * config.max_seq_length
        documents = max(1, counts["documents"])
        return {
            "files": len(self.plan.files),
            "bytes": counts["bytes"],
            "documents": counts["documents"],
            "sentences": counts["sentences"],
            "characters": int(self.characters.sum()),
            "tokens": counts["tokens"],
            "sentence_lengths": _histogram(self.sentences, SENTENCE_BINS),
            "document_lengths": _histogram(self.documents, DOCUMENT_BINS),
            "unknown_share": counts["unknown_tokens"]
            / max(1, counts["tokens"]),
            "unknown_words": [
                {"word": word, "count": count, "context": context}
                for word, count, context in self.unknown.ranked(COMMONEST)
            ],
            "unknown_counts_too_low_by": self.unknown.error,
            "unknown_foldable": self.foldable,
            "scripts": self._scripts(),
            "duplicate_documents": exact,
            "near_duplicate_documents": near,
            # Exact counts: 1, 0.
            "duplicates_looked_for_in": self.sample.share,
            "duplicates_error": self.sample.error() * documents,
            "repeated_documents": [
                {"count": count, "begins": text}
                for _, count, text in self.beginnings.ranked(5)
                if count > 1
            ],
            "few_han_documents": counts["few_han_documents"],
            "html_left_overs": counts["html_left_overs"],
            "repeated_lines": counts["repeated_lines"],
            "one_sentence_documents": counts["one_sentence_documents"],
            # Documents of two sentences or more give pairs that meet
            # between sentences.
            "sentence_order_share": 1
            - counts["one_sentence_documents"] / documents,
            "documents_split": counts["documents_split"],
            "documents_too_short": counts["dropped_documents"],
            "lines_not_utf8": counts["lines_not_utf8"],
            "lines_malformed": counts["lines_malformed"],
            "nul_characters": counts["nul_characters"],
            "max_seq_length": config.max_seq_length,
            "pairs": counts["pairs"],
            "pairs_within_a_sentence": counts["pairs_within_a_sentence"],
            "records": records,
            "padding_share": counts["padding_tokens"] / max(1, places),
            "global_batch_size": global_batch_size,
            "tokens_per_epoch": places - counts["padding_tokens"],
            "steps_per_epoch": -(-records // global_batch_size),
        }

    def _scripts(self) -> dict[str, float]:
        scripts: Counter[str] = Counter()
        for code in np.flatnonzero(self.characters).tolist():
            scripts[script_of(chr(code))] += int(self.characters[code])
        ordered = sorted(scripts.items(), key=lambda item: (-item[1], item[0]))
        return {name: n / scripts.total() for name, n in ordered}


def _histogram(lengths: sketches.Lengths, bins: tuple) -> dict[str, Any]:
    """Returns how many lie up to each of `bins`, and beyond."""
    below = [lengths.up_to(limit) for limit in bins]
    return {
        "up_to": [*bins, None],
        "counts": np.diff([0, *below, lengths.count]).tolist(),
        "mean": lengths.sum / max(1, lengths.count),
        "median": lengths.median(),
        "longest": lengths.longest,
    }
