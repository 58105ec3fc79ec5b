"""What of a fine-tuned model can leave, and in which form.

A form that has no place for the head, or for what the task does with its
numbers, is refused with the reason: nothing is left out silently.
"""

import argparse
import dataclasses
import warnings
from collections.abc import Iterator

from albert_tf2 import paths
from albert_tf2.errors import UserError
from albert_tf2.tasks import base

# Where `finetuning.encoders` keeps a hub encoder.
HUB_FOLDER = "hub_encoder"

# In the order of the work.
PARTS = (
    "preprocessor",
    "encoder",
    "serving",
    "tflite",
    "litert",
    "onnx",
    "cards",
)
# They need packages that nothing else needs.
ONLY_BY_NAME = ("litert", "onnx")
NO_PLACE = {
    "encoder": "a hub encoder has no place for the head: publish the "
    "checkpoint that the model was tuned from",
}
NO_ENCODER = (
    "it was tuned on a hub encoder, whose graph is not this project's to change"
)
NO_TFLITE = (
    "TFLite has no operations for what a model for {kind} does with its numbers"
)
# Flags that say what a fine-tuned model knows, or speak of the encoder.
FLAGS = (
    "vocab_file",
    "cased",
    "normalize",
    "dropout",
    "data_dir",
)


def parts_of(what: list[str] | None, source: str, folder: str) -> list[str]:
    """Returns the parts to write.

    None asks for the serving model, or for preprocessor and encoder of one
    for sentence vectors.

    Args:
        what: What --what asked for; may hold "all".
        source: The model, for messages.
        folder: Where it lies.

    Raises:
        UserError: For a part that has no place for the head, or for what the
            task does.
    """
    reasons = dict(NO_PLACE)
    kind = paths.read_json(paths.join(folder, base.TASK_FILE), dict).get("kind")
    if kind == base.VECTORS:
        reasons = {}
    if paths.is_dir(paths.join(folder, HUB_FOLDER)):
        reasons.setdefault("encoder", NO_ENCODER)
        reasons["litert"] = NO_ENCODER
    if what is None:
        own = kind == base.VECTORS and "encoder" not in reasons
        return ["preprocessor", "encoder"] if own else ["serving"]
    if kind not in base.ONE_VECTOR:
        reasons["tflite"] = NO_TFLITE.format(kind=kind)
    if "all" in what:
        for part, reason in reasons.items():
            print(f"left out: {part}: {reason}", flush=True)
        left_out = {*reasons, *ONLY_BY_NAME}
        return [part for part in PARTS if part not in left_out]
    for part in what:
        if part in reasons:
            own = ",".join(part for part in PARTS if part not in reasons)
            raise UserError(
                f"{source} is a fine-tuned model, and {reasons[part]}; its "
                f"own forms are --what {own}"
            )
    return [part for part in PARTS if part in what]


def check_flags(args: argparse.Namespace) -> None:
    """Refuses flags that a fine-tuned model answers itself."""
    for flag in FLAGS:
        if getattr(args, flag):
            raise UserError(
                f"--{flag} has no meaning for {args.checkpoint}: a "
                "fine-tuned model brings its own"
            )
    if args.calibration_file:
        raise UserError(
            f"--calibration_file is for full int8, which is not written for "
            f"{args.checkpoint}: of a fine-tuned model there is dynamic int8"
        )


def load(folder: str, seq_length: int | None):
    """Returns the `TunedModel`, cut at another length if one is asked for."""
    import numpy as np

    from albert_tf2.prediction.tuned_model import TunedModel

    tuned = TunedModel(folder, batch_size=1)
    for variable in tuned.model.weights:
        if not np.isfinite(variable.numpy()).all():
            raise UserError(
                f"{folder}: `{variable.name}` holds numbers that are not "
                "finite; was the training run lost?"
            )
    most = tuned.lengths.max_seq_length
    if seq_length is not None:
        if seq_length > most:
            raise UserError(
                f"--seq_length must be at most {most}, the length that "
                f"{folder} was tuned for. Received: {seq_length}"
            )
        tuned.lengths = dataclasses.replace(
            tuned.lengths, max_seq_length=seq_length
        )
    return tuned


def export(
    folder: str, targets: dict[str, str], args: argparse.Namespace
) -> Iterator[str]:
    """Writes the parts of a fine-tuned model; yields lines to print.

    Args:
        folder: Where the model lies.
        targets: The folder of each part.
        args: Of the command line.
    """
    from . import verify
    from .litert_part import export_litert
    from .onnx_part import export_onnx
    from .preprocessor import export_preprocessor
    from .task_card import export_task_card
    from .task_probes import expected_answers
    from .task_serving import export_task_serving
    from .task_tflite import export_task_tflite

    tuned, written = load(folder, args.seq_length), []
    for name, target in targets.items():
        yield f"writing {target}"
        if name == "tflite":
            yield from (
                f"  {line}"
                for line in export_task_tflite(
                    tuned, target, overwrite=args.overwrite
                )
            )
            continue
        if name == "litert":
            for line in export_litert(
                tuned.model.encoder,
                tuned.loaded.tokenizer,
                target,
                tuned=tuned,
                overwrite=args.overwrite,
            ):
                yield f"  {line}"
            continue
        if name == "onnx":
            for line in export_onnx(folder, target, overwrite=args.overwrite):
                yield f"  verified: {line}"
            continue
        if name == "encoder":
            expected = _export_encoder(tuned, folder, target, args.overwrite)
            written.append(verify.Export(target, name, expected))
            continue
        if name == "cards":
            export_task_card(
                tuned,
                folder,
                target,
                name=args.name,
                export_dir=args.export_dir,
                version=args.version,
                overwrite=args.overwrite,
            )
            continue
        expected = None
        if name == "preprocessor":
            export_preprocessor(
                tuned.loaded.tokenizer,
                target,
                seq_length=tuned.lengths.max_seq_length,
                overwrite=args.overwrite,
            )
        else:
            export_task_serving(tuned, target, overwrite=args.overwrite)
            expected = expected_answers(tuned)
        written.append(verify.Export(target, name, expected))
    for _, line in verify.verify(written):
        yield f"  verified: {line}"


def _export_encoder(tuned, folder: str, target: str, overwrite: bool):
    """Writes the encoder of a model for sentence vectors.

    Returns:
        What it must answer: `verify.probe_inputs` as the model pools them.
    """
    from albert_tf2 import features
    from albert_tf2.checkpoints import read_weights, weights

    from . import verify
    from .encoder import export_encoder

    with warnings.catch_warnings():
        # That it has no pre-training heads is right.
        warnings.simplefilter("ignore")
        pretrainer = weights.to_model(read_weights(folder))
    export_encoder(
        pretrainer,
        tuned.loaded.tokenizer,
        target,
        heads=(),
        task=tuned.describe(),
        overwrite=overwrite,
    )
    inputs = verify.probe_inputs(pretrainer.config.vocab_size)
    vectors = tuned.model(inputs, training=False).numpy()
    return {features.POOLED_OUTPUT: vectors}
