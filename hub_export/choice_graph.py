"""Multiple choice as a graph, as `tasks.multiple_choice` encodes it.

    text, question [B], choices [B, C]
        ->  label, choice, probability [B], probabilities [B, C]

An empty choice is one that is not there, so that questions with two and with
four choices share a batch. With a ChID model the question is the tag of a
blank in the text: `#idiom000378#`, `#idiom#`, or whatever stands there once.
"""

import tensorflow as tf
import tensorflow_text as tf_text

from albert_tf2 import features
from albert_tf2.prediction.tuned_model import TunedModel
from albert_tf2.tasks import multiple_choice

from .graph_windows import Tensors, in_steps
from .preprocessor import Preprocessor

# `choice_files.IDIOM_TAG`, as RE2 spells Python's digits.
TAG = r"#idiom\p{Nd}*#"
QUESTIONS_IN_A_STEP = 8


class ChoiceGraph(tf.Module):
    """Questions with choices to answers: the root of a serving SavedModel."""

    def __init__(self, tuned: TunedModel):
        super().__init__(name="serving")
        assert isinstance(tuned.task, multiple_choice.MultipleChoice)
        self._has_blanks = isinstance(tuned.task, multiple_choice.ChID)
        self._most_choices = tuned.task.choices
        self._most = tuned.lengths.max_seq_length
        self._vocabulary = tuned.loaded.tokenizer.vocabulary
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
        return [
            tf.TensorSpec([None], tf.string, "text"),
            tf.TensorSpec([None], tf.string, "question"),
            tf.TensorSpec([None, None], tf.string, "choices"),
        ]

    def answer(
        self, text: tf.Tensor, question: tf.Tensor, choices: tf.Tensor
    ) -> Tensors:
        """Chooses among strings [B, C]."""
        is_there = tf.strings.length(choices) > 0  # [B, C]
        counts = tf.reduce_sum(tf.cast(is_there, tf.int32), axis=1)
        most = self._most_choices
        fits = tf.reduce_all((counts >= 2) & (counts <= most))
        with tf.control_dependencies(
            [tf.debugging.Assert(fits, [f"`choices` must be 2 to {most}"])]
        ):
            flat = tf.reshape(choices, [-1])
        ids = self.preprocessor.tokenize.cut(flat)  # [B*C, (tokens)]
        shape = tf.shape(choices)
        rows = tf.repeat(tf.range(shape[0]), shape[1])  # the question of each
        if self._has_blanks:
            segments = self._around_blanks(text, question, ids, shape)
            segments = [ids, tf.gather(segments, rows)]
        else:
            cut = self.preprocessor.tokenize.cut
            segments = [*(tf.gather(cut(x), rows) for x in (text, question))]
            segments.append(ids)
        packed = self.preprocessor.pack_rows(segments, self._most)
        length = tf.shape(packed[features.INPUT_MASK])[1]
        inputs = {
            name: tf.reshape(value, [shape[0], shape[1], length])
            * tf.cast(is_there, tf.int32)[:, :, tf.newaxis]
            for name, value in packed.items()
        }
        logits = in_steps(
            lambda part: {"logits": self._logits(part)},
            inputs,
            {"logits": tf.TensorSpec([None, None], tf.float32)},
            rows=QUESTIONS_IN_A_STEP,
        )["logits"]
        probabilities = tf.nn.softmax(tf.cast(logits, tf.float64))
        best = tf.argmax(probabilities, axis=1, output_type=tf.int32)
        probabilities = tf.cast(probabilities, tf.float32)
        return {
            "label": best,
            "choice": tf.gather(choices, best, batch_dims=1),
            "probability": tf.reduce_max(probabilities, axis=1),
            "probabilities": probabilities,
        }

    def _around_blanks(
        self,
        text: tf.Tensor,
        question: tf.Tensor,
        ids: tf.RaggedTensor,
        shape: tf.Tensor,
    ) -> tf.RaggedTensor:
        """Cuts texts around their blanks: int32 ragged [B, (tokens)].

        Half of the room goes to either side, and what one side does not need
        the other takes.
        """
        place = find(text, question)  # [B]
        size = tf.strings.length(question)
        found = tf.reduce_all((place >= 0) & (size > 0))
        reason = "`question` must be the tag of a blank that `text` holds"
        with tf.control_dependencies([tf.debugging.Assert(found, [reason])]):
            before = tf.strings.substr(text, tf.zeros_like(place), place)
        after = tf.strings.substr(
            text, place + size, tf.strings.length(text) - place - size
        )
        left, right = self._passage(before), self._passage(after)
        longest = tf.reduce_max(
            tf.reshape(ids.row_lengths(), shape), axis=1
        )  # [B]
        room = self._most - 4 - tf.cast(longest, tf.int32)
        reason = f"a choice is too long for {self._most} tokens"
        fits = tf.debugging.Assert(tf.reduce_all(room >= 0), [reason])
        with tf.control_dependencies([fits]):
            has_left = tf.cast(left.row_lengths(), tf.int32)
        has_right = tf.cast(right.row_lengths(), tf.int32)
        keep_left = tf.minimum(
            has_left, tf.maximum(room // 2, room - has_right)
        )
        keep_right = tf.minimum(has_right, room - keep_left)
        blank = tf.fill([tf.size(place), 1], self._vocabulary.mask_id)
        return tf.concat(
            [
                _part(left, has_left - keep_left, has_left),
                tf.RaggedTensor.from_tensor(blank),
                _part(right, tf.zeros_like(keep_right), keep_right),
            ],
            axis=1,
        )

    def _passage(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Cuts string [B]; each other blank in it is one [UNK]."""
        pieces = tf_text.regex_split(text, TAG, TAG)  # ragged [B, (pieces)]
        flat = pieces.flat_values
        is_blank = tf.strings.regex_full_match(flat, TAG)
        ids = self.preprocessor.tokenize.cut(tf.where(is_blank, "", flat))
        blanks = tf.where(is_blank)[:, :1]
        unknown = tf.RaggedTensor.from_value_rowids(
            tf.fill([tf.shape(blanks)[0]], self._vocabulary.unknown_id),
            blanks[:, 0],
            nrows=tf.size(flat, tf.int64),
            validate=False,
        )
        both = tf.concat([ids, unknown], axis=1)  # one of the two is empty
        return tf.RaggedTensor.from_row_splits(
            both.flat_values,
            tf.gather(both.row_splits, pieces.row_splits),
            validate=False,
        )

    def requests(self, *, large: bool) -> dict[str, list]:
        """Returns what warms a server up, see `serving.write_warmup`."""
        number, text = (32, "今天天气很好，" * 30) if large else (1, "今天")
        choices = ["守株待兔", "画蛇添足"]
        choices += ["亡羊补牢"] * (self._most_choices - 2 if large else 0)
        return {
            "text": [f"{text}#idiom#"] * number,
            "question": ["#idiom#"] * number,
            "choices": [choices] * number,
        }


def _part(
    ids: tf.RaggedTensor, begin: tf.Tensor, end: tf.Tensor
) -> tf.RaggedTensor:
    """Returns the tokens [begin, end) of each row; both are int32 [B]."""
    first = tf.cast(ids.row_starts(), tf.int32)
    places = tf.ragged.range(
        first + begin, first + end, row_splits_dtype=tf.int64
    )
    return places.with_flat_values(
        tf.gather(ids.flat_values, places.flat_values)
    )


def find(text: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """Finds where one string [B] stands in another, in bytes.

    Returns:
        int32 [B], the first place; -1 where there is none.
    """

    def bytes_of(strings):
        joined = tf.io.decode_raw(tf.strings.reduce_join(strings), tf.uint8)
        return tf.RaggedTensor.from_row_lengths(
            tf.cast(joined, tf.int32),
            tf.strings.length(strings),
            validate=False,
        ).to_tensor(-1)

    parts = bytes_of(wanted)  # [B, Q]
    number = tf.shape(parts)[1]
    # What is past the end of a text equals nothing: there is always room.
    room = [[0, 0], [0, number + 1]]
    whole = tf.pad(bytes_of(text), room, constant_values=-1)
    width = tf.shape(whole)[1] - number

    def compare(index, equal):
        byte = parts[:, index, tf.newaxis]
        here = whole[:, index : index + width]
        return index + 1, equal & ((byte == here) | (byte < 0))

    start = tf.ones([tf.shape(parts)[0], width], tf.bool)
    _, equal = tf.while_loop(
        lambda index, _: index < number,
        compare,
        (0, start),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None])),
    )
    place = tf.argmax(tf.cast(equal, tf.int32), axis=1, output_type=tf.int32)
    return tf.where(tf.reduce_any(equal, axis=1), place, -1)
