"""Hands one StableHLO file to libtpu's compiler and prints facts as JSON.

Run by `tpu_check` in a process of its own. It uses JAX's internals, because
JAX has no public way to compile a program that it did not trace.

    python -m albert_tf2.pretraining.tpu_compiler step.mlir v5e:2x2
"""

import json
import sys
from typing import Any

from albert_tf2.errors import install_line

INSTALL = (
    f"the TPU compiler is not installed: {install_line('tpu_check')} "
    "(jax[tpu]; no TPU is needed)"
)


def compile_text(text: str, topology: str) -> dict[str, Any]:
    """Compiles for one core of a topology.

    Args:
        text: A StableHLO module.
        topology: For instance "v5e:2x2".
    """
    import numpy as np
    from jax._src.interpreters import mlir
    from jax._src.lib import xla_client
    from jax.experimental import topologies
    from jaxlib.mlir import ir

    description = topologies.get_topology_desc(
        platform="tpu", topology_name=topology
    )
    device = description.devices[0]
    with mlir.make_ir_context():
        module = ir.Module.parse(text)
        options = xla_client.CompileOptions()
        options.num_replicas = options.num_partitions = 1
        options.device_assignment = xla_client.DeviceAssignment.create(
            np.array([[device.id]])
        )
        try:
            executable = device.client.compile(
                module, xla_client.DeviceList((device,)), options
            )
        except Exception as error:
            reason = " ".join(str(error).split())
            if "RESOURCE_EXHAUSTED" in reason or "hbm" in reason.lower():
                return {"fits": False, "reason": reason[:400]}
            raise
    return facts(executable)


def facts(executable) -> dict[str, Any]:
    """Returns memory and work of a compiled program."""
    import jax
    from jaxlib import _jax

    stats = executable.get_compiled_memory_stats()
    arguments = stats.argument_size_in_bytes
    temporary = stats.temp_size_in_bytes
    fresh = stats.output_size_in_bytes - stats.alias_size_in_bytes
    cost = _jax.hlo_module_cost_analysis(
        jax.devices("cpu")[0].client, executable.hlo_modules()[0]
    )
    return {
        "fits": True,
        "arguments": arguments,
        "temporary": temporary,
        "outputs": fresh,
        "memory": arguments + temporary + fresh,
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
    }


def main() -> None:
    """Prints one line of JSON."""
    path, topology = sys.argv[1:]
    try:
        import jax  # noqa: F401
        import libtpu  # noqa: F401
    except ImportError:
        print(json.dumps({"missing": INSTALL}))
        return
    with open(path, encoding="utf-8") as stream:
        print(json.dumps(compile_text(stream.read(), topology)))


if __name__ == "__main__":
    main()
