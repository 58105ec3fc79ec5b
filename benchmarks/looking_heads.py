"""Lets the quietest heads of a trained model look for their word elsewhere.

The starter's two heads with the smallest values looked nowhere in particular.
Their queries and keys are built anew: each token looks at the same word in the
other text of a pair. Values and outputs stay, so the model loses little (its
masked-word loss rises from 3.93 to 4.30). A third run of pre-training, which
starts from here, wins it back and leaves the heads their work (docs/log.md).

`matching_heads` of fine-tuning builds louder ones, which tell what they find.
To train on from those was not tried: the loss begins at 7.2.

    python benchmarks/looking_heads.py --checkpoint starter --output looking \\
        --input_file 'free/*.zst' \\
        data/sample/corpus/news_and_encyclopedia.txt
    python -m albert_tf2.pretrain --init_checkpoint looking ...

Letters: K words, P places, H hidden, D per head.
"""

from collections.abc import Iterable, Sequence

import fsspec
import numpy as np

from albert_tf2 import Tokenizer, command_line, load_pretrained, paths
from albert_tf2.checkpoints import read_weights, weights
from albert_tf2.checkpoints.native import save_pretrained
from albert_tf2.errors import UserError
from albert_tf2.finetuning import matching_heads

HEADS = 2
# Scores: of an equal word, on average; what is added to those of the other
# text's words, and subtracted from those of its own text.
EQUAL, OTHER_TEXT = 6.0, 3.0
# Places at which each word is looked at, below `FURTHEST`.
PLACES, FURTHEST, SEED = 8, 60, 1
# Words are counted in the beginning of each file.
COUNTED_BYTES = 1_500_000
# Variance between words to that within one.
LEAST_RATIO = 0.01
RIDGE = 1e-3  # of the words' mean variance


def count_words(files: Iterable[str], tokenizer: Tokenizer) -> np.ndarray:
    """Returns how often each token comes: [K]."""
    counts = np.zeros(len(tokenizer.vocabulary))
    for file in files:
        with fsspec.open(file, compression="infer") as stream:
            text = stream.read(COUNTED_BYTES).decode("utf-8", "ignore")
        for line in filter(str.strip, text.split("\n")):
            np.add.at(counts, tokenizer.tokenize(line).ids, 1)
    return counts


def looks(
    inputs: np.ndarray, importance: np.ndarray, width: int
) -> tuple[list[matching_heads.Look], list[matching_heads.Look]]:
    """Returns what heads ask and answer.

    Args:
        inputs: [2, P, K, H], what enters the first layer: each word at places
            in either text.
        importance: [K], how much a word counts.
        width: D. The last number of a query and a key is left to training.
    """
    share = importance / importance.sum()
    of_texts = inputs.mean(axis=1)  # [2, K, H]
    of_words = of_texts.mean(axis=0)
    middle = share @ of_words
    words = of_words - middle
    between = (words * share[:, None]).T @ words
    rest = (inputs - of_words).reshape([-1, len(middle)])
    within = rest.T @ rest / len(rest)  # of one word, by text and place
    within += RIDGE * np.trace(between) / len(middle) * np.eye(len(middle))
    root = np.linalg.inv(np.linalg.cholesky(within))
    ratios, vectors = np.linalg.eigh(root @ between @ root.T)
    kept = width - 2
    if ratios[-HEADS * kept] < LEAST_RATIO:
        raise UserError("words differ in fewer directions than heads look in")
    directions = root.T @ vectors[:, ::-1]  # the best ones first
    deviations = np.einsum("hd,hg,gd->d", directions, between, directions)
    directions /= np.sqrt(deviations)
    apart = (of_texts[1] - of_texts[0]).mean(axis=0) / 2
    sign = apart / (apart @ apart) * (OTHER_TEXT * width**0.5) ** 0.5
    gain = (EQUAL * width**0.5 / kept) ** 0.5
    queries, keys = [], []
    for head in range(HEADS):
        some = gain * directions[:, head * kept : (head + 1) * kept]
        nothing = np.zeros_like(sign)
        query = np.column_stack([some, -sign, nothing])
        key = np.column_stack([some, sign, nothing])
        one = np.eye(width)[-1]
        queries.append(matching_heads.Look(query, one - middle @ query))
        keys.append(matching_heads.Look(key, -middle @ key))
    return queries, keys


def main(argv: Sequence[str] | None = None) -> int:
    """Writes a checkpoint to go on from."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--checkpoint", required=True, help="trained")
    parser.add_argument("--output", required=True, help="a new folder")
    parser.add_argument("--input_file", required=True, nargs="+")
    arguments = parser.parse_args(argv)
    model = load_pretrained(arguments.checkpoint)
    encoder = model.encoder
    if encoder.config.ln_type == "preln":
        raise UserError("pre-LN models get other inputs: this is for post-LN")
    found = read_weights(arguments.checkpoint)
    tokenizer = weights.tokenizer_of(found, arguments.checkpoint)
    files = [f for p in arguments.input_file for f in paths.find(p)]
    importance = np.sqrt(count_words(files, tokenizer))
    places = np.random.default_rng(SEED).integers(1, FURTHEST, PLACES)
    inputs = matching_heads.first_inputs(
        encoder, range(len(importance)), places
    )
    block = encoder.attention_layers[0]
    config = encoder.config
    width = config.hidden_size // config.num_attention_heads
    queries, keys = looks(inputs.astype(np.float64), importance, width)
    chosen = matching_heads.least(block, HEADS)
    for dense, built in ((block.query, queries), (block.key, keys)):
        kernel, bias = dense.kernel.numpy(), dense.bias.numpy()
        for head, look in zip(chosen, built, strict=True):
            columns = slice(head * width, (head + 1) * width)
            kernel[:, columns], bias[columns] = look
        dense.kernel.assign(kernel)
        dense.bias.assign(bias)
    save_pretrained(model, arguments.output)
    print(f"heads {', '.join(str(head + 1) for head in chosen)} begin anew")
    return 0


if __name__ == "__main__":
    command_line.run(main)
