"""A whole pre-training step beside Hugging Face, Model Garden and albert_zh.

Same sizes (google layout; albert_zh has its own), same batch without padding,
gathered masked positions for everyone, gradients clipped to a global norm of
1. Ours, Model Garden's and albert_zh's step with LAMB, Hugging Face's with
AdamW (torch has no LAMB). Each contender runs in a process of its own, in
turns; the best median counts. CPU seconds are of all threads: on a shared
machine trust their ratios. FLOPs are those of the formula (`flops.py`) for
everyone, whatever a contender leaves out: ours computes the last layer only
where a head looks.

For albert_zh: --albert_zh CHECKOUT --albert_zh_python py37/bin/python (with
TensorFlow 1.15).

python benchmarks/pretrain_step.py --model albert_tiny_zh_google --batch_size 32
python benchmarks/pretrain_step.py --batch_size 8 --length 512 --predictions 77
"""  # noqa: E501

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from albert_tf2 import command_line

LENGTH, PREDICTIONS = 128, 20
CONTENDERS = {
    "gemm": "GEMM 2048^3, fp32: the limit",
    "ours": "ours",
    "ours_jit": "ours, jit_compile",
    "ours_bf16": "ours, bfloat16",
    "garden": "Model Garden AlbertEncoder",
    "garden_bf16": "Model Garden AlbertEncoder, bfloat16",
    "hf": "Hugging Face, compiled",
    "hf_bf16": "Hugging Face, compiled, bfloat16",
    "original": "albert_zh on TensorFlow 1.15",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the contenders and prints a table."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--model", default="albert_tiny_zh_google")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--length", type=int, default=LENGTH)
    parser.add_argument("--predictions", type=int, default=PREDICTIONS)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS
    )
    parser.add_argument(
        "--albert_zh", help="a checkout of brightmart/albert_zh"
    )
    parser.add_argument("--albert_zh_python", help="with TensorFlow 1.15")
    parser.add_argument("--only", choices=CONTENDERS, help="one, as JSON")
    arguments = parser.parse_args(argv)
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments)))
        return 0
    best: dict[str, dict[str, float]] = {}
    for _ in range(arguments.rounds):
        for name in arguments.contenders:
            if name == "original" and not arguments.albert_zh:
                continue
            found = in_own_process(name, arguments)
            if name not in best or found["cpu"] < best[name]["cpu"]:
                best[name] = found
            print(f"{name}: {found}", flush=True)
    print(table(best))
    return 0


def in_own_process(name: str, arguments) -> dict[str, float]:
    """Measures one contender."""
    if name == "original":
        return original(arguments)
    run = subprocess.run(
        [sys.executable, __file__, "--only", name]
        + ["--model", arguments.model, "--steps", str(arguments.steps)]
        + ["--batch_size", str(arguments.batch_size)]
        + ["--length", str(arguments.length)]
        + ["--predictions", str(arguments.predictions)],
        stdout=subprocess.PIPE,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        text=True,
        check=True,
    )
    return json.loads(run.stdout.strip().splitlines()[-1])


def table(best: dict[str, dict[str, float]]) -> str:
    """Returns the figures as Markdown."""
    limit = best.get("gemm", {}).get("flops_per_cpu")
    lines = [
        "| | ms | CPU ms | GFLOP per CPU-s | of the GEMM limit |",
        "|---|---|---|---|---|",
    ]
    for name, found in best.items():
        rate = found["flops_per_cpu"]
        share = f"{rate / limit:.0%}" if limit else ""
        lines.append(
            f"| {CONTENDERS[name]} | {found['wall'] * 1e3:.0f} | "
            f"{found['cpu'] * 1e3:.0f} | {rate / 1e9:.0f} | {share} |"
        )
    return "\n".join(lines)


