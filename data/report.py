"""Looks at a corpus before training: sizes, [UNK], scripts, duplicates.

Counts documents and sentences with their lengths, the commonest unknown
words, the mix of scripts (simplified, traditional, Latin, emoji, ...),
duplicate documents, how many documents can give a sentence-order pair, the
padding of the records, and the tokens and steps of an epoch. Writes
report.txt, report.json and report.png.

python -m albert_tf2.data.report --input_file 'corpus/*.txt' --vocab_file vocab.txt --output_dir report
"""  # noqa: E501

import argparse
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from albert_tf2 import command_line, paths
from albert_tf2.errors import UserError
from albert_tf2.settings import MAX_BATCH
from albert_tf2.text.tokenization import Vocabulary, is_chinese

from . import parts, reading, recognition, units
from .build_config import BuildConfig
from .read_config import ReadConfig, add_flags
from .words import default_segmenter

PROG = "python -m albert_tf2.data.report"
COMMONEST = 30
# Upper ends of the histograms, in tokens.
SENTENCE_BINS = (5, 10, 20, 30, 40, 60, 80, 120, 200, 500)
DOCUMENT_BINS = (16, 32, 64, 128, 256, 512, 1024, 2048, 8192, 32768)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line, reads the corpus, writes the three files."""
    flags = _parser().parse_args(argv)
    config = command_line.of_flags(BuildConfig, flags, num_shards=1)
    config = config.resolved(0)
    files = recognition.find(flags.input_file, config)
    vocabulary = Vocabulary.load(flags.vocab_file)
    analysis = Analysis(config, vocabulary)
    total = sum(file.size for file in files)
    with tqdm(total=total, unit="B", unit_scale=True, desc="report") as bar:
        for file in files:
            for unit in units.of_file(file):
                analysis.add(unit)
                bar.update(unit.progress)
        bar.update(total - bar.n)
    result = analysis.result(flags.global_batch_size)
    text = as_text(result)
    with paths.atomic_file(
        paths.join(flags.output_dir, "report.txt")
    ) as stream:
        stream.write(text)
    paths.write_json(paths.join(flags.output_dir, "report.json"), result)
    draw(result, paths.join(flags.output_dir, "report.png"))
    print(text, end="")
    return 0


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
        ("max_seq_length", "short_seq_prob", "segmenter"),
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
    return parser


class Analysis(parts.PartBuilder):
    """Builds every part as the builder would, and looks at it meanwhile."""

    def __init__(self, config: BuildConfig, vocabulary: Vocabulary):
        super().__init__(config, vocabulary)
        self.counts: Counter[str] = Counter()
        self.code_counts = np.zeros(0x110000, np.int64)
        self.unknown: Counter[str] = Counter()
        self.sentence_lengths: Counter[int] = Counter()
        self.document_lengths: Counter[int] = Counter()
        self._seen: set[bytes] = set()

    def add(self, unit: units.Unit) -> None:
        """Counts what is in a unit."""
        found: Counter[str] = Counter()
        text, _ = reading.read(unit, self.config, found)
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        counted = np.bincount(codes)
        self.code_counts[: len(counted)] += counted
        self._look_at_tokens(text)
        for document in reading.documents(text):
            content = "\n".join(document).encode("utf-8", "surrogatepass")
            key = hashlib.blake2b(content, digest_size=12).digest()
            found["duplicate_documents"] += key in self._seen
            self._seen.add(key)
        self.counts.update(found)
        self.counts.update(
            {k: n for k, n in self.build(unit).counts.items() if k not in found}
        )

    def _look_at_tokens(self, text: str) -> None:
        tokens = self.tokenizer.tokenize(text)
        unknown = np.flatnonzero(tokens.ids == self.vocabulary.unknown_id)
        ends = np.append(tokens.starts, len(text))
        for number in unknown.tolist():
            word = text[ends[number] : ends[number + 1]].split()[0]
            self.unknown[word[:20]] += 1
        for bounds in parts.documents_of_tokens(text, tokens).sentence_ends:
            self.sentence_lengths.update(np.diff(bounds).tolist())
            self.document_lengths[int(bounds[-1] - bounds[0])] += 1

    def result(self, global_batch_size: int) -> dict[str, Any]:
        """Returns the figures of the report."""
        counts = self.counts
        if not counts["documents"]:
            raise UserError("the corpus has no document: check --input_file")
        records = counts["train_records"] + counts["eval_records"]
        scripts: Counter[str] = Counter()
        for code in np.flatnonzero(self.code_counts).tolist():
            scripts[script_of(chr(code))] += int(self.code_counts[code])
        characters = sum(scripts.values())
        return {
            "bytes": counts["bytes"],
            "documents": counts["documents"],
            "sentences": counts["sentences"],
            "characters": characters,
            "tokens": counts["tokens"],
            "sentence_lengths": _histogram(
                self.sentence_lengths, SENTENCE_BINS
            ),
            "document_lengths": _histogram(
                self.document_lengths, DOCUMENT_BINS
            ),
            "unknown_share": counts["unknown_tokens"]
            / max(1, counts["tokens"]),
            "unknown_words": _ranked(self.unknown)[:COMMONEST],
            "scripts": {
                name: count / characters for name, count in _ranked(scripts)
            },
            "duplicate_documents": counts["duplicate_documents"],
            "one_sentence_documents": counts["one_sentence_documents"],
            # Documents of two sentences or more give pairs that meet
            # between sentences.
            "sentence_order_share": 1
            - counts["one_sentence_documents"] / counts["documents"],
            "documents_split": counts["documents_split"],
            "lines_not_utf8": counts["lines_not_utf8"],
            "nul_characters": counts["nul_characters"],
            "max_seq_length": self.config.max_seq_length,
            "pairs": counts["pairs"],
            "records": records,
            "padding_share": counts["padding_tokens"]
            / max(1, records * self.config.max_seq_length),
            "global_batch_size": global_batch_size,
            "tokens_per_epoch": records * self.config.max_seq_length
            - counts["padding_tokens"],
            "steps_per_epoch": -(-records // global_batch_size),
        }


def script_of(character: str) -> str:
    """Names the script of a character, as the report tells them apart.

    A Chinese character is simplified if GB 2312 has it and Big5 has not,
    traditional the other way round, and common to both otherwise.
    """
    if is_chinese(character):
        gb, big5 = _encodes(character, "gb2312"), _encodes(character, "big5")
        if gb == big5:
            return "common Chinese" if gb else "rare Chinese"
        return "simplified" if gb else "traditional"
    category = unicodedata.category(character)
    if category[0] in "ZC" and category != "Co":
        return "white space and control"
    if category == "Nd":
        return "digits"
    if category[0] == "P":
        return "punctuation"
    name = unicodedata.name(character, "")
    if category[0] == "L":
        for script in ("LATIN", "HIRAGANA", "KATAKANA", "HANGUL"):
            if script in name:
                return script.capitalize()
        return "other letters"
    code = ord(character)
    if 0x1F000 <= code <= 0x1FAFF or 0x2600 <= code <= 0x27BF:
        return "emoji"
    return "other signs"


def _encodes(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _ranked(counts: Counter) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _histogram(lengths: Counter[int], bins: Sequence[int]) -> dict[str, Any]:
    """Counts lengths up to each of `bins`, and those beyond."""
    found = np.zeros(len(bins) + 1, np.int64)
    for length, count in lengths.items():
        found[np.searchsorted(bins, length)] += count
    total = sum(lengths.values())
    ordered = np.repeat(*np.array(sorted(lengths.items())).T)
    return {
        "up_to": [*bins, None],
        "counts": found.tolist(),
        "mean": float(ordered.sum() / max(1, total)),
        "median": int(ordered[total // 2]),
        "longest": int(ordered[-1]),
    }


def as_text(result: dict[str, Any]) -> str:
    """Lays the figures out for reading."""
    r = result
    lines = [
        f"{r['bytes'] / 1e6:,.1f} MB: {r['documents']:,} documents, "
        f"{r['sentences']:,} sentences, {r['tokens']:,} tokens",
        f"epoch at {r['max_seq_length']}: {r['records']:,} records with "
        f"{r['pairs']:,} pairs, {r['tokens_per_epoch']:,} tokens, "
        f"{100 * r['padding_share']:.1f} % padding; {r['steps_per_epoch']:,} "
        f"steps of {r['global_batch_size']}",
        f"sentence order: {100 * r['sentence_order_share']:.1f} % of the "
        f"documents have two sentences or more "
        f"({r['one_sentence_documents']:,} have one)",
        f"duplicate documents: {r['duplicate_documents']:,}; longer than a "
        f"unit and split: {r['documents_split']:,}; lines that are not "
        f"UTF-8: {r['lines_not_utf8']:,}; NUL: {r['nul_characters']:,}",
        f"[UNK]: {100 * r['unknown_share']:.3f} % of the tokens; commonest: "
        + " ".join(f"{word} {count:,}" for word, count in r["unknown_words"]),
        "scripts: "
        + ", ".join(f"{n} {100 * s:.2f} %" for n, s in r["scripts"].items()),
    ]
    for name in ("sentence_lengths", "document_lengths"):
        h = r[name]
        lines.append(
            f"{name.replace('_', ' ')} in tokens: mean {h['mean']:.1f}, "
            f"median {h['median']:,}, longest {h['longest']:,}"
        )
        most = max(h["counts"])
        for limit, count in zip(h["up_to"], h["counts"], strict=True):
            label = f"<= {limit:,}" if limit else "more"
            bar = "#" * round(40 * count / most)
            lines.append(f"  {label:>9} {count:>12,} {bar}")
    return "\n".join(lines) + "\n"


def draw(result: dict[str, Any], path: str) -> None:
    """Draws the report on one page."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        print("no report.png: pip install matplotlib to draw it")
        return
    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    for axis, name in (
        (axes[0, 0], "sentence_lengths"),
        (axes[0, 1], "document_lengths"),
    ):
        h = result[name]
        labels = [f"≤{limit}" if limit else "more" for limit in h["up_to"]]
        axis.bar(labels, h["counts"])
        axis.set_title(f"{name.replace('_', ' ')} (tokens)")
        axis.tick_params(axis="x", rotation=45)
    scripts = result["scripts"]
    axes[1, 0].barh([*scripts][::-1], [100 * s for s in scripts.values()][::-1])
    axes[1, 0].set_title("scripts (% of the characters)")
    # As code points: few machines have a Chinese font for matplotlib.
    words = [
        word if word.isascii() else f"U+{ord(word[0]):04X}"
        for word, _ in result["unknown_words"][:15]
    ]
    counts = [count for _, count in result["unknown_words"][:15]]
    axes[1, 1].barh(range(len(words))[::-1], counts, tick_label=words)
    axes[1, 1].set_title(
        f"[UNK]: {100 * result['unknown_share']:.3f} % of the tokens"
    )
    figure.suptitle(
        f"{result['documents']:,} documents, {result['tokens']:,} tokens; "
        f"{100 * result['padding_share']:.1f} % padding at "
        f"{result['max_seq_length']}; {result['steps_per_epoch']:,} steps of "
        f"{result['global_batch_size']}"
    )
    with paths.atomic_file(path, "wb") as stream:
        figure.savefig(stream, format="png", dpi=100)


if __name__ == "__main__":
    command_line.run(main)
