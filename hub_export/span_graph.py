"""Reading comprehension as a graph, as `tasks.reading_comprehension` decodes.

    question, text [B]
        ->  answer, start, end, probability, count [B]
            n_best_texts, n_best_starts, n_best_ends, n_best_scores,
            n_best_probabilities [B, n]

`count` tells how many of the n best are there. Offsets count characters; of
an answer that the text does not hold they are -1.
"""

import tensorflow as tf

from albert_tf2.prediction.tuned_model import TunedModel
from albert_tf2.tasks.reading_comprehension import ReadingComprehension

from .graph_windows import Tensors, Tokens, Windows, characters, in_steps
from .preprocessor import Preprocessor

_NEVER = float("-inf")
# Above any offset: start and end in one number that sorts.
_START = 1 << 31


class SpanGraph(tf.Module):
    """Questions and texts to answers: the root of a serving SavedModel."""

    def __init__(self, tuned: TunedModel):
        super().__init__(name="serving")
        task = tuned.task
        assert isinstance(task, ReadingComprehension), "the table looked"
        self._has_unanswerable = task.has_unanswerable
        self._lengths = tuned.lengths
        model = tuned.model
        # A plain function: a Keras model as an attribute would be saved with
        # traces of its own.
        self._logits = lambda inputs: model(inputs, training=False)
        self.kept = list(model.variables)
        self.preprocessor = Preprocessor(
            tuned.loaded.tokenizer, seq_length=self._lengths.max_seq_length
        )

    def specs(self) -> list[tf.TensorSpec]:
        """Returns the inputs of `answer`."""
        return [
            tf.TensorSpec([None], tf.string, name)
            for name in ("question", "text")
        ]

    def answer(self, question: tf.Tensor, text: tf.Tensor) -> Tensors:
        """Answers questions [B] about texts [B]."""
        most, lengths = self._lengths.max_seq_length, self._lengths
        questions = self.preprocessor.tokenize.cut(question)
        questions = questions[:, : lengths.question_room]
        tokens = Tokens.of(text, self.preprocessor)
        # [CLS] question [SEP] window [SEP]
        firsts = tf.cast(questions.row_lengths(), tf.int32) + 2
        sizes = most - firsts - 1
        windows = Windows.of(
            tokens.counts, sizes, tf.minimum(lengths.doc_stride, sizes)
        )
        inputs = self.preprocessor.pack_rows(
            [tf.gather(questions, windows.rows), windows.segment(tokens)], most
        )
        inputs["first"] = tf.gather(firsts, windows.rows)
        inputs["count"] = windows.ends - windows.starts
        n = lengths.n_best
        found = in_steps(
            self._spans,
            inputs,
            {
                "score": tf.TensorSpec([None, n], tf.float64),
                "start": tf.TensorSpec([None, n], tf.int32),
                "end": tf.TensorSpec([None, n], tf.int32),
                "nowhere": tf.TensorSpec([None], tf.float64),
            },
        )
        return self._ranked(tokens, windows, found)

    def _spans(self, inputs: Tensors) -> Tensors:
        """Finds each window's best spans, as indices of its tokens [w, n]."""
        inputs = dict(inputs)
        first, count = inputs.pop("first"), inputs.pop("count")
        logits = tf.cast(self._logits(inputs), tf.float64)  # [w, T, 2]
        widest = tf.maximum(tf.reduce_max(count), 1)
        place = tf.range(widest)  # [C]
        index = tf.minimum(
            first[:, tf.newaxis] + place, tf.shape(logits)[1] - 1
        )
        is_text = (place < count[:, tf.newaxis])[:, :, tf.newaxis]
        scores = tf.where(
            is_text, tf.gather(logits, index, batch_dims=1), _NEVER
        )  # [w, C, 2]
        longest, n = self._lengths.max_answer_length, self._lengths.n_best
        # All (start, end) with 0 <= end - start < longest: [w, C, longest].
        ends = tf.pad(
            scores[:, :, 1], [[0, 0], [0, longest - 1]], constant_values=_NEVER
        )
        pairs = place[:, tf.newaxis] + tf.range(longest)
        sums = scores[:, :, :1] + tf.gather(ends, pairs, axis=1)
        flat = tf.reshape(sums, [tf.shape(sums)[0], widest * longest])
        flat = tf.pad(flat, [[0, 0], [0, n]], constant_values=_NEVER)
        best, where = tf.math.top_k(flat, n)
        start = where // longest
        return {
            "score": best,
            "start": start,
            "end": start + where % longest,
            "nowhere": tf.reduce_sum(logits[:, 0], axis=-1),
        }

    def _ranked(
        self, tokens: Tokens, windows: Windows, found: Tensors
    ) -> Tensors:
        """Ranks the spans of all windows of a text."""
        n = self._lengths.n_best
        first = tf.gather(tokens.firsts, windows.rows) + windows.starts
        # What is not there points at the first token; there may be none.
        is_there = found["score"] > _NEVER
        begin, limit = (
            tf.gather(
                tf.pad(values, [[0, 1]]),
                tf.where(is_there, first[:, tf.newaxis] + found[name], 0),
            )
            for name, values in (
                ("start", tokens.starts),
                ("end", tokens.limits),
            )
        )
        scores = _by_text(found["score"], windows.rows, tokens, _NEVER)
        keys = _by_text(begin * _START + limit, windows.rows, tokens, 0)
        scores, keys = _best_of_each(scores, keys)
        none = tf.reduce_max(scores, axis=1, keepdims=True) == _NEVER
        padding = [[0, 0], [0, n]]
        scores = tf.pad(scores, padding, constant_values=_NEVER)[:, :n]
        keys = tf.pad(keys, padding)[:, :n]
        if self._has_unanswerable:
            # Of "no answer" the least sure window counts.
            nowhere = tf.math.unsorted_segment_min(
                found["nowhere"], windows.rows, tf.size(tokens.text)
            )[:, tf.newaxis]
            scores = tf.concat([nowhere, scores], axis=1)
            keys = tf.concat([-tf.ones_like(keys[:, :1]), keys], axis=1)
            scores, keys = _sorted(scores, keys, by=scores)
            scores, keys = scores[:, :n], keys[:, :n]
        else:  # a text without tokens: its answer is empty
            alone = none & (tf.range(n) == 0)
            scores = tf.where(alone, tf.zeros_like(scores), scores)
            keys = tf.where(alone, tf.zeros_like(keys), keys)
        return self._described(tokens, scores, keys)

    def _described(
        self, tokens: Tokens, scores: tf.Tensor, keys: tf.Tensor
    ) -> Tensors:
        """Turns the n best, float64 and int64 [B, n], into answers."""
        is_there = scores > _NEVER
        is_text = is_there & (keys >= 0)
        keys = tf.where(is_text, keys, 0)
        start, limit = keys // _START, keys % _START
        shape = tf.shape(keys)
        texts = tf.broadcast_to(tokens.text[:, tf.newaxis], shape)
        rows = tf.reshape(
            tf.broadcast_to(tf.range(shape[0])[:, tf.newaxis], shape), [-1]
        )
        starts, ends = (
            tf.where(
                is_text,
                tf.reshape(
                    characters(tokens.text, rows, tf.reshape(offsets, [-1])),
                    shape,
                ),
                -1,
            )
            for offsets in (start, limit)
        )
        answers = {
            "texts": tf.strings.substr(texts, start, limit - start),
            "starts": starts,
            "ends": ends,
            "scores": tf.cast(
                tf.where(is_there, scores, tf.zeros_like(scores)), tf.float32
            ),
            "probabilities": tf.cast(tf.nn.softmax(scores), tf.float32),
        }
        return {
            "answer": answers["texts"][:, 0],
            "start": starts[:, 0],
            "end": ends[:, 0],
            "probability": answers["probabilities"][:, 0],
            "count": tf.reduce_sum(tf.cast(is_there, tf.int32), axis=1),
            **{f"n_best_{name}": value for name, value in answers.items()},
        }

    def requests(self, *, large: bool) -> dict[str, list]:
        """Returns what warms a server up, see `serving.write_warmup`."""
        number, text = (32, "今天天气很好，" * 30) if large else (1, "今天")
        return {"question": ["天气如何"] * number, "text": [text] * number}


