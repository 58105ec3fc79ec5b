"""Use a model from the command line: one load, many answers.

    classify     texts or pairs of texts                  (fine-tuned)
    score        the same, to numbers                     (fine-tuned)
    tag          names in texts                           (fine-tuned)
    answer       a question and a text                    (fine-tuned)
    fill-mask    texts with [MASK]                        (pre-trained)
    similarity   two texts, pairs, or one --query against many texts (any model)
    embed        texts to a .npy file of vectors          (any model)

Texts stand on the command line (two of them are a pair where the model takes
pairs), or one per line in --input_file, where a tab parts a pair; a .jsonl file
keeps its ids. Answer n belongs to line n; a blank line is answered by null.
Answers are JSON Lines, on the screen or in --output_file. --interactive reads
from the keyboard. --query searches what `embed` wrote, named by --vectors,
without embedding it again. --engine litert answers within a second, without
TensorFlow; the first time it converts the model.

    python -m albert_tf2.predict similarity 花呗怎么还款 如何还花呗
    python -m albert_tf2.predict classify --model runs/lcqmc/model \\
      --input_file questions.txt
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from albert_tf2 import command_line, paths
from albert_tf2.checkpoints import download
from albert_tf2.errors import UserError
from albert_tf2.prediction import input_files, litert_cache
from albert_tf2.prediction.input_files import Entry, FileEntries
from albert_tf2.prediction.predictor import POOLINGS, Predictor
from albert_tf2.settings import ENGINES, MAX_BATCH, MAX_LENGTH
from albert_tf2.tasks import base, reading

__all__ = ["Predictor", "main"]

# What can be walked through, and counted.
Entries = Sequence[Entry] | FileEntries

# The kinds of fine-tuned models that a mode needs, and what a blank line is
# answered by.
KINDS = {
    "classify": (base.CLASSIFICATION, base.MULTI_LABEL),
    "score": (base.REGRESSION,),
    "tag": (base.TAGGING,),
    "answer": (base.SPAN,),
}
NO_ANSWER: dict[str, dict[str, Any]] = {
    "classify": {"label": None},
    "score": {"score": None},
    "tag": {"entities": []},
    "answer": {"answer": None},
    "fill-mask": {"masks": []},
    "similarity": {"similarity": None},
}
MODES = (*KINDS, "fill-mask", "similarity", "embed")
# Texts that are sorted by length together, and held. Of questions of twelve
# tokens, a hundredth of what is computed is then padding; of 1,024 a tenth is.
PART_TEXTS = 8192
# Modes whose models say something of every token: fewer texts are held.
PER_TOKEN = ("tag", "answer")
TELL_EVERY_SECONDS = 10


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser(__doc__, "python -m albert_tf2.predict")
    add = parser.add_argument
    add("mode", choices=MODES, help="what to do, see above")
    add("texts", nargs="*", help="what to do it with")
    add(
        "--model",
        "--checkpoint",
        metavar="SOURCE",
        help="a fine-tuned model's folder, a checkpoint, a hub encoder, or a "
        "file for LiteRT "
        "(default, where no fine-tuned one is needed: the starter)",
    )
    command_line.add_engine(parser)
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
        help="similarity, embed: what stands for a text: the mean of its "
        "tokens' vectors, that of [CLS], or the pooler's (default: mean, or "
        "what a model for sentence vectors was tuned with)",
    )
    add(
        "--vectors",
        metavar="FILE.npy",
        help="similarity with --query: the vectors of --input_file, which "
        "embed wrote, so that its texts are not embedded again",
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
    if args.mode == "fill-mask" and args.engine != ENGINES[0]:
        raise UserError(
            "fill-mask needs the masked-word head, which files for LiteRT "
            "leave out: leave --engine out too"
        )
    if args.model is None:
        args.model = starter(args.mode)
    litert_cache.check_engine(args.engine, args.model)
    if args.vectors and not (args.query and args.input_file):
        raise UserError(
            "--vectors belong to the texts of --input_file, which --query is "
            "compared with: similarity --query TEXT --input_file FILE "
            "--vectors FILE.npy"
        )
    if args.mode == "embed" and not (args.output_file or "").endswith(".npy"):
        raise UserError("embed needs --output_file with a name in .npy")
    return args


def starter(mode: str) -> str:
    """Returns the model that comes along, and says so; not for every mode."""
    if mode in KINDS:
        raise UserError(
            f"{mode} needs a fine-tuned model: name its folder with --model "
            "runs/x/model, which python -m albert_tf2.finetune writes"
        )
    print(
        "no --model is named: the starter answers, a small one that comes "
        "along (python -m albert_tf2.convert --describe starter)",
        file=sys.stderr,
    )
    return download.STARTER


def check_mode(mode: str, model: str, facts: dict[str, Any]) -> None:
    """Refuses a fine-tuned model of another kind, before it is loaded."""
    kinds = KINDS.get(mode)
    kind = facts.get("kind")
    if kinds and kind and kind not in kinds:
        modes = KINDS | {"similarity": (base.VECTORS,)}
        fit = next((m for m, kinds in modes.items() if kind in kinds), None)
        raise UserError(
            f"{model} is fine-tuned for {kind}, which `{mode}` does not use"
            + (f": take `{fit}`" if fit else "")
        )


def takes_pairs(args: Any, facts: dict[str, Any]) -> bool | None:
    """Whether each entry must be a pair of texts; None takes both."""
    if args.mode in ("classify", "score"):
        return facts.get("pairs")
    return args.mode == "answer" or (
        args.mode == "similarity" and not args.query
    )


def answers(
    predictor: Predictor, args: Any, entries: Entries
) -> Iterator[dict[str, Any]]:
    """Yields one answer per entry, in their order."""
    if args.query:
        yield from _most_similar(predictor, args, entries)
        return
    names = ("text_a", "text_b")
    if args.mode == "answer":
        names = ("question", "context")
    for part in _parts(entries, args):
        filled = [entry for entry in part if entry.text is not None]
        found = iter(_answer(predictor, args, filled) if filled else ())
        for entry in part:
            blank = entry.text is None
            answer = dict(NO_ANSWER[args.mode]) if blank else next(found)
            yield {**answer, "id": entry.entry_id, **entry.shown(*names)}


def _answer(predictor, args, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Answers entries that have a text."""
    asked = [entry.asked for entry in entries]
    if args.mode == "classify":
        return predictor.classify(asked)
    if args.mode == "score":
        return predictor.score(asked)
    if args.mode == "tag":
        return predictor.tag(asked)
    if args.mode == "answer":
        found = predictor.answer(asked)
        for answer in found:
            answer["n_best"] = answer["n_best"][: args.top_k]
        return found
    if args.mode == "fill-mask":
        masks = predictor.fill_masks(asked, top_k=args.top_k)
        return [{"masks": of_text} for of_text in masks]
    cosines = predictor.similarity(
        *zip(*asked, strict=True), pooling=args.pooling
    )
    return [{"similarity": round(float(cosine), 6)} for cosine in cosines]


