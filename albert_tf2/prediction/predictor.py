"""One loaded model that answers many questions.

>>> predictor = Predictor("runs/lcqmc/model")
>>> predictor.classify([("花呗怎么还款", "如何还花呗")])[0]["label"]
'1'
>>> Predictor("albert_tiny_zh").similarity(
...     ["我喜欢妈妈做的汤"], ["妈妈做的汤我很喜欢喝"])
array([0.98], dtype=float32)
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_tf2 import features
from albert_tf2.errors import UserError, check_choice
from albert_tf2.prediction.similarity import Whitening, cosines, unit
from albert_tf2.settings import MAX_BATCH, MAX_LENGTH, check_number
from albert_tf2.tasks import base
from albert_tf2.tasks.encoding import (
    Example,
    collate,
    pack,
    prediction_order,
    tokenize_all,
)
from albert_tf2.tasks.multiple_choice import ChoiceRow
from albert_tf2.tasks.reading_comprehension import QuestionRow
from albert_tf2.tasks.tagging import TaggedRow
from albert_tf2.tasks.text_rows import TextRow
from albert_tf2.text.tokenization import MASK, PIECE_PREFIX, is_chinese

POOLINGS = ("mean", "cls", "pooled")


class Predictor:
    """A fine-tuned or a pre-trained model, loaded once.

    Fine-tuned models `classify`, `tag`, `answer` or `choose`; pre-trained
    ones fill masks; all of them embed and compare sentences. Texts are
    batched by length; batches of one shape share a traced graph.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        vocab_file: str | None = None,
        batch_size: int = 64,
        max_seq_length: int = 128,
    ):
        """Loads a model.

        Args:
            source: A folder that `finetune` wrote (`workdir/model`), or what
                `load_pretrained` reads, or a hub encoder.
            vocab_file: Where none lies beside the weights.
            batch_size: Texts in a step.
            max_seq_length: Longer texts are cut, when embedding. A fine-tuned
                model knows its own length for its task.
        """
        from albert_tf2 import checkpoints
        from albert_tf2.checkpoints import weights
        from albert_tf2.finetuning import encoders

        check_number("batch_size", batch_size, least=1, most=MAX_BATCH)
        # [CLS] a [SEP] is the least that can be asked.
        check_number("max_seq_length", max_seq_length, least=3, most=MAX_LENGTH)
        self.batch_size = batch_size
        self.whitening: Whitening | None = None
        self.task: base.Task | None = None
        self._pretrainer = None
        self._embed_steps: dict[str, Any] = {}
        source = str(source)
        if Path(source, "model", encoders.TASK_FILE).is_file():
            source = str(Path(source, "model"))  # a workdir was meant
        if encoders.is_fine_tuned(source):
            self.task, self._model, loaded, self.lengths = encoders.load(source)
        elif encoders.is_hub(source):
            loaded = encoders.load_encoder(source, vocab_file=vocab_file)
        else:
            self._pretrainer = checkpoints.load_pretrained(source)
            config = self._pretrainer.config
            loaded = encoders.LoadedEncoder(
                self._pretrainer.encoder,
                weights.tokenizer_of(self._pretrainer, source, vocab_file),
                config.max_position_embeddings,
                config,
            )
        self._encoder = loaded.encoder
        self.tokenizer = loaded.tokenizer
        self._positions = loaded.positions
        self.max_seq_length = min(max_seq_length, self._positions)

    # --- fine-tuned models

    def classify(
        self, texts: Sequence[str | tuple[str, str]]
    ) -> list[dict[str, Any]]:
        """Labels texts, or (text_a, text_b) pairs.

        Returns:
            For each: `label`, `probability`, `probabilities` by label; of a
            model for several labels `labels` and `probabilities`.
        """
        self._need(base.CLASSIFICATION, base.MULTI_LABEL)
        return self._run_task(self._text_rows(texts))

    def score(
        self, texts: Sequence[str | tuple[str, str]]
    ) -> list[dict[str, Any]]:
        """Scores texts, or (text_a, text_b) pairs.

        Returns:
            For each: `score`, and `nearest` on a scale of whole numbers.
        """
        self._need(base.REGRESSION)
        return self._run_task(self._text_rows(texts))

    def _text_rows(
        self, texts: Sequence[str | tuple[str, str]]
    ) -> list[TextRow]:
        """Makes rows of what a model for texts, or one for pairs, takes."""
        for text in texts:
            if self.task.pairs not in (None, not isinstance(text, str)):
                wanted = "pairs of texts" if self.task.pairs else "single texts"
                raise UserError(
                    f"this model was fine-tuned on {wanted} ({self.task.name})"
                    f". Received: {text!r}"
                )
        return [
            TextRow(i, text) if isinstance(text, str) else TextRow(i, *text)
            for i, text in enumerate(texts)
        ]

    def tag(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Finds entities: `entities` of type, text, start, end each."""
        self._need(base.TAGGING)
        return self._run_task([TaggedRow(i, t) for i, t in enumerate(texts)])

    def answer(
        self, questions: Sequence[tuple[str, str]]
    ) -> list[dict[str, Any]]:
        """Answers (question, text) pairs: `answer`, `start`, `n_best`."""
        self._need(base.SPAN)
        return self._run_task(
            [
                QuestionRow(str(i), question, text)
                for i, (question, text) in enumerate(questions)
            ]
        )

    def choose(
        self, questions: Sequence[tuple[str, str, Sequence[str]]]
    ) -> list[dict[str, Any]]:
        """Answers (text, question, choices): `label`, `choice`.

        With a ChID model, the question is the tag of a blank in the text.
        """
        self._need(base.CHOICE)
        for _, _, choices in questions:
            if not 2 <= len(choices) <= self.task.choices:
                raise UserError(
                    f"this model takes 2 to {self.task.choices} choices. "
                    f"Received: {list(choices)}"
                )
        return self._run_task(
            [
                ChoiceRow(i, text, question, tuple(choices), group=i)
                for i, (text, question, choices) in enumerate(questions)
            ]
        )

    def _need(self, *kinds: str) -> None:
        if self.task is None or self.task.kind not in kinds:
            found = self.task.kind if self.task else "pre-trained"
            raise UserError(
                f"this needs a model fine-tuned for {kinds[0]} (python -m "
                f"albert_tf2.finetune), and this one is {found}"
            )

    def _run_task(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        from albert_tf2.finetuning import feeding

        if not rows:
            return []
        examples = self.task.encode(rows, self.tokenizer, self.lengths)
        logits = feeding.predict_logits(
            self._task_step,
            examples,
            task=self.task,
            batch_size=self.batch_size,
            positions=self._positions,
        )
        return self.task.decode(rows, examples, logits, self.lengths)

    @functools.cached_property
    def _task_step(self):
        import tensorflow as tf

        from albert_tf2.finetuning import feeding

        return feeding.make_predict_step(
            self._model, tf.distribute.get_strategy()
        )

    # --- masked words

    def fill_mask(
        self, text: str, *, top_k: int = 5
    ) -> list[list[dict[str, Any]]]:
        """Proposes what stands at each [MASK] of a text.

        The vocabulary has most Chinese characters twice, as `字` and as
        `##字`, and models that were trained with albert_zh's labels use both:
        their probabilities are added.

        Returns:
            For each [MASK] the `top_k` best: `text`, `probability`.
        """
        vocabulary = self.tokenizer.vocabulary
        parts = text.split(MASK)
        if len(parts) == 1:
            raise UserError(f"the text holds no {MASK}. Received: {text!r}")
        ids: list[int] = []
        for number, part in enumerate(parts):
            if number:
                ids.append(vocabulary.mask_id)
            ids += self.tokenizer.tokenize(part).ids
        packed = pack([ids], vocabulary, self.max_seq_length)
        positions = [
            i
            for i, token in enumerate(packed.ids)
            if token == vocabulary.mask_id
        ]
        if len(positions) < len(parts) - 1:
            raise UserError(
                f"the text is longer than {self.max_seq_length} tokens, and "
                f"a {MASK} stands after that"
            )
        inputs = collate(
            [Example(0, (packed,))], size=1, positions=self._positions
        )
        inputs[features.MASKED_LM_POSITIONS] = np.array([positions], np.int32)
        logits = self._mask_step(inputs).numpy()[0]
        names, groups = self._merged_tokens
        proposals = []
        for probabilities in base.softmax(logits):
            merged = np.bincount(groups, probabilities, len(names))
            best = np.argsort(-merged, kind="stable")[:top_k]
            proposals.append(
                [
                    {"text": names[i], "probability": round(merged[i], 6)}
                    for i in best
                ]
            )
        return proposals

    @functools.cached_property
    def _merged_tokens(self) -> tuple[list[str], np.ndarray]:
        """Returns what tokens are shown as, and which name each one has."""
        numbers: dict[str, int] = {}
        groups = []
        for token in self.tokenizer.vocabulary.tokens:
            piece = token.removeprefix(PIECE_PREFIX)
            is_character = len(piece) == 1 and is_chinese(piece)
            name = piece if is_character else token
            groups.append(numbers.setdefault(name, len(numbers)))
        return list(numbers), np.array(groups)

    @functools.cached_property
    def _mask_step(self):
        import tensorflow as tf

        if self._pretrainer is not None:
            model = self._pretrainer
        else:
            hub_object = getattr(self._encoder, "resolved_object", None)
            model = getattr(hub_object, "mlm", None)
            if model is None:
                raise UserError(
                    "filling masks needs a pre-trained model with its masked-"
                    "word head; this one has none"
                )

        @tf.function(reduce_retracing=True)
        def step(inputs):
            return model(inputs, training=False)[features.MLM_LOGITS]

        return lambda inputs: step(
            {name: tf.constant(array) for name, array in inputs.items()}
        )

    # --- sentences as vectors

    def embed(
        self, texts: Sequence[str], *, pooling: str = "mean"
    ) -> np.ndarray:
        """Returns a vector for each text: float32 [N, H].

        Args:
            texts: Sentences.
            pooling: "mean" of the tokens' outputs, "cls" for that of [CLS],
                "pooled" for the pooler's. After `whiten`, vectors are
                whitened.
        """
        check_choice("pooling", pooling, POOLINGS)
        examples = [
            Example(
                i,
                (pack([ids], self.tokenizer.vocabulary, self.max_seq_length),),
            )
            for i, ids in enumerate(tokenize_all(self.tokenizer, texts))
        ]
        vectors: list[Any] = [None] * len(examples)
        for indices in prediction_order(examples, self.batch_size):
            part = [examples[i] for i in indices]
            inputs = collate(part, size=len(part), positions=self._positions)
            found = self._embed_step(pooling)(inputs)
            for i, vector in zip(indices, found.numpy(), strict=True):
                vectors[i] = vector
        stacked = np.stack(vectors) if vectors else np.zeros([0, 0], np.float32)
        if self.whitening is not None and vectors:
            stacked = self.whitening(stacked)
        return stacked

    def _embed_step(self, pooling: str):
        import tensorflow as tf

        if pooling in self._embed_steps:
            return self._embed_steps[pooling]

        @tf.function(reduce_retracing=True)
        def step(inputs):
            outputs = self._encoder(inputs, training=False)
            if pooling == "pooled":
                return outputs[features.POOLED_OUTPUT]
            sequence = outputs[features.SEQUENCE_OUTPUT]  # [B, T, H]
            if pooling == "cls":
                return sequence[:, 0]
            mask = tf.cast(inputs[features.INPUT_MASK], tf.float32)[..., None]
            return tf.reduce_sum(sequence * mask, 1) / tf.reduce_sum(mask, 1)

        self._embed_steps[pooling] = lambda inputs: step(
            {name: tf.constant(array) for name, array in inputs.items()}
        )
        return self._embed_steps[pooling]

    def whiten(
        self,
        texts: Sequence[str],
        *,
        dimensions: int | None = None,
        pooling: str = "mean",
    ) -> Whitening:
        """Fits whitening on sentences and applies it from now on."""
        self.whitening = None
        self.whitening = Whitening.fit(
            self.embed(texts, pooling=pooling), dimensions
        )
        return self.whitening

    def similarity(
        self,
        texts_a: Sequence[str],
        texts_b: Sequence[str],
        *,
        pooling: str = "mean",
    ) -> np.ndarray:
        """Returns the cosine of each pair: float32 [N].

        A model fine-tuned on pairs judges better by `classify`.
        """
        if len(texts_a) != len(texts_b):
            raise UserError(
                "`similarity` takes two lists of one length. Received: "
                f"{len(texts_a)} and {len(texts_b)}"
            )
        both = self.embed([*texts_a, *texts_b], pooling=pooling)
        return cosines(both[: len(texts_a)], both[len(texts_a) :])

    def most_similar(
        self,
        query: str,
        candidates: Sequence[str] | np.ndarray,
        *,
        top_k: int = 5,
        pooling: str = "mean",
    ) -> list[tuple[int, float]]:
        """Ranks candidates: (index, cosine), best first.

        Args:
            query: A sentence.
            candidates: Sentences, or their embeddings [N, H] from `embed`.
            top_k: How many to return.
            pooling: As those embeddings were made.
        """
        if not isinstance(candidates, np.ndarray):
            candidates = self.embed(candidates, pooling=pooling)
        if not len(candidates):
            return []
        vector = unit(self.embed([query], pooling=pooling))[0]
        scores = unit(candidates) @ vector
        best = np.argsort(-scores, kind="stable")[:top_k]
        return [(int(i), float(scores[i])) for i in best]
