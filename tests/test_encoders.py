"""Encoders to fine-tune: what is known of each, wherever it comes from."""

import damage
import pytest
import task_samples as samples
import tensorflow as tf

from albert_tf2 import Tokenizer, UserError, paths
from albert_tf2.finetuning import encoders
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.prediction.predictor import Predictor
from albert_tf2.tasks import base, registry

pytestmark = pytest.mark.usefixtures("warm_python")

LONG = "今天天气很好" * 40


def write_model(folder, **changes):
    """A model of 50 positions, which is no multiple of 16."""
    from albert_tf2 import save_pretrained

    vocab_file = samples.write_vocab(folder)
    settings = {"max_position_embeddings": 50, **changes}
    config = samples.small_config(vocab_file, **settings)
    model = AlbertPretrainer(config)
    return save_pretrained(model, folder / "model", vocab_file=vocab_file)


def export(folder, target):
    from albert_tf2 import load_pretrained
    from albert_tf2.hub_export.encoder import export_encoder

    return export_encoder(load_pretrained(folder), Tokenizer(folder), target)


def tuned(source, folder, length):
    loaded = encoders.load_encoder(str(source))
    task = registry.create("lcqmc")
    encoders.save(
        folder,
        model=encoders.build(task, loaded, seed=0),
        task=task,
        loaded=loaded,
        lengths=base.Lengths(max_seq_length=length),
    )
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    own = write_model(folder)
    return {"own": own, "hub": export(own, folder / "hub")}


@pytest.mark.parametrize("kind", ["own", "hub"])
def test_texts_past_the_positions_are_cut(sources, kind, tmp_path):
    predictor = Predictor(sources[kind], max_seq_length=1000)
    assert predictor.max_seq_length == 50
    assert predictor.embed([LONG, "今天"]).shape == (2, 32)
    assert len(predictor.fill_mask("[MASK]" + LONG)) == 1
    with pytest.raises(UserError, match="longer than 50 tokens"):
        predictor.fill_mask(LONG + "[MASK]")
    pair_model = Predictor(tuned(sources[kind], tmp_path / "m", 50))
    (found,) = pair_model.classify([(LONG, LONG)])
    assert found["label"] in ("0", "1")


@pytest.mark.parametrize("kind", ["own", "hub"])
def test_fine_tuning_past_the_positions_is_refused(sources, kind, tmp_path):
    from albert_tf2 import finetune

    with pytest.raises(UserError, match="at most the model's 50 positions"):
        finetune.main(
            ["--task", "lcqmc", "--init_checkpoint", str(sources[kind])]
            + ["--data_dir", str(samples.write_lcqmc(tmp_path / "data"))]
            + ["--workdir", str(tmp_path / "w"), "--set", "max_seq_length=51"]
        )


def test_a_tuned_model_with_another_length_is_refused(sources, tmp_path):
    folder = tuned(sources["own"], tmp_path / "m", 50)
    task_file = folder / "task.json"
    description = paths.read_json(task_file)
    for lengths, reason in (
        ({"max_seq_length": 51}, "is 51, more than the model's 50 positions"),
        ({"max_length": 9}, "lengths: unknown key `max_length`"),
        ({"doc_stride": 0}, "lengths: `doc_stride` must be"),
        ([9], "`lengths` is damaged"),
    ):
        paths.write_json(task_file, {**description, "lengths": lengths})
        with pytest.raises(UserError, match=reason):
            encoders.load(folder)


def test_a_model_refuses_what_its_positions_do_not_reach(sources):
    encoder = encoders.load_encoder(str(sources["own"])).encoder
    inputs = dict.fromkeys(
        ("input_word_ids", "input_mask", "input_type_ids"),
        tf.ones([1, 51], tf.int32),
    )
    with pytest.raises(UserError, match="at most 50 tokens.* Received: 51"):
        encoder(inputs)


def test_a_vocabulary_of_another_size_is_refused(sources, tmp_path):
    tokens = (sources["own"] / "vocab.txt").read_text("utf-8")
    other = tmp_path / "vocab.txt"
    other.write_text(tokens + "新\n", "utf-8")
    config = f"config:{sources['own'] / 'albert_config.json'}"
    with pytest.raises(UserError, match="the model's `vocab_size` is"):
        encoders.load_encoder(config, vocab_file=str(other))
    with pytest.raises(UserError, match="needs --vocab_file"):
        encoders.load_encoder(config)


@pytest.mark.filterwarnings("ignore:.*has no table of position")
def test_a_foreign_encoder_tells_by_its_table(tmp_path, sources):
    """One that calls its table as Model Garden does, and has no settings."""

    names = ("input_word_ids", "input_mask", "input_type_ids")
    specs = {name: tf.TensorSpec([None, None], tf.int32) for name in names}
    vocab_file = tmp_path / "vocab.txt"
    vocab_file.write_bytes((sources["own"] / "vocab.txt").read_bytes())

    def foreign(name):
        root = tf.train.Checkpoint()
        table = tf.Variable(tf.ones([37, 4]), name=name)
        root.variables = root.trainable_variables = [table]
        root.regularization_losses = []
        root.vocab_file = tf.saved_model.Asset(str(vocab_file))
        root.do_lower_case = tf.Variable(False, trainable=False)

        @tf.function(input_signature=[specs])
        def call(inputs):
            length = tf.shape(inputs["input_word_ids"])[1]
            return {
                "sequence_output": table[None, :length],
                "pooled_output": table[:1],
            }

        root.__call__ = call
        return root

    for name, positions in (("position_embedding/embeddings", 37), ("x", 512)):
        folder = tmp_path / name.replace("/", "_")
        tf.saved_model.save(foreign(name), str(folder))
        loaded = encoders.load_encoder(str(folder))
        assert loaded.positions == positions
        assert not loaded.tokenizer.settings.do_lower_case


@pytest.mark.parametrize(
    "kind, count",
    [
        ("own", 40),
        ("hub", 8),
        pytest.param("own", 300, marks=pytest.mark.large),
        pytest.param("hub", 300, marks=pytest.mark.large),
    ],
)
def test_damage_is_told_in_a_sentence(sources, kind, count, tmp_path):
    """Never a traceback, a hang, 4 GB or the end of the process."""
    folder = tuned(sources[kind], tmp_path / "m", 50)
    damage.survives("tuned", folder, count)
