"""Small sets of records, in the builder's format, for tests."""

import json

import numpy as np
import tensorflow as tf

from albert_tf2 import features
from albert_tf2.text.tokenization import Vocabulary

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [
    chr(0x4E00 + i) for i in range(195)
]
LENGTH, PAIRS = 32, 3


def compact(rng, wide=False):
    """A record of one or two pairs; returns it with its tokens."""
    pairs = rng.integers(1, PAIRS)
    lengths = rng.integers(1, 6, 2 * pairs)
    tokens = rng.integers(5, 200, lengths.sum())
    starts = rng.random(len(tokens)) < 0.6
    kind, top = ("<u4", 31) if wide else ("<u2", 15)
    raw = (tokens | starts.astype(np.int64) << top).astype(kind).tobytes()
    return example(
        {features.TOKENS: [raw], features.SEGMENT_LENGTHS: lengths}
    ), tokens


def classic(rng):
    ids = rng.integers(5, 200, LENGTH)
    return example(
        {
            "input_ids": ids,
            "input_mask": np.ones(LENGTH, int),
            "segment_ids": np.arange(LENGTH) // 20,
            "masked_lm_positions": [3, 7, 0],
            "masked_lm_ids": [11, 12, 0],
            "masked_lm_weights": [1.0, 1.0, 0.0],
            "next_sentence_labels": [1],
        }
    ), ids


def example(fields):
    message = tf.train.Example()
    for name, values in fields.items():
        feature = message.features.feature[name]
        if isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], float):
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(int(v) for v in values)
    return message.SerializeToString()


def write_set(folder, shards, *, kind=compact, held_out=5, seed=0):
    """Writes shards of so many records; returns all tokens, by subset."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    entries, contents = [], {"train": [], "eval": []}
    sizes = [("train", n) for n in shards] + [("eval", held_out)]
    for number, (subset, size) in enumerate(sizes):
        name = f"{subset}-{number}.tfrecord"
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for _ in range(size):
                record, tokens = kind(rng)
                writer.write(record)
                contents[subset].append(tuple(tokens))
        entries.append({"name": name, "subset": subset, "records": size})
    manifest = {
        "masking": "static" if kind is classic else "dynamic",
        "max_seq_length": LENGTH,
        "max_pairs_per_record": 1 if kind is classic else PAIRS,
        "vocab_size": 200,
        "vocab_sha256": Vocabulary(TOKENS).sha256,
        "shards": entries,
        "identity": {"config": {"do_lower_case": True, "normalize": False}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n", "utf-8")
    return contents


def unpack_tokens(data: bytes, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids and word starts: undoes `pack_tokens`."""
    kind = np.dtype(dtype).newbyteorder("<")
    tokens = np.frombuffer(data, kind)
    top_bit = kind.itemsize * 8 - 1
    ids = (tokens & ((1 << top_bit) - 1)).astype(np.int32)
    return ids, (tokens >> top_bit).astype(bool)
