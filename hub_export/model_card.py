"""Cards for TF Hub's pages and folders for Kaggle: measured figures only.

What was not measured or recorded is said to be missing, never guessed:

    cards/1/encoder.md, preprocessor.md, facts.json, curves.png
    cards/1/kaggle/<encoder|preprocessor>/   tar.gz and metadata to upload
"""

import dataclasses
import gzip
import io
import os
import platform
import tarfile
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text

import albert_tf2
from albert_tf2 import features, paths
from albert_tf2.model import flops
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.paths import saved_models
from albert_tf2.text.tokenization import Tokenizer

from .preprocessor import DEFAULT_SEQ_LENGTH
from .quantization import LOSSES_FILE
from .tflite import interpreter
from .tflite_archive import read_metadata

PUBLISHER = "albert-tf2"
CALLS = 30
# One text for each character of the Basic Multilingual Plane.
PARITY_CHARACTERS = [
    chr(code) for code in range(0x10000) if not 0xD800 <= code <= 0xDFFF
]


def measure_parity(preprocessor_dir: Path, tokenizer: Tokenizer) -> dict:
    """Counts the texts whose ids differ from the Python tokenizer's."""
    loaded = saved_models.load(preprocessor_dir)
    texts = [f"a{character}b" for character in PARITY_CHARACTERS]
    found = loaded.tokenize(tf.constant(texts)).merge_dims(1, 2).to_list()
    differ = sum(
        ids != tokenizer.tokenize(text).ids
        for ids, text in zip(found, texts, strict=True)
    )
    return {"texts": len(texts), "differ": differ}


def p50_milliseconds(run) -> float:
    """Returns the median time of a call."""
    run()
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def measure_latency(
    export_dir: Path, version: str, length: int
) -> list[dict[str, Any]]:
    """Times one row of ids through the encoder and each TFLite model.

    Args:
        export_dir: The folder of the parts.
        version: Their version.
        length: T for the encoder; a TFLite model has its own.
    """
    encoder_dir = export_dir / "encoder" / version
    encoder = saved_models.load(encoder_dir)
    tensors = {k: tf.constant(v) for k, v in _full_row(length).items()}
    found = [
        {
            "model": "encoder SavedModel",
            "length": length,
            "megabytes": _megabytes(encoder_dir),
            "p50_ms": p50_milliseconds(lambda: encoder(tensors)),
        }
    ]
    for path in sorted((export_dir / "tflite" / version).glob("*.tflite")):
        metadata = read_metadata(path)
        if metadata["takes_strings"] or metadata["seq_length"] is None:
            continue
        row = _full_row(metadata["seq_length"])
        run = interpreter(path, num_threads=2).get_signature_runner()
        found.append(
            {
                "model": path.name,
                "length": metadata["seq_length"],
                "megabytes": path.stat().st_size / 1e6,
                "p50_ms": p50_milliseconds(lambda run=run, row=row: run(**row)),
            }
        )
    return found


def _full_row(length: int) -> dict[str, np.ndarray]:
    ids = np.ones([1, length], np.int32)
    rows = (ids, np.ones_like(ids), np.zeros_like(ids))
    return dict(zip(features.ENCODER_INPUTS, rows, strict=True))


def _megabytes(folder: Path) -> float:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6


def training_facts(
    workdir: paths.PathLike, data_dir: paths.PathLike | None
) -> dict[str, Any]:
    """Returns what a run recorded about itself; absent files are absent."""
    facts: dict[str, Any] = {}
    evaluation = paths.join(workdir, "evaluation.jsonl")
    if paths.is_file(evaluation):
        last = paths.read_text(evaluation).splitlines()[-1:]
        facts["evaluation"] = (
            paths.parse_json(last[0], evaluation, dict) if last else None
        )
    recipe = paths.join(workdir, "recipe.json")
    if paths.is_file(recipe):
        facts["recipe"] = paths.read_json(recipe, dict)
    if data_dir is not None:
        manifest = paths.join(data_dir, "manifest.json")
        facts["manifest"] = paths.read_json(manifest, dict)
        facts["manifest_sha256"] = paths.sha256(manifest)
    return facts


