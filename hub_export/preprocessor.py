"""Text to encoder inputs as a SavedModel: the TF Hub preprocessor.

    preprocessor = hub.load("albert_zh_preprocess/1")
    preprocessor(["今天天气很好"])            # three int32 [B, 128]
    tokens = preprocessor.tokenize(["今天"])  # ragged [B, (words), (tokens)]
    preprocessor.bert_pack_inputs([tokens, tokens], seq_length=64)

The ids are those of the original Python tokenizer for any input, because the
graph runs the originals' own normalization (see `normalizer`). Nothing here
needs an Assert op, so it also runs on TPU hosts.
"""

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_text as tf_text

from albert_tf2 import features, paths
from albert_tf2.paths import saved_models
from albert_tf2.text import tokenization
from albert_tf2.text.text_settings import SETTINGS_FILE
from albert_tf2.text.tokenization import (
    MAX_CHARACTERS_PER_WORD,
    PIECE_PREFIX,
    VOCAB_FILE,
)

from . import normalizer

DEFAULT_SEQ_LENGTH = 128
_LONGEST_CHARACTER = 4  # bytes of UTF-8

_TEXT = tf.TensorSpec([None], tf.string, "text")


class Tokenizer(tf.Module):
    """The callable sub-object `preprocessor.tokenize`."""

    def __init__(self, tokenizer: tokenization.Tokenizer):
        super().__init__(name="tokenize")
        self._vocabulary = vocabulary = tokenizer.vocabulary
        lowers = tokenizer.settings.do_lower_case
        self._normalizer = tf_text.FastBertNormalizer(
            model_buffer=normalizer.build_model(
                lowers, tokenizer.settings.normalize
            )
        )
        self._wordpiece = tf_text.FastWordpieceTokenizer(
            list(vocabulary.tokens),
            # No word within the originals' limit may reach this one.
            max_bytes_per_word=MAX_CHARACTERS_PER_WORD * _LONGEST_CHARACTER,
            token_out_type=tf.int32,
        )
        self._final_sigma = normalizer.final_sigma_pattern() if lowers else None
        pieces = [
            # A text never gives "##" alone: "#" is punctuation.
            token.startswith(PIECE_PREFIX) and token != PIECE_PREFIX
            for token in vocabulary.tokens
        ]
        lengths = [
            len(token) - len(PIECE_PREFIX) * piece
            for token, piece in zip(vocabulary.tokens, pieces, strict=True)
        ]
        self._begins_word = tf.logical_not(pieces)  # [V]
        self._token_lengths = tf.constant(lengths, tf.int32)  # [V]

    @tf.function(input_signature=[_TEXT], autograph=False)
    def __call__(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Cuts string [B] into int32 ragged [B, (words), (tokens)]."""
        return self._nest_in_words(self.cut(text))

    @tf.function(input_signature=[_TEXT], autograph=False)
    def tokenize_with_offsets(
        self, text: tf.Tensor
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """Cuts string [B], and tells where each token stands.

        Returns:
            Tokens (int32), starts and limits (int64): three ragged tensors
            [B, (words), (tokens)]. Offsets are half-open, in bytes of the
            text without its invalid UTF-8.
        """
        _, ids, starts, limits = self.cut_with_offsets(text)
        nested = self._nest_in_words(ids)
        return (
            nested,
            nested.with_flat_values(starts),
            nested.with_flat_values(limits),
        )

    @tf.function(input_signature=[], autograph=False)
    def get_special_tokens_dict(self) -> dict[str, tf.Tensor]:
        """Returns the scalar int32 ids that packing and masking need."""
        ids = {
            "vocab_size": len(self._vocabulary),
            "padding_id": self._vocabulary.padding_id,
            "start_of_sequence_id": self._vocabulary.cls_id,
            "end_of_segment_id": self._vocabulary.sep_id,
            "mask_id": self._vocabulary.mask_id,
        }
        return {name: tf.constant(i, tf.int32) for name, i in ids.items()}

    def cut_with_offsets(
        self, text: tf.Tensor
    ) -> tuple[tf.Tensor, tf.RaggedTensor, tf.Tensor, tf.Tensor]:
        """Cuts string [B], and tells where each token stands.

        Returns:
            The text without its invalid UTF-8; tokens, int32 ragged
            [B, (tokens)]; and for each of all tokens the bytes of that text
            where it starts and ends, int64 [tokens].
        """
        valid = _valid(text)
        text = self._clean(text)
        normalized, sources = self._normalizer.normalize_with_offsets(text)
        tokens, starts, limits = self._wordpiece.tokenize_with_offsets(
            normalized
        )
        # sources[row, i]: the byte of the text that byte i comes from.
        rows = tokens.value_rowids()
        row_starts = tf.gather(sources.row_starts(), rows)
        starts = tf.gather(sources.flat_values, row_starts + starts.flat_values)
        last_bytes = tf.gather(
            sources.flat_values, row_starts + limits.flat_values - 1
        )
        limits = _end_of_character(text, rows, last_bytes)
        ids, starts, limits, row_splits = self._join_long_words(
            tokens.flat_values, starts, limits, tokens.row_splits
        )
        # A final sigma has as many bytes as the one it stands for.
        return valid, _ragged(ids, row_splits), starts, limits

    def cut(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Cuts string [B] into int32 ragged [B, (tokens)]."""
        text = self._clean(text)
        tokens = self._wordpiece.tokenize(self._normalizer.normalize(text))
        ids, splits = tokens.flat_values, tokens.row_splits

        def join_long_words():
            unused = tf.zeros_like(ids, tf.int64)
            joined = self._join_long_words(ids, unused, unused, splits)
            return joined[0], joined[3]

        # Only a text of more bytes can hold a word of more characters.
        ids, splits = tf.cond(
            tf.reduce_any(tf.strings.length(text) > MAX_CHARACTERS_PER_WORD),
            join_long_words,
            lambda: (ids, splits),
        )
        return _ragged(ids, splits)

    def cut_in_tflite(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Does the same with operations that TFLite has.

        Three things are missing there, all of them rare: invalid UTF-8 is not
        dropped, a final capital sigma becomes `σ`, and a known word of 201 to
        800 bytes is not one [UNK].
        """
        return self._wordpiece.tokenize(self._normalizer.normalize(text))

    def _clean(self, text: tf.Tensor) -> tf.Tensor:
        """Does what no table of single characters can."""
        text = _valid(text)
        if self._final_sigma:
            text = tf.strings.regex_replace(text, self._final_sigma, r"\1ς\2")
        return text

    def _nest_in_words(self, tokens: tf.RaggedTensor) -> tf.RaggedTensor:
        """Groups ragged [B, (tokens)] to [B, (words), (tokens)]."""
        begins = tf.gather(self._begins_word, tokens.flat_values)  # [tokens]
        word_starts = tf.where(begins)[:, 0]
        word_splits = tf.concat([word_starts, tokens.row_splits[-1:]], axis=0)
        sentence_splits = tf.gather(_counts_before(begins), tokens.row_splits)
        return _ragged(
            _ragged(tokens.flat_values, word_splits), sentence_splits
        )

    def _join_long_words(
        self,
        ids: tf.Tensor,
        starts: tf.Tensor,
        limits: tf.Tensor,
        row_splits: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Makes one [UNK] of each word over the originals' 200 characters.

        tf.text counts bytes, the originals characters. The pieces of a known
        word are the word, so their lengths add up to its length.

        Args:
            ids, starts, limits: [tokens] of all texts.
            row_splits: [B + 1].

        Returns:
            The four arguments, where a long word is one token.
        """
        begins = tf.gather(self._begins_word, ids)
        words = tf.cumsum(tf.cast(begins, tf.int32)) - 1  # [tokens]
        lengths = tf.math.segment_sum(
            tf.gather(self._token_lengths, ids), words
        )
        is_long = tf.gather(lengths > MAX_CHARACTERS_PER_WORD, words)
        word_limits = tf.gather(tf.math.segment_max(limits, words), words)
        ids = tf.where(is_long, self._vocabulary.unknown_id, ids)
        limits = tf.where(is_long, word_limits, limits)
        kept = begins | ~is_long
        row_splits = tf.gather(_counts_before(kept), row_splits)
        kept = tf.where(kept)[:, 0]
        return (
            tf.gather(ids, kept),
            tf.gather(starts, kept),
            tf.gather(limits, kept),
            row_splits,
        )


class Preprocessor(tf.Module):
    """The root of the SavedModel: TF Hub's API of text preprocessors."""

    def __init__(
        self,
        tokenizer: tokenization.Tokenizer,
        *,
        seq_length: int = DEFAULT_SEQ_LENGTH,
    ):
        """Builds the graph functions.

        Args:
            tokenizer: What the graph must equal.
            seq_length: T of the outputs of `__call__`.
        """
        super().__init__(name="preprocessor")
        self._vocabulary = tokenizer.vocabulary
        self._seq_length = seq_length
        self.tokenize = Tokenizer(tokenizer)
        for ragged_rank in (1, 2):
            segment = tf.RaggedTensorSpec(
                [None] * (ragged_rank + 1), tf.int32, ragged_rank
            )
            for count in (1, 2):
                self.bert_pack_inputs.get_concrete_function(
                    [segment] * count, tf.TensorSpec([], tf.int32)
                )

    @tf.function(input_signature=[_TEXT], autograph=False)
    def __call__(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Turns string [B] into encoder inputs, int32 [B, T] each."""
        packed = self.pack([self.tokenize.cut(text)], self._seq_length)
        return {
            name: tf.ensure_shape(value, [None, self._seq_length])
            for name, value in packed.items()
        }

    @tf.function(autograph=False)
    def bert_pack_inputs(
        self,
        inputs: list[tf.RaggedTensor],
        seq_length: tf.Tensor | int = DEFAULT_SEQ_LENGTH,
    ) -> dict[str, tf.Tensor]:
        """Packs one or two segments into encoder inputs.

            [CLS] s1 [SEP]              types 0 0 0
            [CLS] s1 [SEP] s2 [SEP]     types 0 0 0 1 1, then padding 0

        Args:
            inputs: One or two int32 ragged tensors, [B, (tokens)] or
                [B, (words), (tokens)].
            seq_length: T. Longer pairs are trimmed to about equal shares.

        Returns:
            `input_word_ids`, `input_mask`, `input_type_ids`: int32 [B, T].
        """
        return self.pack([_without_words(s) for s in inputs], seq_length)

    def rows(
        self, texts: Sequence[tf.Tensor], most: int
    ) -> dict[str, tf.Tensor]:
        """Packs texts into rows as long as the longest one.

        Args:
            texts: One to three string tensors [B].
            most: Longer texts and pairs are trimmed to so many tokens.

        Returns:
            The encoder's inputs, int32 [B, T].
        """
        return self.pack_rows([self.tokenize.cut(text) for text in texts], most)

    def pack_rows(
        self, segments: list[tf.RaggedTensor], most: int
    ) -> dict[str, tf.Tensor]:
        """Packs segments [B, (tokens)] into rows as long as the longest."""
        lengths = tf.add_n([segment.row_lengths() for segment in segments])
        longest = tf.cast(tf.reduce_max(lengths), tf.int32)
        special = len(segments) + 1
        return self.pack(segments, tf.minimum(longest + special, most))

    def pack(
        self, segments: list[tf.RaggedTensor], seq_length: tf.Tensor | int
    ) -> dict[str, tf.Tensor]:
        vocabulary = self._vocabulary
        lengths = [tf.cast(s.row_lengths(), tf.int32) for s in segments]
        kept = _shares(lengths, tf.maximum(seq_length - len(lengths) - 1, 0))
        # Every output element is looked up in one pool of ids: the special
        # tokens, then the segments.
        pool = [[vocabulary.padding_id, vocabulary.cls_id, vocabulary.sep_id]]
        padding, cls, sep = range(3)
        position = tf.range(seq_length)[tf.newaxis, :]  # [1, T]
        index = tf.where(position == 0, cls, padding)  # [1, T]
        begin = tf.ones_like(kept[0])[:, tf.newaxis]  # [B, 1], after [CLS]
        type_ids = tf.zeros_like(position)
        offset = len(pool[0])
        for number, segment in enumerate(segments):
            end = begin + kept[number][:, tf.newaxis]
            first = tf.cast(segment.row_starts(), tf.int32)[:, tf.newaxis]
            inside = (position >= begin) & (position < end)
            index = tf.where(inside, first + offset + position - begin, index)
            index = tf.where(position == end, sep, index)  # [B, T]
            if number:  # all but the first have type 1
                inside = (position >= begin) & (position <= end)
                type_ids = tf.where(inside, 1, type_ids)
            pool.append(segment.flat_values)
            offset += tf.size(segment.flat_values)
            begin = end + 1
        word_ids = tf.gather(tf.concat(pool, axis=0), index)
        return {
            features.INPUT_WORD_IDS: word_ids,
            features.INPUT_MASK: tf.cast(position < begin, tf.int32),
            features.INPUT_TYPE_IDS: tf.broadcast_to(
                type_ids, tf.shape(word_ids)
            ),
        }


def _shares(lengths: list[tf.Tensor], budget: tf.Tensor) -> list[tf.Tensor]:
    """Trims segment lengths [B] to a common budget, in about equal shares.

    What a short segment leaves over goes to the other; of an odd budget the
    first gets one more (as when tokens are dealt out in turns).
    """
    if len(lengths) == 1:
        return [tf.minimum(lengths[0], budget)]
    if len(lengths) > 2:
        return tf.unstack(_longest_give(tf.stack(lengths), budget))
    first, second = lengths
    half = budget - budget // 2
    first_kept = tf.minimum(first, tf.maximum(budget - second, half))
    return [first_kept, tf.minimum(second, budget - first_kept)]


def _longest_give(lengths: tf.Tensor, budget: tf.Tensor) -> tf.Tensor:
    """Trims lengths [segments, B] as `tasks.encoding.shares` does.

    The longest gives first, down to the next; of equal ones the last.
    """
    for _ in range(lengths.shape[0]):  # each time one more is a longest one
        longest = tf.reduce_max(lengths, axis=0)  # [B]
        tied = lengths == longest
        below = tf.reduce_max(tf.where(tied, 0, lengths), axis=0)
        count = tf.cast(tied, tf.int32)
        over = tf.maximum(tf.reduce_sum(lengths, axis=0) - budget, 0)
        gap, number = longest - below, tf.reduce_sum(count, axis=0)
        each = tf.minimum(over // number, gap)
        more = tf.where(over // number >= gap, 0, over % number)
        before_it = tf.cumsum(count, axis=0, exclusive=True, reverse=True)
        taken = each + tf.cast(before_it < more, tf.int32)
        lengths -= tf.where(tied, taken, 0)
    return lengths


def _valid(text: tf.Tensor) -> tf.Tensor:
    """Drops invalid UTF-8, as the originals decode."""
    return tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="ignore")


def _ragged(values, row_splits: tf.Tensor) -> tf.RaggedTensor:
    """A ragged tensor that is right by construction: no Assert ops."""
    return tf.RaggedTensor.from_row_splits(values, row_splits, validate=False)


def _without_words(segment: tf.RaggedTensor) -> tf.RaggedTensor:
    """[B, (words), (tokens)] -> [B, (tokens)], if there are words."""
    if segment.ragged_rank == 1:
        return segment
    splits = tf.gather(segment.values.row_splits, segment.row_splits)
    return _ragged(segment.flat_values, splits)


def _counts_before(flags: tf.Tensor) -> tf.Tensor:
    """How many are true before each place, and in all: [n] -> int64 [n+1]."""
    return tf.pad(tf.cumsum(tf.cast(flags, tf.int64)), [[1, 0]])


def _end_of_character(
    text: tf.Tensor, rows: tf.Tensor, offsets: tf.Tensor
) -> tf.Tensor:
    """Moves byte offsets to the end of the characters they stand in.

    Args:
        text: string [B], valid UTF-8.
        rows: int64 [n], the row of each offset.
        offsets: int64 [n], the first or the last byte of a character.

    Returns:
        int64 [n], exclusive.
    """
    row_sizes = tf.cast(tf.strings.length(text), tf.int64)
    row_starts = tf.cumsum(row_sizes, exclusive=True)
    every_byte = tf.io.decode_raw(tf.strings.reduce_join(text), tf.uint8)
    byte = tf.gather(every_byte, tf.gather(row_starts, rows) + offsets)
    # The first byte tells the size; a last byte (or ASCII) is the end.
    size = 1 + sum(
        tf.cast(byte >= lead, tf.int64) for lead in (0xC0, 0xE0, 0xF0)
    )
    return offsets + size


def add_text_assets(
    root: tf.Module, tokenizer: tokenization.Tokenizer, staging: str
) -> None:
    """Puts the vocabulary and its settings into a SavedModel's assets.

    Args:
        root: Gets `vocab_file` and `text_settings_file`.
        tokenizer: What to put there.
        staging: An empty folder that lasts until the SavedModel is written;
            an asset's name is that of its file.
    """
    tokenizer.save(staging)
    root.vocab_file = tf.saved_model.Asset(f"{staging}/{VOCAB_FILE}")
    root.text_settings_file = tf.saved_model.Asset(f"{staging}/{SETTINGS_FILE}")


def export_preprocessor(
    tokenizer: tokenization.Tokenizer,
    export_dir: paths.PathLike,
    *,
    seq_length: int = DEFAULT_SEQ_LENGTH,
    overwrite: bool = False,
) -> paths.PathLike:
    """Writes the preprocessor SavedModel and returns its folder.

    Args:
        tokenizer: That of the encoder that it will feed.
        export_dir: The new folder.
        seq_length: T of the outputs of `preprocessor(text)`.
        overwrite: Replace an existing folder.
    """
    with paths.atomic_directory(export_dir, overwrite=overwrite) as folder:
        with paths.temporary_folder("export") as staging:
            preprocessor = Preprocessor(tokenizer, seq_length=seq_length)
            add_text_assets(preprocessor, tokenizer, staging)
            saved_models.save(
                preprocessor,
                folder,
                signatures=preprocessor.__call__.get_concrete_function(),
            )
    return export_dir
