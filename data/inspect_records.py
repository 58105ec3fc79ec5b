"""Shows decoded records in the terminal, with their masks highlighted.

Compact records are masked here as training would mask them with this seed.
Within a row, / divides words and each pair stands on a line of its own:

    pair 1, in order: [CLS] 使用/«语言»/模型 [SEP] 来/{预→鱼}测/词语 [SEP]

    «x»   is [MASK] in the input, and x is to be predicted
    {x→y} is replaced by y, and x is to be predicted
    {x}   stays, and is to be predicted

python -m albert_tf2.data.inspect_records --data_dir records --num_records 3
"""

import functools
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from albert_tf2 import command_line, features, paths
from albert_tf2.errors import UserError
from albert_tf2.settings import MAX_SEED
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import PIECE_PREFIX, Vocabulary

from . import records

PROG = "python -m albert_tf2.data.inspect_records"
MASKED_LM_PROB = 0.1
# ANSI colours of «x», {x→y}, {x} and special tokens.
COLOURS = {"mask": "41", "random": "43;30", "keep": "42;30", "special": "2"}


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line and prints the records."""
    parser = command_line.parser(__doc__, PROG)
    add = parser.add_argument
    add(
        "--data_dir",
        required=True,
        metavar="FOLDER",
        help="the records, as the builder writes them",
    )
    add(
        "--vocab_file",
        metavar="FILE",
        help="the vocabulary, if it is not in --data_dir",
    )
    add(
        "--subset",
        choices=("train", "eval"),
        default="train",
        help="the records to train on, or those held out (default: train)",
    )
    number = functools.partial(command_line.add_number, parser)
    number("--num_records", 3, "Records to print.", least=1, most=10**9)
    number("--seed", 0, "Decides the masks.", least=0, most=MAX_SEED)
    number(
        "--masked_lm_prob",
        MASKED_LM_PROB,
        "Share of the tokens to mask.",
        kind=float,
        above=0.0,
        most=0.9,
    )
    add(
        "--colour",
        choices=("auto", "always", "never"),
        default="auto",
        help="colour what is masked; auto: on a terminal (default: auto)",
    )
    flags = parser.parse_args(argv)
    if not paths.is_dir(flags.data_dir):
        raise UserError(
            f"--data_dir {flags.data_dir} is not a folder: run the builder "
            "first"
        )
    vocab_file = flags.vocab_file or paths.join(flags.data_dir, "vocab.txt")
    vocabulary = Vocabulary.load(vocab_file)
    colour = flags.colour == "always" or (
        flags.colour == "auto" and sys.stdout.isatty()
    )
    for place, row in enumerate(_rows(flags, vocabulary)):
        print(f"record {place} of {flags.subset}")
        for line in lines_of_row(row, vocabulary, colour=colour):
            print(f"  {line}")
    return 0


def lines_of_frames(
    frames: Sequence[bytes],
    vocabulary: Vocabulary,
    *,
    max_seq_length: int,
    max_pairs: int,
    seed: int = 0,
) -> list[list[str]]:
    """Lays rows out that stand in no folder (`lines_of_row`), in colour.

    Args:
        frames: Of compact records (`records.frame`).
        vocabulary: The tokens.
        max_seq_length: T.
        max_pairs: The most pairs in a row.
        seed: Decides order and masks.
    """
    if not frames:
        return []
    from albert_tf2.records import masking
    from albert_tf2.records.record_set import CompactRecords

    record_set = CompactRecords(
        folder="", subset="train", paths=(), counts=(), sums=(),
        max_seq_length=max_seq_length, max_pairs=max_pairs,
        vocab_size=len(vocabulary), text_settings=TextSettings(),
    )  # fmt: skip
    payloads = [records.payload_of(one) for one in frames]
    batch = _masker(vocabulary, max_seq_length, MASKED_LM_PROB)(
        *record_set.parse(payloads),
        masking.row_keys(seed, np.arange(len(frames))),
        packed=True,
    )
    found = []
    for number, payload in enumerate(payloads):
        row = {name: value.numpy()[number] for name, value in batch.items()}
        row["word_starts"] = word_starts_of_row(row, payload, record_set)
        found.append(lines_of_row(row, vocabulary, colour=True))
    return found


def _masker(vocabulary: Vocabulary, length: int, share: float) -> Any:
    from albert_tf2.records import masking

    return masking.Masker(
        vocabulary,
        max_seq_length=length,
        max_predictions_per_seq=max(1, round(length * share)),
        masked_lm_prob=share,
    )


def _rows(flags: Any, vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    """Yields the first records as training sees them, one by one."""
    from albert_tf2.records import pipeline
    from albert_tf2.records.record_set import (
        CompactRecords,
        damage_told,
        open_records,
    )

    record_set = open_records(flags.data_dir, flags.subset)
    if not record_set.records:
        raise UserError(f"{flags.data_dir} has no {flags.subset} records")
    length = record_set.max_seq_length
    masker = _masker(vocabulary, length, flags.masked_lm_prob)
    dataset = pipeline.evaluation_dataset(
        record_set, masker, batch_size=1, seed=flags.seed
    )
    stored = (
        d for path in record_set.paths for d in records.read_records(path)
    )
    with damage_told(record_set):
        # `stored` first: it names the file and the record that is damaged.
        for data, batch in itertools.islice(
            zip(stored, dataset, strict=False), flags.num_records
        ):
            row = {name: value.numpy()[0] for name, value in batch.items()}
            if isinstance(record_set, CompactRecords):
                row["word_starts"] = word_starts_of_row(row, data, record_set)
            yield row


def word_starts_of_row(
    row: Mapping[str, np.ndarray], data: bytes, record_set: Any
) -> np.ndarray:
    """Finds where words begin in a row whose segments may be swapped.

    Returns:
        bool [T], False at special tokens.
    """
    _, starts, lengths = record_set.parse([data])
    starts, lengths = starts.numpy()[0], lengths.numpy()[0].reshape(-1, 2)
    found = []
    begin = 0
    for (a, b), swapped in zip(
        lengths, row[features.SENTENCE_ORDER_LABELS], strict=True
    ):
        if a:
            halves = [starts[begin : begin + a], starts[begin + a :][:b]]
            first, second = halves[::-1] if swapped else halves
            found += [[False], first, [False], second, [False]]
            begin += a + b
    if not found:
        raise UserError(
            f"{record_set.folder}: a record of its {record_set.subset} files "
            "holds no pair, so it is none of the set: run the builder with "
            "--verify"
        )
    joined = np.concatenate(found)
    return np.pad(joined, (0, len(row[features.INPUT_MASK]) - len(joined)))


def lines_of_row(
    row: Mapping[str, np.ndarray], vocabulary: Vocabulary, *, colour: bool
) -> list[str]:
    """Lays a row out for reading: a line for each of its pairs."""
    ids = row[features.INPUT_WORD_IDS]
    real = row[features.INPUT_MASK].astype(bool)
    pair_of = row.get(features.INPUT_PAIR_IDS, real.astype(int))
    starts = row.get("word_starts", np.zeros(len(ids), bool))
    labels = {
        int(position): int(label)
        for position, label, weight in zip(
            row[features.MASKED_LM_POSITIONS],
            row[features.MASKED_LM_IDS],
            row[features.MASKED_LM_WEIGHTS],
            strict=True,
        )
        if weight
    }
    lines = []
    for pair in range(1, int(pair_of.max()) + 1):
        swapped = row[features.SENTENCE_ORDER_LABELS][pair - 1]
        pieces = []
        for place in np.flatnonzero(pair_of == pair).tolist():
            shown = _show(ids[place], labels.get(place), vocabulary, colour)
            before = int(ids[place - 1]) if place else vocabulary.sep_id
            after_special = before in (vocabulary.cls_id, vocabulary.sep_id)
            divided = starts[place] and not after_special
            pieces.append("/" + shown if divided else shown)
        order = "swapped" if swapped else "in order"
        lines.append(f"pair {pair}, {order}: {''.join(pieces).strip()}")
    lines.append(
        f"{int(real.sum())} of {len(ids)} places filled, "
        f"{len(labels)} to predict"
    )
    return lines


def _show(
    token_id: int, label: int | None, vocabulary: Vocabulary, colour: bool
) -> str:
    """Spells a token and what is to be predicted in its place."""
    token = _token(token_id, vocabulary)
    if label is None:
        if token_id in (vocabulary.cls_id, vocabulary.sep_id):
            return f" {_paint(token, 'special', colour)} "
        return token
    target = _token(label, vocabulary)
    if token_id == vocabulary.mask_id:
        return _paint(f"«{target}»", "mask", colour)
    if token_id == label:
        return _paint(f"{{{target}}}", "keep", colour)
    return _paint(f"{{{target}→{token}}}", "random", colour)


def _token(token_id: int, vocabulary: Vocabulary) -> str:
    if not 0 <= token_id < len(vocabulary):
        raise UserError(
            f"{vocabulary.source} has {len(vocabulary):,} tokens, and a record "
            f"holds the id {token_id}: name the vocabulary of the records with "
            "--vocab_file"
        )
    return vocabulary.tokens[token_id].removeprefix(PIECE_PREFIX)


def _paint(text: str, kind: str, colour: bool) -> str:
    return f"\033[{COLOURS[kind]}m{text}\033[0m" if colour else text


if __name__ == "__main__":
    command_line.run(main)