def measure(name: str, arguments) -> dict[str, float]:
    """Returns the medians of a contender's step, in seconds."""
    from albert_tf2 import AlbertConfig
    from albert_tf2.model.flops import training_flops

    config = AlbertConfig.from_name(arguments.model)
    work = arguments.batch_size * training_flops(config, **sizes_of(arguments))
    if name == "gemm":
        step, work = gemm(), 2 * 2048**3
    else:
        kind, _, variant = name.partition("_")
        build = {"ours": ours, "garden": garden, "hf": hugging_face}[kind]
        step = build(
            config, arguments.batch_size, variant, **sizes_of(arguments)
        )
    for _ in range(3):
        step()
    walls, cpus = [], []
    for _ in range(arguments.steps):
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return medians(walls, cpus, work)


def sizes_of(arguments) -> dict[str, int]:
    """Returns tokens and masked tokens of a row."""
    return {"length": arguments.length, "predictions": arguments.predictions}


def medians(
    walls: Sequence[float], cpus: Sequence[float], work: int
) -> dict[str, float]:
    """Returns the medians in seconds, and FLOP per CPU-second."""
    cpu = statistics.median(cpus)
    return {
        "wall": statistics.median(walls),
        "cpu": cpu,
        "flops_per_cpu": work / cpu,
    }


