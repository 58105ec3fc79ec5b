"""Growing depth: which steps have how many layers, and that they are those."""

import numpy as np
import pytest
from small_records import write_set

from albert_tf2 import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.pretraining.growth import Stage, stages
from albert_tf2.pretraining.run import Run
from albert_tf2.recipes import PretrainRecipe

CONFIG = AlbertConfig(
    vocab_size=200,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
)


def test_stages():
    def of(text, steps=1000):
        return stages(
            PretrainRecipe(grow_depth=text, train_steps=steps), CONFIG
        )

    assert of(None) == (Stage(3, 0, 1000),)
    assert of("1:0.5, 2:0.25") == (
        Stage(1, 0, 500),
        Stage(2, 500, 750),
        Stage(3, 750, 1000),
    )
    # None is left without a step.
    assert of("1:0.5,2:0.1", steps=2) == (Stage(1, 0, 1), Stage(3, 1, 2))


@pytest.mark.parametrize(
    "text, rule",
    [
        ("1", "such as 1:0.5"),
        ("1:0.5;2:0.1", "such as 1:0.5"),
        ("1:0.5.5", "such as 1:0.5"),
        ("0:0.5", "that rise from 1"),
        ("3:0.5", "end below 3"),
        ("2:0.2,1:0.2", "that rise from 1"),
        ("1:0", "shares above 0"),
        ("1:0.5,2:0.5", "below 1 in all"),
    ],
)
def test_what_is_no_plan_is_refused(text, rule):
    with pytest.raises(UserError, match=rule) as found:
        stages(PretrainRecipe(grow_depth=text), CONFIG)
    assert str(found.value).endswith(f"`grow_depth={text}`")


@pytest.mark.parametrize(
    "changes",
    [{"parameter_sharing": "ffn"}, {"layout": "google", "inner_group_num": 2}],
)
def test_layers_that_differ_do_not_grow(changes):
    with pytest.raises(UserError, match="share all their weights"):
        stages(PretrainRecipe(grow_depth="1:0.5"), CONFIG.replace(**changes))


def test_a_run_has_the_layers_of_its_stage(tmp_path):
    """Three steps, two of one layer; a call may run over the border."""
    write_set(tmp_path / "records", [9, 8], held_out=5)

    def run(layers, calls, **changes):
        file = tmp_path / f"albert_config_{layers}.json"
        CONFIG.replace(num_hidden_layers=layers).to_json(file)
        recipe = PretrainRecipe(
            model=str(file),
            optimizer="adamw",
            train_steps=3,
            warmup_steps=1,
            global_batch_size=4,
            max_predictions_per_seq=4,
            **changes,
        )
        run = Run(recipe, tmp_path / "records", tmp_path / "w", "one_device")
        batches, step, rows, figures = run.batches(0), 0, [], None
        for count in calls:
            rows.append(run.run_steps(batches, step, count))
            step += count
            run.loop.step.assign(step)
            figures = figures or run.figures()
        flops = [
            run.logged({"step": step, "tokens": 1.0, "examples": 1.0}, 1.0)[0]
            for step in (2, 3)
        ]
        return (
            np.concatenate(rows),
            figures,
            [row["flops_per_second"] for row in flops],
            run.programs,
        )

    grown, figures, flops, programs = run(3, [1, 2], grow_depth="1:0.67")
    shallow, one_layers, one_layers_flops, _ = run(1, [1, 2])
    assert programs == 2
    np.testing.assert_array_equal(grown[:2], shallow[:2])
    assert grown[2, 0] != shallow[2, 0]
    # Held out: with the layers of the step before.
    assert figures == one_layers
    assert flops[0] == one_layers_flops[0] < flops[1]
