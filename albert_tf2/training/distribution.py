"""One place that picks `tf.distribute` strategies.

auto           the processes of TF_CONFIG if it names several, else a TPU, else
               all GPUs of this machine (mirrored if several), else one CPU
               device; it says what it took, and why
one_device     the first GPU, else the CPU
mirrored       all GPUs of this machine; without any, all CPU devices
multi_worker   the processes that the variable TF_CONFIG names
tpu            by `--tpu` (a name or grpc:// address), else Colab's or the
               TPU VM's own
"""

import glob
import json
import os
from collections.abc import Callable, Iterable
from importlib import util

import tensorflow as tf

from albert_tf2.errors import UserError, check_choice, shown
from albert_tf2.settings import STRATEGIES

# Set where a TPU is to be found: by Colab, Cloud TPU VMs and GKE.
TPU_VARIABLES = ("TPU_NAME", "COLAB_TPU_ADDR", "TPU_ACCELERATOR_TYPE")
# A TPU VM's chips: of v2 to v4, and of v5e and later. The second pattern fits
# any device that was handed to a virtual machine, so TPU's library must be
# there too.
TPU_DEVICES, VFIO_DEVICES = "/dev/accel[0-9]*", "/dev/vfio/[0-9]*"
TPU_LIBRARIES = ("/lib/libtpu.so", "/usr/lib/libtpu.so")
GPU_DEVICES = "/dev/nvidia[0-9]*"


def create_strategy(
    name: str = "auto",
    *,
    tpu: str | None = None,
    say: Callable[[str], None] = print,
) -> tf.distribute.Strategy:
    """Returns a strategy.

    Args:
        name: One of `STRATEGIES`.
        tpu: For "tpu": its name, its `grpc://` address, or "local".
        say: Told what "auto" took, and why.

    Raises:
        UserError: If there is no such device, saying what was looked for.
    """
    check_choice("strategy", name, STRATEGIES)
    if name == "auto":
        name, why = _best(tpu)
        say(f"--strategy auto takes {name}: {why}")
    if name == "tpu":
        return _tpu_strategy(tpu)
    if name == "multi_worker":
        _workers_of(os.environ.get("TF_CONFIG", ""))
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored":
        devices = gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([d.name for d in devices])
    return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")


def _best(tpu: str | None) -> tuple[str, str]:
    """Returns the strategy for this machine, and the reason."""
    if text := os.environ.get("TF_CONFIG"):
        count = _workers_of(text)
        # One process alone is one machine, as TF_CONFIG of a single-node job.
        if count > 1:
            return "multi_worker", f"TF_CONFIG names {count} workers"
    address, where = _find_tpu(tpu)
    if address:
        return "tpu", where
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        return "mirrored" if gpus > 1 else "one_device", f"{gpus} GPU(s)"
    why = "the CPU, as there is neither a TPU nor a GPU"
    if glob.glob(GPU_DEVICES):
        why = (
            f"the CPU, although {glob.glob(GPU_DEVICES)[0]} is there: this "
            "TensorFlow finds no GPU; pip install 'tensorflow[and-cuda]' of "
            "the same version brings what it needs"
        )
    return "one_device", why


def _workers_of(text: str) -> int:
    """Returns how many processes train, by TF_CONFIG, which is checked."""
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        kind, index = task["type"], task["index"]
        addresses = cluster[kind]
        training = [*cluster.get("chief", []), *cluster.get("worker", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        missing = f" ({error} is missing)" if type(error) is KeyError else ""
        raise UserError(
            "--strategy multi_worker needs the variable TF_CONFIG with "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": '
            f'"worker", "index": 0}}}}{missing}. Received: '
            f"TF_CONFIG={shown(text)}"
        ) from error
    if kind not in ("chief", "worker"):
        raise UserError(
            "TF_CONFIG: `task.type` must be worker or chief: parameter "
            f"servers and evaluators take no part here. Received: {kind!r}"
        )
    if type(index) is not int or not 0 <= index < len(addresses):
        raise UserError(
            f"TF_CONFIG: `task.index` must be 0 to {len(addresses) - 1}, as "
            f"`cluster.{kind}` names {len(addresses)} process(es). Received: "
            f"{index!r}"
        )
    return len(training)


def _find_tpu(tpu: str | None) -> tuple[str, str]:
    """Returns the address of a TPU and where it was found; "" without one."""
    if tpu:
        return tpu, "--tpu names one"
    if name := os.environ.get("TPU_NAME"):
        return name, f"TPU_NAME={name}"
    if address := os.environ.get("COLAB_TPU_ADDR"):
        return f"grpc://{address}", f"COLAB_TPU_ADDR={address}"
    # A TPU VM has its chips in the machine itself.
    if kind := os.environ.get("TPU_ACCELERATOR_TYPE"):
        return "local", f"TPU_ACCELERATOR_TYPE={kind}"
    if devices := glob.glob(TPU_DEVICES):
        return "local", f"{len(devices)} device(s) {TPU_DEVICES}"
    if glob.glob(VFIO_DEVICES) and _has_tpu_library():
        return "local", f"{VFIO_DEVICES} and TPU's library"
    return "", ""


def _has_tpu_library() -> bool:
    return (
        "TPU_LIBRARY_PATH" in os.environ
        or any(map(os.path.exists, TPU_LIBRARIES))
        or util.find_spec("libtpu") is not None
    )


def _tpu_strategy(tpu: str | None) -> tf.distribute.Strategy:
    address, where = _find_tpu(tpu)
    if not address:
        raise UserError(
            "--strategy tpu found no TPU: --tpu is not given, the variables "
            f"{', '.join(TPU_VARIABLES)} are not set, and there is neither "
            f"{TPU_DEVICES} nor {VFIO_DEVICES} with TPU's library; name one "
            "with --tpu, or compile for one without having it: python -m "
            "albert_tf2.tpu_check"
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(address)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:  # each layer below raises its own kind
        first_line = str(error).strip().splitlines()[:1]
        raise UserError(
            f"the TPU {address!r} ({where}) does not answer: "
            f"{type(error).__name__}: {' '.join(first_line)[:300]}; to do "
            "without it pass --strategy one_device"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def described(strategy: tf.distribute.Strategy) -> str:
    """Returns what a strategy is, for people."""
    kind = type(strategy).__name__.removesuffix("V1")
    return f"{kind}, replicas: {strategy.num_replicas_in_sync}"


def distributed(
    strategy: tf.distribute.Strategy,
    make: Callable[[dict[str, int]], tf.data.Dataset],
) -> Iterable:
    """Returns the elements of each step, a replica's or all replicas'.

    Args:
        strategy: The devices.
        make: From a worker's part of a global batch, `worker`, `workers` and
            `replicas`, to its dataset.
    """

    def of_context(context: tf.distribute.InputContext) -> tf.data.Dataset:
        workers = context.num_input_pipelines
        return make(
            {
                "worker": context.input_pipeline_id,
                "workers": workers,
                "replicas": strategy.num_replicas_in_sync // workers,
            }
        )

    if _is_one_cpu(strategy):
        # What brings elements to a device has autotuning of its own: see
        # `records.pipeline`.
        return of_context(tf.distribute.InputContext())
    return strategy.distribute_datasets_from_function(of_context)


def _is_one_cpu(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.OneDeviceStrategy) and all(
        "CPU" in device.upper() for device in strategy.extended.worker_devices
    )


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
