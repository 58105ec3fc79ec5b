"""The train step as an XLA program: exported by TensorFlow, run by JAX.

    export   here, with TensorFlow: writes the program, its inputs, the values
             of all variables, and what TensorFlow computes with them
    run      on a machine that has JAX and need not have TensorFlow: feeds
             outputs back as inputs, checks losses and weights where the
             device computes in float32 (a CPU), and reports examples/s,
             TFLOP/s and the share of the device's measured peak; with
             --hugging_face, AlbertForPreTraining compiled beside it

python benchmarks/gpu_step.py export --model albert_base_zh --batch_size 32 --folder step
PYTHONPATH=. python benchmarks/gpu_step.py run --folder step
"""  # noqa: E501

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from albert_tf2 import command_line
from albert_tf2.recipes import PretrainRecipe

CHECKED_STEPS = 3
# float32 in another order, through LAMB's ratios.
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 1e-4, 5e-4


def main(argv: Sequence[str] | None = None) -> int:
    """Exports or runs."""
    parser = command_line.parser(__doc__)
    parser.add_argument("part", choices=("export", "run"))
    parser.add_argument("--folder", required=True)
    parser.add_argument("--model", default="albert_base_zh")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_seq_length", type=int, default=512)
    parser.add_argument("--precision", default="mixed_bfloat16")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--hugging_face", action="store_true")
    arguments = parser.parse_args(argv)
    if arguments.part == "export":
        export(arguments)
        return 0
    return run(arguments)


def export(arguments) -> None:
    """Writes program.hlo, values.npz, expected.npz and facts.json."""
    import tensorflow as tf

    from albert_tf2 import features
    from albert_tf2.keras_api import keras
    from albert_tf2.model.albert import AlbertPretrainer
    from albert_tf2.model.flops import training_flops
    from albert_tf2.pretraining.recipe_parts import create_schedule
    from albert_tf2.pretraining.step import PretrainStep
    from albert_tf2.training.optimization import recipe_optimizer

    length = arguments.max_seq_length
    recipe = PretrainRecipe(
        model=arguments.model,
        max_seq_length=length,
        max_predictions_per_seq=max(1, length // 10),
        warmup_steps=2,
    )
    config = recipe.model_config()
    keras.utils.set_random_seed(1)
    keras.mixed_precision.set_global_policy(arguments.precision)
    model = AlbertPretrainer(config)
    optimizer = recipe_optimizer(
        recipe, create_schedule(recipe), model.trainable_variables
    )
    one_step = PretrainStep(model, optimizer, jit_compile=True)

    @tf.function(jit_compile=True)
    def step(batch):
        return one_step(batch)  # the number of the step draws dropout alone

    batch = random_batch(config, arguments.batch_size, recipe)
    batch = {
        name: tf.constant(
            value,
            tf.float32 if name in features.LABELS[1::2] else tf.int32,
        )
        for name, value in batch.items()
    }
    captured = step.get_concrete_function(batch).captured_inputs
    variables = {
        id(variable.handle): variable
        for variable in [
            *model.variables,
            *optimizer.variables(),
            *optimizer._hyper.values(),
        ]
        if isinstance(variable, tf.Variable)
    }
    values = tf.nest.flatten(batch) + [variables[id(x)] for x in captured]
    values = [value.numpy() for value in values]
    ir = step.experimental_get_compiler_ir(batch)
    # The program says itself which output is the new value of which input.
    head = ir(stage="hlo").split("entry_computation_layout")[0]
    feedback = [
        (int(output), int(source))
        for output, source in re.findall(r"\{(\d+)\}: \((\d+), \{\}", head)
    ]
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "program.hlo").write_bytes(ir(stage="hlo_serialized"))
    save(folder / "values.npz", values)
    losses = [float(step(batch)[0]) for _ in range(CHECKED_STEPS)]
    after = [variables[id(x)].numpy() for x in captured]
    save(folder / "expected.npz", after)
    facts = {
        "model": arguments.model,
        "rows": arguments.batch_size,
        "length": length,
        "predictions": recipe.max_predictions_per_seq,
        "precision": arguments.precision,
        "flops": arguments.batch_size
        * training_flops(config, length, recipe.max_predictions_per_seq),
        "feedback": feedback,
        "inputs": len(batch),
        "losses": losses,
    }
    (folder / "facts.json").write_text(json.dumps(facts))
    print(f"{folder}: {len(values)} values, losses {losses}")


def save(path: Path, arrays: list[np.ndarray]) -> None:
    """Writes arrays in order."""
    np.savez(path, **{f"{i:05d}": array for i, array in enumerate(arrays)})


def load(path: Path) -> list[np.ndarray]:
    """Reads what `save` wrote."""
    with np.load(path) as archive:
        return [archive[name] for name in sorted(archive.files)]