def gather(
    pretrainer: AlbertPretrainer,
    tokenizer: Tokenizer,
    export_dir: Path,
    version: str,
    *,
    workdir: paths.PathLike | None = None,
    data_dir: paths.PathLike | None = None,
) -> dict[str, Any]:
    """Measures the exported parts, and collects what is recorded.

    Args:
        pretrainer: The model they were made from.
        tokenizer: Its own.
        export_dir: The folder of the parts.
        version: Their version.
        workdir: The pre-training run, if there is one.
        data_dir: Its records, if they are still there.
    """
    config = pretrainer.config
    length = min(DEFAULT_SEQ_LENGTH, config.max_position_embeddings)
    facts = {
        "length": length,
        "config": config.to_dict(),
        "parameters": _parameters(pretrainer.encoder),
        "parameters_with_heads": _parameters(pretrainer),
        "flops_per_token": flops.forward_flops(config, length) // length,
        "text_settings": dataclasses.asdict(tokenizer.settings),
        "latency": measure_latency(export_dir, version, length),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {
            "albert_tf2": albert_tf2.__version__,
            "tensorflow": tf.__version__,
            "tensorflow_text": tensorflow_text.__version__,
            "python": platform.python_version(),
            "unicode": unicodedata.unidata_version,
        },
    }
    losses = export_dir / "tflite" / version / LOSSES_FILE
    if losses.is_file():
        facts["quantization"] = paths.read_json(losses, dict)
    preprocessor = export_dir / "preprocessor" / version
    if preprocessor.is_dir():
        facts["parity"] = measure_parity(preprocessor, tokenizer)
    if workdir is not None:
        facts |= training_facts(workdir, data_dir)
    return facts


def _parameters(model) -> int:
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def _header(name: str, kind: str, line: str, **tags: str) -> Iterator[str]:
    tags = {
        "format": "saved_model_2",
        "language": "zh-cn",
        "module-type": kind,
        "network-architecture": "Transformer",
        **tags,
    }
    yield f"# Module {PUBLISHER}/{name}\n\n{line}\n\n<!--"
    yield from (f"{key}: {value}" for key, value in tags.items())
    yield "-->\n"


def encoder_card(name: str, version: str, facts: dict[str, Any]) -> str:
    """Returns the encoder's card."""
    config = facts["config"]
    lines = [
        *_header(
            f"albert_{name}/{version}",
            "text-embedding",
            "Chinese ALBERT: a text encoder with shared layers.",
            **{
                "asset-path": f"kaggle/encoder/albert_{name}.tar.gz",
                "dataset": "own corpus, described below"
                if facts.get("manifest")
                else "not recorded",
                "fine-tunable": "true",
            },
        ),
        "## Overview\n",
        f"{config['num_hidden_layers']} layers of {config['hidden_size']}, "
        f"{config['num_attention_heads']} heads, embeddings of "
        f"{config['embedding_size']}, layout `{config['layout']}`: "
        f"{facts['parameters']:,} parameters "
        f"({facts['parameters_with_heads']:,} with both heads), "
        f"{facts['flops_per_token']:,} floating-point operations per token "
        f"at length {facts['length']}. "
        "[ALBERT](https://arxiv.org/abs/1909.11942)\n",
        "## Prerequisites\n",
        f"Inputs come from {PUBLISHER}/albert_{name}_preprocess/{version}, "
        "which needs `import tensorflow_text`. `hub.KerasLayer` needs Keras "
        "2: `pip install tf-keras` on TensorFlow 2.16 and later.\n",
        "## Usage\n",
        "```python\nimport tensorflow as tf, tensorflow_hub as hub",
        "import tensorflow_text\n",
        'preprocessor = hub.load("preprocessor")',
        'encoder = hub.KerasLayer("encoder", trainable=True)',
        'outputs = encoder(preprocessor(tf.constant(["今天天气很好"])))',
        f'outputs["pooled_output"]    # [1, {config["hidden_size"]}]',
        'outputs["sequence_output"]  # and "encoder_outputs", a list\n```\n',
        "## Masked Language Model\n",
        '```python\nalbert = hub.load("encoder")',
        'albert.mlm(dict(inputs, masked_lm_positions=positions))["mlm_logits"]',
        'albert.sop(inputs)["sop_logits"]  # 1: swapped segments\n```\n',
        "## Training data and method\n",
        *_training_lines(facts),
        "## Measured results\n",
        *_result_lines(facts),
        "## Limitations and licence\n",
        "Trained text decides what the model knows and how it is biased. "
        "Curly quotes, dashes and the ellipsis are [UNK] in the vocabulary "
        "of the released models. Apache-2.0; the weights keep the licence of "
        "their source.\n",
        "## Changelog\n",
        f"Version {version}: written by albert_tf2 "
        f"{facts['versions']['albert_tf2']}.",
    ]
    return "\n".join(lines) + "\n"


