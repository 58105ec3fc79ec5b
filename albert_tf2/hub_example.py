r"""Uses the exported models as any program would: through hub.KerasLayer.

Embeds a few sentences, then fine-tunes the encoder on sentence pairs (LCQMC's
format: a header row, then text_a, text_b, label, tab-separated) and reports
the accuracy on pairs it has not seen. Besides the name of Keras and a check of
the files nothing here comes from this project: the two SavedModels are enough.

python -m albert_tf2.hub_example --pairs data/sample/pairs \
    --preprocessor runs/quickstart/hub/preprocessor/1 \
    --encoder runs/quickstart/hub/encoder/1
"""

import math
from collections.abc import Sequence

from albert_tf2 import command_line, paths
from albert_tf2.errors import UserError, shown
from albert_tf2.paths import saved_models
from albert_tf2.settings import MAX_SEED, MAX_STEPS

SENTENCES = (
    "手机充不进电怎么办",
    "手机充电充不进去是什么原因",
    "周末去哪里爬山比较好",
)
SEQ_LENGTH = 48
BATCH_SIZE = 32
LEARNING_RATE = 5e-4


def read_pairs(
    path: paths.PathLike,
) -> tuple[list[str], list[str], list[int]]:
    """Returns the columns of a pair file: texts a, texts b, labels."""
    if not paths.is_file(path):
        raise UserError(
            f"{path} does not exist: --pairs needs train.txt, dev.txt and "
            "test.txt"
        )
    text = paths.read_text(path).removeprefix("\ufeff").removesuffix("\n")
    lines = text.split("\n") if text else []
    rows = [line.removesuffix("\r").split("\t") for line in lines]
    if rows and rows[0] == ["text_a", "text_b", "label"]:
        rows = rows[1:]
    for number, row in enumerate(rows, start=2):
        if len(row) != 3 or row[2] not in ("0", "1"):
            raise UserError(
                f"{path}, line {number}: needs text_a, text_b and a label 0 "
                f"or 1, tab-separated. Received: {shown(row)}"
            )
    return (
        [row[0] for row in rows],
        [row[1] for row in rows],
        [int(row[2]) for row in rows],
    )


def embed(preprocessor, encoder, sentences: Sequence[str]):
    """Returns unit vectors [B, H]: the mean of the tokens' outputs."""
    import tensorflow as tf

    inputs = preprocessor(tf.constant(sentences))
    tokens = encoder(inputs)["sequence_output"]  # [B, T, H]
    mask = tf.cast(inputs["input_mask"], tf.float32)[..., None]
    mean = tf.reduce_sum(tokens * mask, 1) / tf.reduce_sum(mask, 1)
    return tf.nn.l2_normalize(mean, -1)


def count_cut(preprocessor, columns) -> int:
    """Returns how many pairs are longer than SEQ_LENGTH and lose their ends."""
    import tensorflow as tf

    # Each text is words of pieces; three more tokens stand around a pair.
    first, second = (
        preprocessor.tokenize(tf.constant(texts, tf.string)).merge_dims(1, 2)
        for texts in columns[:2]
    )
    lengths = first.row_lengths() + second.row_lengths() + 3
    return int(tf.math.count_nonzero(lengths > SEQ_LENGTH))


def pair_dataset(preprocessor, columns, *, shuffle_seed: int | None = None):
    """Returns batches of (encoder inputs, labels); repeats if shuffled."""
    import tensorflow as tf

    def pack(text_a, text_b, label):
        segments = [
            preprocessor.tokenize(text_a),
            preprocessor.tokenize(text_b),
        ]
        inputs = preprocessor.bert_pack_inputs(segments, SEQ_LENGTH)
        # What is padding in every row is work for nothing.
        longest = tf.reduce_max(tf.reduce_sum(inputs["input_mask"], 1))
        return {name: x[:, :longest] for name, x in inputs.items()}, label

    dataset = tf.data.Dataset.from_tensor_slices(columns)
    if shuffle_seed is not None:
        dataset = dataset.shuffle(len(columns[0]), seed=shuffle_seed).repeat()
    options = tf.data.Options()
    # Its thread may keep a finished program waiting for a minute.
    options.autotune.enabled = False
    return dataset.batch(BATCH_SIZE).map(pack).prefetch(2).with_options(options)