def _most_similar(predictor, args, entries) -> Iterator[dict[str, Any]]:
    candidates: Any = None
    entries = list(entries)  # the best may be any of them
    if args.vectors:
        candidates = read_vectors(args.vectors, len(entries), args.input_file)
    else:
        entries = [entry for entry in entries if entry.text is not None]
        candidates = [entry.text for entry in entries]
    ranked = predictor.most_similar(
        args.query,
        candidates,
        top_k=args.top_k,
        pooling=args.pooling,
    )
    for index, cosine in ranked:
        entry = entries[index]
        if entry.text is None:
            continue  # its vector is 0
        yield {
            "similarity": round(cosine, 6),
            "id": entry.entry_id,
            "text": entry.text,
        }


def _parts(entries: Entries, args: Any) -> Iterator[list[Entry]]:
    """Cuts entries into parts; says now and then how far they are.

    A part holds several batches, which are sorted by length inside it. No more
    than one part is held.
    """
    texts = PART_TEXTS
    if args.mode in PER_TOKEN:
        texts //= 8
    size = max(16 * args.batch_size, texts)
    began = told = time.monotonic()
    done, waiting = 0, iter(entries)
    while part := list(itertools.islice(waiting, size)):
        yield part
        done += len(part)
        now = time.monotonic()
        if now - told > TELL_EVERY_SECONDS and done < len(entries):
            told = now
            rate = done / (now - began)
            left = (len(entries) - done) / rate / 60
            print(
                f"{done:,} of {len(entries):,} texts, {rate:.0f}/s, "
                f"{left:.1f} min left",
                file=sys.stderr,
            )


