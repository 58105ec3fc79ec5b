"""Learns a WordPiece vocabulary from a corpus, or adds words to one.

The special tokens have the ids of the released Chinese models: [PAD] 0,
[unused1] to [unused99], [UNK] 100, [CLS] 101, [SEP] 102, [MASK] 103. Then
come the characters that stand alone (Chinese, punctuation), the commonest
first, and pieces of words for everything else.

With --vocab_file that vocabulary gets new words instead, and every old one
keeps its id: --assign and --assign_file name them, --new_words finds them in
--input_file. They go into free [unusedN] slots and, with --grow, behind the
last token; train on with `pretrain --init_checkpoint` (docs/runs.md).

python -m albert_tf2.data.vocabulary --input_file 'corpus/*.txt' --output vocab.txt --vocab_size 21128
python -m albert_tf2.data.vocabulary --vocab_file vocab.txt --assign_file words.txt --grow --output grown.txt
"""  # noqa: E501

import argparse
import math
import string
from collections import Counter
from collections.abc import Iterable, Sequence

from tqdm import tqdm

from albert_tf2 import command_line, paths
from albert_tf2.errors import UserError
from albert_tf2.text.bulk_tokenization import BulkTokenizer
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import (
    PIECE_PREFIX,
    SPECIAL_TOKENS,
    Tokenizer,
    Vocabulary,
    split_words,
)
from albert_tf2.text.vocabulary_change import FREE_SLOT

from . import borders, corpus, reading, recognition, units, vocabulary_growth
from .build_config import BuildConfig
from .read_config import ReadConfig, add_flags
from .vocabulary_growth import stands_alone

PROG = "python -m albert_tf2.data.vocabulary"
NUM_UNUSED = 99
RESERVED = (
    "[PAD]",
    *(f"[unused{i}]" for i in range(1, NUM_UNUSED + 1)),
    *SPECIAL_TOKENS[1:],
)

