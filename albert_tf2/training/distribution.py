"""One place that picks `tf.distribute` strategies.

auto           a TPU if the environment names one, else all GPUs of this
               machine (mirrored if several), else one CPU device
one_device     the first GPU, else the CPU
mirrored       all GPUs of this machine; without any, all CPU devices
multi_worker   the processes that the variable TF_CONFIG names
tpu            by `--tpu` (a name or grpc:// address), else Colab's or the
               TPU VM's own
"""

import json
import os

import tensorflow as tf

from albert_tf2.errors import UserError, check_choice
from albert_tf2.settings import STRATEGIES

# Set where a TPU is to be found: by Colab, Cloud TPU VMs and GKE.
TPU_VARIABLES = ("TPU_NAME", "COLAB_TPU_ADDR", "TPU_ACCELERATOR_TYPE")


def create_strategy(
    name: str = "auto", *, tpu: str | None = None
) -> tf.distribute.Strategy:
    """Returns a strategy.

    Args:
        name: One of `STRATEGIES`.
        tpu: For "tpu": its name, its `grpc://` address, or "local".

    Raises:
        UserError: If there is no such device, saying what was looked for.
    """
    check_choice("strategy", name, STRATEGIES)
    if name == "auto":
        name = _best()
    if name == "tpu":
        return _tpu_strategy(tpu)
    if name == "multi_worker":
        return _multi_worker_strategy()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored":
        devices = gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([d.name for d in devices])
    return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")


def _best() -> str:
    if os.environ.get("TF_CONFIG"):
        return "multi_worker"
    if os.environ.get("TPU_NAME") or os.environ.get("COLAB_TPU_ADDR"):
        return "tpu"
    gpus = tf.config.list_physical_devices("GPU")
    return "mirrored" if len(gpus) > 1 else "one_device"


def _multi_worker_strategy() -> tf.distribute.Strategy:
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        workers = config["cluster"]["worker"]
        config["task"]["index"], config["task"]["type"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            "--strategy multi_worker needs the variable TF_CONFIG with "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": '
            f'"worker", "index": 0}}}}. Received: TF_CONFIG={text!r}'
        ) from error
    if not workers:
        raise UserError("TF_CONFIG names no worker under cluster.worker")
    return tf.distribute.MultiWorkerMirroredStrategy()


def _tpu_strategy(tpu: str | None) -> tf.distribute.Strategy:
    address = tpu or os.environ.get("TPU_NAME")
    if not address and os.environ.get("COLAB_TPU_ADDR"):
        address = f"grpc://{os.environ['COLAB_TPU_ADDR']}"
    # A TPU VM has its chips in the machine itself.
    on_vm = os.path.exists("/dev/accel0") or os.path.isdir("/dev/vfio")
    if not address and (on_vm or os.environ.get("TPU_ACCELERATOR_TYPE")):
        address = "local"
    if not address:
        raise UserError(
            "--strategy tpu found no TPU: --tpu is not given, the variables "
            f"{', '.join(TPU_VARIABLES)} are not set, and there is neither "
            "/dev/accel0 nor /dev/vfio; name one with --tpu, or compile for "
            "one without having it: python -m albert_tf2.tpu_check"
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(address)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:  # each layer below raises its own kind
        first_line = str(error).strip().splitlines()[:1]
        raise UserError(
            f"--strategy tpu could not connect to {address!r}: "
            f"{type(error).__name__}: {' '.join(first_line)[:300]}"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def worker_of(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Returns this process's number and how many there are."""
    resolver = strategy.cluster_resolver
    if (
        isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        and resolver is not None
        and resolver.task_id is not None
    ):
        count = len(resolver.cluster_spec().as_dict().get("worker", []))
        return resolver.task_id, max(1, count)
    return 0, 1


def described(strategy: tf.distribute.Strategy) -> str:
    """Returns what a strategy is, for people."""
    kind = type(strategy).__name__.removesuffix("V1")
    return f"{kind}, replicas: {strategy.num_replicas_in_sync}"


def shares(
    strategy: tf.distribute.Strategy, context: tf.distribute.InputContext
) -> dict[str, int]:
    """Returns which part of a global batch an input pipeline is to make."""
    workers = context.num_input_pipelines
    return {
        "worker": context.input_pipeline_id,
        "workers": workers,
        "replicas": strategy.num_replicas_in_sync // workers,
    }


def is_only_replica() -> bool:
    """Whether nobody else computes this step."""
    replica = tf.distribute.get_replica_context()
    return replica is None or replica.num_replicas_in_sync == 1


def updates_alone() -> bool:
    """Whether an update of the variables waits for no other replica.

    Strategies that mirror variables wait even where there is one replica,
    and TensorFlow does not compile that on its own.
    """
    return not tf.distribute.has_strategy() or isinstance(
        tf.distribute.get_strategy(), tf.distribute.OneDeviceStrategy
    )


def all_reduce(values):
    """Sums over all replicas, in one; outside a strategy there is one."""
    if is_only_replica():
        return values
    replica = tf.distribute.get_replica_context()
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, values)
