"""The ONNX part of an export: `checkpoints.onnx_format`, in the export's place.

    onnx/1/model.onnx, conversion.json; of a fine-tuned model labels.txt,
    vocab.txt and text_settings.json

ONNX has no WordPiece: a model takes ids, as `albert_tf2.Tokenizer` makes them
without TensorFlow.
"""

from collections.abc import Iterator

from albert_tf2 import paths


def export_onnx(
    source: str, export_dir: paths.PathLike, *, overwrite: bool = False
) -> Iterator[str]:
    """Writes the part; yields what the comparison with the source found.

    Args:
        source: What `read_weights` reads.
        export_dir: The new folder.
        overwrite: Replace an existing folder.
    """
    from albert_tf2.checkpoints import conversion, read_weights

    found = read_weights(source)
    certificate = conversion.convert(
        found, "onnx", export_dir, overwrite=overwrite
    )
    for name, difference in certificate["max_abs_difference"].items():
        yield f"{name} differs from the source's by {difference:.1e}"
