"""Tagging as a graph: texts to entities, as `tasks.tagging` decodes them.

    text [B]  ->  counts [B]; types, texts, starts, ends, probabilities [B, E]

E is the most entities of a text of the batch; `counts` tells how many are
there, and the rest of a row is "", -1 and 0. Offsets count characters.
"""

import numpy as np
import tensorflow as tf

from albert_tf2.prediction.tuned_model import TunedModel
from albert_tf2.tasks.tagging import Tagging

from .graph_windows import Tensors, Tokens, Windows, characters, in_steps
from .preprocessor import Preprocessor

# Below any real sum of logits, as in `bio.best_tags`.
NEVER = -1e9
# Above any offset: row and offset in one number that sorts.
_ROW = 1 << 40


class TaggingGraph(tf.Module):
    """Texts to entities: the root of a serving SavedModel."""

    def __init__(self, tuned: TunedModel):
        super().__init__(name="serving")
        assert isinstance(tuned.task, Tagging), "the table of graphs looked"
        self._types = list(tuned.task.types)
        self._labels = len(tuned.task.labels)
        self._most = tuned.lengths.max_seq_length
        size = self._most - 2
        self._size = size
        self._stride = min(tuned.lengths.doc_stride, max(size // 2, 1))
        model = tuned.model
        # A plain function: a Keras model as an attribute would be saved with
        # traces of its own.
        self._logits = lambda inputs: model(inputs, training=False)
        self.kept = list(model.variables)
        self.preprocessor = Preprocessor(
            tuned.loaded.tokenizer, seq_length=self._most
        )

    def specs(self) -> list[tf.TensorSpec]:
        """Returns the inputs of `answer`."""
        return [tf.TensorSpec([None], tf.string, "text")]

    def answer(self, text: tf.Tensor) -> Tensors:
        """Finds the entities of string [B]."""
        tokens = Tokens.of(text, self.preprocessor)
        scores = tf.cast(self._scores(tokens), tf.float64)  # [tokens, n]
        path = best_tags(scores, tokens.ids)
        return self._entities(tokens, path, tf.nn.softmax(scores))

    def _scores(self, tokens: Tokens) -> tf.Tensor:
        """Returns the logits of every token, by the window that owns it."""
        counts = tokens.counts
        windows = Windows.of(
            counts,
            tf.fill(tf.shape(counts), self._size),
            tf.fill(tf.shape(counts), self._stride),
        )
        inputs = self.preprocessor.pack_rows(
            [windows.segment(tokens)], self._most
        )
        logits = in_steps(
            lambda part: {"logits": self._logits(part)},
            inputs,
            {"logits": tf.TensorSpec([None, None, self._labels], tf.float32)},
        )["logits"]  # [W, T, n]
        number, length = tf.shape(logits)[0], tf.shape(logits)[1]
        shift = tf.range(number) * length + 1 - windows.starts  # past [CLS]
        owned = tf.ragged.range(
            shift + windows.first_owned, shift + windows.last_owned
        )
        flat = tf.reshape(logits, [-1, self._labels])
        return tf.gather(flat, owned.flat_values)

    def _entities(
        self, tokens: Tokens, path: tf.Tensor, probabilities: tf.Tensor
    ) -> Tensors:
        """Reads entities off tags, as `bio.spans_of` does.

        Args:
            tokens: Of the texts.
            path: int32 [tokens], a tag each: O, B-x, I-x, B-y, I-y, ...
            probabilities: [tokens, n].
        """
        rows = tokens.ids.value_rowids()  # [tokens]
        kinds = (path - 1) // 2
        # A best path has no I-x that does not follow its B-x or I-x.
        goes_on = (path > 0) & (path % 2 == 0)
        goes_on_after = tf.pad(goes_on, [[0, 1]])[1:]
        in_entity = path > 0
        first = tf.where(in_entity & ~goes_on)[:, 0]  # [entities]
        last = tf.where(in_entity & ~goes_on_after)[:, 0]
        row = tf.gather(rows, first)
        start, limit = (
            tf.gather(tokens.starts, first),
            tf.gather(tokens.limits, last),
        )

        # The least sure token counts. One sign may be several tokens, of
        # which an entity has a part: all that overlap it.
        most_sure = tf.gather(probabilities, path, batch_dims=1)
        begin = tf.searchsorted(
            rows * _ROW + tokens.limits, row * _ROW + start, side="right"
        )
        end = tf.searchsorted(
            rows * _ROW + tokens.starts, row * _ROW + limit, side="left"
        )
        overlapping = tf.ragged.range(begin, end)
        sure = overlapping.with_flat_values(
            tf.gather(most_sure, overlapping.flat_values)
        )
        found = {
            "types": tf.gather(
                tf.constant(self._types), tf.gather(kinds, first)
            ),
            "texts": tf.strings.substr(
                tf.gather(tokens.text, row), start, limit - start
            ),
            "starts": characters(tokens.text, row, start),
            "ends": characters(tokens.text, row, limit),
            "probabilities": tf.cast(tf.reduce_min(sure, axis=1), tf.float32),
        }
        absent = {"types": "", "texts": "", "probabilities": 0.0}
        by_text = {
            name: tf.RaggedTensor.from_value_rowids(
                value, row, nrows=tf.size(tokens.text, tf.int64), validate=False
            )
            for name, value in found.items()
        }
        return {
            "counts": tf.cast(by_text["starts"].row_lengths(), tf.int32),
            **{
                name: value.to_tensor(absent.get(name, -1))
                for name, value in by_text.items()
            },
        }

    def requests(self, *, large: bool) -> dict[str, list]:
        """Returns what warms a server up, see `serving.write_warmup`."""
        return {"text": ["今天天气很好，" * 30] * 32 if large else ["今天"]}


def best_tags(scores: tf.Tensor, ids: tf.RaggedTensor) -> tf.Tensor:
    """Finds each text's best path of tags (Viterbi), see `bio.best_tags`.

    Args:
        scores: float64 [tokens, n], the logits of all texts' tokens, where n
            is O and a B and an I of each type.
        ids: Ragged [B, (tokens)]: how many each text has.

    Returns:
        int32 [tokens].
    """
    tags = int(scores.shape[-1])
    inside = np.arange(tags) % 2 * -1 + (np.arange(tags) > 0) == 1
    kinds = (np.arange(tags) + 1) // 2
    follows_not = inside[None, :] & (kinds[:, None] != kinds[None, :])
    penalty = tf.constant(np.where(follows_not, NEVER, 0.0))  # [from, to]
    begin = tf.constant(np.where(inside, NEVER, 0.0))
    lengths = tf.cast(ids.row_lengths(), tf.int32)
    dense = tf.RaggedTensor.from_row_splits(
        scores, ids.row_splits, validate=False
    ).to_tensor()
    dense = tf.pad(dense, [[0, 0], [0, 1], [0, 0]])  # not empty: [B, N, n]
    steps = tf.transpose(dense, [1, 0, 2])
    number = tf.shape(steps)[0]

    def forward(place, best, back):
        reached = best[:, :, tf.newaxis] + penalty  # [B, from, to]
        chosen = tf.argmax(reached, axis=1, output_type=tf.int32)
        # Past a text's end the scores are 0, and the way back from there
        # leads to the best tag of its last token.
        best = tf.reduce_max(reached, axis=1) + steps[place]
        return place + 1, best, back.write(place, chosen)

    back = tf.TensorArray(tf.int32, number, element_shape=[None, tags])
    back = back.write(0, tf.zeros_like(steps[0], tf.int32))
    _, best, back = tf.while_loop(
        lambda place, *_: place < number,
        forward,
        (1, steps[0] + begin, back),
        parallel_iterations=1,
    )
    pointers = back.stack()

    def backward(place, tag, path):
        path = path.write(place, tag)
        return place - 1, tf.gather(pointers[place], tag, batch_dims=1), path

    _, _, path = tf.while_loop(
        lambda place, *_: place >= 0,
        backward,
        (
            number - 1,
            tf.argmax(best, axis=-1, output_type=tf.int32),
            tf.TensorArray(tf.int32, number, element_shape=[None]),
        ),
        parallel_iterations=1,
    )
    dense_path = tf.transpose(path.stack())  # [B, N]
    return tf.boolean_mask(dense_path, tf.sequence_mask(lengths, number))
