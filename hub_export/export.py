"""Publishes a checkpoint: TF Hub SavedModels, serving model, TFLite, cards.

Writes below --export_dir, each part whole or not at all, and verifies it by
loading a moved copy in a fresh process:

    preprocessor/1/   strings -> encoder inputs       (hub.KerasLayer)
    encoder/1/        encoder inputs -> vectors       (hub.KerasLayer)
    serving/1/        strings -> embeddings           (TF Serving)
    tflite/1/         ids or strings -> embeddings    (phones, fast CPUs)
    litert/1/         rows of ids -> vectors, logits  (predict --engine litert)
    onnx/1/           ids -> vectors, logits          (ONNX Runtime; [onnx])
    cards/1/          what was measured; Kaggle's upload folders

Of a fine-tuned model (runs/x or runs/x/model) serving, tflite, litert and onnx
hold the head, and answer as `Predictor` does. Of one for sentence vectors the
encoder's pooled_output is the vector.

Try it:

    python -m albert_tf2.hub_export.export --checkpoint workdir \\
        --export_dir exported --what all
"""

import argparse
import functools
from collections.abc import Sequence

from albert_tf2 import command_line, paths
from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError, require
from albert_tf2.prediction.tuned_model import tuned_folder
from albert_tf2.settings import MAX_LENGTH

from . import tuned_parts

# In the order of the work: what needs no model comes first.
WHAT = (
    "preprocessor",
    "encoder",
    "serving",
    "tflite",
    "litert",
    "onnx",
    "cards",
)
# Written only by name: they need packages that nothing else needs.
ONLY_BY_NAME = ("litert", "onnx")
DEFAULT_LENGTH = 128


def parse_what(value: str) -> list[str]:
    """Reads `--what`: names separated by commas, or "all"."""
    wanted = value.split(",")
    unknown = sorted(set(wanted) - {*WHAT, "all"})
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown part `{unknown[0]}`; choose from {', '.join(WHAT)}, all"
        )
    return wanted


def parts_of(what: list[str] | None) -> list[str]:
    """Returns the parts of a pre-trained model to write, in their order."""
    what = what or list(WHAT[:2])
    return [
        name
        for name in WHAT
        if name in what or ("all" in what and name not in ONLY_BY_NAME)
    ]


def build_parser() -> argparse.ArgumentParser:
    parser = command_line.parser(
        __doc__, prog="python -m albert_tf2.hub_export.export"
    )
    add = parser.add_argument
    number = functools.partial(command_line.add_number, parser)
    add(
        "--checkpoint",
        required=True,
        metavar="SOURCE",
        help="the model: a folder, an archive, a released model's name",
    )
    add(
        "--export_dir",
        required=True,
        metavar="FOLDER",
        help="where to write: each part gets a folder in it",
    )
    add(
        "--what",
        type=parse_what,
        metavar="PART[,PART]",
        help=f"what to write: {', '.join(WHAT)}, or all, which is all but "
        f"{', '.join(ONLY_BY_NAME)} (default: "
        f"{','.join(WHAT[:2])}, also of a model for sentence vectors; of "
        "other fine-tuned models: serving)",
    )
    add(
        "--vocab_file",
        metavar="FILE",
        help="the vocabulary (default: the one beside the checkpoint)",
    )
    number("--version", 1, "Number of the export.", least=1, most=10**9)
    add(
        "--overwrite",
        action="store_true",
        help="replace that version if it is there",
    )
    number(
        "--seq_length",
        None,
        "Tokens of an input, where nothing else is asked for; default: 128 or "
        "the model's positions; of a fine-tuned model its own length.",
        least=3,
        most=MAX_LENGTH,
    )
    add(
        "--cased",
        action="store_true",
        help="the model was trained on upper case and accents; only for one "
        "that has no text_settings.json (no released model was)",
    )
    command_line.add_boolean(
        parser,
        "--normalize",
        False,
        "The model was trained on folded signs (records built with "
        "--normalize true); only for one that has no text_settings.json.",
    )
    number(
        "--dropout",
        None,
        "Rate for fine-tuning; default: the configuration's.",
        kind=float,
        least=0.0,
        below=1.0,
    )
    add(
        "--calibration_file",
        metavar="FILE",
        help="real sentences, one a line: full int8 is calibrated on the "
        "first of them, and what each precision lost is measured on the last",
    )
    add(
        "--accept_loss",
        action="store_true",
        help="write a TFLite model that lost much in quantization, too",
    )
    add(
        "--name",
        default="zh",
        help="the cards speak of albert_NAME (default: zh)",
    )
    add(
        "--data_dir",
        metavar="FOLDER",
        help="the records, for the cards",
    )
    return parser


