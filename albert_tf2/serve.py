"""A small HTTP service with a page to try a model in the browser.

Requests that wait are answered together, so many clients get far more than one
of them alone. What a request may hold and how long anything may take is
limited; SIGTERM answers what has begun and ends within ten seconds. The routes
are in /openapi.json, counts for Prometheus in /metrics.

It listens on this machine alone unless --host says otherwise, and reads no file
but the model it was started with. It has no passwords: put a proxy with them
before it if others shall reach it, and name it with --allow_host. Needs the
extra `serve` (pip install -e '.[serve]').

    python -m albert_tf2.serve --model runs/lcqmc/model
    curl -s localhost:8501/similarity -H 'content-type: application/json' \\
      -d '{"pairs": [["我喜欢妈妈做的汤", "妈妈做的汤我很喜欢喝"]]}'
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from albert_tf2 import command_line
from albert_tf2.errors import UserError, install_line, require
from albert_tf2.prediction.predictor import Predictor
from albert_tf2.settings import MAX_BATCH


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser(__doc__, "python -m albert_tf2.serve")
    parser.add_argument(
        "--model",
        required=True,
        metavar="SOURCE",
        help="a fine-tuned model's folder, a checkpoint, a hub encoder",
    )
    parser.add_argument(
        "--vocab_file",
        metavar="FILE",
        help="the vocabulary, where none lies beside the model",
    )
    command_line.add_engine(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on; 0.0.0.0 or ::: all of this machine's "
        "(default: 127.0.0.1, for this machine alone)",
    )
    command_line.add_number(
        parser,
        "--port",
        8501,
        "The port to listen on; 0: any that is free.",
        least=0,
        most=65_535,
    )
    parser.add_argument(
        "--allow_host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which clients call the service, such as that of "
        "the proxy before it; may be repeated",
    )
    command_line.add_number(
        parser,
        "--batch_size",
        64,
        "Texts that are computed at a time; 1: each by itself.",
        least=1,
        most=MAX_BATCH,
    )
    command_line.add_number(
        parser,
        "--batch_wait_ms",
        5.0,
        "Milliseconds that a request waits for others, at most.",
        kind=float,
        least=0,
        most=1000,
    )
    return parser.parse_args(argv)


def check_installed() -> None:
    """Raises a `UserError` unless the extra `serve` is there.

    The 2.15 line with TensorFlow Addons holds typing_extensions so low that
    only the first pydantic fits, which has another interface.
    """
    require("the service", ["fastapi", "uvicorn", "pydantic"], "serve")
    found = metadata.version("pydantic")
    if found.startswith("1."):
        raise UserError(
            f"the service needs pydantic 2, and this environment has {found}: "
            f"{install_line('serve')}, in one without the extra `addons`"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the service until it is interrupted; then the process ends."""
    args = _parse(argv)
    check_installed()
    from albert_tf2.prediction import connections, service
    from albert_tf2.prediction.guard import is_loopback, to_visit

    limits = service.Limits()
    # Before the model loads: a port in use is told at once.
    with connections.listen(args.host, args.port) as listener:
        predictor = Predictor(
            args.model,
            vocab_file=args.vocab_file,
            batch_size=args.batch_size,
            engine=args.engine,
        )
        room = connections.Room(limits)
        served = service.Service(
            predictor,
            limits=limits,
            names=service.Names(args.host, args.allow_host),
            batch_size=args.batch_size,
            wait_seconds=args.batch_wait_ms / 1000,
            gauges=room.gauges,
        )
        served.warm_up()
        if not is_loopback(args.host):
            print(
                f"warning: --host {args.host} opens the service to the "
                "network, without passwords or encryption: put a proxy with "
                "them before it",
                file=sys.stderr,
            )
        port = listener.getsockname()[1]
        address = connections.shown_address(to_visit(args.host), port)
        print(f"http://{address}/", flush=True)
        connections.run(served.app, listener, room)
    # Nobody waits for what the model may still compute, nor can it be
    # interrupted; and Python would take seconds to take TensorFlow apart.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    command_line.run(main)
