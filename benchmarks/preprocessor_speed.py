"""Tokenizers side by side: strings per CPU-second, and whose ids are right.

Real text in, one process, CPU seconds (not wall time: the machine may be
busy). An id is right if it is that of `albert_tf2.Tokenizer`, which equals the
original program's.

    python benchmarks/preprocessor_speed.py --vocab_file vocab.txt \\
        --input_file lcqmc/dev.txt
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from albert_tf2 import command_line
from albert_tf2.errors import UserError

BATCH = 1024


def read_texts(path: Path, limit: int) -> list[str]:
    """Returns the tab-separated fields that are texts."""
    fields = [
        field
        for line in path.read_text(encoding="utf-8").splitlines()
        for field in line.split("\t")
        if len(field) > 1
    ]
    if not fields:
        raise UserError(f"{path} holds no text: give a file of sentences")
    return (fields * (limit // len(fields) + 1))[:limit]


def measure(
    run: Callable[[Sequence], object], texts: Sequence, repeats: int
) -> float:
    """Returns the median of strings per CPU-second over batches."""
    batches = [texts[i : i + BATCH] for i in range(0, len(texts), BATCH)]
    run(batches[0])
    speeds = []
    for _ in range(repeats):
        start = time.process_time()
        for batch in batches:
            run(batch)
        speeds.append(len(texts) / (time.process_time() - start))
    return statistics.median(speeds)


def contenders(vocab_file: str) -> dict[str, tuple[Callable, Callable]]:
    """Returns, by name, what to time and what gives ragged ids."""
    import tensorflow as tf
    import tensorflow_text as tf_text
    from tokenizers import BertWordPieceTokenizer

    from albert_tf2.hub_export.preprocessor import Preprocessor
    from albert_tf2.text.tokenization import Tokenizer, Vocabulary

    tokens = list(Vocabulary.load(vocab_file).tokens)
    ours = Preprocessor(Tokenizer(vocab_file))
    plain = tf_text.FastBertTokenizer(
        tokens,
        max_bytes_per_word=200,
        token_out_type=tf.int32,
        lower_case_nfd_strip_accents=True,
    )
    plain_cut = tf.function(
        lambda text: plain.tokenize(text),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    cut = tf.function(
        ours.tokenize.cut, input_signature=[tf.TensorSpec([None], tf.string)]
    )
    huggingface = BertWordPieceTokenizer(vocab_file, lowercase=True)
    python = Tokenizer(vocab_file)

    def huggingface_ids(texts):
        encoded = huggingface.encode_batch(texts, add_special_tokens=False)
        return [row.ids for row in encoded]

    def python_ids(texts):
        return [python.tokenize(text).ids for text in texts]

    def ids_of(function):
        return lambda texts: function(tf.constant(texts)).to_list()

    return {
        "albert_tf2 preprocessor, ids": (cut, ids_of(cut)),
        "albert_tf2 preprocessor, packed [B, 128]": (ours, ids_of(cut)),
        "tf.text FastBertTokenizer, defaults": (plain_cut, ids_of(plain_cut)),
        "HF tokenizers": (huggingface_ids, huggingface_ids),
        "albert_tf2.Tokenizer (Python)": (python_ids, python_ids),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--vocab_file", required=True, type=Path)
    add("--input_file", required=True, type=Path)
    add("--texts", type=int, default=40_000)
    add("--repeats", type=int, default=5)
    args: argparse.Namespace = parser.parse_args(argv)
    texts = read_texts(args.input_file, args.texts)

    import tensorflow as tf

    from albert_tf2.text.tokenization import Tokenizer

    tokenizer = Tokenizer(args.vocab_file)
    expected = [tokenizer.tokenize(text).ids for text in texts]
    print("| tokenizer | strings per CPU-second | texts with other ids |")
    print("|---|---|---|")
    for name, (run, ids) in contenders(str(args.vocab_file)).items():
        # Strings reach a graph as a tensor, from tf.data or a request.
        in_graph = isinstance(run, tf.types.experimental.GenericFunction)
        given = tf.constant(texts) if in_graph or "packed" in name else texts
        speed = measure(run, given, args.repeats)
        wrong = sum(
            found != wanted
            for found, wanted in zip(ids(texts), expected, strict=True)
        )
        print(f"| {name} | {speed:,.0f} | {wrong} |", flush=True)
    return 0


if __name__ == "__main__":
    command_line.run(main)
