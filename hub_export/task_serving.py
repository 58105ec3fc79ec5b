"""A fine-tuned model as one SavedModel: strings in, answers with names out.

    serving_default, and the predictor's own word for it: classify, score,
    tag, answer, choose, embed

Inputs and outputs are those of `task_graphs`, `vector_graph`, `tagging_graph`,
`span_graph` and `choice_graph`. The assets hold `vocab.txt`,
`text_settings.json` and `task.json`, so nothing but the folder is needed.
"""

import tensorflow as tf

from albert_tf2 import paths
from albert_tf2.paths import saved_models
from albert_tf2.prediction.tuned_model import TunedModel
from albert_tf2.tasks import base
from albert_tf2.tasks.base import TASK_FILE

from .choice_graph import ChoiceGraph
from .preprocessor import add_text_assets
from .serving import write_warmup
from .span_graph import SpanGraph
from .tagging_graph import TaggingGraph
from .task_graphs import TextGraph
from .vector_graph import VectorGraph

# By kind: what makes the graph, and the predictor's word for what it does.
GRAPHS: dict[str, tuple[type, str]] = {
    base.CLASSIFICATION: (TextGraph, "classify"),
    base.MULTI_LABEL: (TextGraph, "classify"),
    base.REGRESSION: (TextGraph, "score"),
    base.VECTORS: (VectorGraph, "embed"),
    base.TAGGING: (TaggingGraph, "tag"),
    base.SPAN: (SpanGraph, "answer"),
    base.CHOICE: (ChoiceGraph, "choose"),
}


def export_task_serving(
    tuned: TunedModel, export_dir: paths.PathLike, *, overwrite: bool = False
) -> paths.PathLike:
    """Writes the SavedModel and returns its folder.

    Args:
        tuned: The fine-tuned model; its lengths are those of the export.
        export_dir: The new folder; `<name>/<version>` for TF Serving.
        overwrite: Replace an existing folder.
    """
    make, method = GRAPHS[tuned.task.kind]
    with paths.atomic_directory(export_dir, overwrite=overwrite) as folder:
        with paths.temporary_folder("export") as staging:
            root = make(tuned)
            add_text_assets(root, tuned.loaded.tokenizer, staging)
            task_file = paths.join(staging, TASK_FILE)
            paths.write_json(task_file, tuned.describe())
            root.task_file = tf.saved_model.Asset(task_file)
            answer = tf.function(
                root.answer, autograph=False
            ).get_concrete_function(*root.specs())
            signatures = {"serving_default": answer, method: answer}
            published = dict(signatures)
            if isinstance(root, VectorGraph):
                published |= root.more_signatures()
            saved_models.save(root, folder, signatures=published)
            write_warmup(folder, signatures, root.requests)
    return export_dir