def build_classifier(encoder_path: paths.PathLike, steps: int):
    """Returns a compiled Keras model: encoder, dropout, two scores."""
    import tensorflow as tf
    import tensorflow_hub as hub

    from albert_tf2.keras_api import keras

    inputs = {
        name: keras.Input([None], dtype=tf.int32, name=name)
        for name in ("input_word_ids", "input_mask", "input_type_ids")
    }
    encoder = hub.KerasLayer(str(encoder_path), trainable=True)
    pooled = encoder(inputs)["pooled_output"]
    logits = keras.layers.Dense(2)(keras.layers.Dropout(0.1)(pooled))
    model = keras.Model(inputs, logits)
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.PolynomialDecay(
                LEARNING_RATE, steps, end_learning_rate=0.0
            )
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def run(
    preprocessor_path: paths.PathLike,
    encoder_path: paths.PathLike,
    pairs: paths.PathLike,
    *,
    steps: int,
    seed: int,
) -> dict[str, float]:
    """Embeds, fine-tunes and evaluates; returns the figures it prints."""
    columns = {
        name: read_pairs(paths.join(pairs, f"{name}.txt"))
        for name in ("train", "dev", "test")
    }
    import tensorflow_hub as hub
    import tensorflow_text  # noqa: F401 (registers the preprocessor's ops)

    from albert_tf2.keras_api import keras

    keras.utils.set_random_seed(seed)
    with saved_models.loading(preprocessor_path):
        preprocessor = hub.load(str(preprocessor_path))
    with saved_models.loading(encoder_path):
        encoder = hub.KerasLayer(str(encoder_path))
    vectors = embed(preprocessor, encoder, SENTENCES).numpy()
    cosines = vectors[1:] @ vectors[0]
    print("  raw cosines, which say little before fine-tuning:")
    for sentence, cosine in zip(SENTENCES[1:], cosines, strict=True):
        print(f"  cosine {cosine:+.3f}  {SENTENCES[0]} | {sentence}")

    for name, pairs_of in columns.items():
        if cut := count_cut(preprocessor, pairs_of):
            print(
                f"  note: {cut:,} of {len(pairs_of[0]):,} pairs of {name}.txt "
                f"are longer than {SEQ_LENGTH} tokens and lose their ends"
            )
    model = build_classifier(encoder_path, steps)
    held_out = {
        name: pair_dataset(preprocessor, columns[name])
        for name in ("dev", "test")
    }
    model.fit(
        pair_dataset(preprocessor, columns["train"], shuffle_seed=seed),
        steps_per_epoch=steps,
        verbose=1,
    )
    figures: dict[str, float] = {
        "finetune_steps": steps,
        "pairs": len(columns["train"][0]),
    }
    for name, dataset in held_out.items():
        _, accuracy = model.evaluate(dataset, verbose=0)
        labels = columns[name][2]
        majority = max(sum(labels), len(labels) - sum(labels)) / len(labels)
        figures |= {
            f"{name}_accuracy": float(accuracy),
            f"{name}_majority": majority,
        }
        print(f"  {name}: accuracy {accuracy:.3f} (one answer: {majority:.3f})")
    others = SENTENCES[1:]
    questions = ([SENTENCES[0]] * len(others), list(others), [0] * len(others))
    scores = model.predict(pair_dataset(preprocessor, questions), verbose=0)
    for sentence, (differ, same) in zip(others, scores, strict=True):
        same = 1 / (1 + math.exp(differ - same))  # softmax of two scores
        print(f"  same meaning: {same:.0%}  {SENTENCES[0]} | {sentence}")
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module docstring."""
    parser = command_line.parser(
        __doc__, prog="python -m albert_tf2.hub_example"
    )
    for name, sentence in (
        ("preprocessor", "the preprocessor's SavedModel"),
        ("encoder", "the encoder's SavedModel"),
        ("pairs", "a folder of question pairs: train.tsv and dev.tsv"),
    ):
        parser.add_argument(
            f"--{name}",
            required=True,
            metavar="FOLDER",
            help=sentence,
        )
    command_line.add_number(
        parser, "--steps", 300, "Steps of training.", least=1, most=MAX_STEPS
    )
    command_line.add_number(
        parser,
        "--seed",
        1,
        "Decides order and first weights.",
        least=0,
        most=MAX_SEED,
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write the figures here, as JSON",
    )
    args = parser.parse_args(argv)
    for name in ("preprocessor", "encoder"):
        path = getattr(args, name)
        if not paths.is_file(paths.join(path, "saved_model.pb")):
            raise UserError(
                f"--{name}: {path} is not a SavedModel; export one with "
                "`python -m albert_tf2.hub_export.export`"
            )
    figures = run(
        paths.fetched(args.preprocessor),
        paths.fetched(args.encoder),
        args.pairs,
        steps=args.steps,
        seed=args.seed,
    )
    if args.output:
        paths.write_json(args.output, figures)
    return 0


if __name__ == "__main__":
    command_line.run(main)