def original(arguments) -> dict[str, float]:
    """Measures albert_zh's own step, in its own environment."""
    import numpy as np

    from albert_tf2 import AlbertConfig, features
    from albert_tf2.model.flops import training_flops

    config = AlbertConfig.from_name(arguments.model)
    sizes = sizes_of(arguments)
    names = {name: key for key, name in features.CLASSIC_TO_BATCH.items()}
    values = {
        names[name]: value
        if value.dtype.kind == "f"
        else value.astype(np.int32)
        for name, value in batch(config, arguments.batch_size, **sizes).items()
        if name in names
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "batch.npz"
        np.savez(path, config=json.dumps(config.to_dict()), **values)
        run = subprocess.run(
            [arguments.albert_zh_python]
            + [str(Path(__file__).with_name("original_step.py").resolve())]
            + [str(path), str(arguments.steps)],
            cwd=arguments.albert_zh,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found = json.loads(run.stdout.strip().splitlines()[-1])
    work = arguments.batch_size * training_flops(config, **sizes)
    return medians(found["walls"], found["cpus"], work)


def gemm() -> Callable[[], object]:
    """A product of square matrices."""
    import tensorflow as tf

    left = tf.random.normal([2048, 2048])
    return lambda: tf.matmul(left, left).numpy()


def batch(
    config,
    batch_size: int,
    length: int = LENGTH,
    predictions: int = PREDICTIONS,
):
    """Returns a random batch without padding, as NumPy arrays."""
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (batch_size, length)
    positions = np.sort(
        [
            rng.choice(np.arange(1, length), predictions, replace=False)
            for _ in range(batch_size)
        ]
    )
    return {
        "input_word_ids": rng.integers(1, config.vocab_size, shape),
        "input_mask": np.ones(shape, int),
        "input_type_ids": np.tile(
            np.arange(length) // (length // 2), (batch_size, 1)
        ),
        "masked_lm_positions": positions,
        "masked_lm_ids": rng.integers(1, config.vocab_size, positions.shape),
        "masked_lm_weights": np.ones(positions.shape, np.float32),
        "sentence_order_labels": rng.integers(0, 2, (batch_size, 1)),
        "sentence_order_weights": np.ones((batch_size, 1), np.float32),
    }


def tensors(config, batch_size: int, **sizes: int):
    """Returns the batch as TensorFlow tensors, int32 and float32."""
    import tensorflow as tf

    return {
        name: tf.constant(
            value, tf.float32 if value.dtype.kind == "f" else tf.int32
        )
        for name, value in batch(config, batch_size, **sizes).items()
    }


def ours(
    config, batch_size: int, variant: str, **sizes: int
) -> Callable[[], object]:
    """The step that `albert_tf2.pretrain` runs."""
    import tensorflow as tf

    from albert_tf2.model.albert import AlbertPretrainer
    from albert_tf2.pretraining.step import PretrainStep
    from albert_tf2.training.optimization import create_optimizer
    from albert_tf2.training.precision import model_precision

    with model_precision("mixed_bfloat16" if variant == "bf16" else "float32"):
        model = AlbertPretrainer(config)
    step = tf.function(
        PretrainStep(
            model, create_optimizer("lamb", 1e-3), jit_compile=variant == "jit"
        )
    )
    values = tensors(config, batch_size, **sizes)
    return lambda: step(values).numpy()


def garden(
    config, batch_size: int, variant: str, **sizes: int
) -> Callable[[], object]:
    """Model Garden's encoder and heads, its LAMB."""
    import tensorflow as tf
    from official.nlp.modeling import layers, models, networks

    from albert_tf2.keras_api import keras
    from albert_tf2.training.optimization import create_optimizer

    if variant == "bf16":
        tf.config.optimizer.set_experimental_options(
            {"auto_mixed_precision_onednn_bfloat16": True}
        )
    encoder = networks.AlbertEncoder(
        vocab_size=config.vocab_size,
        embedding_width=config.embedding_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        max_sequence_length=config.max_position_embeddings,
        type_vocab_size=2,
        intermediate_size=config.intermediate_size,
        activation=lambda x: keras.activations.gelu(x, approximate=True),
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
        dict_outputs=True,
    )
    head = layers.ClassificationHead(
        inner_dim=config.hidden_size, num_classes=2, name="sentence_order"
    )
    model = models.BertPretrainerV2(
        encoder,
        mlm_activation=lambda x: keras.activations.gelu(x, approximate=True),
        classification_heads=[head],
    )
    optimizer = create_optimizer("lamb", 1e-3)
    values = tensors(config, batch_size, **sizes)
    inputs = {
        name: values[name]
        for name in (
            "input_word_ids",
            "input_mask",
            "input_type_ids",
            "masked_lm_positions",
        )
    }
    nll = tf.nn.sparse_softmax_cross_entropy_with_logits

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            loss = tf.reduce_mean(
                nll(values["masked_lm_ids"], outputs["mlm_logits"])
            ) + tf.reduce_mean(
                nll(
                    values["sentence_order_labels"][:, 0],
                    outputs["sentence_order"],
                )
            )
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        gradients, _ = tf.clip_by_global_norm(gradients, 1.0)
        pairs = [
            (gradient, variable)
            for gradient, variable in zip(gradients, variables, strict=True)
            if gradient is not None
        ]
        optimizer.apply_gradients(pairs)
        return loss

    return lambda: step().numpy()


def hugging_face_loss(config):
    """Returns HF's model and its loss with gathered masked positions."""
    import torch
    from transformers import AlbertConfig as HFConfig
    from transformers import AlbertForPreTraining

    model = AlbertForPreTraining(
        HFConfig(
            vocab_size=config.vocab_size,
            embedding_size=config.embedding_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_position_embeddings,
            hidden_act="gelu_new",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    ).train()
    nll = torch.nn.functional.cross_entropy

    def loss(ids, types, positions, labels, order):
        hidden, pooled = model.albert(
            ids, token_type_ids=types, return_dict=False
        )[:2]
        index = positions[:, :, None].expand(-1, -1, hidden.shape[-1])
        scores = model.predictions(hidden.gather(1, index))
        return nll(scores.flatten(0, 1).float(), labels.flatten()) + nll(
            model.sop_classifier(pooled).float(), order
        )

    return model, loss


def hugging_face(
    config, batch_size: int, variant: str, **sizes: int
) -> Callable[[], object]:
    """`AlbertForPreTraining`, compiled whole, torch's fused AdamW."""
    import torch

    model, loss = hugging_face_loss(config)
    values = batch(config, batch_size, **sizes)
    arguments = [
        torch.tensor(values[name])
        for name in (
            "input_word_ids",
            "input_type_ids",
            "masked_lm_positions",
            "masked_lm_ids",
        )
    ] + [torch.tensor(values["sentence_order_labels"][:, 0])]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    compiled = torch.compile(loss)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=variant == "bf16"):
            value = compiled(*arguments)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return value.item()

    return step


if __name__ == "__main__":
    command_line.run(main)
