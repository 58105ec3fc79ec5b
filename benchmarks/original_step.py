"""albert_zh's own pre-training step, for `pretrain_step.py --albert_zh`.

Runs under Python 3.7 with TensorFlow 1.15 in a checkout of albert_zh, whose
`run_pretraining.py` builds the model, the losses and LAMB; reads the model's
sizes and a batch from a file, prints seconds per step as JSON.

    cd albert_zh && py37/bin/python .../original_step.py batch.npz 8
"""

import json
import os
import sys
import time

import numpy as np
import tensorflow as tf

sys.path.insert(0, os.getcwd())


def main():
    import modeling
    import run_pretraining

    tf.logging.set_verbosity(tf.logging.ERROR)
    arrays = np.load(sys.argv[1])
    # Its model has one layout, and asks only where LayerNorm stands.
    sizes = dict({"ln_type": "postln"}, **json.loads(str(arrays["config"])))
    config = modeling.BertConfig.from_dict(sizes)
    features = {
        name: tf.constant(arrays[name])
        for name in arrays.files
        if name != "config"
    }
    model_fn = run_pretraining.model_fn_builder(
        config, None, 1e-3, 1000, 100, False, False
    )
    spec = model_fn(features, None, tf.estimator.ModeKeys.TRAIN, {})
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        walls, cpus = [], []
        for _ in range(3 + int(sys.argv[2])):
            wall, cpu = time.perf_counter(), time.process_time()
            session.run([spec.loss, spec.train_op])
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
    print(json.dumps({"walls": walls[3:], "cpus": cpus[3:]}))


if __name__ == "__main__":
    with tf.Graph().as_default():
        main()
