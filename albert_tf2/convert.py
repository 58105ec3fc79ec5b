"""Converts a model between formats, and proves that nothing changed.

Reads TensorFlow 1 checkpoints of both layouts (brightmart's albert_zh and
google's), this project's own, Hugging Face Albert folders and hub exports:
from a folder, a checkpoint prefix, a .zip or .tar.gz, a URL, hf:owner/name,
kaggle:owner/model/framework/variation, or by name (--list). Writes:

    tf2               this project's: albert_config.json, model.*, vocab.txt
    tf1               the original names, for albert_zh, google-research/
                      albert, bert4keras, bert-for-tf2
    huggingface       AlbertForPreTraining with a BertTokenizer (google layout)
    huggingface-bert  BertForPreTraining (brightmart post-LN): larger, equal
    hub               encoder and preprocessor SavedModels
    onnx              model.onnx

A fine-tuned model (runs/x or runs/x/model) keeps its head, labels and task, or
is refused: of Hugging Face's classes it becomes the one for its task.

Each result is loaded again and run beside its source; `conversion.json` in it
holds hashes, the variable map and the largest differences. --strip keeps the
format and leaves the optimizer out; --describe only tells what X is. --push
uploads a Hugging Face folder, with its card, when it has proved itself.

    python -m albert_tf2.convert --input albert_tiny_zh --output tiny --to tf2
"""

from collections.abc import Sequence

from albert_tf2 import command_line, paths
from albert_tf2.errors import UserError, require

TARGETS = ("tf2", "tf1", "huggingface", "huggingface-bert", "hub", "onnx")
# What --strip writes: the same kind of file.
STRIPPED = {"tf1": "tf1", "tf2": "tf2", "huggingface": "huggingface"}


# What the formats of other libraries are written and checked with, by extra.
NEEDS = {
    "huggingface": ["torch", "transformers"],
    "onnx": ["tf2onnx", "onnx", "onnxruntime"],
}


def _parse(argv: Sequence[str] | None):
    parser = command_line.parser(__doc__, prog="python -m albert_tf2.convert")
    parser.add_argument("--input", metavar="X", help="the model to read")
    parser.add_argument("--output", metavar="Y", help="the folder to create")
    parser.add_argument("--to", choices=TARGETS, help="the format to write")
    parser.add_argument(
        "--strip",
        action="store_true",
        help="write the input's own format, without optimizer slots",
    )
    parser.add_argument(
        "--config",
        metavar="NAME_OR_JSON",
        help="the configuration, where the input has none",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the folder if it is there",
    )
    parser.add_argument(
        "--push",
        metavar="hf:OWNER/NAME",
        help="upload what --to huggingface wrote (HF_TOKEN must allow it)",
    )
    parser.add_argument(
        "--private",
        action="store_true",
        help="make the repository that --push creates a private one",
    )
    parser.add_argument(
        "--describe", metavar="X", help="print what X is, and stop"
    )
    parser.add_argument(
        "--list", action="store_true", help="print the released models"
    )
    args = parser.parse_args(argv)
    if args.list or args.describe:
        return args
    if args.input is None or args.output is None:
        parser.error("--input and --output are needed")
    if args.strip == (args.to is not None):
        parser.error("one of --to and --strip is needed")
    if args.push and not (args.to or "").startswith("huggingface"):
        parser.error("--push goes with --to huggingface or huggingface-bert")
    if args.private and not args.push:
        parser.error("--private goes with --push")
    if paths.exists(args.output) and not args.overwrite:
        raise UserError(
            f"{args.output} already exists: choose another folder or pass "
            "--overwrite"
        )
    extra = (args.to or "").removesuffix("-bert")
    if extra in NEEDS:
        require(f"--to {args.to}", NEEDS[extra], extra)
    if args.push:
        from albert_tf2.checkpoints import repositories

        repositories.check_push(args.push)
    return args


def _list_models() -> None:
    from albert_tf2.checkpoints import download

    width = max(map(len, download.MODELS))
    print(f"{download.STARTER:<{width}}  comes with this package")
    for name, released in download.MODELS.items():
        print(f"{name:<{width}}  {released.url}")
    print(f"downloads go to {download.cache_folder()}")


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    if args.list:
        _list_models()
        return 0
    from albert_tf2.checkpoints import read_weights
    from albert_tf2.config import load_model_config

    config = load_model_config(args.config) if args.config else None
    found = read_weights(args.describe or args.input, config=config)

    from albert_tf2.checkpoints import conversion, description

    if args.describe:
        print(description.describe(found))
        return 0
    target = args.to or STRIPPED.get(found.kind)
    if target is None:
        raise UserError(
            f"{args.input} is a {found.kind} export and has no optimizer "
            "slots to strip: name a format with --to"
        )
    certificate = conversion.convert(
        found, target, args.output, overwrite=args.overwrite
    )
    _report(args.output, target, certificate)
    if args.push:
        from albert_tf2.checkpoints import repositories

        commit = repositories.push(args.output, args.push, private=args.private)
        print(f"pushed to {args.push}: {commit}")
    return 0


def _report(output: str, target: str, certificate: dict) -> None:
    print(f"wrote {output} ({target})")
    for name, difference in certificate["max_abs_difference"].items():
        print(f"  {name:<16} max |difference| {difference:.1e}")
    left_out = certificate["left_out"]
    print(
        f"  left out: {left_out['optimizer_slots_and_counters']} optimizer "
        "slots and counters"
        + "".join(
            f", {name}" for name in left_out["task_head"] + left_out["encoder"]
        )
    )
    print(f"  certificate: {paths.join(output, 'conversion.json')}")


if __name__ == "__main__":
    command_line.run(main)