def preprocessor_card(name: str, version: str, facts: dict[str, Any]) -> str:
    """Returns the preprocessor's card."""
    parity = facts.get("parity")
    measured = (
        f"{parity['texts']:,} texts, one for each character of the Basic "
        f"Multilingual Plane: the ids of {parity['differ']} differ from the "
        "Python tokenizer's."
        if parity
        else "Tokenizer parity was not measured."
    )
    lines = [
        *_header(
            f"albert_{name}_preprocess/{version}",
            "text-preprocessing",
            "Text preprocessing for Chinese ALBERT.",
            **{
                "asset-path": f"kaggle/preprocessor/albert_{name}_"
                "preprocess.tar.gz",
                "fine-tunable": "false",
            },
        ),
        "## Overview\n",
        f"Cuts text as the original program does, for {PUBLISHER}/"
        f"albert_{name}/{version}. {facts['config']['vocab_size']:,} tokens, "
        f"vocabulary SHA-256 `{facts['text_settings']['vocab_sha256']}`."
        + " Folds curly quotes, dashes, the ellipsis and full-width letters "
        "and digits first." * facts["text_settings"]["normalize"] + "\n",
        "## Prerequisites\n",
        "`import tensorflow_text` before loading.\n",
        "## Usage\n",
        '```python\npreprocessor = hub.load("preprocessor")',
        "preprocessor(texts)  # three int32 tensors [B, T]",
        "tokens = [preprocessor.tokenize(side) for side in (first, second)]",
        "preprocessor.bert_pack_inputs(tokens, seq_length=64)",
        "preprocessor.tokenize.tokenize_with_offsets(texts)  # in bytes\n```\n",
        "## Measured results\n",
        measured + "\n",
        "## Limitations and licence\n",
        "Invalid UTF-8 is dropped, as the original program does; offsets "
        "count the bytes that are left. Characters are classified by Unicode "
        f"{facts['versions']['unicode']}. Apache-2.0.\n",
        "## Changelog\n",
        f"Version {version}.",
    ]
    return "\n".join(lines) + "\n"


def _training_lines(facts: dict[str, Any]) -> Iterator[str]:
    recipe, manifest = facts.get("recipe"), facts.get("manifest")
    if recipe:
        yield (
            f"{recipe['train_steps']:,} steps of {recipe['global_batch_size']}"
            f" rows of {recipe['max_seq_length']} tokens, "
            f"{recipe['optimizer']}, seed {recipe['seed']}."
        )
    else:
        yield "No training recipe was recorded with the checkpoint."
    if manifest:
        counts = manifest["counts"]
        yield (
            f"Corpus: {counts['documents']:,} documents, "
            f"{counts['tokens']:,} tokens; manifest SHA-256 "
            f"`{facts['manifest_sha256']}`."
        )
    else:
        yield "The corpus was not recorded with the checkpoint."
    yield f"Vocabulary SHA-256: `{facts['text_settings']['vocab_sha256']}`.\n"


def _result_lines(facts: dict[str, Any]) -> Iterator[str]:
    evaluation = facts.get("evaluation")
    if evaluation:
        yield (
            f"Held-out text, step {evaluation['step']:,}: masked words "
            f"{evaluation['mlm_accuracy']:.1%} right (loss "
            f"{evaluation['mlm_loss']:.3f}), sentence order "
            f"{evaluation['sop_accuracy']:.1%} right.\n"
        )
        yield "![training curves](curves.png)\n" * bool(facts.get("curves"))
    else:
        yield "The pre-training tasks were not evaluated.\n"
    yield "| one row, 2 threads for TFLite | tokens | MB | p50 ms |"
    yield "|---|---|---|---|"
    for row in facts["latency"]:
        yield (
            f"| {row['model']} | {row['length']} | {row['megabytes']:.1f} "
            f"| {row['p50_ms']:.2f} |"
        )
    if facts.get("quantization"):
        yield "\n| TFLite and fp32 | sentences | cosine | least | nearest |"
        yield "|---|---|---|---|---|"
    for precision, lost in facts.get("quantization", {}).items():
        kept = lost["neighbours"]
        yield (
            f"| {precision} | {lost['sentences']} | {lost['mean_cosine']:.4f} "
            f"| {lost['least_cosine']:.4f} "
            f"| {'-' if kept is None else f'{kept:.1%} kept'} |"
        )
    versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
    yield f"\n{facts['cpus']} CPUs ({facts['machine']}); {versions}.\n"