def check_targets(
    args: argparse.Namespace, parts: Sequence[str], *, tuned: bool = False
) -> dict[str, str]:
    """Returns the folder of each part; refuses one that exists."""
    targets = {
        name: paths.join(args.export_dir, name, str(args.version))
        for name in parts
    }
    for target in targets.values():
        if paths.exists(target) and not args.overwrite:
            raise UserError(
                f"{target} already exists: pass --version "
                f"{args.version + 1} to add one, or --overwrite to replace it"
            )
    encoder = paths.join(args.export_dir, "encoder", str(args.version))
    if "cards" in targets and "encoder" not in targets and not tuned:
        if not paths.is_dir(encoder):
            raise UserError(f"cards need {encoder}: add `encoder` to --what")
    for path in (args.vocab_file, args.calibration_file):
        if path is not None and not paths.is_file(path):
            raise UserError(f"{path} does not exist: check the path")
    return targets


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if "litert" in (args.what or ()):
        require("--what litert", ["ai_edge_litert"], "litert")
    folder = tuned_folder(args.checkpoint)
    if folder is not None:
        tuned_parts.check_flags(args)
        parts = tuned_parts.parts_of(args.what, args.checkpoint, folder)
        targets = check_targets(args, parts, tuned=True)
        for line in tuned_parts.export(folder, targets, args):
            print(line, flush=True)
        return 0
    targets = check_targets(args, parts_of(args.what))
    # TensorFlow loads here, after every check that does not need it.
    from . import verify

    pretrainer, tokenizer, heads = load(args)
    args.seq_length = length_of(args, pretrainer.config)
    expected = {
        "encoder": verify.expected_outputs(pretrainer),
        "serving": verify.expected_embeddings(
            pretrainer, tokenizer, args.seq_length
        ),
    }
    for name, target in targets.items():
        print(f"writing {target}", flush=True)
        write_part(name, target, args, pretrainer, tokenizer, heads)
    written = [
        verify.Export(target, name, expected.get(name))
        for name, target in targets.items()
        if name in verify.CHECKS
    ]
    for _, line in verify.verify(written):
        print(f"  verified: {line}", flush=True)
    return 0


def load(args: argparse.Namespace):
    """Returns the model, its tokenizer and the heads that were restored."""
    import numpy as np

    from albert_tf2.checkpoints import read_weights, weights

    found = read_weights(args.checkpoint)
    tokenizer = tokenizer_of(found, args)
    tokenizer.vocabulary.check_size(found.config.vocab_size)
    for name, array in found.arrays.items():
        if not np.isfinite(array).all():
            raise UserError(
                f"{args.checkpoint}: `{name}` holds numbers that are not "
                "finite; was the training run lost? Choose an earlier "
                "checkpoint"
            )
    return weights.to_model(found), tokenizer, found.heads


def length_of(args: argparse.Namespace, config: AlbertConfig) -> int:
    """Returns the length to export for: no longer than the model reads."""
    most = config.max_position_embeddings
    if args.seq_length is None:
        return min(DEFAULT_LENGTH, most)
    if args.seq_length > most:
        raise UserError(
            f"--seq_length must be at most {most}, the positions of "
            f"{args.checkpoint}. Received: {args.seq_length}"
        )
    return args.seq_length


def tokenizer_of(found, args: argparse.Namespace):
    """Returns the model's tokenizer.

    --cased and --normalize are for models whose text settings nobody wrote
    down; one that contradicts what travels with the model is refused.
    """
    from albert_tf2.checkpoints import weights
    from albert_tf2.text.text_settings import SETTINGS_FILE, TextSettings
    from albert_tf2.text.tokenization import Tokenizer

    tokenizer = weights.tokenizer_of(found, args.checkpoint, args.vocab_file)
    vocabulary = tokenizer.vocabulary
    known = found.text_settings or TextSettings.beside(vocabulary.source)
    asked = TextSettings(do_lower_case=not args.cased, normalize=args.normalize)
    if known is None:
        return Tokenizer(vocabulary, asked)
    for flag, contradicts in (
        ("--cased", args.cased and known.do_lower_case),
        ("--normalize", args.normalize and not known.normalize),
    ):
        if contradicts:
            raise UserError(
                f"{flag} contradicts the {SETTINGS_FILE} of "
                f"{args.checkpoint}, which says how its texts were read in "
                "training: leave the flag out"
            )
    return tokenizer


def write_part(name, target, args, pretrainer, tokenizer, heads) -> None:
    """Writes one part to its folder."""
    from .encoder import export_encoder
    from .litert_part import export_litert
    from .model_card import export_cards
    from .onnx_part import export_onnx
    from .preprocessor import export_preprocessor
    from .serving import export_serving
    from .tflite_variants import export_variants

    common = {"overwrite": args.overwrite}
    texts = {**common, "seq_length": args.seq_length}
    if name == "preprocessor":
        export_preprocessor(tokenizer, target, **texts)
    elif name == "encoder":
        export_encoder(
            pretrainer,
            tokenizer,
            target,
            heads=heads,
            dropout=args.dropout,
            **common,
        )
    elif name == "serving":
        export_serving(pretrainer, tokenizer, target, **texts)
    elif name == "litert":
        for line in export_litert(
            pretrainer.encoder, tokenizer, target, **common
        ):
            print(f"  {line}", flush=True)
    elif name == "onnx":
        for line in export_onnx(args.checkpoint, target, **common):
            print(f"  verified: {line}", flush=True)
    elif name == "cards":
        export_cards(
            pretrainer,
            tokenizer,
            args.export_dir,
            name=args.name,
            version=args.version,
            workdir=args.checkpoint if paths.is_dir(args.checkpoint) else None,
            data_dir=args.data_dir,
            **common,
        )
    else:
        sentences = None
        if args.calibration_file:
            sentences = paths.read_text(args.calibration_file).splitlines()
        for line in export_variants(
            pretrainer,
            tokenizer,
            target,
            sentences=sentences,
            accept_loss=args.accept_loss,
            **texts,
        ):
            print(f"  {line}", flush=True)


if __name__ == "__main__":
    command_line.run(main)
