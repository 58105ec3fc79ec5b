"""The engine without TensorFlow: LiteRT computes, in rows without padding.

    model = RowModel(litert_file.read("model_fp32.tflite"))
    model.vectors([Packed(ids, type_ids), ...], "mean")     # float32 [B, H]

Texts stand side by side in rows of up to `ROW_TOKENS` tokens, which are filled
like suitcases, the longest text first:

    lengths 30 14 12 9 8 3, rows of 32  ->  30 | 14 12 | 9 8 3, 12 left empty

Another number of tokens costs an interpreter a tenth of a millisecond, so it
serves all lengths: one for each length was slower. For the same reason the list
of where texts begin is a power of two long: the last of them stands there
several times.

Few rows are computed one after another, each by all threads. Where there are
many, each thread has rows and an interpreter to itself. In a small model's
products, threads that share one wait for each other a fifth of their time
(docs/log.md).
"""

import bisect
import collections
import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

import numpy as np

from albert_tf2 import command_line, features, paths, settings
from albert_tf2.errors import UserError, cut
from albert_tf2.prediction import litert_file
from albert_tf2.prediction.litert_file import PER_TOKEN, TASK_LOGITS, LiteFile
from albert_tf2.prediction.sentence_vectors import SentenceVectors
from albert_tf2.prediction.similarity import unit
from albert_tf2.prediction.tuned_model import TunedModel
from albert_tf2.tasks import base, registry
from albert_tf2.tasks.encoding import Example, Packed
from albert_tf2.text.tokenization import Tokenizer

# Beyond, attention, which looks at a text's neighbours too, costs more than
# fewer calls save. A longer text has a row to itself.
ROW_TOKENS = 64
# Rows are a multiple of it long, so that the interpreter sees few lengths.
STEP = 4
# In products as small as these, more threads wait for each other.
MOST_THREADS = 4
# Measured: an interpreter of its own for each thread is worth a fifth to tiny
# (312), next to nothing to base (768), where each takes 100 to 400 MB.
NARROW = 512


def fill_rows(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Puts texts into rows: each the longest that is left, and what fits.

    Args:
        lengths: In tokens.

    Yields:
        The texts of a row, by their numbers.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    left = [lengths[i] for i in order]  # the shortest first
    while order:
        row, room = [order.pop()], ROW_TOKENS - left.pop()
        while (place := bisect.bisect_right(left, room)) > 0:
            room -= left.pop(place - 1)
            row.append(order.pop(place - 1))
        yield row


class _Row(NamedTuple):
    """One pass: where each of its texts begins, and its number of tokens."""

    starts: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, sequences: Sequence[Packed]) -> "_Row":
        counts = np.array([len(sequence.ids) for sequence in sequences])
        return cls(np.cumsum(counts) - counts, counts)