def write_archive(source: Path, target: Path) -> None:
    """Packs a SavedModel at the archive's root; the same bytes every time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(p for p in source.rglob("*") if p.is_file()):
            entry = tarfile.TarInfo(path.relative_to(source).as_posix())
            entry.size = path.stat().st_size
            with open(path, "rb") as stream:
                archive.addfile(entry, stream)
    with paths.atomic_file(target, "wb") as stream:
        with gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as packed:
            packed.write(buffer.getvalue())


def write_kaggle(folder: Path, slug: str, part: Path, card: str) -> None:
    """Writes what Kaggle's uploader reads: two metadata files, one archive.

    The handle becomes OWNER/slug/tensorFlow2/default/version; the owner
    fills in `ownerSlug`.
    """
    folder.mkdir(parents=True)
    write_archive(part, folder / f"{slug}.tar.gz")
    owner = "INSERT_OWNER_SLUG_HERE"
    paths.write_json(
        folder / "model-metadata.json",
        {
            "ownerSlug": owner,
            "title": slug,
            "slug": slug,
            "subtitle": "Chinese ALBERT for TensorFlow 2",
            "isPrivate": True,
            "description": card,
            "publishTime": "",
            "provenanceSources": "",
        },
    )
    paths.write_json(
        folder / "model-instance-metadata.json",
        {
            "ownerSlug": owner,
            "modelSlug": slug,
            "instanceSlug": "default",
            "framework": "tensorFlow2",
            "overview": "Chinese ALBERT for TensorFlow 2",
            "usage": card,
            "licenseName": "Apache 2.0",
            "fineTunable": "preprocess" not in slug,
            "trainingData": [],
        },
    )


def _at_hand(export_dir: paths.PathLike, version: str) -> Path:
    """Returns a local folder with the parts that the cards speak of."""
    if not paths.is_remote(export_dir):
        return Path(paths.local(export_dir))
    here = Path(paths.kept_folder("cards"))
    for part in ("preprocessor", "encoder", "tflite"):
        source = paths.join(export_dir, part, version)
        if paths.is_dir(source):
            paths.copy_folder(source, here / part / version)
    return here


def export_cards(
    pretrainer: AlbertPretrainer,
    tokenizer: Tokenizer,
    export_dir: paths.PathLike,
    *,
    name: str = "zh",
    version: int = 1,
    workdir: paths.PathLike | None = None,
    data_dir: paths.PathLike | None = None,
    overwrite: bool = False,
) -> str:
    """Writes `cards/<version>` about the parts that stand beside it.

    Args:
        pretrainer: See `gather`.
        tokenizer: See `gather`.
        export_dir: Holds `encoder/<version>`, and the other parts if any.
        name: The cards speak of `albert_<name>`.
        version: Of the parts and of the cards.
        workdir: See `gather`; its `curves.png` is taken along.
        data_dir: See `gather`.
        overwrite: Replace existing cards.
    """
    label = str(version)
    here = _at_hand(export_dir, label)
    facts = gather(
        pretrainer,
        tokenizer,
        here,
        label,
        workdir=workdir,
        data_dir=data_dir,
    )
    curves = paths.join(workdir, "curves.png") if workdir else None
    has_curves = curves is not None and paths.is_file(curves)
    facts["curves"] = has_curves
    target = paths.join(export_dir, "cards", label)
    with paths.atomic_directory(target, overwrite=overwrite) as folder:
        if curves is not None and has_curves:
            paths.copy_file(curves, folder / "curves.png")
        paths.write_json(folder / "facts.json", facts)
        for part, slug, write in (
            ("encoder", f"albert_{name}", encoder_card),
            ("preprocessor", f"albert_{name}_preprocess", preprocessor_card),
        ):
            card = write(name, label, facts)
            with paths.atomic_file(folder / f"{part}.md") as stream:
                stream.write(card)
            source = here / part / label
            if source.is_dir():
                write_kaggle(folder / "kaggle" / part, slug, source, card)
    return target
