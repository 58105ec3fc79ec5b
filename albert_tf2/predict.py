"""Use a model from the command line: one load, many answers.

    classify     texts, or pairs "text_a<TAB>text_b"      (fine-tuned)
    tag          names in texts                           (fine-tuned)
    answer       "question<TAB>text"                      (fine-tuned)
    fill-mask    texts with [MASK]                        (pre-trained)
    similarity   two texts, pairs "text_a<TAB>text_b", or one --query against
                 many texts                               (any model)
    embed        texts to a .npy file of vectors          (any model)

Texts stand on the command line or, one per line, in --input_file; answers are
JSON Lines, on the screen or in --output_file. --interactive reads from the
keyboard.

    python -m albert_tf2.predict similarity --model albert_tiny_zh \\
      "我喜欢妈妈做的汤" "妈妈做的汤我很喜欢喝"
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from albert_tf2 import command_line, paths
from albert_tf2.errors import UserError
from albert_tf2.prediction.predictor import POOLINGS, Predictor
from albert_tf2.settings import MAX_BATCH, MAX_LENGTH

__all__ = ["Predictor", "main"]

MODES = ("classify", "tag", "answer", "fill-mask", "similarity", "embed")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser(__doc__, "python -m albert_tf2.predict")
    add = parser.add_argument
    add("mode", choices=MODES, help="what to do, see above")
    add("texts", nargs="*", help="what to do it with")
    add(
        "--model",
        "--checkpoint",
        required=True,
        metavar="SOURCE",
        help="a fine-tuned model's folder, a checkpoint, a hub encoder",
    )
    add(
        "--input_file", metavar="FILE", help="texts from here, one on each line"
    )
    add(
        "--output_file",
        metavar="FILE",
        help="answers to here: JSON Lines; for embed, .npy",
    )
    add("--interactive", action="store_true", help="texts from the keyboard")
    add(
        "--query",
        metavar="TEXT",
        help="similarity: compare this one with all texts",
    )
    command_line.add_number(
        parser,
        "--top_k",
        5,
        "Answers for each text: fill-mask, answer, similarity with --query.",
        least=1,
        most=1000,
    )
    add(
        "--pooling",
        choices=POOLINGS,
        default="mean",
        help="similarity, embed: what stands for a text: the mean of its "
        "tokens' vectors, that of [CLS], or the pooler's (default: mean)",
    )
    add(
        "--whiten_with",
        metavar="FILE",
        help="similarity, embed: sentences to fit whitening on, or an .npz "
        "that --save_whitening wrote",
    )
    command_line.add_number(
        parser,
        "--whiten_dimensions",
        None,
        "With --whiten_with: how many dimensions to keep; default: all.",
        least=1,
        most=MAX_LENGTH,
    )
    add(
        "--save_whitening",
        metavar="FILE.npz",
        help="keep the fitted whitening here, for --whiten_with",
    )
    add(
        "--vocab_file",
        metavar="FILE",
        help="the vocabulary, where none lies beside the model",
    )
    command_line.add_number(
        parser,
        "--batch_size",
        64,
        "Texts that are computed at a time.",
        least=1,
        most=MAX_BATCH,
    )
    command_line.add_number(
        parser,
        "--max_seq_length",
        128,
        "Tokens of a text for similarity, embed and fill-mask; a fine-tuned "
        "model knows its own.",
        least=5,
        most=MAX_LENGTH,
    )
    # Intermixed: options may stand between the mode and the texts.
    args = parser.parse_intermixed_args(argv)
    sources = bool(args.texts) + bool(args.input_file) + args.interactive
    if sources != 1:
        raise UserError(
            "give texts, or --input_file, or --interactive: exactly one. "
            f"Received: {sources} of them"
        )
    if args.mode == "embed" and not (args.output_file or "").endswith(".npy"):
        raise UserError("embed needs --output_file with a name in .npy")
    return args


def read_texts(path: paths.PathLike) -> list[str]:
    """Reads a text per line; empty lines count, so that answers align."""
    from albert_tf2.tasks.reading import numbered_lines

    return [line for _, line in numbered_lines(Path(path))]


def split_pair(text: str) -> tuple[str, str]:
    """Cuts "a<TAB>b" in two."""
    first, tab, second = text.partition("\t")
    if not tab:
        raise UserError(
            f"expected two texts with a tab between them. Received: {text!r}"
        )
    return first, second


def answers(
    predictor: Predictor, mode: str, texts: Sequence[str], args: Any
) -> Iterator[dict[str, Any]]:
    """Yields one answer per text, in their order."""
    if mode == "classify":
        pairs = [split_pair(t) if "\t" in t else t for t in texts]
        found = predictor.classify(pairs)
    elif mode == "tag":
        found = predictor.tag(texts)
    elif mode == "answer":
        found = predictor.answer([split_pair(t) for t in texts])
        for answer in found:
            answer["n_best"] = answer["n_best"][: args.top_k]
    elif mode == "fill-mask":
        found = [
            {"masks": predictor.fill_mask(text, top_k=args.top_k)}
            for text in texts
        ]
    else:
        yield from _similarities(predictor, texts, args)
        return
    for text, answer in zip(texts, found, strict=True):
        yield {**answer, "text": text}


def _similarities(predictor, texts, args) -> Iterator[dict[str, Any]]:
    if args.query:
        ranked = predictor.most_similar(
            args.query, texts, top_k=args.top_k, pooling=args.pooling
        )
        for index, cosine in ranked:
            yield {"similarity": round(cosine, 6), "text": texts[index]}
        return
    if len(texts) == 2 and not any("\t" in text for text in texts):
        texts = ["\t".join(texts)]
    pairs = [split_pair(text) for text in texts]
    scores = predictor.similarity(
        *zip(*pairs, strict=True), pooling=args.pooling
    )
    for (text_a, text_b), cosine in zip(pairs, scores, strict=True):
        yield {
            "similarity": round(float(cosine), 6),
            "text_a": text_a,
            "text_b": text_b,
        }


def set_whitening(predictor: Predictor, args: Any) -> None:
    """Fits or loads the whitening that the command line asks for."""
    from albert_tf2.prediction.similarity import Whitening

    if not args.whiten_with:
        return
    if args.whiten_with.endswith(".npz"):
        predictor.whitening = Whitening.load(args.whiten_with)
        return
    sentences = [text for text in read_texts(args.whiten_with) if text.strip()]
    whitening = predictor.whiten(
        sentences, dimensions=args.whiten_dimensions, pooling=args.pooling
    )
    if args.save_whitening:
        whitening.save(args.save_whitening)


def write_embeddings(predictor: Predictor, texts, args: Any) -> None:
    """Writes float32 [N, H], a row per text."""
    import numpy as np

    vectors = predictor.embed(texts, pooling=args.pooling)
    with paths.atomic_file(args.output_file, "wb") as stream:
        np.save(stream, vectors)
    print(f"{args.output_file}: {vectors.shape[0]} x {vectors.shape[1]}")


def interact(
    predictor: Predictor,
    args: Any,
    read: Callable[[str], str] = input,
) -> None:
    """Answers lines from the keyboard until the end of input."""
    print("a text per line; an empty line ends", file=sys.stderr)
    while True:
        try:
            text = read("> ").strip("\r\n")
            if not text.strip():
                return
            if args.mode in ("similarity", "answer") and "\t" not in text:
                text += "\t" + read("with > ")
        except EOFError:
            return
        try:
            for answer in answers(predictor, args.mode, [text], args):
                print(json.dumps(answer, ensure_ascii=False), flush=True)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    args = _parse(argv)
    texts = read_texts(args.input_file) if args.input_file else args.texts
    predictor = Predictor(
        args.model,
        vocab_file=args.vocab_file,
        batch_size=args.batch_size,
        max_seq_length=args.max_seq_length,
    )
    set_whitening(predictor, args)
    if args.interactive:
        interact(predictor, args)
        return 0
    if args.mode == "embed":
        write_embeddings(predictor, texts, args)
        return 0
    lines = (
        json.dumps(answer, ensure_ascii=False) + "\n"
        for answer in answers(predictor, args.mode, texts, args)
    )
    if args.output_file:
        with paths.atomic_file(args.output_file) as stream:
            stream.writelines(lines)
        print(f"{args.output_file}: {len(texts)} texts", file=sys.stderr)
    else:
        sys.stdout.writelines(lines)
    return 0


if __name__ == "__main__":
    command_line.run(main)