class _Network:
    """An interpreter. Threads may share it: it answers in turn."""

    def __init__(self, source: dict[str, Any], threads: int):
        """Opens it.

        Args:
            source: `model_path` or `model_content`.
            threads: Of each product.
        """
        from ai_edge_litert.interpreter import Interpreter

        # An interpreter has one place for its inputs.
        self._alone = threading.Lock()
        with command_line.nobody_hears():  # it has a line for each
            interpreter = Interpreter(**source, num_threads=threads)
            self._runners = {
                name: interpreter.get_signature_runner(name)
                for name in interpreter.get_signature_list()
            }
            text = [Packed([0], [0])]
            self(litert_file.TOKENS, _inputs(_Row.of(text), text))

    def __call__(
        self, signature: str, inputs: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Returns the outputs: copies."""
        runner = self._runners.get(signature, self._runners[litert_file.TOKENS])
        with self._alone:
            return runner(**inputs)


class RowModel:
    """A network that reads rows. Threads may share it."""

    def __init__(self, file: LiteFile, *, threads: int | None = None):
        """Opens the network.

        Args:
            file: What `litert_file.read` returned.
            threads: None takes the processor's, up to `MOST_THREADS`.
        """
        if threads is None:
            threads = min(len(os.sched_getaffinity(0)), MOST_THREADS)
        self._threads = threads
        self._source: dict[str, Any] = {"model_path": file.path}
        self._may_share = threads > 1 and file.hidden_size < NARROW
        if self._may_share:
            # What is opened later must be this, whatever is at the path then.
            with paths.open_binary(file.path) as stream:
                self._source = {"model_content": stream.read()}
        try:
            self._of_all_threads = _Network(self._source, threads)
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"{file.path} does not run on this ai-edge-litert "
                f"({cut(str(error))}): pip install -U ai-edge-litert"
            ) from error
        self._of_one_thread: list[_Network] = []  # opened when needed
        self._opening = threading.Lock()

    def vectors(self, sequences: Sequence[Packed], pooling: str) -> np.ndarray:
        """Returns what stands for each text: float32 [B, H].

        Args:
            sequences: Ids of each text.
            pooling: One of `settings.POOLINGS`.
        """

        def pooled(row: _Row, output: np.ndarray) -> np.ndarray:
            if pooling == "mean":
                sums = np.add.reduceat(
                    output[: row.counts.sum()], row.starts, axis=0
                )
                return sums / row.counts[:, np.newaxis]
            return output[row.starts] if pooling == "cls" else output

        of_texts = pooling == "pooled"
        name = features.POOLED_OUTPUT if of_texts else features.SEQUENCE_OUTPUT
        return np.stack(self._run(sequences, name, pooled, of_texts=of_texts))

    def logits(
        self, sequences: Sequence[Packed], *, per_token: bool
    ) -> list[np.ndarray]:
        """Returns what the head says: float32 [n], or [T, n] token by token."""

        def by_text(row: _Row, output: np.ndarray) -> Iterable[np.ndarray]:
            if not per_token:
                return output
            return np.split(output[: row.counts.sum()], row.starts[1:])

        return self._run(
            sequences, TASK_LOGITS, by_text, of_texts=not per_token
        )

    def _run(
        self,
        sequences: Sequence[Packed],
        output: str,
        by_text: Callable[[_Row, np.ndarray], Iterable[np.ndarray]],
        *,
        of_texts: bool,
    ) -> list[np.ndarray]:
        """Returns what `by_text` makes of one output, of each text.

        `by_text` is called where a row is computed: what it leaves out, such
        as tokens, is not kept until all are done.
        """
        signature = litert_file.TEXTS if of_texts else litert_file.TOKENS
        left = collections.deque(fill_rows([len(s.ids) for s in sequences]))
        networks = self._networks(len(left))
        found: list[Any] = [None] * len(sequences)

        def work(network: _Network) -> None:
            for texts in _taken(left):
                row = _Row.of(inside := [sequences[i] for i in texts])
                outputs = network(signature, _inputs(row, inside))
                parts = by_text(row, outputs[output])
                for number, values in zip(texts, parts, strict=False):
                    found[number] = values

        if len(networks) == 1:
            work(networks[0])
            return found
        with ThreadPoolExecutor(len(networks)) as pool:
            try:
                works = [pool.submit(work, network) for network in networks]
                for one in as_completed(works):
                    one.result()
            finally:
                left.clear()  # a fault, or Ctrl-C: nobody begins another row
        return found

    def _networks(self, rows: int) -> list[_Network]:
        """Returns which interpreters share so many rows."""
        many = rows >= 2 * self._threads
        if not (self._may_share and many):
            return [self._of_all_threads]
        with self._opening:
            while len(self._of_one_thread) < self._threads:
                self._of_one_thread.append(_Network(self._source, 1))
        return self._of_one_thread


def _taken(rows: collections.deque) -> Iterator[list[int]]:
    """Takes rows until none are left; threads may share them."""
    with contextlib.suppress(IndexError):
        while True:
            yield rows.popleft()


def _inputs(row: _Row, sequences: Sequence[Packed]) -> dict[str, np.ndarray]:
    """Returns what a row is for the network: int32 [N] each, and [K]."""
    used = int(row.counts.sum())
    tokens = np.zeros([4, -(-used // STEP) * STEP], np.int32)
    ids, type_ids, pair_ids, position_ids = tokens
    ids[:used] = [i for sequence in sequences for i in sequence.ids]
    type_ids[:used] = [i for s in sequences for i in s.type_ids]
    pair_ids[:used] = np.repeat(np.arange(len(sequences)) + 1, row.counts)
    position_ids[:used] = np.arange(used) - np.repeat(row.starts, row.counts)
    several = 1 << (len(row.starts) - 1).bit_length()
    starts = np.pad(row.starts, [0, several - len(row.starts)], mode="edge")
    return {
        **dict(zip(litert_file.TOKEN_INPUTS, tokens, strict=True)),
        features.CLS_POSITIONS: starts.astype(np.int32),
    }


class LiteVectors(SentenceVectors):
    """Sentences as vectors, by a network that reads rows."""

    def _vectors(
        self, examples: Sequence[Example], pooling: str
    ) -> Sequence[np.ndarray]:
        found = self._encoder.vectors(
            [example.sequences[0] for example in examples], pooling
        )
        return list(found if self._tuned_pooling is None else unit(found))


class Loaded(NamedTuple):
    """An opened file, as `finetuning.encoders.LoadedEncoder` is a folder."""

    encoder: RowModel
    tokenizer: Tokenizer
    positions: int
    hub_folder: None = None


class LiteTuned(TunedModel):
    """A fine-tuned model in a file that LiteRT runs."""

    loaded: Any
    vectors_class = LiteVectors

    def __init__(self, loaded: Loaded, task: dict[str, Any]):
        """Joins the task and the network.

        Args:
            loaded: The opened file.
            task: `task.json` of it.
        """
        self.loaded = loaded
        self.batch_size = 1  # rows are of tokens, not of texts
        self._described = task
        self.task = registry.from_description(task)
        self.lengths = settings.create(
            base.Lengths,
            base.taken(task, "lengths", dict),
            f"{base.TASK_FILE}: lengths",
        )

    def facts(self) -> dict[str, Any]:
        return self._described

    def _logits(self, examples: Sequence[Example]) -> list[np.ndarray]:
        per_token = self.task.kind in PER_TOKEN
        sequences = [s for example in examples for s in example.sequences]
        model: RowModel = self.loaded.encoder
        found = iter(model.logits(sequences, per_token=per_token))
        if self.task.kind != base.CHOICE:
            return list(found)
        return [
            np.concatenate([next(found) for _ in example.sequences])
            for example in examples
        ]


def load(path: paths.PathLike) -> tuple[Loaded, LiteTuned | None]:
    """Opens a file: the network, and what it was fine-tuned for, if it was.

    Args:
        path: What `hub_export.litert_part` wrote.

    Raises:
        UserError: If it is missing, damaged, or another kind of file.
    """
    file = litert_file.read(path)
    loaded = Loaded(RowModel(file), file.tokenizer, file.positions)
    if not file.task:
        return loaded, None
    with paths.named(path, file.path):
        return loaded, LiteTuned(loaded, file.task)