def set_whitening(predictor: Predictor, args: Any) -> None:
    """Fits or loads the whitening that the command line asks for."""
    from albert_tf2.prediction.similarity import Whitening

    if not args.whiten_with:
        return
    if args.whiten_with.endswith(".npz"):
        predictor.whitening = Whitening.load(args.whiten_with)
        return
    lines = reading.numbered_lines(args.whiten_with)
    sentences = [line for _, line in lines if line.strip()]
    whitening = predictor.whiten(
        sentences, dimensions=args.whiten_dimensions, pooling=args.pooling
    )
    if args.save_whitening:
        whitening.save(args.save_whitening)


def read_vectors(path: str, count: int, texts: str) -> Any:
    """Opens the vectors of a file of texts: [N, H], read as they are needed.

    Raises:
        UserError: If they are not a row for each of `count` texts.
    """
    from albert_tf2.paths.arrays import map_array

    try:
        vectors = map_array(paths.fetched(path))
        if vectors.ndim != 2:
            raise UserError(f"{path} holds no table of numbers")
        if vectors.dtype.kind != "f":
            raise UserError(f"{path} holds values of type {vectors.dtype}")
    except UserError as error:
        raise UserError(
            f"{error}; vectors are written with `embed --input_file {texts} "
            f"--output_file {path}`"
        ) from None
    if len(vectors) != count:
        raise UserError(
            f"{path} has {len(vectors):,} vectors, and {texts} {count:,} "
            "lines: embed the file again"
        )
    return vectors


def write_embeddings(predictor: Predictor, args: Any, entries: Entries) -> None:
    """Writes float32 [N, H], a row per entry; zeros for a blank line.

    Part by part, as `numpy.save` would write the whole.
    """
    import numpy as np

    width = blank = 0  # the width is known with the first text
    with paths.atomic_file(args.output_file, "wb") as stream:
        for part in _parts(entries, args):
            texts = [entry.text for entry in part if entry.text is not None]
            if not texts and not width:
                blank += len(part)
                continue
            rows = np.zeros([len(part), width], np.float32)
            if texts:
                found = predictor.embed(texts, pooling=args.pooling)
                rows = np.zeros([len(part), found.shape[1]], np.float32)
                rows[[entry.text is not None for entry in part]] = found
            if not width:
                width = rows.shape[1]
                np.lib.format.write_array_header_1_0(
                    stream,
                    {
                        "descr": "<f4",
                        "fortran_order": False,
                        "shape": (len(entries), width),
                    },
                )
                stream.write(bytes(4 * blank * width))
            stream.write(rows.astype("<f4").tobytes())
        if not width:
            raise UserError("all texts are blank: nothing to embed")
    print(f"{args.output_file}: {len(entries)} x {width}")


def interact(
    predictor: Predictor,
    args: Any,
    read: Callable[[str], str] = input,
) -> None:
    """Answers lines from the keyboard until the end of input."""
    print("a text per line; an empty line ends", file=sys.stderr)
    pairs = takes_pairs(args, {"pairs": getattr(predictor.task, "pairs", None)})
    while True:
        try:
            text = read("> ").strip("\r\n")
            if not text.strip():
                return
            if pairs and "\t" not in text:
                text += "\t" + read("with > ")
        except EOFError:
            return
        try:
            entries = [input_files.entry(0, text, pairs, "the text")]
            for answer in answers(predictor, args, entries):
                print(json.dumps(answer, ensure_ascii=False), flush=True)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    args = _parse(argv)
    # What the model takes is known, and every line checked, before it loads.
    facts = input_files.description(args.model)
    check_mode(args.mode, args.model, facts)
    pairs = takes_pairs(args, facts)
    entries: Entries
    if args.input_file:
        entries = input_files.from_file(args.input_file, pairs)
    else:
        entries = input_files.from_arguments(args.texts, pairs)
    predictor = Predictor(
        args.model,
        vocab_file=args.vocab_file,
        batch_size=args.batch_size,
        max_seq_length=args.max_seq_length,
        engine=args.engine,
    )
    set_whitening(predictor, args)
    if args.interactive:
        interact(predictor, args)
        return 0
    if args.mode == "embed":
        write_embeddings(predictor, args, entries)
        return 0
    lines = (
        json.dumps(answer, ensure_ascii=False) + "\n"
        for answer in answers(predictor, args, entries)
    )
    if args.output_file:
        with paths.atomic_file(args.output_file) as stream:
            stream.writelines(lines)
        print(f"{args.output_file}: {len(entries)} texts", file=sys.stderr)
    else:
        sys.stdout.writelines(lines)
    return 0


if __name__ == "__main__":
    command_line.run(main)
