"""Small models with random weights: their outputs are all that is needed."""

import task_samples as samples


def write_pretrained(folder):
    """Writes a pre-trained model with its heads; returns its folder."""
    from albert_tf2.checkpoints import save_pretrained
    from albert_tf2.model.albert import AlbertPretrainer

    vocab_file = samples.write_vocab(folder)
    model = AlbertPretrainer(samples.small_config(vocab_file))
    return save_pretrained(model, folder / "model", vocab_file=vocab_file)


def tuned(name, folder, target, **facts):
    """Writes a fine-tuned model of a task; returns its folder.

    Args:
        name: The task.
        folder: The encoder's.
        target: Where to.
        **facts: `labels`, `pairs`, `types`; others go to `task.json`.
    """
    from albert_tf2.finetuning import encoders
    from albert_tf2.tasks import base, registry

    task = registry.create(name, labels=facts.pop("labels", ()))
    for key in ("pairs", "types"):
        if key in facts:
            setattr(task, key, facts.pop(key))
    loaded = encoders.load_encoder(str(folder))
    encoders.save(
        target,
        model=encoders.build(task, loaded, seed=0),
        task=task,
        loaded=loaded,
        lengths=base.Lengths(max_seq_length=32, max_query_length=8),
        facts=facts,
    )
    return target