def random_batch(config, rows: int, recipe) -> dict[str, np.ndarray]:
    """Returns an unpacked batch without padding."""
    rng = np.random.default_rng(0)
    shape = (rows, recipe.max_seq_length)
    predictions = recipe.max_predictions_per_seq
    positions = np.sort(
        [
            rng.choice(np.arange(1, shape[1]), predictions, replace=False)
            for _ in range(rows)
        ]
    )
    segments = np.arange(shape[1]) // (shape[1] // 2)
    return {
        "input_word_ids": rng.integers(1, config.vocab_size, shape),
        "input_mask": np.ones(shape),
        "input_type_ids": np.tile(segments, (rows, 1)).clip(0, 1),
        "masked_lm_positions": positions,
        "masked_lm_ids": rng.integers(1, config.vocab_size, positions.shape),
        "masked_lm_weights": np.ones(positions.shape),
        "sentence_order_labels": rng.integers(0, 2, (rows, 1)),
        "sentence_order_weights": np.ones((rows, 1)),
    }


def run(arguments) -> int:
    """Runs the program through JAX; returns 1 if a check fails."""
    import jax
    from jax._src import xla_bridge
    from jax._src.lib import xla_client

    jax.config.update("jax_enable_x64", True)  # the step counter is int64
    folder = Path(arguments.folder)
    facts = json.loads((folder / "facts.json").read_text())
    computation = xla_client.XlaComputation(
        (folder / "program.hlo").read_bytes()
    )
    backend = xla_bridge.get_backend()
    devices = tuple(backend.local_devices()[:1])
    executable = backend.compile_and_load(
        xla_client._xla.mlir.xla_computation_to_mlir_module(computation),
        xla_client.DeviceList(devices),
        xla_client.CompileOptions(),
    )
    values = [
        jax.device_put(v, devices[0]) for v in load(folder / "values.npz")
    ]

    def step():
        """One step; inputs that it renews are replaced."""
        results = executable.execute_sharded(values)
        outputs = [
            arrays[0]
            for arrays in results.disassemble_into_single_device_arrays()
        ]
        for output, source in facts["feedback"]:
            values[source] = outputs[output]
        return outputs[0]

    losses = [float(np.asarray(step())[0]) for _ in range(CHECKED_STEPS)]
    print(f"device: {devices[0].device_kind}; losses {losses}")
    passed = check(facts, losses, values, load(folder / "expected.npz"))
    seconds = timed(step, arguments.steps)
    print(describe(facts, "ours", seconds, peak(jax)))
    if arguments.hugging_face:
        print(describe(facts, "HF", hugging_face(facts, arguments), peak(jax)))
    return 0 if passed else 1


def check(facts, losses, values, expected) -> bool:
    """Compares with TensorFlow's losses and weights."""
    apart = np.abs(np.array(losses) - facts["losses"]).max()
    worst = max(
        float(np.abs(np.asarray(value) - reference).max())
        for value, reference in zip(
            values[facts["inputs"] :], expected, strict=True
        )
    )
    print(f"apart from TensorFlow: losses {apart:.2g}, variables {worst:.2g}")
    if facts["precision"] != "float32":
        return bool(apart < 0.05)
    return bool(apart < LOSS_TOLERANCE and worst < WEIGHT_TOLERANCE)


def timed(step, steps: int) -> float:
    """Returns seconds per step of a loop that feeds itself."""
    np.asarray(step())
    start = time.perf_counter()
    for _ in range(steps):
        last = step()
    np.asarray(last)
    return (time.perf_counter() - start) / steps


def peak(jax) -> float:
    """Measures bfloat16 FLOP/s of a product of square matrices."""
    size = 8192 if jax.default_backend() == "gpu" else 1024
    left = jax.numpy.ones((size, size), jax.numpy.bfloat16)
    product = jax.jit(lambda x: x @ x)
    product(left).block_until_ready()
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        product(left).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def describe(facts, name: str, seconds: float, limit: float) -> str:
    """Returns one contender's figures."""
    rate = facts["flops"] / seconds
    return (
        f"{name}: {facts['model']}, {facts['rows']} x {facts['length']}: "
        f"{seconds * 1e3:.1f} ms, {facts['rows'] / seconds:,.1f} examples/s, "
        f"{rate / 1e12:.2f} TFLOP/s, {rate / limit:.0%} of the measured "
        f"{limit / 1e12:.2f} TFLOP/s"
    )


def hugging_face(facts, arguments) -> float:
    """Returns seconds per step of HF's model, compiled, bfloat16."""
    import torch
    from pretrain_step import hugging_face_loss

    config = PretrainRecipe(model=facts["model"]).model_config()
    recipe = PretrainRecipe(
        model=facts["model"],
        max_seq_length=facts["length"],
        max_predictions_per_seq=facts["predictions"],
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, loss = hugging_face_loss(config)
    model.to(device)
    batch = random_batch(config, facts["rows"], recipe)
    names = ("input_word_ids", "input_type_ids", "masked_lm_positions")
    values = [
        torch.tensor(batch[name], device=device)
        for name in (*names, "masked_lm_ids")
    ]
    values.append(
        torch.tensor(batch["sentence_order_labels"][:, 0], device=device)
    )
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    compiled = torch.compile(loss)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            value = compiled(*values)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return value.detach()

    for _ in range(3):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(arguments.steps):
        last = step()
    last.item()
    return (time.perf_counter() - start) / arguments.steps


if __name__ == "__main__":
    command_line.run(main)