def _by_text(
    values: tf.Tensor, rows: tf.Tensor, tokens: Tokens, absent: float
) -> tf.Tensor:
    """Puts what windows found [W, n] beside each other: [B, M]."""
    n = tf.shape(values)[1]
    return tf.RaggedTensor.from_value_rowids(
        tf.reshape(values, [-1]),
        tf.repeat(rows, n),
        nrows=tf.size(tokens.text),
        validate=False,
    ).to_tensor(absent)


def _sorted(
    scores: tf.Tensor, keys: tf.Tensor, *, by: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sorts rows [B, M] by something, the largest first; equals stay."""
    order = tf.argsort(by, axis=1, direction="DESCENDING", stable=True)
    return (
        tf.gather(scores, order, batch_dims=1),
        tf.gather(keys, order, batch_dims=1),
    )


def _best_of_each(
    scores: tf.Tensor, keys: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sorts spans by score; of two windows' same span the better stands.

    Of equal scores the later span comes first, as in the predictor's order.
    """
    scores, keys = _sorted(scores, keys, by=scores)
    scores, keys = _sorted(scores, keys, by=keys)
    before = tf.pad(keys, [[0, 0], [1, 0]], constant_values=-1)[:, :-1]
    scores = tf.where(keys == before, tf.constant(_NEVER, scores.dtype), scores)
    return _sorted(scores, keys, by=scores)
