"""A small HTTP service with a page to try a model in the browser.

Listens on this machine alone unless --host says otherwise, answers one request
at a time, limits what it accepts, and reads no file but the model it was
started with. It has no passwords: put a proxy with them before it if others
shall reach it. Needs the extra `serve` (pip install -e '.[serve]').

    python -m albert_tf2.serve --model runs/lcqmc/model
    curl -s localhost:8501/similarity -H 'content-type: application/json' \\
      -d '{"pairs": [["我喜欢妈妈做的汤", "妈妈做的汤我很喜欢喝"]]}'
"""

import argparse
from collections.abc import Sequence

from albert_tf2 import command_line
from albert_tf2.errors import require
from albert_tf2.prediction.predictor import Predictor
from albert_tf2.prediction.service import LOOPBACK, create_app


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
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on; 0.0.0.0: all of this machine's "
        "(default: 127.0.0.1, for this machine alone)",
    )
    command_line.add_number(
        parser, "--port", 8501, "The port to listen on.", least=1, most=65_535
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the service until it is interrupted."""
    args = _parse(argv)
    require("the service", ["fastapi", "uvicorn"], "serve")
    import uvicorn

    predictor = Predictor(args.model, vocab_file=args.vocab_file)
    hosts = LOOPBACK if args.host in LOOPBACK else ("*",)
    print(f"http://{args.host}:{args.port}/")
    uvicorn.run(
        create_app(predictor, hosts=hosts),
        host=args.host,
        port=args.port,
        log_level="warning",
    )
    return 0


if __name__ == "__main__":
    command_line.run(main)