# Rare words are forgotten when so many distinct ones are held (1 GB).
MAX_DISTINCT_WORDS = 5_000_000
# Words to learn pieces from: the commonest; the rest changes nothing.
MAX_LEARNED_WORDS = 200_000
# Characters that stand alone leave at least this share to word pieces.
PIECE_SHARE = 0.1
# With these every Latin word and number can be spelled.
ALPHABET = tuple(
    prefix + letter
    for letter in string.ascii_lowercase + string.digits
    for prefix in ("", PIECE_PREFIX)
)
CHARACTER_SETS = ("none", "gb2312-1", "gb2312")


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line, writes the vocabulary, prints a summary."""
    flags = _parser().parse_args(argv)
    told = []
    if paths.is_dir(flags.output):
        raise UserError(f"{flags.output} is a folder: name a file in it")
    if flags.vocab_file:
        tokens = list(Vocabulary.load(flags.vocab_file).tokens)
    else:
        tokens, spelled = _learn(flags)
        told.append(spelled)
    new = [*flags.assign, *(t for f in flags.assign_file for t in _lines(f))]
    if flags.vocab_file:
        new += _found(flags, tokens, new)
    if new or flags.grow:
        change = vocabulary_growth.add_words(
            tokens,
            new,
            behind=flags.grow or (),
            grow=flags.grow is not None,
            do_lower_case=flags.do_lower_case,
        )
        tokens = change.tokens
        told += change.told()
    elif flags.vocab_file:
        raise UserError(
            "--vocab_file is to be changed: name new tokens with --assign, "
            "--assign_file or --grow, or find them with --input_file and "
            "--new_words"
        )
    vocabulary = Vocabulary(tokens, source=flags.output)
    with paths.atomic_file(flags.output) as stream:
        stream.writelines(f"{token}\n" for token in vocabulary.tokens)
    free = sum(FREE_SLOT.fullmatch(token) is not None for token in tokens)
    told.insert(0, f"{len(tokens):,} tokens, {free} slots free")
    print(f"{flags.output}: {'; '.join(told)}")
    return 0


def _found(
    flags: argparse.Namespace, tokens: Sequence[str], named: Sequence[str]
) -> list[str]:
    """Returns words of the corpus that the vocabulary lacks."""
    if bool(flags.input_file) != bool(flags.new_words):
        raise UserError(
            "with --vocab_file, --input_file and --new_words go together: "
            "the corpus, and how many of its words to add"
        )
    if not flags.new_words:
        return []
    return vocabulary_growth.worthwhile(
        _words_of(flags),
        [*tokens, *named, *(flags.grow or ())],
        flags.new_words,
        min_count=flags.min_count,
    )


def _words_of(flags: argparse.Namespace) -> Counter[str]:
    config = command_line.of_flags(ReadConfig, flags)
    return count_words(
        recognition.find(flags.input_file, config),
        do_lower_case=flags.do_lower_case,
        config=config,
    )


def _learn(flags: argparse.Namespace) -> tuple[list[str], str]:
    """Learns tokens; returns them, and what of the corpus they can write."""
    if not flags.input_file:
        raise UserError("pass --input_file, or --vocab_file with --assign")
    required = characters_of(flags.character_set)
    _check_size(flags.vocab_size, len(required))
    words = _words_of(flags)
    tokens = learn(
        words,
        flags.vocab_size,
        character_coverage=flags.character_coverage,
        required=required,
        min_count=flags.min_count,
    )
    told = coverage(words, tokens)
    lost = [letter for letter in ALPHABET if letter not in tokens]
    if lost:
        needed = flags.vocab_size + len(lost)
        told += (
            f"; --vocab_size {flags.vocab_size} leaves no room for "
            f"{' '.join(lost)}, so words with them become [UNK] (from about "
            f"{needed} on they fit)"
        )
    return tokens, told


def _lines(path: str) -> list[str]:
    """Returns the tokens of a file, one on each line."""
    text = paths.read_text(path).removeprefix("\ufeff")
    return [line.strip() for line in text.split("\n") if line.strip()]


def _parser() -> argparse.ArgumentParser:
    parser = command_line.parser(__doc__, PROG)
    add = parser.add_argument
    add(
        "--input_file",
        nargs="+",
        metavar="FILE",
        help="the corpus: files or globs",
    )
    add(
        "--vocab_file",
        metavar="FILE",
        help="a vocabulary to add words to",
    )
    add(
        "--output",
        required=True,
        metavar="FILE",
        help="the vocabulary to write",
    )
    command_line.add_number(
        parser,
        "--vocab_size",
        21128,
        "Tokens to write, at most.",
        least=1,
        most=10_000_000,
    )
    command_line.add_number(
        parser,
        "--character_coverage",
        0.9999,
        "Share of the characters that stand alone which get a token.",
        kind=float,
        above=0.0,
        most=1.0,
    )
    add(
        "--character_set",
        choices=CHARACTER_SETS,
        default="none",
        help="also these characters, seen or not: the 3,755 common ones of "
        "GB 2312, or all its 6,763 (default: none)",
    )
    command_line.add_number(
        parser,
        "--min_count",
        2,
        "Rarer characters and words are left out.",
        least=1,
        most=10**9,
    )
    add(
        "--assign",
        nargs="+",
        default=[],
        metavar="TOKEN",
        help="put these tokens into the first free [unusedN] slots; signs "
        "such as emoji get their `##` form too",
    )
    add(
        "--assign_file",
        nargs="+",
        default=[],
        metavar="FILE",
        help="likewise the tokens of these files, one on each line",
    )
    command_line.add_number(
        parser,
        "--new_words",
        0,
        "With --vocab_file: assign so many words of --input_file, too, those "
        "that save the most tokens.",
        least=0,
        most=1_000_000,
    )
    add(
        "--grow",
        nargs="*",
        metavar="TOKEN",
        help="put these tokens, and those for which no slot is free, behind "
        "the last one: the table grows",
    )
    command_line.add_settings(parser, BuildConfig, ("do_lower_case",))
    add_flags(parser, ReadConfig)
    return parser


def count_words(
    files: Sequence[corpus.CorpusFile],
    *,
    do_lower_case: bool = True,
    config: ReadConfig = reading.DEFAULT,
) -> Counter[str]:
    """Counts the normalised words of a corpus, as WordPiece would see them."""
    settings = TextSettings(do_lower_case=do_lower_case)
    bulk = BulkTokenizer(Tokenizer(Vocabulary(SPECIAL_TOKENS), settings))
    counts: Counter[str] = Counter()  # of runs and characters as they stand
    total = sum(file.size for file in files)
    with tqdm(total=total, unit="B", unit_scale=True, desc="words") as bar:
        for number, file in enumerate(files):
            read: Counter[str] = Counter()
            for unit in units.of_file(file, on_error=config.on_error):
                text, _ = reading.read(unit, config, read)
                cut = bulk.cut(text)
                counts.update(cut.runs(text))
                # The text at single positions, as one string of characters.
                singles = cut.codes[cut.singles]
                counts.update(
                    singles.tobytes().decode("utf-32-le", "surrogatepass")
                )
                if len(counts) > MAX_DISTINCT_WORDS:
                    counts = Counter({w: n for w, n in counts.items() if n > 1})
                bar.update(unit.progress)
            figures = [read[name] for name in borders.COUNTED]
            borders.must_be_readable(files, {number: figures})
        bar.update(total - bar.n)
    words: Counter[str] = Counter()
    for run, count in counts.items():
        for word, _ in split_words(run, do_lower_case):
            words[word] += count
    if not words:
        raise UserError("the corpus has no words: check --input_file")
    return words


def learn(
    words: Counter[str],
    vocab_size: int,
    *,
    character_coverage: float = 0.9999,
    required: Iterable[str] = (),
    min_count: int = 2,
) -> list[str]:
    """Chooses at most `vocab_size` tokens.

    Args:
        words: Normalised words with their counts.
        vocab_size: The most tokens.
        character_coverage: Characters that stand alone get a token, the
            commonest first, until this share of their occurrences has one.
        required: Characters that get a token in any case.
        min_count: Rarer characters and words are left out.
    """
    required = sorted(set(required))
    _check_size(vocab_size, len(required))
    room = vocab_size - len(RESERVED)
    # The letters get theirs first, if that leaves half to the characters.
    kept = max(room * PIECE_SHARE, min(len(ALPHABET), room / 2))
    alone = {w: n for w, n in words.items() if stands_alone(w)}
    ranked = sorted(alone, key=lambda w: (-alone[w], w))
    chosen = dict.fromkeys(required)
    needed = character_coverage * sum(alone.values())
    covered = sum(alone.get(character, 0) for character in chosen)
    for character in ranked:
        full = len(chosen) >= room - kept
        if covered >= needed or alone[character] < min_count or full:
            break
        if character not in chosen:
            chosen[character] = None
            covered += alone[character]
    characters = sorted(chosen, key=lambda w: (-alone.get(w, 0), w))
    other = {w: n for w, n in words.items() if w not in alone}
    pieces = learn_pieces(other, room - len(characters), min_count=min_count)
    return [*RESERVED, *characters, *pieces]


def _check_size(vocab_size: int, num_required: int) -> None:
    least = len(RESERVED) + 1 + math.ceil(num_required * (1 + PIECE_SHARE))
    if vocab_size < least:
        raise UserError(
            f"--vocab_size must be at least {least} for the {len(RESERVED)} "
            f"special and {num_required} required tokens. Received: "
            f"{vocab_size}"
        )


def learn_pieces(
    words: dict[str, int], size: int, *, min_count: int
) -> list[str]:
    """Learns at most `size` word pieces with TensorFlow Text's learner."""
    common = sorted(words, key=lambda w: (-words[w], w))[:MAX_LEARNED_WORDS]
    counts = [(w, words[w]) for w in common if words[w] >= min_count]
    if not counts or size <= len(ALPHABET):
        return list(ALPHABET[:size])
    # Slow to import, so only here.
    from tensorflow_text.tools.wordpiece_vocab import (
        wordpiece_tokenizer_learner_lib as learner,
    )

    # Each letter takes two tokens (`x` and `##x`); it never takes all.
    letters: Counter[str] = Counter()
    for word, count in counts:
        letters.update(dict.fromkeys(word, count))
    tokens = learner.learn(
        counts,
        vocab_size=size,
        reserved_tokens=[],
        lower_thresh=min_count,
        max_unique_chars=min(len(letters), max(1, size // 4)),
        max_input_tokens=-1,
        slack_ratio=0.01,
        joiner=PIECE_PREFIX,
    )
    learned = (t for t in tokens if t not in ("", PIECE_PREFIX, *ALPHABET))
    return [*ALPHABET, *learned][:size]


def characters_of(name: str) -> list[str]:
    """Returns the Chinese characters of a set in `CHARACTER_SETS`."""
    if name == "none":
        return []
    # GB 2312 orders its characters in rows: 16 to 55 hold the common ones,
    # 56 to 87 the others.
    rows = range(16, 56 if name == "gb2312-1" else 88)
    codes = [bytes([0xA0 + r, 0xA0 + c]) for r in rows for c in range(1, 95)]
    return list(b"".join(codes).decode("gb2312", "ignore"))


def coverage(words: Counter[str], tokens: Sequence[str]) -> str:
    """Says how much of the corpus the tokens can write."""
    tokenizer = Tokenizer(Vocabulary(tokens))
    unknown_id = tokenizer.vocabulary.unknown_id
    unknown = {
        word: count
        for word, count in words.items()
        if tokenizer.cut_word(word)[0][0] == unknown_id
    }
    share = sum(unknown.values()) / sum(words.values())
    worst = sorted(unknown, key=lambda w: (-unknown[w], w))[:10]
    return f"{100 * share:.3f} % of the words are [UNK]: {' '.join(worst)}"


if __name__ == "__main__":
    command_line.run(main)
